use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coordinator_core::consensus::SnapshotImage;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::peers::dial::LAST_WORD_BYTES_MAX;
use crate::tls::{self, ClientAuth};

/// A hang guard, no measure.
const SOON: Duration = Duration::from_secs(60);
const HOST: &str = "localhost";

fn member(id: u64, cluster_id: &str, secret: &str) -> Credentials {
    encrypted_member(id, cluster_id, secret, None)
}

fn encrypted_member(id: u64, cluster_id: &str, secret: &str, tls: Option<PeerTls>) -> Credentials {
    Credentials::new(&ensemble(id, cluster_id, secret, tls))
}

fn ensemble(id: u64, cluster_id: &str, secret: &str, tls: Option<PeerTls>) -> Ensemble {
    let other = ServerId::new(if id == 1 { 2 } else { 1 }).unwrap();
    Ensemble {
        cluster_id: cluster_id.into(),
        secret: secret.into(),
        tls,
        own_id: ServerId::new(id).unwrap(),
        others: watch::channel(BTreeMap::from([(other, format!("{HOST}:1"))])).1,
        takes_unknown: false,
        beginnings: Arc::default(),
    }
}

/// A member of an ensemble whose members change.
fn changing_member(id: u64, secret: &str, tls: Option<PeerTls>) -> Credentials {
    Credentials::new(&Ensemble { takes_unknown: true, ..ensemble(id, "a", secret, tls) })
}

type Dialled = Result<(), HandshakeError>;
type Accepted = Result<ServerId, HandshakeError>;

async fn meet(dialler: &Credentials, acceptor: &Credentials, called: u64) -> (Dialled, Accepted) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let peer = ServerId::new(called).unwrap();
    let dial = async { dialler.dial((stream, HOST), peer).await.map(|_| ()) };
    let accept = async { acceptor.accept(accepted, &()).await.map(|link| link.peer) };
    timeout(SOON, async { tokio::join!(dial, accept) }).await.expect("in time")
}

#[tokio::test]
async fn members_of_one_ensemble_recognise_each_other() {
    let (dialled, accepted) = meet(&member(1, "a", "s"), &member(2, "a", "s"), 2).await;
    assert_eq!((dialled, accepted), (Ok(()), Ok(ServerId::new(1).unwrap())));
}

/// A state that somebody may have begun with.
fn beginning(data: &'static [u8]) -> Beginning {
    Beginning::of(&SnapshotImage { index: 1, term: 1, data: Bytes::from_static(data) })
}

/// A member that began with it.
fn begun_member(id: u64, own: Option<Beginning>) -> Credentials {
    let beginnings = Arc::new(Beginnings::new(own));
    Credentials::new(&Ensemble { beginnings, ..ensemble(id, "a", "s", None) })
}

#[tokio::test]
async fn members_that_began_with_different_states_have_no_link_and_both_know_why() {
    let [here, there] = [beginning(b"one"), beginning(b"other")];
    let [first, second] = [1, 2].map(|id| ServerId::new(id).unwrap());
    let dialler = begun_member(1, Some(here));
    let (dialled, accepted) = meet(&dialler, &begun_member(2, Some(there)), 2).await;
    let refused = |peer, found, expected| HandshakeError::Beginning { peer, found, expected };
    assert_eq!(dialled, Err(refused(second, there, here)));
    assert_eq!(accepted, Err(refused(first, here, there)));
    assert_eq!(dialler.beginnings.odd_ones(), [second]);
    // It was made anew from the same files.
    let met = meet(&dialler, &begun_member(2, Some(here)), 2).await;
    assert_eq!(met, (Ok(()), Ok(first)));
    assert_eq!(dialler.beginnings.odd_ones(), []);
}

#[tokio::test]
async fn member_without_a_mark_has_links_with_all() {
    let mark = Some(beginning(b"one"));
    for (dialler, acceptor) in [(mark, None), (None, mark), (None, None)] {
        let met = meet(&begun_member(1, dialler), &begun_member(2, acceptor), 2).await;
        assert_eq!(met, (Ok(()), Ok(ServerId::new(1).unwrap())));
    }
}

#[tokio::test]
async fn who_does_not_know_the_secret_learns_of_no_difference() {
    let stranger = Credentials::new(&Ensemble {
        beginnings: Arc::new(Beginnings::new(Some(beginning(b"one")))),
        ..ensemble(1, "a", "t", None)
    });
    let own = begun_member(2, Some(beginning(b"other")));
    let (dialled, accepted) = meet(&stranger, &own, 2).await;
    assert_eq!(dialled, Err(HandshakeError::Secret));
    assert!(matches!(accepted, Err(HandshakeError::Broken(_))), "{accepted:?}");
    assert_eq!(stranger.beginnings.odd_ones(), []);
}

/// Builds exchange these bytes: who has no mark is understood by those before, and a change is a new schema version.
#[test]
fn hello_and_challenge_stay_what_they_are_and_marks_come_behind_them() {
    let hello =
        Hello { protocol_version: 1, cluster_id: "a".into(), from: 1, to: 2, nonce: [7; 16] };
    let challenge = Challenge { nonce: [8; 16], proof: [9; 32] };
    let mark = beginning(b"one");
    let said = [b"\x01\x01a\x01\x02".to_vec(), vec![7; 16]].concat();
    let answered = [vec![8; 16], vec![9; 32]].concat();
    let check = |bytes: Vec<u8>, head: &[u8], body: &[&[u8]]| {
        assert_eq!((&bytes[..8], &bytes[envelope::HEADER_BYTES..]), (head, &*body.concat()));
        assert_eq!(rewritten_handshake(&bytes), Some(bytes));
    };
    let sum = &mark.bytes()[..];
    assert_eq!(mark.to_string(), "813a0b99157e75aa");
    check(envelope::encode(HELLO, &hello).unwrap(), b"TGEV\x01\x02\x01\x00", &[&said]);
    let marked = envelope::encode(HELLO_2, &(&hello, mark)).unwrap();
    check(marked, b"TGEV\x01\x02\x02\x00", &[&said, sum]);
    let plain = envelope::encode(CHALLENGE, &challenge).unwrap();
    check(plain, b"TGEV\x02\x02\x01\x00", &[&answered]);
    let marked = envelope::encode(CHALLENGE_2, &(&challenge, mark)).unwrap();
    check(marked, b"TGEV\x02\x02\x02\x00", &[&answered, sum]);
}

#[tokio::test]
async fn stranger_is_refused_for_what_differs() {
    let own = member(2, "a", "s");
    let (_, accepted) = meet(&member(1, "b", "s"), &own, 2).await;
    assert!(matches!(accepted, Err(HandshakeError::Cluster { .. })), "{accepted:?}");
    let (dialled, accepted) = meet(&member(1, "a", "t"), &own, 2).await;
    assert_eq!(dialled, Err(HandshakeError::Secret));
    assert!(accepted.is_err());
    let (_, accepted) = meet(&member(1, "a", "s"), &own, 3).await;
    assert_eq!(accepted, Err(HandshakeError::Member { from: 1, to: 3 }));
    let (_, accepted) = meet(&member(2, "a", "s"), &own, 2).await;
    assert_eq!(accepted, Err(HandshakeError::Same { id: 2 }));
}

/// Members of different builds exchange these bytes: a change is a new schema version.
#[test]
fn notice_of_a_link_that_took_ones_place_stays_what_it_is() {
    let by: SocketAddr = "10.0.0.7:2888".parse().unwrap();
    let notice = replaced_notice(by).unwrap();
    assert_eq!(&notice[4..12], b"TGEV\x04\x02\x01\x00");
    assert_eq!(&notice[4 + envelope::HEADER_BYTES..], b"\x0d10.0.0.7:2888");
    assert_eq!(replaced_by(&notice), Some(by));
    let longest = "[1111:2222:3333:4444:5555:6666:7777:8888%4294967295]:65535".parse().unwrap();
    assert!(replaced_notice(longest).unwrap().len() <= LAST_WORD_BYTES_MAX);
    for cut in 0..notice.len() {
        assert_eq!(replaced_by(&notice[..cut]), None);
    }
}

#[tokio::test]
async fn who_joined_meanwhile_is_let_in_by_the_secret() {
    let (seventh, own) = (member(7, "a", "s"), changing_member(2, "s", None));
    let (dialled, accepted) = meet(&seventh, &own, 2).await;
    assert_eq!((dialled, accepted), (Ok(()), Ok(ServerId::new(7).unwrap())));
    let (_, accepted) = meet(&member(7, "a", "t"), &own, 2).await;
    assert!(accepted.is_err());
}

#[tokio::test]
async fn unknown_server_is_refused_where_members_do_not_change() {
    let unknown = Err(HandshakeError::Member { from: 7, to: 2 });
    let (_, accepted) = meet(&member(7, "a", "s"), &member(2, "a", "s"), 2).await;
    assert_eq!(accepted, unknown);
    // A certificate of the authority for this very host makes it no member.
    let authority = Authority::new();
    let encrypted = |id| encrypted_member(id, "a", "s", Some(authority.sign(&[HOST])));
    let (_, accepted) = meet(&encrypted(7), &encrypted(2), 2).await;
    assert_eq!(accepted, unknown);
}

#[tokio::test]
async fn certificate_is_checked_against_the_host_that_is_known() {
    let authority = Authority::new();
    let signed = |hosts| Some(authority.sign(hosts));
    let acceptors =
        [encrypted_member(2, "a", "s", signed(&[HOST])), changing_member(2, "s", signed(&[HOST]))];
    for own in &acceptors {
        let elsewhere = encrypted_member(1, "a", "s", signed(&["example.org"]));
        let (_, accepted) = meet(&elsewhere, own, 2).await;
        assert_eq!(accepted, Err(HandshakeError::Host { from: 1, host: HOST.into() }));
    }
    // Nobody can say where a server is that is not known; it needs the authority and the secret all the same.
    let [_, own] = &acceptors;
    let seventh = encrypted_member(7, "a", "s", signed(&["example.org"]));
    assert_eq!(meet(&seventh, own, 2).await.1, Ok(ServerId::new(7).unwrap()));
    let stranger = encrypted_member(7, "a", "s", Some(Authority::new().sign(&[HOST])));
    assert!(matches!(meet(&stranger, own, 2).await.1, Err(HandshakeError::Encryption(_))));
}

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
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { folder, issuer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What somebody has whose certificate is for `hosts`.
    fn sign(&self, hosts: &[&str]) -> PeerTls {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(hosts).unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let (path, trust) = (self.file("own.pem"), self.file("ca.pem"));
        std::fs::write(&path, key.serialize_pem() + &signed.pem()).unwrap();
        PeerTls {
            serving: tls::serving(&path, Some(&trust), ClientAuth::Need).unwrap().into(),
            dialling: tls::dialling(&path, &trust).unwrap().into(),
        }
    }

    /// Trust without a certificate to show.
    fn trusting(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

/// Member 1, which dials, and member 2, with one secret.
fn pair(dialler: PeerTls, acceptor: PeerTls) -> (Credentials, Credentials) {
    let member = |id, tls| encrypted_member(id, "a", "s", Some(tls));
    (member(1, dialler), member(2, acceptor))
}

#[tokio::test]
async fn member_is_who_has_a_certificate_for_its_host_and_the_secret() {
    let authority = Authority::new();
    let member = || authority.sign(&[HOST]);
    let (dialler, acceptor) = pair(member(), member());
    let met = meet(&dialler, &acceptor, 2).await;
    assert_eq!(met, (Ok(()), Ok(ServerId::new(1).unwrap())));
    // The secret alone.
    let without = PeerTls { dialling: authority.trusting().into(), ..member() };
    let others = Authority::new();
    others.sign(&[HOST]);
    let shown = tls::dialling(&others.file("own.pem"), &authority.file("ca.pem")).unwrap();
    let others = PeerTls { dialling: shown.into(), ..member() };
    for tls in [without, others] {
        let (_, accepted) = meet(&pair(tls, member()).0, &acceptor, 2).await;
        assert!(matches!(accepted, Err(HandshakeError::Encryption(_))), "{accepted:?}");
    }
    // The secret, and a certificate of somebody else whom the authority has signed.
    for hosts in [&[][..], &["example.org"]] {
        let (_, accepted) = meet(&pair(authority.sign(hosts), member()).0, &acceptor, 2).await;
        assert_eq!(accepted, Err(HandshakeError::Host { from: 1, host: HOST.into() }));
        let (dialled, _) = meet(&dialler, &pair(member(), authority.sign(hosts)).1, 2).await;
        assert!(matches!(dialled, Err(HandshakeError::Encryption(_))), "{dialled:?}");
    }
    // The certificate alone.
    let stranger = encrypted_member(1, "a", "t", Some(member()));
    let (dialled, accepted) = meet(&stranger, &acceptor, 2).await;
    assert_eq!(dialled, Err(HandshakeError::Secret));
    assert!(matches!(accepted, Err(HandshakeError::Broken(_))), "{accepted:?}");
    let stranger = encrypted_member(2, "a", "t", Some(member()));
    let (dialled, _) = meet(&dialler, &stranger, 2).await;
    assert_eq!(dialled, Err(HandshakeError::Secret));
    // In the clear.
    let plain = encrypted_member(1, "a", "s", None);
    let (_, accepted) = meet(&plain, &acceptor, 2).await;
    assert!(matches!(accepted, Err(HandshakeError::Encryption(_))), "{accepted:?}");
}

#[tokio::test]
async fn who_relays_between_two_members_has_no_link() {
    let authority = Authority::new();
    let member = || authority.sign(&[HOST]);
    let (dialler, acceptor) = pair(member(), member());
    let (front, back) = (listen().await, listen().await);
    let (front_address, back_address) = (front.local_addr().unwrap(), back.local_addr().unwrap());
    let relay = tokio::spawn(async move {
        let tls = authority.sign(&[HOST]);
        let turn = Turn { handshakes: &Handshakes::new(), attendance: &() };
        let (stream, _) = front.accept().await.unwrap();
        let session = TlsSession::accept(&stream, tls.serving.get(), turn).await.unwrap();
        let one = Socket::encrypted(stream, session);
        let stream = TcpStream::connect(back_address).await.unwrap();
        let session = TlsSession::dial(&stream, tls.dialling.get(), HOST, turn).await.unwrap();
        let other = Socket::encrypted(stream, session);
        // Whichever way ends first.
        tokio::select! {
            _ = forward(&one, &other) => {}
            _ = forward(&other, &one) => {}
        }
    });
    let dial = async {
        let stream = TcpStream::connect(front_address).await.unwrap();
        dialler.dial((stream, HOST), ServerId::new(2).unwrap()).await.map(|_| ())
    };
    let accept = async {
        let (stream, _) = back.accept().await.unwrap();
        acceptor.accept(stream, &()).await.map(|link| link.peer)
    };
    let met = timeout(SOON, async { tokio::join!(dial, accept) }).await.expect("in time");
    // The proof came from who knows the secret, but not through this session.
    assert_eq!(met.0, Err(HandshakeError::Secret));
    assert!(met.1.is_err());
    timeout(SOON, relay).await.expect("in time").unwrap();
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn forward(from: &Socket, to: &Socket) -> io::Result<()> {
    loop {
        let mut buffer = BytesMut::new();
        from.read_until(&mut buffer, 1).await?;
        to.write_all(buffer.freeze()).await?;
    }
}
