//! Policy DNS over TCP, whatever name server the agent meant.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Shared, rendezvous::Service};
use crate::{
    egress::identity::Identity,
    flow::Egress,
    limits::broker::{DNS_IDLE_TIME, DNS_MESSAGE_BYTES},
};

/// Serves one connection.
pub(super) fn service(shared: &Shared, identity: &Arc<Identity>) -> Service {
    let (egress, identity) = (Arc::clone(&shared.egress), Arc::clone(identity));
    Service::Dns(Box::new(move |stream| Box::pin(serve(stream, egress, identity))))
}

/// Messages with their length in two bytes before them (RFC 1035, 4.2.2), one after the other.
async fn serve(mut stream: TcpStream, egress: Arc<dyn Egress>, identity: Arc<Identity>) {
    loop {
        let mut length = [0; 2];
        match timeout(DNS_IDLE_TIME, stream.read_exact(&mut length)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        let length = usize::from(u16::from_be_bytes(length));
        if length > DNS_MESSAGE_BYTES {
            return;
        }
        let mut query = vec![0; length];
        match timeout(DNS_IDLE_TIME, stream.read_exact(&mut query)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        let Some(answer) = egress.resolve(Arc::clone(&identity), query).await else { return };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        let message = [&length.to_be_bytes()[..], &answer].concat();
        if stream.write_all(&message).await.is_err() {
            return;
        }
    }
}
