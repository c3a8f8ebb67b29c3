//! Connects to the first of several checked addresses that answers (RFC 8305, simplified: each
//! address gets a head start over the next).

use std::{io, net::SocketAddr};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout_at},
};

use crate::limits::egress::{CONNECT_STAGGER, CONNECT_TIME};

/// Dials. Only the addresses that are given are ever tried; no name is looked up here.
pub(super) async fn dial(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let deadline = Instant::now() + CONNECT_TIME;
    let mut waiting = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut error = io::Error::new(io::ErrorKind::AddrNotAvailable, "there is no address to connect to");
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(TcpStream::connect(*address));
        } else if attempts.is_empty() {
            return Err(error);
        }
        let head_start = async {
            // Without another address to try there is nothing to wake up for.
            if waiting.len() == 0 { std::future::pending().await } else { sleep(CONNECT_STAGGER).await }
        };
        let next = async {
            tokio::select! {
                done = attempts.next() => done,
                () = head_start => None,
            }
        };
        match timeout_at(deadline, next).await {
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
            Ok(Some(Ok(stream))) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Some(Err(failed))) => error = failed,
            Ok(None) => {}
        }
    }
}
