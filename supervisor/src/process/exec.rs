//! One exec: a command for one client, from its start to its exit.

use std::time::Duration;

use tokio::{join, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Command, Exited, Input, Output, Size, TIMED_OUT, Table,
    streams::{self, Flow, Reader, Shape, Stream, Writer},
    table::{Child, Signaller},
};
use crate::{
    confine::RunAs,
    limits::session::{HANGUP_GRACE, TIMEOUT_GRACE},
};

/// A checked exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// What to run.
    pub command: Command,
    /// A terminal of this size instead of pipes.
    pub terminal: Option<Size>,
    /// SIGTERM after this time, SIGKILL shortly after, exit code 124.
    pub timeout: Option<Duration>,
}

/// Runs a command. The last output is its exit. When `input` ends, the client has gone and the
/// command is ended: SIGHUP, then SIGKILL.
pub async fn run(table: &Table, exec: Exec, owner: Option<RunAs>, input: mpsc::Receiver<Input>, output: mpsc::Sender<Output>) {
    let exited = match start(table, exec.command, exec.terminal, owner).await {
        Ok((child, ends)) => carry(child, ends, exec.timeout, input, &output).await,
        Err(exited) => exited,
    };
    let _ = output.send(Output::Exit(exited)).await;
}

async fn start(table: &Table, command: Command, terminal: Option<Size>, owner: Option<RunAs>) -> Result<(Child, streams::Ends), Exited> {
    let shape = terminal.map_or(Shape::Pipes, Shape::Terminal);
    let (spawn, ends) = streams::connect(command, shape, owner).map_err(|error| Exited::never(&error.into()))?;
    let child = table.spawn(spawn).await.map_err(|error| Exited::never(&error))?;
    Ok((child, ends))
}

async fn carry(
    mut child: Child,
    ends: streams::Ends,
    timeout: Option<Duration>,
    input: mpsc::Receiver<Input>,
    output: &mpsc::Sender<Output>,
) -> Exited {
    let over = CancellationToken::new();
    let client_gone = CancellationToken::new();
    let feeding = feed(input, ends.stdin, child.signaller(), client_gone.clone());
    let waiting = async {
        let code = wait(&mut child, timeout, client_gone_from(output, &client_gone)).await;
        over.cancel();
        code
    };
    let reading = async {
        join!(pump(ends.stdout, Stream::Stdout, output, &over), async {
            if let Some(stderr) = ends.stderr {
                pump(stderr, Stream::Stderr, output, &over).await;
            }
        });
    };
    // Input goes on as long as the process does.
    let feeding = async {
        tokio::select! {
            () = feeding => {}
            () = over.cancelled() => {}
        }
    };
    let (code, (), ()) = join!(waiting, reading, feeding);
    Exited::with(code)
}

/// Seen even while the command does not take its input.
async fn client_gone_from(output: &mpsc::Sender<Output>, input_ended: &CancellationToken) {
    tokio::select! {
        () = output.closed() => {}
        () = input_ended.cancelled() => {}
    }
}

async fn wait(child: &mut Child, timeout: Option<Duration>, client_gone: impl Future<Output = ()>) -> i32 {
    let time = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        code = child.exit() => return code,
        () = time => {}
        () = client_gone => return streams::end(child, libc::SIGHUP, HANGUP_GRACE).await,
    }
    streams::end(child, libc::SIGTERM, TIMEOUT_GRACE).await;
    TIMED_OUT
}

async fn feed(mut input: mpsc::Receiver<Input>, mut stdin: Writer, group: Signaller, client_gone: CancellationToken) {
    while let Some(message) = input.recv().await {
        match message {
            Input::Signal(number) => group.signal(number as i32),
            message => stdin.feed(message).await,
        }
    }
    client_gone.cancel();
}

async fn pump(reader: Reader, stream: Stream, output: &mpsc::Sender<Output>, over: &CancellationToken) {
    let take = |chunk| async move {
        let chunk = match stream {
            Stream::Stdout => Output::Stdout(chunk),
            Stream::Stderr => Output::Stderr(chunk),
        };
        // A client that has gone reads nothing; what the command still writes is read and dropped.
        let _ = output.send(chunk).await;
        Flow::Continue
    };
    reader.pump(over.clone(), take).await;
}
