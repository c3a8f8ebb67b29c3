//! One relay: an exec or an attachment, on a call of its own.

use std::time::Duration;

use openshell_proto::supervisor::{Exit, RelayDown, RelayHello, RelayOpen, RelayUp, relay_down, relay_open, relay_up};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::control::Client;
use crate::{
    limits::session::CHUNKS,
    process::{Attachment, Exec, Input, MainProcess, Output, Size},
    sandbox::{Refused, Sandbox},
};

/// After a relay has ended in silence, how long the gateway may take to end its half.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// What a relay is connected to.
enum Target {
    Exec(Exec),
    Main(MainProcess, Attachment),
}

/// Serves a relay to its end, or says why there is none.
pub(super) async fn serve(client: Client, sandbox: Sandbox, open: RelayOpen, over: CancellationToken) -> Result<(), (String, Refused)> {
    let id = open.relay_id;
    let target = match open.target {
        Some(relay_open::Target::Exec(exec)) => sandbox.exec(exec).await.map(Target::Exec),
        Some(relay_open::Target::AttachMain(attach)) => {
            let size = (attach.cols > 0 || attach.rows > 0).then(|| Size::new(attach.cols, attach.rows));
            let attachment = Attachment { size, read_only: attach.read_only };
            sandbox.main_process(attachment).await.map(|main| Target::Main(main, attachment))
        }
        Some(relay_open::Target::Tcp(_)) => Err(Refused { code: "NotSupported", message: "forwarding ports is not supported yet".into() }),
        None => {
            Err(Refused { code: "BadRequest", message: "the gateway asks for a relay of a kind that this supervisor does not know".into() })
        }
    };
    let target = target.map_err(|refused| (id.clone(), refused))?;
    tokio::select! {
        () = carry(client, &sandbox, id, target) => {}
        () = over.cancelled() => {}
    }
    Ok(())
}

/// The call and the process begin at once; output waits in its bounded channel until the call
/// is open.
async fn carry(mut client: Client, sandbox: &Sandbox, id: String, target: Target) {
    let (input_tx, input) = mpsc::channel(CHUNKS);
    let (output, output_rx) = mpsc::channel(CHUNKS);
    let hello = RelayUp { payload: Some(relay_up::Payload::Hello(RelayHello { relay_id: id })) };
    let up = tokio_stream::once(hello).chain(ReceiverStream::new(output_rx).map(|output| RelayUp { payload: Some(wire(output)) }));
    let call = async move {
        match client.relay(up).await {
            Ok(response) => receive(response.into_inner(), input_tx).await,
            Err(status) => tracing::debug!(code = ?status.code(), message = status.message(), "relay not opened"),
        }
    };
    let process = async {
        match target {
            Target::Exec(exec) => sandbox.run(exec, input, output).await,
            Target::Main(main, attachment) => main.attach(attachment, input, output).await,
        }
    };
    tokio::pin!(call, process);
    tokio::select! {
        // The client has gone, and `input` with it: the process is ended, or left alone.
        () = &mut call => process.await,
        // Its exit is on the way; the gateway ends the call when it has it.
        () = &mut process => drop(tokio::time::timeout(CLOSE_TIME, call).await),
    }
}

/// Passes on what the client sends, until it is gone.
async fn receive(mut down: Streaming<RelayDown>, input: mpsc::Sender<Input>) {
    while let Ok(Some(RelayDown { payload })) = down.message().await {
        let message = match payload {
            Some(relay_down::Payload::Stdin(data)) => Input::Data(data.into()),
            Some(relay_down::Payload::Eof(_)) => Input::Eof,
            Some(relay_down::Payload::Resize(size)) => Input::Resize(Size::new(size.cols, size.rows)),
            Some(relay_down::Payload::Signal(signal)) => Input::Signal(signal.number),
            Some(relay_down::Payload::Data(_)) | None => continue,
        };
        // A process that does not take input any more; what it writes still matters.
        let _ = input.send(message).await;
    }
}

fn wire(output: Output) -> relay_up::Payload {
    match output {
        Output::Stdout(bytes) => relay_up::Payload::Stdout(bytes.into()),
        Output::Stderr(bytes) => relay_up::Payload::Stderr(bytes.into()),
        Output::Exit(exited) => {
            relay_up::Payload::Exit(Exit { code: exited.code, reason: exited.reason.to_owned(), message: exited.message })
        }
    }
}
