//! `provider create`, `list`, `get`, `delete`.

use std::collections::HashMap;

use openshell_proto::datamodel::{ObjectMeta, Provider};
use openshell_proto::v1::{CreateProviderRequest, DeleteProviderRequest, GetProviderRequest, ListProvidersRequest};
use serde_json::Value;

use crate::args::provider::{CreateArgs, DeleteArgs, GetArgs, ListArgs, ProviderCommand};
use crate::args::value::KeyValue;
use crate::context::Context;
use crate::error::CliError;
use crate::session::{Session, call, empty_answer, force};
use crate::{limits, output};

/// Key of the wire configuration that holds the endpoints, comma separated.
const ENDPOINTS: &str = "endpoints";

/// Variables in which programs of a type look for their credentials, for `--from-existing`.
const KNOWN: &[(&str, &[&str])] = &[
    ("anthropic", &["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"]),
    ("claude", &["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"]),
    ("claude-code", &["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"]),
    ("codex", &["OPENAI_API_KEY"]),
    ("openai", &["OPENAI_API_KEY"]),
    ("copilot", &["COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN"]),
    ("cursor", &["CURSOR_API_KEY"]),
    ("deepinfra", &["DEEPINFRA_API_KEY"]),
    ("github", &["GITHUB_TOKEN", "GH_TOKEN"]),
    ("gitlab", &["GITLAB_TOKEN"]),
    ("nvidia", &["NVIDIA_API_KEY", "NGC_API_KEY"]),
];

/// `provider …`.
pub(super) async fn run(context: &Context, command: ProviderCommand) -> Result<u8, CliError> {
    match command {
        ProviderCommand::Create(args) => create(context, args).await,
        ProviderCommand::List(args) => list(context, args).await,
        ProviderCommand::Get(args) => get(context, args).await,
        ProviderCommand::Delete(args) => delete(context, args).await,
    }
}

async fn create(context: &Context, args: CreateArgs) -> Result<u8, CliError> {
    let credentials = if args.from_existing { existing(context, &args.kind)? } else { given(context, &args)? };
    let mut config: HashMap<String, String> = args.config.into_iter().map(|KeyValue { key, value }| (key, value)).collect();
    if !args.endpoints.is_empty() {
        if config.contains_key(ENDPOINTS) {
            return Err(CliError::usage("The endpoints are given twice.").next("Use --endpoint, or --config endpoints=…, not both."));
        }
        let endpoints: Vec<&str> = args.endpoints.iter().map(crate::args::value::Destination::as_str).collect();
        config.insert(ENDPOINTS.to_owned(), endpoints.join(","));
    }
    let session = Session::open(context).await?;
    let request = CreateProviderRequest {
        provider: Some(Provider {
            metadata: Some(ObjectMeta { name: args.name.clone(), ..ObjectMeta::default() }),
            r#type: args.kind,
            credentials,
            config,
            ..Provider::default()
        }),
        workspace_scope: session.scope(),
        ..CreateProviderRequest::default()
    };
    let created = session.client.clone().create_provider(call(request)).await;
    created.map_err(|s| CliError::from_status(format!("Provider {} could not be created.", args.name), &s))?;
    output::line(format!("Created provider {}", args.name))?;
    Ok(0)
}

/// As named on the command line.
fn given(context: &Context, args: &CreateArgs) -> Result<HashMap<String, String>, CliError> {
    let mut credentials = HashMap::new();
    for credential in &args.credentials {
        let key = &credential.key;
        let value = credential.value.clone().or_else(|| context.environment.variables.get(key).filter(|v| !v.is_empty()).cloned());
        let value = value.ok_or_else(|| {
            CliError::new("no-credential", format!("Credential {key} has no value."))
                .because(format_args!("{key} is not set in this command's environment"))
                .next(format!("Set it first (`export {key}`), or give the value: --credential {key}=VALUE."))
        })?;
        if credentials.insert(key.clone(), value).is_some() {
            return Err(CliError::usage(format!("Credential {key} is given twice.")));
        }
    }
    Ok(credentials)
}

/// As programs of that type find them.
fn existing(context: &Context, kind: &str) -> Result<HashMap<String, String>, CliError> {
    let names = KNOWN.iter().find(|(known, _)| *known == kind).map(|(_, names)| *names).ok_or_else(|| {
        let known: Vec<&str> = KNOWN.iter().map(|(known, _)| *known).collect();
        CliError::usage(format!("It is not known where programs of type {kind} keep their credentials."))
            .next(format!("Name them with --credential. Known types: {}.", known.join(", ")))
    })?;
    let find = |name: &&str| context.environment.variables.get(*name).filter(|v| !v.is_empty()).map(|v| ((*name).to_owned(), v.clone()));
    let found: HashMap<String, String> = names.iter().filter_map(find).collect();
    if found.is_empty() {
        return Err(CliError::new("no-credential", format!("No credential of type {kind} was found."))
            .because(format_args!("none of these variables is set: {}", names.join(", ")))
            .next("Set one of them, or use --credential."));
    }
    Ok(found)
}

async fn list(context: &Context, args: ListArgs) -> Result<u8, CliError> {
    let session = Session::open(context).await?;
    let wanted = (args.offset as usize).saturating_add(args.limit as usize);
    let mut all = Vec::new();
    let mut token = String::new();
    while all.len() < wanted {
        let request = ListProvidersRequest {
            page_size: limits::PAGE,
            page_token: token.clone(),
            workspace_scope: session.scope(),
            ..ListProvidersRequest::default()
        };
        let page = session.client.clone().list_providers(call(request)).await;
        let page = page.map_err(|s| CliError::from_status("The providers could not be listed.", &s))?.into_inner();
        all.extend(page.providers);
        if page.next_page_token.is_empty() || page.next_page_token == token {
            break;
        }
        token = page.next_page_token;
    }
    let shown: Vec<&Provider> = all.iter().skip(args.offset as usize).take(args.limit as usize).collect();
    if args.names {
        for provider in shown {
            output::line(provider.metadata.as_ref().map(|m| m.name.as_str()).unwrap_or_default())?;
        }
        return Ok(0);
    }
    output::print(
        args.output.output,
        || shown.iter().map(|p| output::provider::value(p)).collect::<Value>(),
        || {
            if shown.is_empty() {
                "No providers. `openshell provider create --help` shows how to make one.".to_owned()
            } else {
                output::provider::table(shown.iter().copied())
            }
        },
    )?;
    Ok(0)
}

async fn get(context: &Context, args: GetArgs) -> Result<u8, CliError> {
    let session = Session::open(context).await?;
    let request = GetProviderRequest { name: args.name.clone(), workspace_scope: session.scope() };
    let what = || format!("Provider {} could not be read.", args.name);
    let response = session.client.clone().get_provider(call(request)).await;
    let provider = response.map_err(|s| CliError::from_status(what(), &s))?.into_inner().provider;
    let provider = provider.ok_or_else(|| CliError::from_status(what(), &empty_answer()))?;
    output::print(args.output.output, || output::provider::value(&provider), || output::provider::details(&provider))?;
    Ok(0)
}

async fn delete(context: &Context, args: DeleteArgs) -> Result<u8, CliError> {
    let session = Session::open(context).await?;
    // One that fails does not save the others; the last error decides the exit code.
    let mut failed = None;
    for name in args.names {
        let request = DeleteProviderRequest { name: name.clone(), workspace_scope: session.scope(), ..DeleteProviderRequest::default() };
        match session.client.clone().delete_provider(force(args.force, call(request))).await {
            Ok(_) => output::line(format!("Deleted provider {name}"))?,
            Err(status) => {
                let error = CliError::from_status(format!("Provider {name} could not be deleted."), &status);
                if let Some(earlier) = failed.replace(error) {
                    earlier.render();
                }
            }
        }
    }
    failed.map_or(Ok(0), Err)
}

#[cfg(test)]
mod tests;
