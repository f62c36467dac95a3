use std::net::SocketAddr;

use coordinator_core::server::Event;
use coordinator_protocol::{
    ConnectRequest, FRAME_BYTES_MAX, OpCode, SET_WATCHES_BYTES_MAX, SessionId, SessionPassword,
    Zxid,
};
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::crypto::ring;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::admin::Facts;
use crate::config::Config;
use crate::core_loop::{Input, Inputs};
use crate::net::large_frames::LARGEST_FRAMES_MAX;

/// A hang guard, no measure.
const SOON: Duration = Duration::from_secs(60);

/// A listener, and what its clients tell the core.
struct Running {
    address: SocketAddr,
    inputs: Receiver<Input>,
    too_large: Arc<TooLarge>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(clients_max: usize, greeting_max: Duration) -> Running {
        let patience = Patience { whole: Duration::from_millis(20), silence: SOON };
        Running::start_with(clients_max, greeting_max, patience).await
    }

    async fn start_with(clients_max: usize, greeting_max: Duration, patience: Patience) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, inputs) = mpsc::channel(16);
        let limits = Limits { clients_max, per_address_max: None };
        let gate = Gate { tls: Some(encryption().into()), only_tls: false };
        let requests = RequestLimits::up_to(FRAME_BYTES_MAX);
        let too_large = Arc::clone(&requests.too_large);
        let mut listener = ClientListener::new(listener, limits, gate, requests, desk(sender));
        listener.entrance.greeting_max = greeting_max;
        listener.entrance.large_frames = LargeFrames::new(patience);
        Running { address, inputs, too_large, task: tokio::spawn(listener.run()) }
    }

    async fn say(&self, bytes: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        socket
    }

    /// Waits until a client is in, and lets it say more; others may go meanwhile.
    async fn expect_client(&mut self) {
        let outbox = loop {
            match timeout(SOON, self.inputs.recv()).await.expect("in time").unwrap() {
                Input::Opened { outbox, .. } => break outbox,
                Input::Ended { .. } => {}
                _ => panic!("a client is expected"),
            }
        };
        outbox.set_reading(true);
        let next = timeout(SOON, self.inputs.recv()).await.expect("in time").unwrap();
        assert!(matches!(next, Input::Event(Event::Connect { .. })));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn desk(inputs: Inputs) -> Arc<Desk> {
    let config = Config::standalone("none".into(), "127.0.0.1:0".parse().unwrap());
    let facts = Facts::new(&config, config.client_address);
    Arc::new(Desk::new(inputs, facts, Arc::default(), config.whitelist))
}

fn encryption() -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let chain = vec![params.self_signed(&key).unwrap().der().clone()];
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key.serialize_der().try_into().unwrap());
    Arc::new(config.unwrap())
}

fn connect_request() -> Vec<u8> {
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::new(0),
        timeout_ms: 30_000,
        session: SessionId::NONE,
        password: SessionPassword::zeros(),
        read_only: Some(false),
    };
    request.encode_frame().to_vec()
}

/// An end-of-file or a reset; an alert of TLS may come before.
async fn is_closed(socket: &mut TcpStream) -> bool {
    timeout(SOON, socket.read_to_end(&mut Vec::new())).await.is_ok()
}

#[tokio::test]
async fn who_does_not_say_who_it_is_in_time_is_closed() {
    let running = Running::start(9, Duration::from_millis(20)).await;
    // Nothing; the beginning of a handshake of TLS; the beginning of a frame.
    for said in [&[][..], &[0x16], &[0x16, 3, 1, 2, 0, 1], &[0, 0, 0, 45, 0]] {
        let mut socket = running.say(said).await;
        assert!(is_closed(&mut socket).await, "{said:?}");
    }
}

#[tokio::test]
async fn silent_ones_make_room_and_clients_do_not() {
    let mut running = Running::start(2, 4 * SOON).await;
    let (mut first, mut second) = (running.say(&[]).await, running.say(&[0, 0]).await);
    let _client = running.say(&connect_request()).await;
    running.expect_client().await;
    assert!(is_closed(&mut first).await);
    let _other = running.say(&connect_request()).await;
    running.expect_client().await;
    assert!(is_closed(&mut second).await);
    let mut third = running.say(&connect_request()).await;
    assert!(is_closed(&mut third).await);
    assert!(running.inputs.try_recv().is_err());
}

#[tokio::test]
async fn large_frames_that_do_not_come_to_their_end_give_up_their_places() {
    let soon = Duration::from_millis(20);
    check_places_given_up(Patience { whole: soon, silence: SOON }).await;
}

#[tokio::test]
async fn large_frames_of_which_nothing_comes_give_up_their_places() {
    let soon = Duration::from_millis(20);
    check_places_given_up(Patience { whole: 60 * SOON, silence: soon }).await;
}

async fn check_places_given_up(patience: Patience) {
    let mut running = Running::start_with(99, SOON, patience).await;
    let mut clients = Vec::new();
    for _ in 0..=LARGEST_FRAMES_MAX {
        let mut bytes = connect_request();
        bytes.extend_from_slice(&i32::try_from(SET_WATCHES_BYTES_MAX).unwrap().to_be_bytes());
        bytes.extend_from_slice(&(-8i32).to_be_bytes());
        bytes.extend_from_slice(&OpCode::SetWatches2.code().to_be_bytes());
        clients.push(running.say(&bytes).await);
        running.expect_client().await;
    }
    // The last of them comes to its turn only when another's is over.
    for mut client in clients {
        assert!(is_closed(&mut client).await);
    }
}

#[tokio::test]
async fn requests_above_the_limit_are_counted_and_what_is_no_frame_is_not() {
    let mut running = Running::start(99, SOON).await;
    let above = i32::try_from(FRAME_BYTES_MAX + 1).unwrap();
    let far_above = i32::try_from(SET_WATCHES_BYTES_MAX + 1).unwrap();
    for (length, op, count) in
        [(above, OpCode::SetData, 1), (far_above, OpCode::SetWatches, 2), (-1, OpCode::SetData, 2)]
    {
        let mut bytes = connect_request();
        for number in [length, 1, op.code()] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        let mut client = running.say(&bytes).await;
        running.expect_client().await;
        assert!(is_closed(&mut client).await);
        assert_eq!(running.too_large.count(), count);
    }
}
