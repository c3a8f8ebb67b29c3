//! Running commands in a sandbox, and attaching to its main process.
//!
//! The stream to the client *is* the command's life: when the client goes away, the stream is
//! dropped, the relay with it, and the supervisor ends the command. Nothing is buffered beyond
//! [`limits::RELAY_QUEUE`] pieces, so a slow reader slows the command down.

use futures::StreamExt as _;
use kube::ResourceExt as _;
use openshell_proto::supervisor::{AttachMain, Exec, Resize, relay_down, relay_up};
use openshell_proto::v1::{self, SandboxPhase, exec_sandbox_event, exec_sandbox_input};
use tokio::sync::mpsc;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Request, Status, Streaming};

use super::check::{self, Environment};
use super::methods::ExecStream;
use super::{Api, scope};
use crate::convert::{sandbox::phase, time};
use crate::errors::{self, Violations};
use crate::limits;
use crate::session::{ExecHandle, RelayError};

/// Pieces in which input travels.
const CHUNK: usize = 32 * 1024;

pub(super) async fn exec(api: &Api, request: Request<v1::ExecSandboxRequest>) -> Result<ExecStream, Status> {
    let mut request = request.into_inner();
    check_request(&request, "")?;
    if request.command.is_empty() {
        return Err(errors::invalid("command", "it is empty: name a program"));
    }
    let uid = running(api, &request).await?;
    let stdin = std::mem::take(&mut request.stdin);
    let handle = api.hub.exec(&uid, command(request)).await.map_err(|e| relay_failed(&e))?;
    let ExecHandle { stdin: input, events } = handle;
    if !stdin.is_empty() {
        tokio::spawn(async move {
            send_all(&input, &stdin).await;
            // Dropping the sender is the end of the input.
        });
    }
    Ok(output(events, None, api.execs.token()))
}

pub(super) async fn interactive(api: &Api, request: Request<Streaming<v1::ExecSandboxInput>>) -> Result<ExecStream, Status> {
    let mut input = request.into_inner();
    let first = tokio::time::timeout(limits::HANDSHAKE, input.message()).await;
    let first = first.map_err(|_| errors::deadline_exceeded("the first frame, `start`, did not come"))??;
    let Some(exec_sandbox_input::Payload::Start(mut start)) = first.and_then(|frame| frame.payload) else {
        return Err(errors::invalid("start", "the first frame must be `start`"));
    };
    check_request(&start, "start.")?;
    let uid = running(api, &start).await?;
    let (stdin, tty) = (std::mem::take(&mut start.stdin), start.tty);
    let handle = if start.command.is_empty() {
        let attach = AttachMain { cols: start.cols, rows: start.rows, read_only: false };
        api.hub.attach_main(&uid, attach).await
    } else {
        api.hub.exec(&uid, command(start)).await
    };
    let ExecHandle { stdin: to_command, events } = handle.map_err(|e| relay_failed(&e))?;
    // With a terminal, the end of the client's stream is not the end of the terminal.
    let held = tty.then(|| to_command.clone());
    tokio::spawn(async move {
        if send_all(&to_command, &stdin).await {
            pump(input, &to_command).await;
        }
    });
    Ok(output(events, held, api.execs.token()))
}

/// Carries the client's frames to the command until either of them ends.
async fn pump(mut input: Streaming<v1::ExecSandboxInput>, to_command: &mpsc::Sender<relay_down::Payload>) {
    loop {
        let frame = tokio::select! {
            frame = input.message() => frame,
            () = to_command.closed() => return,
        };
        // An error is a client that went away; its output stream ends the command.
        let Ok(Some(frame)) = frame else { return };
        let carried = match frame.payload {
            Some(exec_sandbox_input::Payload::Stdin(bytes)) => send_all(to_command, &bytes).await,
            Some(exec_sandbox_input::Payload::Resize(size)) => {
                let (cols, rows) = (size.cols.min(limits::TERMINAL_CELLS), size.rows.min(limits::TERMINAL_CELLS));
                to_command.send(relay_down::Payload::Resize(Resize { cols, rows })).await.is_ok()
            }
            // A second start has no meaning; the client is not one of ours.
            Some(exec_sandbox_input::Payload::Start(_)) => return,
            None => true,
        };
        if !carried {
            return;
        }
    }
}

async fn send_all(to: &mpsc::Sender<relay_down::Payload>, bytes: &[u8]) -> bool {
    for chunk in bytes.chunks(CHUNK) {
        if to.send(relay_down::Payload::Stdin(chunk.to_vec())).await.is_err() {
            return false;
        }
    }
    true
}

fn check_request(request: &v1::ExecSandboxRequest, prefix: &str) -> Result<(), Status> {
    scope::one(request.workspace_scope.as_ref())?;
    let mut v = Violations::default();
    check::command(&format!("{prefix}command"), &request.command, &check::EXEC, &mut v);
    check::environment(&format!("{prefix}environment"), Environment::Exec, &request.environment, &mut v);
    check::terminal(request.cols, request.rows, &mut v);
    if request.workdir.len() > limits::WORKDIR_BYTES || request.workdir.contains('\0') {
        v.add(format!("{prefix}workdir"), format!("a path of at most {} bytes, without NUL", limits::WORKDIR_BYTES));
    }
    if request.stdin.len() > limits::EXEC_STDIN_BYTES {
        v.add(
            format!("{prefix}stdin"),
            format!("at most {} bytes fit in here; use ExecSandboxInteractive for more", limits::EXEC_STDIN_BYTES),
        );
    }
    if let Some(timeout) = &request.execution_timeout {
        match time::duration(timeout) {
            None => v.add(format!("{prefix}execution_timeout"), "it is negative or no duration"),
            Some(t) if t > limits::EXEC_TIMEOUT => v.add(format!("{prefix}execution_timeout"), "at most seven days"),
            Some(_) => {}
        }
    }
    v.into_result()
}

/// The UID of a sandbox in which something can run, now or in a moment.
async fn running(api: &Api, request: &v1::ExecSandboxRequest) -> Result<String, Status> {
    let object = api.sandbox(&request.sandbox).await?;
    let name = &request.sandbox;
    let why = match phase(&object) {
        SandboxPhase::Stopped | SandboxPhase::Stopping => format!("sandbox '{name}' is stopped; start it first"),
        SandboxPhase::Deleting => format!("sandbox '{name}' is being deleted"),
        SandboxPhase::Error => format!("sandbox '{name}' has failed; its conditions say why. Stop it and start it to run it again"),
        _ => return object.uid().ok_or_else(|| errors::internal(format!("sandbox '{name}' has no uid"))),
    };
    Err(errors::failed_precondition("SANDBOX_NOT_RUNNING", why))
}

fn command(request: v1::ExecSandboxRequest) -> Exec {
    Exec {
        command: request.command,
        workdir: request.workdir,
        environment: request.environment,
        tty: request.tty,
        cols: request.cols,
        rows: request.rows,
        timeout: request.execution_timeout,
        no_login_shell: request.no_login_shell,
    }
}

/// The client's stream: what the command writes, and last how it ended. `held` keeps its input
/// open for as long.
fn output(
    events: mpsc::Receiver<relay_up::Payload>,
    held: Option<mpsc::Sender<relay_down::Payload>>,
    under_way: TaskTrackerToken,
) -> ExecStream {
    use exec_sandbox_event::Payload;
    enum State {
        Running(mpsc::Receiver<relay_up::Payload>, Option<mpsc::Sender<relay_down::Payload>>),
        Ending(i32),
        Over,
    }
    let event = |payload: Payload| Ok(v1::ExecSandboxEvent { payload: Some(payload) });
    let exit = move |code: i32| event(Payload::Exit(v1::ExecSandboxExit { exit_code: code }));
    let stream = futures::stream::unfold(State::Running(events, held), move |state| async move {
        let (mut events, held) = match state {
            State::Running(events, held) => (events, held),
            State::Ending(code) => return Some((exit(code), State::Over)),
            State::Over => return None,
        };
        loop {
            return match events.recv().await {
                Some(relay_up::Payload::Stdout(data)) => {
                    Some((event(Payload::Stdout(v1::ExecSandboxStdout { data })), State::Running(events, held)))
                }
                Some(relay_up::Payload::Stderr(data)) => {
                    Some((event(Payload::Stderr(v1::ExecSandboxStderr { data })), State::Running(events, held)))
                }
                // It never ran: like a shell, say why on standard error, then the code.
                Some(relay_up::Payload::Exit(ended)) if !ended.reason.is_empty() => {
                    let data = format!("{}\n", ended.message.trim_end()).into_bytes();
                    Some((event(Payload::Stderr(v1::ExecSandboxStderr { data })), State::Ending(ended.code)))
                }
                Some(relay_up::Payload::Exit(ended)) => Some((exit(ended.code), State::Over)),
                Some(relay_up::Payload::Hello(_) | relay_up::Payload::Data(_)) => continue,
                None => {
                    let lost = errors::unavailable(
                        "SANDBOX_LOST",
                        "the connection to the sandbox ended before the command did; whether it still ran is not known",
                        std::time::Duration::from_secs(1),
                    );
                    Some((Err(lost), State::Over))
                }
            };
        }
    });
    // Lives as long as the stream: the end of the gateway waits for it.
    stream
        .map(move |item| {
            let _ = &under_way;
            item
        })
        .boxed()
}

/// Why no relay was opened.
pub(super) fn relay_failed(error: &RelayError) -> Status {
    let message = error.to_string();
    let soon = std::time::Duration::from_secs(1);
    match error {
        RelayError::NotConnected => errors::unavailable("SUPERVISOR_NOT_CONNECTED", message, soon),
        RelayError::Lost => errors::unavailable("SANDBOX_LOST", message, soon),
        RelayError::TimedOut => errors::unavailable("RELAY_TIMEOUT", message, soon),
        RelayError::LimitReached(_) => errors::resource_exhausted("TOO_MANY_COMMANDS", message),
        RelayError::Refused { code, .. } => match code.as_str() {
            "NoMainProcess" => errors::failed_precondition("NO_MAIN_PROCESS", message),
            "NotRunning" => errors::failed_precondition("SANDBOX_NOT_RUNNING", message),
            "LimitReached" => errors::resource_exhausted("TOO_MANY_COMMANDS", message),
            "NotFound" => errors::failed_precondition("TARGET_NOT_FOUND", message),
            "BadRequest" => errors::invalid("command", message),
            "PermissionDenied" => errors::permission_denied("REFUSED_BY_SANDBOX", message),
            _ => errors::internal(message),
        },
    }
}
