//! What is asked again and what is not, of a controller that fails at the worst moment.

use broker_core::ids::Zxid;
use broker_core::image::{
    BrokerRegistration, Endpoint, FeedEvent, ImageFeed, Item, ItemKind, Stat, json, path,
};
use client_protocol::messages::ElectLeadersResponse;
use client_protocol::messages::create_topics::CreatableTopic;
use client_protocol::{CorrelationId, encode_response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::INTERNAL_LISTENER;

const LIMIT: Duration = Duration::from_secs(60);
const CREATE_TOPICS: i16 = 19;

/// Broker 1 asks; `controller` is in office and listens at `port`.
fn forward(controller: i32, port: u16) -> (Forward, mpsc::Receiver<Request>) {
    let endpoint = Endpoint {
        listener: INTERNAL_LISTENER.to_owned(),
        protocol: "PLAINTEXT".to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
    };
    let registration =
        BrokerRegistration { endpoints: vec![endpoint], rack: None, timestamp_ms: 1 };
    let controller = BrokerId::new(controller);
    let nodes = [
        (path::broker(controller), registration.encode()),
        (path::CONTROLLER.to_owned(), json::encode_controller(controller, 1)),
    ];
    let item = |(path, data)| Item { kind: ItemKind::Present, path, data, stat: Stat::default() };
    let mut feed = ImageFeed::default();
    feed.apply(FeedEvent::SnapshotBegin { zxid: Zxid::new(1) });
    feed.apply(FeedEvent::SnapshotChunk { items: nodes.map(item).into() });
    feed.apply(FeedEvent::SnapshotEnd { zxid: Zxid::new(1) });
    let (_, images) = watch::channel(Arc::new(feed.image().clone()));
    let (office, requests) = mpsc::channel(1);
    let forward = Forward { broker: BrokerId::new(1), images, office, peers: Arc::default() };
    (forward, requests)
}

fn creation() -> CreateTopicsRequest {
    let topic = CreatableTopic { name: "t".to_owned(), ..Default::default() };
    CreateTopicsRequest { topics: vec![topic], ..Default::default() }
}

/// Key and correlation id of the next request; `None` at the connection's end.
async fn read_request(stream: &mut TcpStream) -> Option<(i16, i32)> {
    let length = stream.read_i32().await.ok()?;
    let mut frame = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut frame).await.ok()?;
    let key = i16::from_be_bytes(frame[..2].try_into().unwrap());
    Some((key, i32::from_be_bytes(frame[4..8].try_into().unwrap())))
}

/// Answers elections, and ends the connection in place of an answer to anything else. Tells of each request.
async fn serve(listener: TcpListener, asked: mpsc::UnboundedSender<i16>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let asked = asked.clone();
        tokio::spawn(async move {
            while let Some((key, correlation_id)) = read_request(&mut stream).await {
                let _ = asked.send(key);
                if key == CREATE_TOPICS {
                    return;
                }
                let answer = encode_response(
                    CorrelationId::new(correlation_id),
                    ElectLeadersRequest::VERSION,
                    &ElectLeadersResponse::default(),
                );
                stream.write_all(&answer.unwrap().bytes).await.unwrap();
            }
        });
    }
}

#[tokio::test]
async fn a_creation_that_a_controller_took_before_it_died_is_not_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (forward, _requests) = forward(2, listener.local_addr().unwrap().port());
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    let serving = tokio::spawn(serve(listener, asked));
    // Leaves an idle connection.
    let elected = forward.clone().ask(ElectLeadersRequest::default(), LIMIT).await;
    assert_eq!(elected.error_code, ErrorCode::None);
    let created = forward.ask(creation(), LIMIT).await;
    assert_eq!(created.topics[0].error_code, ErrorCode::RequestTimedOut);
    serving.abort();
    let mut creations = 0;
    while let Ok(key) = was_asked.try_recv() {
        creations += u32::from(key == CREATE_TOPICS);
    }
    assert_eq!(creations, 1);
}

#[tokio::test]
async fn a_creation_under_way_when_the_session_ends_is_not_asked_again_but_an_election_is() {
    let (forward, mut requests) = forward(1, 1);
    let creating = tokio::spawn(forward.clone().ask(creation(), LIMIT));
    // The loop of the session that took it is gone.
    drop(requests.recv().await.unwrap());
    let again = tokio::select! {
        created = creating => created.unwrap().topics[0].error_code,
        again = requests.recv() => panic!("asked again: {again:?}"),
    };
    assert_eq!(again, ErrorCode::RequestTimedOut);
    let electing = tokio::spawn(forward.ask(ElectLeadersRequest::default(), LIMIT));
    drop(requests.recv().await.unwrap());
    let Request { answer, .. } = requests.recv().await.unwrap();
    answer.send(Answer::Elected(Ok(Vec::new()))).unwrap();
    assert_eq!(electing.await.unwrap().error_code, ErrorCode::None);
}
