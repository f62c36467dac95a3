//! Encrypted clients and members, on loopback sockets, with certificates made for the test.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::say;
use bytes::Bytes;
use coordinator::ServerError;
use coordinator::config::{Config, Values};
use coordinator::embedded::Embedded;
use coordinator_core::server::IDENTITY_BYTES_MAX;
use coordinator_protocol::{
    Acl, CreateRequest, ErrorCode, PathWatch, Request, Response, SessionId, SessionPassword, Zxid,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A hang guard, no measure.
const SOON: Duration = Duration::from_secs(60);
const HANG: Duration = Duration::from_secs(300);

/// An authority, and what it has signed, in files.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { folder, issuer }
    }

    fn trust(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Key and certificate of `CN=name,O=people` in one file.
    fn sign(&self, name: &str) -> PathBuf {
        let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "people");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        // A file's name may be no longer than 255 bytes.
        let path = self.folder.path().join(format!("{}.pem", &name[..name.len().min(200)]));
        std::fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
        path
    }
}

fn settings(folder: &Path, pairs: &[(&str, &str)]) -> Config {
    let mut values = Values::default();
    values.set("dataDir", &folder.display().to_string());
    values.set("clientPort", "0");
    pairs.iter().for_each(|(name, value)| values.set(name, value));
    Config::from_values(&values).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// How a client encrypts that shows what `key_store` holds, if anything.
fn encryption(trust: &Path, key_store: Option<&Path>) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trust).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match key_store {
        None => builder.with_no_client_auth(),
        Some(path) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(path).unwrap()],
                PrivateKeyDer::from_pem_file(path).unwrap(),
            )
            .unwrap(),
    };
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

/// An encrypted session, with what `key_store` shows, if anything.
fn connect(address: SocketAddr, trust: &Path, key_store: Option<&Path>) -> Option<Client> {
    let session = encryption(trust, key_store);
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let stream = Box::new(StreamOwned::new(session, socket));
    Client::over(stream, SessionId::NONE, SessionPassword::zeros(), Zxid::ZERO)
}

/// The certificate that is shown to who connects now.
fn shown(address: SocketAddr, trust: &Path) -> CertificateDer<'static> {
    let mut session = encryption(trust, None);
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut socket).unwrap();
    }
    session.peer_certificates().unwrap()[0].clone().into_owned()
}

/// What is said of the renewal of files at the address for probes: how often it was done, and how many cannot be used.
fn renewals(address: SocketAddr) -> [Option<u64>; 2] {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    std::io::Write::write_all(&mut socket, b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    ["coordinator_tls_files_renewed_total ", "coordinator_tls_files_broken "].map(|name| {
        text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.parse().unwrap())
    })
}

fn create(path: &str, acl: Vec<Acl>, data: Bytes) -> Request {
    Request::Create(CreateRequest { path: path.into(), data: Some(data), acl, flags: 0 })
}

fn get(path: &str) -> Request {
    Request::GetData(PathWatch { path: path.into(), watch: false })
}

#[test]
fn one_port_serves_both_and_a_certificate_is_an_identity() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let (own, trust) = (authority.sign("server"), authority.trust());
    let pairs = [
        ("ssl.keyStore.location", text(&own)),
        ("ssl.trustStore.location", text(&trust)),
        ("client.portUnification", "true"),
        ("4lw.commands.whitelist", "conf"),
    ];
    let server = Embedded::start_with(settings(folder.path(), &pairs)).unwrap();
    let address = server.client_address();
    let ports = format!("clientPort={0}\nsecureClientPort={0}\n", address.port());
    assert!(say(address, b"conf").starts_with(&ports), "both are the same here");
    let mut plain = Client::connect(address);
    let mut bob = connect(address, &trust, Some(&authority.sign("bob"))).expect("a session");
    let mut eve = connect(address, &trust, Some(&authority.sign("eve"))).expect("a session");
    let (_, who) = bob.ask(&Request::WhoAmI);
    let Some(Response::ClientInfos(who)) = who else { panic!("{who:?}") };
    let who: Vec<_> = who.iter().map(|info| (&*info.scheme, &*info.user)).collect();
    assert_eq!(who, [("ip", "127.0.0.1"), ("x509", "CN=bob,O=people")]);
    let only_bob = Acl { permissions: 31, scheme: "x509".into(), id: "CN=bob,O=people".into() };
    let secret = create("/secret", vec![only_bob], Bytes::from_static(b"x"));
    assert_eq!(bob.ask(&secret).0, ErrorCode::Ok);
    assert_eq!(bob.ask(&get("/secret")).0, ErrorCode::Ok);
    assert_eq!(eve.ask(&get("/secret")).0, ErrorCode::NoAuth);
    assert_eq!(plain.ask(&get("/secret")).0, ErrorCode::NoAuth);
    let strangers = Authority::new();
    let stranger = strangers.sign("bob");
    assert!(connect(address, &trust, None).is_none(), "a certificate is needed");
    assert!(connect(address, &trust, Some(&stranger)).is_none(), "by a trusted authority");
}

#[test]
fn subject_is_an_identity_up_to_the_limit_and_longer_ones_are_refused() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let (own, trust) = (authority.sign("server"), authority.trust());
    let pairs = [("ssl.keyStore.location", text(&own)), ("ssl.trustStore.location", text(&trust))];
    let server = Embedded::start_with(settings(folder.path(), &pairs)).unwrap();
    let name = "n".repeat(IDENTITY_BYTES_MAX - "CN=,O=people".len());
    let shown = authority.sign(&name);
    let mut client = connect(server.client_address(), &trust, Some(&shown)).expect("a session");
    let (_, who) = client.ask(&Request::WhoAmI);
    let Some(Response::ClientInfos(who)) = who else { panic!("{who:?}") };
    assert_eq!(who.last().map(|info| info.user.clone()), Some(format!("CN={name},O=people")));
    let shown = authority.sign(&format!("{name}n"));
    assert!(connect(server.client_address(), &trust, Some(&shown)).is_none());
}

#[test]
fn answers_larger_than_any_buffer_arrive_whole() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let (own, trust) = (authority.sign("server"), authority.trust());
    let pairs = [("ssl.keyStore.location", text(&own)), ("ssl.clientAuth", "none")];
    let server = Embedded::start_with(settings(folder.path(), &pairs)).unwrap();
    let mut client = connect(server.client_address(), &trust, None).expect("a session");
    let data: Bytes = (0..1_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let made = client.ask(&create("/large", Acl::open(), data.clone()));
    assert_eq!(made.0, ErrorCode::Ok);
    let requests = vec![get("/large"); 40];
    for (_, answer) in client.ask_all(&requests) {
        let Some(Response::DataStat(found, _)) = answer else { panic!("{answer:?}") };
        assert!(found.as_ref() == Some(&data), "other bytes");
    }
    assert_eq!(client.ask(&Request::CloseSession).0, ErrorCode::Ok);
    assert!(client.is_closed_by_server());
}

#[test]
fn port_that_is_not_unified_refuses_who_does_not_encrypt() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let (own, trust) = (authority.sign("server"), authority.trust());
    let pairs = [("ssl.keyStore.location", text(&own)), ("ssl.trustStore.location", text(&trust))];
    let server = Embedded::start_with(settings(folder.path(), &pairs)).unwrap();
    assert!(Client::try_connect(server.client_address()).is_none());
    let bob = authority.sign("bob");
    assert!(connect(server.client_address(), &trust, Some(&bob)).is_some());
    let folder = tempfile::tempdir().unwrap();
    let plain = Embedded::start_with(settings(folder.path(), &[])).unwrap();
    let mut socket = TcpStream::connect(plain.client_address()).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    std::io::Write::write_all(&mut socket, &[0x16, 3, 1, 0, 1, 0]).unwrap();
    // Closed or reset: it is not left waiting.
    assert!(matches!(socket.read(&mut [0; 16]), Ok(0) | Err(_)));
}

#[test]
fn members_that_encrypt_their_links_make_an_ensemble() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let end = Instant::now() + HANG;
    // Somebody may take a port between its choice and its use.
    let (servers, ports) = loop {
        match start_three(&authority, folder.path()) {
            Ok(started) => break started,
            Err(error @ ServerError::Bind { .. }) => assert!(Instant::now() < end, "{error}"),
            Err(error) => panic!("{error}"),
        }
    };
    // More than the sockets between them hold.
    let data = Bytes::from(vec![7; 1_000_000]);
    for number in 0..12 {
        let large = create(&format!("/{number}"), Acl::open(), data.clone());
        // Made before a connection was lost, it is there.
        insist(servers[0].client_address(), &large, &[ErrorCode::Ok, ErrorCode::NodeExists]);
    }
    for server in &servers {
        let address = server.client_address();
        insist(address, &Request::Sync("/".into()), &[ErrorCode::Ok]);
        // Behind a sync that another connection waited for it is seen by any that follows.
        insist(address, &get("/11"), &[ErrorCode::Ok]);
    }
    // Who does not encrypt says nothing that a member would take.
    let mut stranger = TcpStream::connect(("localhost", ports[0].port())).unwrap();
    stranger.set_read_timeout(Some(SOON)).unwrap();
    std::io::Write::write_all(&mut stranger, &[0; 64]).unwrap();
    let mut answer = Vec::new();
    let _ = stranger.read_to_end(&mut answer);
    assert!(answer.first().is_none_or(|byte| *byte == 0x15), "more than an alert: {answer:?}");
}

/// Asks until there is an answer: a server that hears no leader for a while, as on a machine with too much to do,
/// closes its connections.
fn insist(address: SocketAddr, request: &Request, expected: &[ErrorCode]) {
    let end = Instant::now() + HANG;
    loop {
        let mut client = Client::try_connect(address);
        let answer = client.as_mut().and_then(|client| client.try_ask(request));
        if let Some((error, _)) = answer {
            assert!(expected.contains(&error), "{error:?}");
            return;
        }
        assert!(Instant::now() < end, "no answer within {HANG:?}");
    }
}

fn start_three(
    authority: &Authority,
    folder: &Path,
) -> Result<(Vec<Embedded>, Vec<SocketAddr>), ServerError> {
    let trust = authority.trust();
    let held: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<SocketAddr> = held.iter().map(|one| one.local_addr().unwrap()).collect();
    drop(held);
    let members: Vec<(String, String)> = (1..=3)
        .zip(&ports)
        .map(|(id, at)| (format!("server.{id}"), format!("localhost:{}", at.port())))
        .collect();
    let servers: Result<Vec<Embedded>, ServerError> = (1..=3)
        .map(|id| {
            let (own, id) = (authority.sign(&format!("member{id}")), id.to_string());
            let mut pairs = vec![
                ("id", &*id),
                ("peerSecret", "s"),
                ("sslQuorum", "true"),
                ("ssl.quorum.keyStore.location", text(&own)),
                ("ssl.quorum.trustStore.location", text(&trust)),
            ];
            pairs.extend(members.iter().map(|(name, value)| (&**name, &**value)));
            let config = settings(&folder.join(&id), &pairs);
            Embedded::start_with(config)
        })
        .collect();
    Ok((servers?, ports))
}

#[test]
fn certificate_that_is_renewed_is_shown_without_a_restart_and_a_broken_one_changes_nothing() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let (own, trust) = (authority.sign("server"), authority.trust());
    let pairs =
        [("ssl.keyStore.location", text(&own)), ("ssl.clientAuth", "none"), ("httpPort", "0")];
    let server = Embedded::start_with(settings(folder.path(), &pairs)).unwrap();
    let (address, http) = (server.client_address(), server.http_address().unwrap());
    let mut client = connect(address, &trust, None).expect("a session");
    let own_certificate = || CertificateDer::from_pem_file(&own).unwrap();
    let first = own_certificate();
    assert_eq!(shown(address, &trust), first);
    assert_eq!(renewals(http), [Some(0), Some(0)]);
    let wait_for = |expected: [u64; 2]| {
        let end = Instant::now() + HANG;
        while renewals(http) != expected.map(Some) {
            assert!(Instant::now() < end, "{:?}", renewals(http));
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    authority.sign("server");
    let second = own_certificate();
    wait_for([1, 0]);
    assert_eq!(shown(address, &trust), second);
    assert_ne!(second, first);
    // Half of what is to be.
    let whole = std::fs::read(&own).unwrap();
    std::fs::write(&own, &whole[..whole.len() / 2]).unwrap();
    wait_for([1, 1]);
    assert_eq!(shown(address, &trust), second);
    authority.sign("server");
    wait_for([2, 0]);
    assert_eq!(shown(address, &trust), own_certificate());
    // Who was there before stays.
    assert_eq!(client.ask(&create("/kept", Acl::open(), Bytes::new())).0, ErrorCode::Ok);
}
