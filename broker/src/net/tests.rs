//! A connection over a real socket: order, limits, file ranges, ends.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coordinator_disk::{Disk, File, OpenMode, RealDisk};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::budget::{Limits, REQUESTS_IN_FLIGHT_MAX};
use super::listener::Listener;
use super::service::Service;
use crate::response::{Answer, Dispatch, Piece, Response};

/// Answers as the frame's first byte says; what waits is handed to the test.
struct Script {
    dispatched: mpsc::UnboundedSender<(u8, Option<oneshot::Sender<Answer>>)>,
    file: Mutex<Option<Arc<dyn File>>>,
}

impl Service for Script {
    type Session = ();

    fn open(&self, _: SocketAddr, _: SocketAddr) {}

    fn dispatch(&self, (): &mut (), frame: BytesMut) -> Dispatch {
        let kind = frame[0];
        let (answer, later) = oneshot::channel();
        let (handed_out, dispatch) = match kind {
            b'w' => {
                let later = Box::pin(async { later.await.unwrap_or(Answer::Close("given up")) });
                (Some(answer), Dispatch::Later(later))
            }
            b'c' => (None, Dispatch::close("asked to")),
            b's' => (None, Dispatch::Now(Answer::Nothing)),
            b'f' => (None, Dispatch::Now(Answer::Respond(self.ranges()))),
            _ => (None, Dispatch::respond(framed(&frame))),
        };
        self.dispatched.send((kind, handed_out)).expect("the test listens");
        dispatch
    }
}

impl Script {
    /// Two small ranges and a large one between bytes.
    fn ranges(&self) -> Response {
        let file = self.file.lock().expect("unpoisoned").clone().expect("the test set a file");
        let range = |position, length| Piece::File { file: Arc::clone(&file), position, length };
        let bytes = |text: &'static [u8]| Piece::Bytes(Bytes::from_static(text));
        Response::from_pieces(vec![
            bytes(b"a"),
            range(10, 100),
            range(0, 5),
            bytes(b"b"),
            range(1_000, 1_500_000),
            bytes(b""),
            bytes(b"c"),
        ])
    }
}

struct Bench {
    client: TcpStream,
    script: Arc<Script>,
    dispatched: mpsc::UnboundedReceiver<(u8, Option<oneshot::Sender<Answer>>)>,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
}

async fn bench(limits: Limits) -> Bench {
    let (sender, dispatched) = mpsc::unbounded_channel();
    let script = Arc::new(Script { dispatched: sender, file: Mutex::new(None) });
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind("TEST", address).await.expect("a free port");
    let bound = listener.local_address();
    let (stop, stopping) = watch::channel(false);
    let server = tokio::spawn(listener.run(Arc::clone(&script), limits, stopping));
    let client = TcpStream::connect(bound).await.expect("listens");
    Bench { client, script, dispatched, stop, server }
}

const LIMITS: Limits = Limits {
    request_bytes_max: 1 << 20,
    idle_max: Duration::from_secs(60),
    connections_max: 4,
    in_flight_bytes_max: 1 << 22,
};

fn framed(body: &[u8]) -> Bytes {
    let mut frame = u32::try_from(body.len()).expect("small").to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    Bytes::from(frame)
}

async fn read_frame(client: &mut TcpStream) -> Vec<u8> {
    let length = client.read_u32().await.expect("a frame") as usize;
    let mut body = vec![0; length];
    client.read_exact(&mut body).await.expect("the whole frame");
    body
}

#[tokio::test]
async fn answers_leave_in_request_order() {
    let mut bench = bench(LIMITS).await;
    for body in [&b"w1"[..], b"n2", b"s", b"w3", b"n4"] {
        bench.client.write_all(&framed(body)).await.expect("open");
    }
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.extend(bench.dispatched.recv().await.expect("dispatched").1);
    }
    // The later one becomes ready first.
    for (sender, body) in waiting.into_iter().rev().zip([&b"w3"[..], b"w1"]) {
        let answer = Answer::Respond(Response::from_bytes(framed(body)));
        assert!(sender.send(answer).is_ok());
    }
    for expected in [&b"w1"[..], b"n2", b"w3", b"n4"] {
        assert_eq!(read_frame(&mut bench.client).await, expected);
    }
}

#[tokio::test]
async fn refused_request_closes_after_the_answers_before_it() {
    let mut bench = bench(LIMITS).await;
    for body in [&b"n1"[..], b"c", b"n2"] {
        bench.client.write_all(&framed(body)).await.expect("open");
    }
    assert_eq!(read_frame(&mut bench.client).await, b"n1");
    let mut rest = Vec::new();
    // Closing with unread input may reset: both mean the same here.
    let _ = bench.client.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn forged_length_closes() {
    for length in [0u32, u32::MAX, 1 << 31, i32::MAX as u32, (1 << 20) + 1] {
        let mut bench = bench(LIMITS).await;
        bench.client.write_all(&length.to_be_bytes()).await.expect("open");
        let mut rest = Vec::new();
        let _ = bench.client.read_to_end(&mut rest).await;
        assert!(rest.is_empty() && bench.dispatched.try_recv().is_err(), "{length}");
    }
}

#[tokio::test]
async fn requests_in_flight_stop_at_the_limit() {
    let mut bench = bench(LIMITS).await;
    for _ in 0..REQUESTS_IN_FLIGHT_MAX + 1 {
        bench.client.write_all(&framed(b"w")).await.expect("open");
    }
    let mut waiting = std::collections::VecDeque::new();
    for _ in 0..REQUESTS_IN_FLIGHT_MAX {
        waiting.extend(bench.dispatched.recv().await.expect("dispatched").1);
    }
    let more = tokio::time::timeout(Duration::from_millis(100), bench.dispatched.recv()).await;
    assert!(more.is_err(), "one more than the limit was taken in");
    let first = waiting.pop_front().expect("all wait");
    assert!(first.send(Answer::Nothing).is_ok());
    assert!(bench.dispatched.recv().await.is_some(), "room for one");
}

#[tokio::test]
async fn shared_budget_delays_and_does_not_lose_frames() {
    let limits = Limits { in_flight_bytes_max: 200 << 10, ..LIMITS };
    let mut bench = bench(limits).await;
    let body = vec![b'w'; 150 << 10];
    for _ in 0..3 {
        bench.client.write_all(&framed(&body)).await.expect("open");
        let (_, waiting) = bench.dispatched.recv().await.expect("dispatched");
        let none = tokio::time::timeout(Duration::from_millis(20), bench.dispatched.recv()).await;
        assert!(none.is_err());
        let answer = Answer::Respond(Response::from_bytes(framed(b"done")));
        assert!(waiting.expect("waits").send(answer).is_ok());
        assert_eq!(read_frame(&mut bench.client).await, b"done");
    }
}

#[tokio::test]
async fn file_ranges_arrive_between_the_bytes_around_them() {
    let folder = std::env::temp_dir().join(format!("broker-net-{}", std::process::id()));
    let disk = RealDisk;
    disk.create_dir(&folder).expect("writable");
    let file = disk.open(&folder.join("ranges"), OpenMode::Create).expect("writable");
    let content: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    file.truncate(0).expect("ours");
    file.append(&[IoSlice::new(&content)]).expect("room");
    let mut bench = bench(LIMITS).await;
    *bench.script.file.lock().expect("unpoisoned") = Some(file);
    for _ in 0..2 {
        bench.client.write_all(&framed(b"f")).await.expect("open");
    }
    let expected =
        [b"a", &content[10..110], &content[..5], b"b", &content[1_000..1_501_000], b"c"].concat();
    for _ in 0..2 {
        let mut received = vec![0; expected.len()];
        bench.client.read_exact(&mut received).await.expect("all of it");
        assert!(received == expected, "bytes differ");
    }
    std::fs::remove_dir_all(&folder).expect("ours");
}

#[tokio::test]
async fn closed_peer_gives_its_requests_up() {
    let mut bench = bench(LIMITS).await;
    bench.client.write_all(&framed(b"w")).await.expect("open");
    let (_, waiting) = bench.dispatched.recv().await.expect("dispatched");
    drop(bench.client);
    waiting.expect("waits").closed().await;
}

#[tokio::test]
async fn stop_lets_a_finished_answer_leave_and_ends() {
    let mut bench = bench(LIMITS).await;
    bench.client.write_all(&framed(b"w")).await.expect("open");
    let (_, waiting) = bench.dispatched.recv().await.expect("dispatched");
    bench.stop.send(true).expect("runs");
    let answer = Answer::Respond(Response::from_bytes(framed(b"bye")));
    assert!(waiting.expect("waits").send(answer).is_ok());
    assert_eq!(read_frame(&mut bench.client).await, b"bye");
    bench.server.await.expect("ends in order");
}
