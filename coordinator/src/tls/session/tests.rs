use std::net::SocketAddr;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WantsServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ConfigBuilder, ConnectionTrafficSecrets, ContentType, ProtocolVersion, RootCertStore,
    SupportedCipherSuite,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::net::Socket;

/// A hang guard, no measure.
const SOON: Duration = Duration::from_secs(60);
/// Of a record: its head, the kind of its contents, what authenticates it.
const RECORD_BYTES: usize = 5 + 1 + 16;
/// The greatest length of a record's contents.
const CONTENTS_BYTES_MAX: usize = 1 << 14;

/// A certificate for localhost, its key, and a client's settings that trust it.
struct Pair {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    client: ClientConfig,
}

impl Pair {
    fn new() -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Pair { certificate, key, client }
    }

    fn server(&self) -> Arc<ServerConfig> {
        let config = builder().with_single_cert(vec![self.certificate.clone()], self.key());
        Arc::new(config.unwrap())
    }

    /// One whose handshakes stand still until they are let go on, and say when they begin.
    fn slow_server(&self) -> (Arc<ServerConfig>, UnboundedReceiver<()>, mpsc::Sender<()>) {
        let key = ring::sign::any_supported_type(&self.key()).unwrap();
        let key = Arc::new(CertifiedKey::new(vec![self.certificate.clone()], key));
        let ((begun, begins), (leave, left)) = (unbounded_channel(), mpsc::channel());
        let slow = Slow { key, begun, left: Mutex::new(left) };
        (Arc::new(builder().with_cert_resolver(Arc::new(slow))), begins, leave)
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

fn builder() -> ConfigBuilder<ServerConfig, WantsServerCert> {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
}

/// Asked for the certificate in the midst of a handshake, it waits for leave.
#[derive(Debug)]
struct Slow {
    key: Arc<CertifiedKey>,
    begun: UnboundedSender<()>,
    left: Mutex<mpsc::Receiver<()>>,
}

impl ResolvesServerCert for Slow {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.begun.send(()).unwrap();
        self.left.lock().unwrap().recv_timeout(SOON).ok()?;
        Some(Arc::clone(&self.key))
    }
}

/// With one way of encryption, which the tests know.
fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
}

/// Shakes hands as a client that waits for each byte.
fn client(
    config: ClientConfig,
    address: SocketAddr,
) -> io::Result<(ClientConnection, std::net::TcpStream)> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = std::net::TcpStream::connect(address)?;
    socket.set_read_timeout(Some(SOON))?;
    while session.is_handshaking() || session.wants_write() {
        session.complete_io(&mut socket)?;
    }
    Ok((session, socket))
}

/// A client that makes records by hand.
struct Records {
    socket: std::net::TcpStream,
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Records {
    fn new((session, socket): (ClientConnection, std::net::TcpStream)) -> Records {
        let (sequence, secrets) = session.dangerous_extract_secrets().unwrap().tx;
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { panic!("no AES") };
        let SupportedCipherSuite::Tls13(suite) = ring::cipher_suite::TLS13_AES_128_GCM_SHA256
        else {
            panic!("another version of TLS");
        };
        Records { socket, encrypter: suite.aead_alg.encrypter(key, iv), sequence }
    }

    fn send(&mut self, typ: ContentType, contents: &[u8]) {
        let version = ProtocolVersion::TLSv1_2;
        let payload = OutboundChunks::Single(contents);
        let message = OutboundPlainMessage { typ, version, payload };
        let record = self.encrypter.encrypt(message, self.sequence).unwrap();
        self.sequence += 1;
        self.socket.write_all(&record.encode()).unwrap();
    }

    fn send_data(&mut self, data: &[u8]) {
        self.send(ContentType::ApplicationData, data);
    }

    /// Records without contents, so many bytes of them: all but the kind is zeros that fill up.
    fn send_nothing(&mut self, mut bytes: usize) {
        let mut contents = vec![0; CONTENTS_BYTES_MAX];
        contents[0] = ContentType::ApplicationData.into();
        while bytes > 0 {
            let length = (bytes - RECORD_BYTES).min(CONTENTS_BYTES_MAX);
            self.send(ContentType::from(0), &contents[..length]);
            bytes -= RECORD_BYTES + length;
        }
    }
}

/// Both ends of a connection.
async fn connect() -> (TcpStream, TlsSession, Records) {
    let pair = Pair::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = pair.client.clone();
    let client =
        tokio::task::spawn_blocking(move || Records::new(client(config, address).unwrap()));
    let (stream, _) = listener.accept().await.unwrap();
    let turn = Turn { handshakes: &Handshakes::new(), attendance: &() };
    let session = TlsSession::accept(&stream, pair.server(), turn).await.unwrap();
    (stream, session, client.await.unwrap())
}

/// Waits until so many bytes are there.
async fn arrived(stream: &TcpStream, count: usize) {
    let mut bytes = vec![0; count];
    while stream.peek(&mut bytes).await.unwrap() < count {
        tokio::task::yield_now().await;
    }
}

async fn read(socket: &Socket, buffer: &mut BytesMut) -> io::Result<usize> {
    loop {
        timeout(SOON, socket.readable()).await.expect("something to read")?;
        match socket.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

#[tokio::test]
async fn records_without_contents_are_taken_to_a_limit() {
    let (stream, session, mut client) = connect().await;
    let mut buffer = BytesMut::new();
    client.send_nothing(BARREN_BYTES_MAX);
    let end = tokio::time::Instant::now() + SOON;
    while session.state().barren_bytes < BARREN_BYTES_MAX {
        assert!(tokio::time::Instant::now() < end, "{} bytes", session.state().barren_bytes);
        stream.readable().await.unwrap();
        let nothing = session.try_read(&stream, &mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock, "{nothing}");
    }
    client.send_data(b"x");
    let socket = Socket::encrypted(stream, session);
    assert_eq!(read(&socket, &mut buffer).await.unwrap(), 1);
    // Counted anew from there, and one byte more.
    client.send_nothing(BARREN_BYTES_MAX + 1);
    let error = read(&socket, &mut buffer).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert_eq!(&buffer[..], b"x");
}

#[tokio::test]
async fn who_sends_nothing_but_records_does_not_keep_others_from_running() {
    let (stream, session, mut client) = connect().await;
    let sent = 56 << 10;
    client.send_nothing(sent);
    arrived(&stream, sent).await;
    let socket = Socket::encrypted(stream, session);
    socket.readable().await.unwrap();
    let nothing = socket.try_read(&mut BytesMut::new()).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock, "{nothing}");
    {
        // The rest is there, and yet it is not this task's turn.
        let mut readable = pin!(socket.readable());
        let mut context = Context::from_waker(Waker::noop());
        assert!(readable.as_mut().poll(&mut context).is_pending());
        assert!(matches!(readable.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    }
    // Looking out for the end takes turns too.
    let mut ended = pin!(socket.ended());
    let mut context = Context::from_waker(Waker::noop());
    assert!(ended.as_mut().poll(&mut context).is_pending());
    client.send_data(b"x");
    assert_eq!(read(&socket, &mut BytesMut::new()).await.unwrap(), 1);
}

/// Tells of each change.
struct Told(UnboundedSender<bool>);

impl Attendance for Told {
    fn attend(&self, on: bool) {
        // Nobody listens to the end.
        let _ = self.0.send(on);
    }
}

/// A handshake of both sides with a server of these settings, and who keeps whom waiting in it.
async fn begin(
    (pair, config): (&Pair, &Arc<ServerConfig>),
    handshakes: &Arc<Handshakes>,
) -> (JoinHandle<io::Result<TlsSession>>, UnboundedReceiver<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (own, address) = (pair.client.clone(), listener.local_addr().unwrap());
    drop(tokio::task::spawn_blocking(move || drop(client(own, address))));
    let (stream, _) = listener.accept().await.unwrap();
    let (told, tells) = unbounded_channel();
    let (config, handshakes) = (Arc::clone(config), Arc::clone(handshakes));
    let shaken = tokio::spawn(async move {
        let turn = Turn { handshakes: &handshakes, attendance: &Told(told) };
        TlsSession::accept(&stream, config, turn).await
    });
    (shaken, tells)
}

async fn next<T>(receiver: &mut UnboundedReceiver<T>) -> T {
    timeout(SOON, receiver.recv()).await.expect("in time").expect("a sender")
}

#[tokio::test]
async fn handshakes_leave_the_thread_to_others_and_wait_for_one_another() {
    let pair = Pair::new();
    let (config, mut begins, leave) = pair.slow_server();
    let handshakes = Arc::new(Handshakes::with_places(1));
    let (first, mut first_tells) = begin((&pair, &config), &handshakes).await;
    // On this one thread that is only heard while the handshake, which goes on when it is let, is elsewhere.
    next(&mut begins).await;
    assert!(next(&mut first_tells).await);
    let (second, mut second_tells) = begin((&pair, &config), &handshakes).await;
    assert!(next(&mut second_tells).await);
    assert!(begins.try_recv().is_err(), "two at once");
    leave.send(()).unwrap();
    assert!(!next(&mut first_tells).await, "the client has to speak");
    next(&mut begins).await;
    leave.send(()).unwrap();
    for shaken in [first, second] {
        timeout(SOON, shaken).await.expect("in time").unwrap().unwrap();
    }
}

#[tokio::test]
async fn handshake_that_nobody_waits_for_keeps_its_place_while_it_is_worked_on() {
    let pair = Pair::new();
    let (config, mut begins, leave) = pair.slow_server();
    let handshakes = Arc::new(Handshakes::with_places(1));
    let (abandoned, mut tells) = begin((&pair, &config), &handshakes).await;
    next(&mut begins).await;
    assert!(next(&mut tells).await);
    abandoned.abort();
    assert!(!next(&mut tells).await);
    assert_eq!(handshakes.0.available_permits(), 0);
    leave.send(()).unwrap();
    drop(timeout(SOON, handshakes.0.acquire()).await.expect("in time").unwrap());
}

#[test]
fn another_authority_is_called_so() {
    let certificate = |error| broken(rustls::Error::InvalidCertificate(error)).to_string();
    for error in [CertificateError::UnknownIssuer, CertificateError::BadSignature] {
        let told = certificate(error.clone());
        assert!(
            told.contains("another authority") && told.contains(&format!("{error:?}")),
            "{told}"
        );
    }
    let alert = |alert| broken(rustls::Error::AlertReceived(alert)).to_string();
    for received in [AlertDescription::DecryptError, AlertDescription::UnknownCA] {
        let told = alert(received);
        assert!(told.contains("refuses the certificate") && told.contains("authority"), "{told}");
    }
    assert!(alert(AlertDescription::BadCertificate).contains("another host"));
    assert!(!certificate(CertificateError::Expired).contains("authority"));
}
