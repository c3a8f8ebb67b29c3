//! `status`: does the gateway answer, and does it accept this client? Never starts one.

use std::fmt::Write as _; // Into a String, which cannot fail.

use openshell_proto::v1::open_shell_client::OpenShellClient;
use openshell_proto::v1::{GetGatewayInfoRequest, HealthRequest};
use serde_json::{Value, json};
use tonic::Code;

use crate::args::Format;
use crate::context::Context;
use crate::error::CliError;
use crate::gateway::Gateway;
use crate::output;
use crate::output::table::Details;
use crate::session::{Found, call, find};

/// What was found.
#[derive(Debug, Default)]
struct Report {
    status: &'static str,
    version: String,
    authentication: &'static str,
    reason: String,
    error: String,
}

/// `status`.
pub(super) async fn status(context: &Context, format: Format) -> Result<u8, CliError> {
    let gateway = match find(context)? {
        Found::Gateway(gateway, _) => gateway,
        Found::NothingConfigured => {
            let value = || json!({ "gateway": null, "server": null, "status": "not_configured" });
            let next = "The first command that needs a gateway starts one; so does `openshell gateway start`.";
            output::print(format, value, || format!("Not configured\n{next}"))?;
            return Ok(1);
        }
    };
    let report = ask(&gateway).await;
    let value = || {
        let mut authentication = json!({ "status": report.authentication, "mode": gateway.auth() });
        if !report.reason.is_empty() {
            authentication["reason"] = json!(report.reason);
        }
        let mut value = json!({
            "gateway": gateway.display_name(),
            "server": gateway.endpoint,
            "status": report.status,
            "authentication": authentication,
            "version": if report.version.is_empty() { Value::Null } else { json!(report.version) },
        });
        if !report.error.is_empty() {
            value["error"] = json!(report.error);
        }
        value
    };
    output::print(format, value, || {
        let mut details = Details::default();
        details.add("Gateway", gateway.display_name());
        details.add("Server", gateway.endpoint.as_str());
        details.add("Status", report.status);
        details.add("Version", report.version.as_str());
        details.add("Authentication", format!("{} ({})", report.authentication, gateway.auth()));
        details.add("Reason", report.reason.as_str());
        details.add("Error", report.error.as_str());
        details.render()
    })?;
    let good = matches!(report.status, "healthy" | "degraded") && report.authentication != "failed";
    Ok(u8::from(!good))
}

async fn ask(gateway: &Gateway) -> Report {
    let mut report = Report { status: "unreachable", authentication: "unverified", ..Report::default() };
    let channel = match gateway.channel().await {
        Ok(channel) => channel,
        Err(error) => {
            report.error = chain(&CliError::from(error));
            return report;
        }
    };
    let mut client = OpenShellClient::new(channel);
    match client.health(call(HealthRequest {})).await {
        Ok(health) => {
            report.status = super::gateway::health_word(health.get_ref().status());
            report.version = health.into_inner().version;
        }
        Err(status) => {
            report.error = chain(&CliError::from_status("The gateway does not answer.", &status));
            return report;
        }
    }
    match client.get_gateway_info(call(GetGatewayInfoRequest {})).await {
        Ok(_) if gateway.auth() == "plaintext" => report.authentication = "not_required",
        Ok(_) => report.authentication = "authenticated",
        // Known, and not an administrator: still known.
        Err(status) if status.code() == Code::PermissionDenied => {
            report.authentication = "authenticated";
            status.message().clone_into(&mut report.reason);
        }
        Err(status) if status.code() == Code::Unauthenticated => {
            report.authentication = "failed";
            status.message().clone_into(&mut report.reason);
        }
        Err(status) => status.message().clone_into(&mut report.reason),
    }
    report
}

/// An error and its reasons in one line.
fn chain(error: &CliError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(reason) = source {
        let _ = write!(text, " {reason}");
        source = reason.source();
    }
    text
}
