//! The wire: `openshell.v1` for people and programs, `openshell.supervisor.v1` for supervisors.
//!
//! The code under `src/gen` is generated from `proto/` and checked in (see `tests/generated.rs`).
//! Messages that carry secrets have a `Debug` that does not show them.
#![forbid(unsafe_code)]

// Generated modules refer to each other by package path, hence one module per package part.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod generated {
    pub mod openshell {
        pub mod datamodel {
            pub mod v1 {
                include!("gen/openshell.datamodel.v1.rs");
            }
        }
        pub mod options {
            pub mod v1 {
                include!("gen/openshell.options.v1.rs");
            }
        }
        pub mod sandbox {
            pub mod v1 {
                include!("gen/openshell.sandbox.v1.rs");
            }
        }
        pub mod supervisor {
            pub mod v1 {
                include!("gen/openshell.supervisor.v1.rs");
            }
        }
        pub mod v1 {
            include!("gen/openshell.v1.rs");
        }
    }
}

/// `openshell.datamodel.v1`: metadata and shared records.
pub use generated::openshell::datamodel::v1 as datamodel;
/// `openshell.options.v1`: method and field options.
pub use generated::openshell::options::v1 as options;
/// `openshell.sandbox.v1`: policy and configuration as they travel.
pub use generated::openshell::sandbox::v1 as sandbox;
/// `openshell.supervisor.v1`: the supervisor's session.
pub use generated::openshell::supervisor::v1 as supervisor;
/// `openshell.v1`: the public API.
pub use generated::openshell::v1;

pub mod policy;
mod redact;
pub mod value;

/// Request metadata of calls that change objects: `true` changes also what is managed elsewhere (by
/// Argo CD, Flux, Helm, files that somebody applies). The messages themselves have no field for it.
pub const FORCE_METADATA: &str = "x-openshell-force";

/// `reason` of a `MainProcess` that has `STATE_EXITED` because its supervisor was asked to end: by
/// its gateway, or by whoever ends pods and machines. Its exit code says nothing of its work, and a
/// sandbox that shall run runs it again.
pub const ENDED_WITH_SANDBOX: &str = "EndedWithSandbox";

/// Descriptors of every message and method, with the custom options, as an encoded
/// `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptor.bin");
