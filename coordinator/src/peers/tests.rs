use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use coordinator_core::ServerId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::handshake::{Credentials, replaced_by};
use super::*;

/// A hang guard, no measure.
const SOON: Duration = Duration::from_secs(60);

fn ensemble(id: u64, others: &[(u64, SocketAddr)]) -> Ensemble {
    let others: BTreeMap<ServerId, String> = others
        .iter()
        .map(|(id, address)| (ServerId::new(*id).unwrap(), address.to_string()))
        .collect();
    Ensemble {
        cluster_id: "a".into(),
        secret: "s".into(),
        tls: None,
        own_id: ServerId::new(id).unwrap(),
        others: watch::channel(others).1,
        takes_unknown: false,
        beginnings: Arc::default(),
    }
}

/// A link of a server that says it is 1, to 2, with its own address.
async fn link(to: SocketAddr) -> (crate::net::Socket, SocketAddr) {
    let credentials = Credentials::new(&ensemble(1, &[(2, to)]));
    let stream = TcpStream::connect(to).await.unwrap();
    let own = stream.local_addr().unwrap();
    let socket = credentials.dial((stream, "localhost"), ServerId::new(2).unwrap()).await;
    (socket.unwrap(), own)
}

async fn last_word(socket: crate::net::Socket) -> Option<SocketAddr> {
    let mut said = bytes::BytesMut::with_capacity(dial::LAST_WORD_BYTES_MAX);
    timeout(SOON, socket.read_until(&mut said, 1)).await.expect("in time").ok()?;
    replaced_by(&said)
}

#[tokio::test]
async fn server_whose_link_another_of_the_same_id_takes_is_told_from_where() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (inputs, _kept) = mpsc::channel(64);
    let server = tokio::spawn(run(listener, ensemble(2, &[(1, nobody)]), inputs));
    let (first, _) = link(to).await;
    let (second, from_second) = link(to).await;
    assert_eq!(last_word(first).await, Some(from_second));
    let (third, from_third) = link(to).await;
    assert_eq!(last_word(second).await, Some(from_third));
    // Who closes its own and comes again is no other: what was closed hears of its end alone.
    third.close_writing().unwrap();
    let (_fourth, _) = link(to).await;
    assert_eq!(last_word(third).await, None);
    server.abort();
}
