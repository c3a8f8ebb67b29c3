//! A gateway that answers, and the calls that every command needs.

use openshell_proto::FORCE_METADATA;
use openshell_proto::datamodel::workspace_selector::Selection;
use openshell_proto::datamodel::{AllWorkspaces, WorkspaceSelector};
use openshell_proto::v1::open_shell_client::OpenShellClient;
use openshell_proto::v1::{GetSandboxRequest, Sandbox};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::args::ForceArgs;
use crate::config::{Bundle, Config, LOCAL, Wanted};
use crate::context::Context;
use crate::error::CliError;
use crate::gateway::{ConnectError, Gateway, Verify, is_loopback};
use crate::{limits, local};

/// A connected gateway.
pub(crate) struct Session {
    pub(crate) gateway: Gateway,
    pub(crate) client: OpenShellClient<Channel>,
    workspace: String,
    config: Config,
}

impl Session {
    /// Finds the gateway that is wanted, starts the one of this machine if that is it and it does
    /// not run, and connects.
    pub(crate) async fn open(context: &Context) -> Result<Self, CliError> {
        let (gateway, startable) = match find(context)? {
            Found::Gateway(gateway, startable) => (gateway, startable),
            Found::NothingConfigured => {
                let started = local::start(context, &local::Options::default(), local::Why::NoneConfigured).await?;
                return Ok(Self::new(context, started.gateway, started.channel));
            }
        };
        match gateway.channel().await {
            Ok(channel) => Ok(Self::new(context, gateway, channel)),
            Err(ConnectError::NobodyThere(_)) if startable == Startable::Yes => {
                let started = local::start(context, &local::Options::default(), local::Why::NotRunning).await?;
                Ok(Self::new(context, started.gateway, started.channel))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn new(context: &Context, gateway: Gateway, channel: Channel) -> Self {
        let client = OpenShellClient::new(channel);
        Self { gateway, client, workspace: context.flags.workspace.clone(), config: context.config.clone() }
    }

    /// The workspace of every request.
    #[allow(clippy::unnecessary_wraps)] // Message fields are optional on the wire.
    pub(crate) fn scope(&self) -> Option<WorkspaceSelector> {
        Some(WorkspaceSelector { selection: Some(Selection::Workspace(self.workspace.clone())) })
    }

    /// Every workspace.
    #[allow(clippy::unnecessary_wraps)] // As above.
    pub(crate) fn all_workspaces() -> Option<WorkspaceSelector> {
        Some(WorkspaceSelector { selection: Some(Selection::AllWorkspaces(AllWorkspaces {})) })
    }

    /// The name given, or that of the last sandbox used here.
    pub(crate) fn sandbox_name(&self, given: Option<&str>) -> Result<String, CliError> {
        if let Some(name) = given {
            self.remember(name);
            return Ok(name.to_owned());
        }
        let remembered = self.gateway.name.as_deref().and_then(|g| self.config.last_sandbox(g, &self.workspace));
        remembered.ok_or_else(|| {
            CliError::usage("No sandbox is named, and none was used before.").next("Name one: `openshell sandbox list` shows them.")
        })
    }

    /// Makes it the last sandbox used.
    pub(crate) fn remember(&self, sandbox: &str) {
        if let Some(gateway) = &self.gateway.name {
            self.config.remember_sandbox(gateway, &self.workspace, sandbox);
        }
    }

    /// After its deletion.
    pub(crate) fn forget(&self, sandbox: &str) {
        if let Some(gateway) = &self.gateway.name {
            self.config.forget_sandbox(gateway, &self.workspace, sandbox);
        }
    }

    /// One sandbox.
    pub(crate) async fn sandbox(&self, name: &str) -> Result<Sandbox, CliError> {
        let request = call(GetSandboxRequest { name: name.to_owned(), workspace_scope: self.scope() });
        let response = self.client.clone().get_sandbox(request).await;
        let what = || format!("Sandbox {name} could not be read.");
        let response = response.map_err(|s| CliError::from_status(what(), &s))?.into_inner();
        response.sandbox.ok_or_else(|| CliError::from_status(what(), &empty_answer()))
    }
}

/// A request with the time that an ordinary call may take.
pub(crate) fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limits::CALL);
    request
}

/// The same request, to be carried out also on what is managed elsewhere if that is asked for.
pub(crate) fn force<T>(args: ForceArgs, mut request: Request<T>) -> Request<T> {
    if args.force {
        request.metadata_mut().insert(FORCE_METADATA, MetadataValue::from_static("true"));
    }
    request
}

/// An answer without its content is a defect of the gateway.
pub(crate) fn empty_answer() -> Status {
    Status::internal("the answer of the gateway is empty")
}

/// Whether we may start the gateway when nobody listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Startable {
    /// It is the one of this machine.
    Yes,
    /// It is someone else's.
    No,
}

/// What the configuration points at.
#[derive(Debug)]
pub(crate) enum Found {
    /// A gateway.
    Gateway(Gateway, Startable),
    /// Nothing is configured.
    NothingConfigured,
}

/// Resolves flags, environment and files to a gateway, without talking to it.
pub(crate) fn find(context: &Context) -> Result<Found, CliError> {
    let config = &context.config;
    let verify = if context.insecure() { Verify::Nothing } else { Verify::Certificate };
    match config.wanted(&context.flags, &context.environment)? {
        Wanted::Endpoint(endpoint) => {
            let known = config.gateways()?;
            let same = known.iter().find(|g| g.metadata.gateway_endpoint.trim_end_matches('/') == endpoint.trim_end_matches('/'));
            if let Some(registered) = same {
                return Ok(Found::Gateway(Gateway::registered(registered, verify)?, Startable::No));
            }
            // An address on this machine is most likely the local gateway on another port.
            let host = endpoint.parse::<http::Uri>().ok().and_then(|u| u.host().map(str::to_owned)).unwrap_or_default();
            let bundle = match known.iter().find(|g| g.name == LOCAL).filter(|_| is_loopback(&host)) {
                Some(local) => local.bundle()?,
                None => Bundle::default(),
            };
            Ok(Found::Gateway(Gateway::new(None, &endpoint, bundle, verify)?, Startable::No))
        }
        Wanted::Named(name, by) => match config.gateway(&name)? {
            Some(registered) => {
                let startable = if registered.is_local() { Startable::Yes } else { Startable::No };
                Ok(Found::Gateway(Gateway::registered(&registered, verify)?, startable))
            }
            // Named by our own file and its registration is gone: as good as a first use.
            None if name == LOCAL => Ok(Found::NothingConfigured),
            None => {
                let known = config.gateways()?.into_iter().map(|g| g.name).collect::<Vec<_>>();
                let next = if known.is_empty() {
                    "No gateway is registered. `openshell gateway start` starts one on this machine.".to_owned()
                } else {
                    format!("Registered are: {}.", known.join(", "))
                };
                Err(CliError::new("unknown-gateway", format!("There is no gateway {name}."))
                    .because(format_args!("named by {by}"))
                    .next(next))
            }
        },
        Wanted::Nothing => match config.gateway(LOCAL)? {
            Some(registered) => Ok(Found::Gateway(Gateway::registered(&registered, verify)?, Startable::Yes)),
            None => Ok(Found::NothingConfigured),
        },
    }
}
