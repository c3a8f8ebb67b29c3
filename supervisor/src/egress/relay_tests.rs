use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{Carried, copy, relay};

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (one, other) = tokio::join!(connect, listener.accept());
    (one.unwrap(), other.unwrap().0)
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let (mut client, mut agent) = pair().await;
    let (mut upstream, mut server) = pair().await;
    let carrying = tokio::spawn(async move { relay(&mut agent, &mut upstream, b"ahead ").await });
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    let mut request = Vec::new();
    timeout(Duration::from_secs(5), server.read_to_end(&mut request)).await.unwrap().unwrap();
    assert_eq!(request, b"ahead request");
    // The agent has said all it had to say; the answer still comes.
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    timeout(Duration::from_secs(5), client.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"answer");
    assert_eq!(carrying.await.unwrap().unwrap(), Carried { sent: 13, received: 6 });
}

#[tokio::test]
async fn much_is_carried_whole_both_ways() {
    let (mut client, mut agent) = pair().await;
    let (mut upstream, mut server) = pair().await;
    tokio::spawn(async move { relay(&mut agent, &mut upstream, b"").await });
    let data: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
    let echo = tokio::spawn(async move {
        let (mut read, mut write) = server.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let (mut read, mut write) = client.split();
    let sending = async {
        write.write_all(&data).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let receiving = read.read_to_end(&mut back);
    timeout(Duration::from_secs(30), async { tokio::join!(sending, receiving).1.unwrap() }).await.unwrap();
    assert_eq!(back, data);
    echo.await.unwrap();
}

#[tokio::test]
async fn copying_carries_the_same() {
    let (mut client, agent) = pair().await;
    let (upstream, mut server) = pair().await;
    let carrying = tokio::spawn(async move { copy(&agent, &upstream).await });
    let data = vec![7; 1_000_000];
    let sending = async {
        client.write_all(&data).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let mut got = vec![0; data.len()];
    tokio::join!(sending, async { server.read_exact(&mut got).await.unwrap() });
    assert_eq!(got, data);
    assert_eq!(carrying.await.unwrap().unwrap(), data.len() as u64);
}
