//! Errors as people see them.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{CliError, Exit};

#[test]
fn what_why_next_and_code() {
    let error = CliError::new("some-code", "It failed.").because("the reason").because("the reason behind it").next("Do this.");
    assert_eq!(error.plain(), "openshell::some-code\n\n  × It failed.\n  ├─▶ the reason\n  ╰─▶ the reason behind it\n  help: Do this.");
    assert_eq!(error.exit().code(), 1);
}

#[test]
fn details_of_a_refusal_become_reasons_and_code() {
    let mut details = ErrorDetails::with_bad_request_violation("spec.policy.version", "must be 1");
    details.set_error_info("POLICY_INVALID", "openshell.ai", std::collections::HashMap::<String, String>::new());
    let status = Status::with_error_details(Code::InvalidArgument, "the request is not valid", details);
    let error = CliError::from_status("Sandbox a could not be created.", &status);
    assert_eq!(error.stable_code(), "policy-invalid");
    let text = error.plain();
    assert!(text.contains("├─▶ the request is not valid") && text.contains("╰─▶ spec.policy.version: must be 1"), "{text}");
}

#[test]
fn help_of_the_gateway_beats_ours() {
    let details = ErrorDetails::with_help_link("Attach the provider first.", "");
    let status = Status::with_error_details(Code::NotFound, "no", details);
    assert!(CliError::from_status("x", &status).plain().ends_with("help: Attach the provider first."));
    assert!(CliError::from_status("x", &Status::not_found("no")).plain().contains("openshell sandbox list"));
}

#[test]
fn every_code_is_stable_and_a_timeout_has_its_exit_code() {
    for (code, name, exit) in [
        (Code::NotFound, "not-found", Exit::Failure),
        (Code::AlreadyExists, "already-exists", Exit::Failure),
        (Code::PermissionDenied, "permission-denied", Exit::Failure),
        (Code::Unauthenticated, "unauthenticated", Exit::Failure),
        (Code::ResourceExhausted, "limit-reached", Exit::Failure),
        (Code::FailedPrecondition, "failed-precondition", Exit::Failure),
        (Code::Aborted, "conflict", Exit::Failure),
        (Code::Unimplemented, "not-supported", Exit::Failure),
        (Code::Unavailable, "unavailable", Exit::Failure),
        (Code::Internal, "gateway-error", Exit::Failure),
        (Code::DeadlineExceeded, "timeout", Exit::Timeout),
    ] {
        let error = CliError::from_status("x", &Status::new(code, "y"));
        assert_eq!((error.stable_code(), error.exit()), (name, exit));
    }
}

#[test]
fn a_lost_connection_is_no_defect_of_the_gateway() {
    let broken = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "peer closed connection");
    let mut status = Status::internal("h2 protocol error");
    status.set_source(std::sync::Arc::new(broken()));
    let error = CliError::from_status("x", &status);
    assert_eq!((error.stable_code(), error.exit()), ("connection-lost", Exit::Failure));
    let text = error.plain();
    assert!(text.contains("the connection to the gateway was lost") && !text.contains("defect"), "{text}");
    assert_eq!(CliError::from_status("x", &Status::internal("h2 protocol error")).stable_code(), "gateway-error");
}

#[test]
fn nothing_a_gateway_says_can_steer_the_terminal() {
    let text = CliError::from_status("x", &Status::internal("a\u{1b}[2Jb")).plain();
    assert!(!text.contains('\u{1b}') && text.contains("a\\u{1b}[2Jb"), "{text}");
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let error = CliError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
    assert_eq!(error.exit().code(), 141);
    assert_eq!(CliError::from(std::io::Error::other("disk full")).exit().code(), 1);
}
