//! A command in a sandbox as if it ran here: input, output, terminal, exit code.
//!
//! ```text
//!  stdin ──thread──▶ queue ──▶ ExecSandboxInteractive ──▶ gateway ──▶ supervisor ──▶ command
//!  SIGWINCH ─────────▲                │
//!  stdout, stderr ◀───────────────────┘ events in order; the exit code comes last
//! ```
//!
//! One call serves both forms. Without a terminal the end of standard input ends the stream of
//! messages, which is the command's end of input. With one, the terminal is raw and every key
//! travels. A start message without a command attaches to the sandbox's main process: what it
//! has printed so far comes first.

use openshell_proto::v1::exec_sandbox_event::Payload as Event;
use openshell_proto::v1::exec_sandbox_input::Payload as Input;
use openshell_proto::v1::{ExecSandboxInput, ExecSandboxRequest, ExecSandboxWindowResize};
use tokio::io::AsyncWriteExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::CliError;
use crate::session::Session;
use crate::signals::Signals;
use crate::terminal::{self, RawMode};
use crate::{limits, output};

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this exit code.
    Exit(u8),
    /// We were asked to end by this signal; what ran may go on.
    Signal(u8),
}

impl Ended {
    /// The exit code of this command.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Exit(code) => code,
            Self::Signal(number) => 128u8.saturating_add(number),
        }
    }
}

/// Runs `start` (its `tty`, `cols` and `rows` are set here where a terminal is ours) to its end.
pub(crate) async fn run(session: &Session, mut start: ExecSandboxRequest, signals: &mut Signals) -> Result<Ended, CliError> {
    let raw = start.tty && terminal::interactive();
    if start.tty {
        let size = terminal::size().unwrap_or(terminal::DEFAULT_SIZE);
        start.cols = size.cols.into();
        start.rows = size.rows.into();
    }
    let sandbox = start.sandbox.clone();
    let what = if start.command.is_empty() {
        format!("The main process of sandbox {sandbox} could not be attached to.")
    } else {
        format!("The command could not be run in sandbox {sandbox}.")
    };
    let (queue, messages) = mpsc::channel(limits::STDIN_QUEUE);
    let first = ExecSandboxInput { payload: Some(Input::Start(start)) };
    // The queue is empty and its receiver is right here.
    let _ = queue.try_send(first);
    // Kept only where the stream must outlive standard input.
    let resizes = raw.then(|| queue.clone());
    let mut call = session.client.clone();
    let opened = {
        let call = call.exec_sandbox_interactive(ReceiverStream::new(messages));
        tokio::select! {
            opened = call => opened,
            number = signals.next() => return Ok(Ended::Signal(number)),
        }
    };
    let mut events = opened.map_err(|s| CliError::from_status(&what, &s))?.into_inner();
    let _raw = if raw { Some(RawMode::enter()?) } else { None };
    std::thread::spawn(move || pump_stdin(&queue));
    let mut resized = signal(SignalKind::window_change()).map_err(|e| CliError::new("io", "Signals could not be handled.").because(e))?;
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let mut code = None;
    loop {
        let event = tokio::select! {
            event = events.message() => event,
            number = signals.next() => return Ok(Ended::Signal(number)),
            _ = resized.recv() => {
                if let (Some(queue), Some(size)) = (&resizes, terminal::size()) {
                    let resize = ExecSandboxWindowResize { cols: size.cols.into(), rows: size.rows.into() };
                    // A full queue means that the next resize will say it.
                    let _ = queue.try_send(ExecSandboxInput { payload: Some(Input::Resize(resize)) });
                }
                continue;
            }
        };
        let Some(event) = event.map_err(|s| CliError::from_status(&what, &s))? else { break };
        let written = match event.payload {
            Some(Event::Stdout(chunk)) => write(&mut stdout, &chunk.data, signals).await,
            Some(Event::Stderr(chunk)) => write(&mut stderr, &chunk.data, signals).await,
            Some(Event::Exit(exit)) => {
                code = Some(exit.exit_code);
                break;
            }
            None => continue,
        };
        if let Some(number) = written? {
            return Ok(Ended::Signal(number));
        }
    }
    match code {
        Some(code) => Ok(Ended::Exit(exit_code(code))),
        None => Err(CliError::new("session-ended", what)
            .because("the session ended before the command did")
            .next(format!("`openshell sandbox get {sandbox}` shows its state."))),
    }
}

/// Says so when a signal ended only our side.
pub(crate) fn note_detached(ended: Ended, sandbox: &str) {
    if let Ended::Signal(2 | 15) = ended {
        output::note(&format!(
            "Detached: sandbox {sandbox} goes on. Return with `openshell sandbox connect {sandbox}`, end it with `openshell sandbox delete {sandbox}`."
        ));
    }
}

/// Writes all of it, unless a signal comes first: a reader that stands still must not hold us.
async fn write(to: &mut (impl tokio::io::AsyncWrite + Unpin), data: &[u8], signals: &mut Signals) -> Result<Option<u8>, CliError> {
    let writing = async {
        to.write_all(data).await?;
        to.flush().await
    };
    tokio::select! {
        written = writing => written.map(|()| None).map_err(CliError::from),
        number = signals.next() => Ok(Some(number)),
    }
}

/// Until the end of standard input or of the call. A thread, because a read of a terminal cannot
/// be taken back; it ends with the process.
fn pump_stdin(queue: &mpsc::Sender<ExecSandboxInput>) {
    let mut buffer = vec![0; limits::STDIN_CHUNK];
    loop {
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                let chunk = ExecSandboxInput { payload: Some(Input::Stdin(buffer[..n].to_vec())) };
                if queue.blocking_send(chunk).is_err() {
                    return;
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            // Closed from the start, or a terminal that hung up: as good as its end.
            Err(_) => return,
        }
    }
}

/// An exit code is a byte; anything else is a defect that must not look like success.
fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}
