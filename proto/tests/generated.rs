//! The generated code is checked in, so that a build needs neither `protoc` nor this crate's
//! generator. `UPDATE_GENERATED=1 cargo test -p openshell-proto --test generated` rewrites it.

use std::{fs, path::Path};

use prost::Message as _;

const FILES: [&str; 5] = [
    "openshell/options/v1/options.proto",
    "openshell/datamodel/v1/datamodel.proto",
    "openshell/sandbox/v1/sandbox.proto",
    "openshell/v1/openshell.proto",
    "openshell/supervisor/v1/session.proto",
];

/// Messages with a secret field: their `Debug` is in `src/redact.rs`.
const SECRET: [&str; 15] = [
    ".openshell.datamodel.v1.Provider",
    ".openshell.supervisor.v1.Credential",
    ".openshell.v1.ConfigureProviderRefreshRequest",
    ".openshell.v1.CreateSshSessionResponse",
    ".openshell.v1.ExchangeProviderSubjectTokenRequest",
    ".openshell.v1.ExchangeProviderSubjectTokenResponse",
    ".openshell.v1.ExtensionServiceCredential",
    ".openshell.v1.GetSandboxProviderEnvironmentResponse",
    ".openshell.v1.IssueSandboxTokenResponse",
    ".openshell.v1.ProviderCredentialValue",
    ".openshell.v1.ProviderEnvironmentValue",
    ".openshell.v1.RefreshSandboxTokenResponse",
    ".openshell.v1.RevokeSshSessionRequest",
    ".openshell.v1.SshSession",
    ".openshell.v1.TcpForwardInit",
];

#[test]
fn generated_code_is_what_the_proto_files_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = root.join("src/gen");
    let mut compiler = protox::Compiler::new([root.join("proto")]).expect("include path");
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES).expect("proto files compile");
    let with_comments = compiler.file_descriptor_set();

    let out = tempfile::tempdir().expect("temporary directory");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .build_client(true)
        .build_server(true)
        .skip_protoc_run()
        .skip_debug(SECRET)
        .compile_fds(with_comments)
        .expect("code generation");
    // Descriptors keep custom options only in their encoded form.
    fs::write(out.path().join("descriptor.bin"), compiler.encode_file_descriptor_set()).expect("write");

    let update = std::env::var_os("UPDATE_GENERATED").is_some();
    let mut names: Vec<_> = fs::read_dir(out.path()).expect("read").map(|e| e.expect("entry").file_name()).collect();
    names.sort();
    for name in names {
        let fresh = fs::read(out.path().join(&name)).expect("read");
        let kept = checked_in.join(&name);
        if update {
            fs::write(&kept, &fresh).expect("write");
            continue;
        }
        assert!(
            fs::read(&kept).unwrap_or_default() == fresh,
            "{} is stale: run UPDATE_GENERATED=1 cargo test -p openshell-proto --test generated",
            kept.display()
        );
    }
    prost_types::FileDescriptorSet::decode(&*fs::read(checked_in.join("descriptor.bin")).expect("read")).expect("decodes");
}
