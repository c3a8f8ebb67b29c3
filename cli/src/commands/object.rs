//! `apply`, `get`, `delete`: the objects behind everything, from the files that `kubectl` takes.

use std::path::PathBuf;

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams};
use serde_json::Value;

use crate::args::object::{ApplyArgs, DeleteArgs, GetArgs};
use crate::context::Context;
use crate::error::CliError;
use crate::object::{Document, Kind, column, documents};
use crate::output::table::Table;
use crate::session::Session;
use crate::{limits, output, policy_file};

/// Who owns the fields that `apply` sets.
const MANAGER: &str = "openshell-cli";

/// `apply`.
pub(super) async fn apply(context: &Context, args: ApplyArgs) -> Result<u8, CliError> {
    let documents = read(&args.files, &args.namespace)?;
    for document in &documents {
        document.check()?;
    }
    let client = client(context, &args.namespace).await?;
    let mut params = PatchParams::apply(MANAGER).validation_strict();
    params.force = args.force_conflicts;
    for document in documents {
        let shown = document.kind.display(&document.name);
        let api = api(&client, &document.kind, &document.namespace);
        let failed = |e: &kube::Error| refused(format!("{shown} was not applied."), e);
        let before = api.get_metadata_opt(&document.name).await.map_err(|e| failed(&e))?;
        let after = api.patch(&document.name, &params, &Patch::Apply(&document.object)).await.map_err(|e| failed(&e))?;
        let verb = match before {
            None => "created",
            Some(before) if unchanged(&before.metadata, &after.metadata) => "unchanged",
            Some(_) => "configured",
        };
        output::line(format!("{shown} {verb}"))?;
    }
    Ok(0)
}

/// `get`.
pub(super) async fn get(context: &Context, args: GetArgs) -> Result<u8, CliError> {
    let kind = Kind::named(&args.kind)?;
    let client = client(context, &args.namespace).await?;
    let api = api(&client, &kind, &args.namespace);
    let format = args.output.output;
    let objects = match &args.name {
        Some(name) => {
            let object = api.get(name).await.map_err(|e| refused(format!("{} could not be read.", kind.display(name)), &e))?;
            vec![object]
        }
        None => all(&api, &kind, args.selector.as_deref()).await?,
    };
    let mut values = Vec::new();
    for object in &objects {
        let mut value = serde_json::to_value(object).map_err(|e| CliError::new("output", "The object could not be printed.").because(e))?;
        if let Some(map) = value.as_object_mut() {
            map.entry("apiVersion").or_insert_with(|| kind.resource.api_version.clone().into());
            map.entry("kind").or_insert_with(|| kind.resource.kind.clone().into());
        }
        // Bookkeeping of the server that nobody reads, hidden as `kubectl` hides it.
        if let Some(metadata) = value.pointer_mut("/metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        values.push(value);
    }
    let single = args.name.is_some();
    output::print(
        format,
        || match values.as_slice() {
            [one] if single => one.clone(),
            all => serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": all }),
        },
        || table(&kind, &values, &args.namespace),
    )?;
    Ok(0)
}

/// `delete`.
pub(super) async fn delete(context: &Context, args: DeleteArgs) -> Result<u8, CliError> {
    let mut targets: Vec<(Kind, String, String)> = Vec::new();
    if let Some(kind) = &args.kind {
        let kind = Kind::named(kind)?;
        targets.extend(args.names.iter().map(|name| (kind.clone(), args.namespace.clone(), name.clone())));
    } else {
        let documents = read(&args.files, &args.namespace)?;
        targets.extend(documents.into_iter().map(|d| (d.kind, d.namespace, d.name)));
    }
    let client = client(context, &args.namespace).await?;
    let mut failed = None;
    for (kind, namespace, name) in targets {
        let shown = kind.display(&name);
        match api(&client, &kind, &namespace).delete(&name, &DeleteParams::background()).await {
            Ok(_) => output::line(format!("{shown} deleted"))?,
            Err(kube::Error::Api(status)) if status.is_not_found() && args.ignore_not_found => {}
            Err(error) => {
                let error = refused(format!("{shown} was not deleted."), &error);
                if let Some(earlier) = failed.replace(error) {
                    earlier.render();
                }
            }
        }
    }
    failed.map_or(Ok(0), Err)
}

/// Whether an apply changed what its author can change. Controllers write the status meanwhile,
/// so the resource version alone says too much; a kind without generations has nothing else.
fn unchanged(before: &ObjectMeta, after: &ObjectMeta) -> bool {
    if before.generation.is_none() {
        return before.resource_version == after.resource_version;
    }
    before.generation == after.generation && before.labels == after.labels && before.annotations == after.annotations
}

/// Everything in the files, before anything is sent.
fn read(files: &[PathBuf], namespace: &str) -> Result<Vec<Document>, CliError> {
    let mut all = Vec::new();
    for file in files {
        let text = policy_file::read_text(file, "file")?;
        all.extend(documents(&file.display().to_string(), &text, namespace)?);
    }
    Ok(all)
}

async fn client(context: &Context, namespace: &str) -> Result<Client, CliError> {
    // Opening the session finds the gateway, and starts it if need be.
    Session::open(context).await?.gateway.objects(namespace).await
}

fn api(client: &Client, kind: &Kind, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &kind.resource)
}

async fn all(api: &Api<DynamicObject>, kind: &Kind, selector: Option<&str>) -> Result<Vec<DynamicObject>, CliError> {
    let mut params = ListParams::default().limit(limits::PAGE.unsigned_abs());
    if let Some(selector) = selector {
        params = params.labels(selector);
    }
    let mut objects = Vec::new();
    loop {
        let page = api.list(&params).await.map_err(|e| refused(format!("The {} could not be listed.", kind.resource.plural), &e))?;
        objects.extend(page.items);
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params.continue_token = Some(token),
            _ => return Ok(objects),
        }
    }
}

fn table(kind: &Kind, values: &[Value], namespace: &str) -> String {
    if values.is_empty() {
        return format!("No {} in namespace {namespace}.", kind.resource.plural);
    }
    let heading = std::iter::once("Name").chain(kind.columns.iter().map(|(heading, _)| heading.as_str()));
    let mut table = Table::new(heading);
    for value in values {
        let name = column::cell(value, "Name", ".metadata.name");
        table.row(std::iter::once(name).chain(kind.columns.iter().map(|(heading, path)| column::cell(value, heading, path))));
    }
    table.render()
}

/// A refusal by the API service, with each of its causes.
fn refused(what: String, error: &kube::Error) -> CliError {
    let kube::Error::Api(status) = error else {
        return CliError::new("gateway-error", what).because_of(error).next("`openshell status` shows whether the gateway answers.");
    };
    let code = status.reason.chars().fold(String::new(), |mut code, c| {
        if c.is_ascii_uppercase() && !code.is_empty() {
            code.push('-');
        }
        code.push(c.to_ascii_lowercase());
        code
    });
    let mut error = CliError::new(if code.is_empty() { "refused" } else { &code }, what).because(&status.message);
    for cause in status.details.iter().flat_map(|d| &d.causes) {
        if !status.message.contains(&cause.message) {
            error = error.because(format_args!("{}: {}", cause.field, cause.message));
        }
    }
    match status.code {
        404 => error.next("`openshell get KIND` shows what there is."),
        409 => error.next("Another manager owns the field or changed the object. Apply again, or take it over with --force-conflicts."),
        422 | 400 => error.next("Correct the file. Nothing of this object was changed."),
        _ => error,
    }
}
