//! The main process: started once, watched to its end, attached to by anyone.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use openshell_proto::ENDED_WITH_SANDBOX;
use openshell_proto::supervisor::{self, main_process::State};
use tokio::{
    join,
    sync::{broadcast, mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    Command, Exited, Input, Output, Size, Table,
    history::History,
    lines::Lines,
    streams::{self, Flow, Reader, Shape, Stream, Writer},
    table::Signaller,
};
use crate::{
    audit::{Audit, Level},
    confine::RunAs,
    limits::session::CHUNKS,
};

/// Where the main process's input comes from, where it has no terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdinSource {
    /// From nowhere: it reads the end at once. A program that waits for input that nobody will
    /// send would hang.
    Null,
    /// From whoever attaches; it was started because someone did.
    Attached,
}

/// What to run as the main process.
#[derive(Clone, Debug)]
pub struct MainSpec {
    /// The program.
    pub command: Command,
    /// A terminal of this size instead of pipes.
    pub terminal: Option<Size>,
    /// Without a terminal: its input.
    pub stdin: StdinSource,
    /// Who it runs as.
    pub owner: Option<RunAs>,
}

/// The running, or ended, main process. Cheap to clone.
#[derive(Clone)]
pub struct MainProcess {
    history: History,
    input: mpsc::Sender<Input>,
    state: watch::Receiver<supervisor::MainProcess>,
    group: Option<Signaller>,
    /// Whether it was asked to end because its sandbox ends.
    stopped: Arc<AtomicBool>,
}

/// How someone attaches.
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    /// Size of the client's terminal, if it has one.
    pub size: Option<Size>,
    /// Output only.
    pub read_only: bool,
}

impl MainProcess {
    /// Starts it. `report` is told of every change of its state.
    pub async fn start(table: &Table, spec: MainSpec, audit: Audit, report: impl Fn(supervisor::MainProcess) + Send + 'static) -> Self {
        let history = History::new();
        let (input, input_queue) = mpsc::channel(CHUNKS);
        let (publish, state) = watch::channel(supervisor::MainProcess::default());
        let tell = teller(publish, report);
        let stopped = Arc::new(AtomicBool::new(false));
        let shape = match (spec.terminal, spec.stdin) {
            (Some(size), _) => Shape::Terminal(size),
            (None, StdinSource::Attached) => Shape::Pipes,
            (None, StdinSource::Null) => Shape::NoInput,
        };
        let started = match streams::connect(spec.command, shape, spec.owner) {
            Ok((spawn, ends)) => table.spawn(spawn).await.map(|child| (child, ends)),
            Err(error) => Err(error.into()),
        };
        let (mut child, ends) = match started {
            Ok(started) => started,
            Err(error) => {
                let never = Exited::never(&error);
                audit.log(Level::Error, "supervisor", format!("the main process was not started: {}", never.message));
                history.close();
                tell(failed(&never));
                return Self { history, input, state, group: None, stopped };
            }
        };
        let group = child.signaller();
        let mut main = supervisor::MainProcess { state: State::Running.into(), pid: child.pid, started: Some(now()), ..Default::default() };
        tell(main.clone());
        let (kept, signals, asked) = (history.clone(), child.signaller(), Arc::clone(&stopped));
        tokio::spawn(async move {
            let over = CancellationToken::new();
            let waiting = async {
                let code = child.exit().await;
                over.cancel();
                code
            };
            let reading = async {
                join!(record(ends.stdout, Stream::Stdout, &kept, &audit, &over), async {
                    if let Some(stderr) = ends.stderr {
                        record(stderr, Stream::Stderr, &kept, &audit, &over).await;
                    }
                });
            };
            let feeding = async {
                tokio::select! {
                    () = feed(input_queue, ends.stdin, &signals) => {}
                    () = over.cancelled() => {}
                }
            };
            let (code, (), ()) = join!(waiting, reading, feeding);
            main.state = State::Exited.into();
            main.exit_code = code;
            main.ended = Some(now());
            if asked.load(Ordering::SeqCst) {
                main.reason = ENDED_WITH_SANDBOX.into();
                main.message = "it was ended with its sandbox".into();
            }
            audit.log(Level::Info, "supervisor", format!("the main process ended with exit code {code}"));
            // Whoever is attached sees the end of the output first, and then the exit.
            tell(main);
            kept.close();
        });
        Self { history, input, state, group: Some(group), stopped }
    }

    /// Serves one client: what was written, what is written, and the exit. When `input` ends the
    /// client has gone, and the process goes on.
    pub async fn attach(&self, attachment: Attachment, mut input: mpsc::Receiver<Input>, output: mpsc::Sender<Output>) {
        if let (Some(size), false) = (attachment.size, attachment.read_only) {
            let _ = self.input.send(Input::Resize(size)).await;
        }
        let showing = self.show(&output);
        let feeding = async {
            while let Some(message) = input.recv().await {
                match message {
                    _ if attachment.read_only => {}
                    Input::Signal(number) => {
                        if let Some(group) = &self.group {
                            group.signal(number as i32);
                        }
                    }
                    message => drop(self.input.send(message).await),
                }
            }
        };
        tokio::select! {
            () = showing => {}
            () = feeding => {}
        }
    }

    async fn show(&self, output: &mpsc::Sender<Output>) {
        let (kept, live) = self.history.subscribe();
        for chunk in kept {
            if output.send(shown(chunk)).await.is_err() {
                return;
            }
        }
        if let Some(mut live) = live {
            loop {
                match live.recv().await {
                    Ok(chunk) => {
                        if output.send(shown(chunk)).await.is_err() {
                            return;
                        }
                    }
                    // The client was too slow; it misses what the process did not wait for.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                }
            }
        }
        let mut state = self.state.clone();
        let Ok(ended) = state.wait_for(|s| matches!(s.state(), State::Exited | State::Failed)).await.map(|s| s.clone()) else { return };
        let exited = if ended.state() == State::Exited { Exited::with(ended.exit_code) } else { never(&ended) };
        let _ = output.send(Output::Exit(exited)).await;
    }

    /// Asks it to end (SIGTERM), and ends it after `grace`. Returns when it has ended.
    pub async fn stop(&self, grace: std::time::Duration) {
        let Some(group) = &self.group else { return };
        let mut state = self.state.clone();
        let ended = async { drop(state.wait_for(|s| s.state() == State::Exited).await) };
        tokio::pin!(ended);
        self.stopped.store(true, Ordering::SeqCst);
        group.signal(libc::SIGTERM);
        if tokio::time::timeout(grace, &mut ended).await.is_err() {
            group.signal(libc::SIGKILL);
            // Killing takes a moment; output that is still held by a daemon is not waited for.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), ended).await;
        }
    }
}

/// Tells the report first: who waits for the end of the process ends the session next.
fn teller(
    publish: watch::Sender<supervisor::MainProcess>,
    report: impl Fn(supervisor::MainProcess) + Send + 'static,
) -> impl Fn(supervisor::MainProcess) + Send + 'static {
    move |main| {
        report(main.clone());
        publish.send_replace(main);
    }
}

fn shown((stream, bytes): (Stream, bytes::Bytes)) -> Output {
    match stream {
        Stream::Stdout => Output::Stdout(bytes),
        Stream::Stderr => Output::Stderr(bytes),
    }
}

async fn feed(mut queue: mpsc::Receiver<Input>, mut stdin: Writer, group: &Signaller) {
    while let Some(message) = queue.recv().await {
        match message {
            Input::Signal(number) => group.signal(number as i32),
            message => stdin.feed(message).await,
        }
    }
}

async fn record(reader: Reader, stream: Stream, history: &History, audit: &Audit, over: &CancellationToken) {
    let target = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let mut lines = Lines::default();
    reader
        .pump(over.clone(), |chunk| {
            lines.push(&chunk, |line| audit.log(Level::Info, target, line));
            history.push(stream, &chunk);
            std::future::ready(Flow::Continue)
        })
        .await;
    lines.finish(|line| audit.log(Level::Info, target, line));
}

/// A main process that was not started, and why.
fn failed(never: &Exited) -> supervisor::MainProcess {
    supervisor::MainProcess {
        state: State::Failed.into(),
        exit_code: never.code,
        reason: never.reason.to_owned(),
        message: never.message.clone(),
        ..Default::default()
    }
}

fn never(main: &supervisor::MainProcess) -> Exited {
    let reason = ["NotFound", "PermissionDenied"].into_iter().find(|r| *r == main.reason).unwrap_or("LaunchFailed");
    Exited { code: main.exit_code, reason, message: main.message.clone() }
}

pub(crate) fn now() -> prost_types::Timestamp {
    std::time::SystemTime::now().into()
}

#[cfg(test)]
#[path = "main_process_tests.rs"]
mod tests;
