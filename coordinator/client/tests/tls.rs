//! The client against the real coordinator where that takes encrypted connections only, with certificates made for the test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use coordinator::config::{Config as Settings, Values};
use coordinator::embedded::Embedded;
use coordinator_client::protocol::{Acl, CreateMode, ErrorCode, Permissions};
use coordinator_client::{Client, Config, Error, Stream, Tls, TlsFailure, TlsFiles};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);
/// Larger than what a record of TLS, and a socket at once, takes.
const LARGE: usize = 1_000_000;

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
        params.distinguished_name.push(DnType::CommonName, "authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { folder, issuer }
    }

    fn trust(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Key and certificate of `CN=name`, for `host`, in one file.
    fn sign(&self, name: &str, host: &str) -> PathBuf {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = self.folder.path().join(format!("{name}.pem"));
        std::fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
        path
    }
}

/// A server that takes encrypted connections only, and only who shows a certificate.
fn serve(data: &Path, key_store: &Path, trust: &Path) -> Embedded {
    let mut values = Values::default();
    let text = |path: &Path| path.display().to_string();
    values.set("dataDir", &text(data));
    values.set("clientPort", "0");
    values.set("ssl.keyStore.location", &text(key_store));
    values.set("ssl.trustStore.location", &text(trust));
    Embedded::start_with(Settings::from_values(&values).unwrap()).unwrap()
}

fn tls(authorities: PathBuf, certificate: Option<PathBuf>) -> Tls {
    Tls::read(&TlsFiles { authorities, certificate, key: None }).unwrap()
}

fn config(address: &str, tls: Option<Tls>) -> Config {
    let mut config = Config::new(vec![address.to_owned()]);
    // A debug build beside others takes its time for a handshake.
    config.connect_timeout = Duration::from_secs(10);
    config.tls = tls;
    config.ends_on_tls_failure = true;
    config
}

/// What becomes of a call.
async fn try_once(config: Config) -> Result<(), Error> {
    let client = Client::open(config);
    let asked = timeout(SOON, client.get_data("/")).await.unwrap();
    client.close().await;
    asked.map(|_| ())
}

/// In what a call ends that waits but shortly: asked again while no server has said or done anything yet.
async fn ends_in(address: &str, tls: Option<Tls>) -> Error {
    let asked = async {
        loop {
            let mut config = config(address, tls.clone());
            config.queue_timeout = Duration::from_millis(300);
            match try_once(config).await {
                Err(Error::Unavailable) => {}
                ended => return ended.unwrap_err(),
            }
        }
    };
    timeout(SOON, asked).await.unwrap()
}

struct Setup {
    authority: Authority,
    _data: tempfile::TempDir,
    _server: Embedded,
    address: SocketAddr,
}

fn setup() -> Setup {
    let (authority, data) = (Authority::new(), tempfile::tempdir().unwrap());
    let own = authority.sign("server", "127.0.0.1");
    let server = serve(&data.path().join("data"), &own, &authority.trust());
    let address = server.client_address();
    Setup { authority, _data: data, _server: server, address }
}

#[tokio::test]
async fn encrypted_session_is_one_like_any_other_with_the_certificates_identity() {
    let setup = setup();
    let shown = setup.authority.sign("bob", "nowhere");
    let tls = tls(setup.authority.trust(), Some(shown));
    let client = Client::open(config(&setup.address.to_string(), Some(tls.clone())));
    let data = Bytes::from(vec![7; LARGE]);
    let made = client.create("/own", Some(data.clone()), CreateMode::Persistent);
    timeout(SOON, made).await.unwrap().unwrap();
    let (scheme, id) = ("x509".to_owned(), "CN=bob".to_owned());
    let acl = vec![Acl { permissions: Permissions::ALL, scheme, id }];
    client.set_acl("/own", acl, None).await.unwrap();
    let (found, _) = client.get_data("/own").await.unwrap();
    assert_eq!(found, Some(data));
    // Many at once, so that what is written waits for what is read.
    let many = (0..16).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.get_data("/own").await.map(|(data, _)| data) })
    });
    for one in many.collect::<Vec<_>>() {
        let found = timeout(SOON, one).await.unwrap().unwrap().unwrap();
        assert_eq!(found.map(|data| data.len()), Some(LARGE));
    }
    client.close().await;
    // Somebody else may not read it.
    let other = setup.authority.sign("eve", "nowhere");
    let other = self::tls(setup.authority.trust(), Some(other));
    let client = Client::open(config(&setup.address.to_string(), Some(other)));
    let refused = client.get_data("/own").await.unwrap_err();
    assert!(refused.is(ErrorCode::NoAuth), "{refused}");
    client.close().await;
    // The words of four letters are answered, too.
    let mut stream = Stream::connect(&setup.address.to_string(), Some(&tls)).await.unwrap();
    stream.write_all(b"srvr").await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains("Mode: standalone"), "{answer}");
}

#[tokio::test]
async fn who_cannot_be_spoken_to_encrypted_is_told_why() {
    let setup = setup();
    let near = setup.address.to_string();
    let by_name = format!("localhost:{}", setup.address.port());
    let shown = || Some(setup.authority.sign("bob", "nowhere"));
    let other = Authority::new();
    let check = async |address: &str, tls: Tls, expected: TlsFailure| {
        let ended = try_once(config(address, Some(tls))).await.unwrap_err();
        assert_eq!(ended, Error::Tls { address: address.to_owned(), why: expected });
    };
    check(&near, tls(other.trust(), shown()), TlsFailure::UnknownAuthority).await;
    let own = || setup.authority.trust();
    check(&by_name, tls(own(), shown()), TlsFailure::OtherHost("localhost".to_owned())).await;
    check(&near, tls(own(), None), TlsFailure::WantsCertificate).await;
    let strange = Some(other.sign("bob", "nowhere"));
    let refused = try_once(config(&near, Some(tls(own(), strange)))).await.unwrap_err();
    assert!(matches!(&refused, Error::Tls { why: TlsFailure::Refused(_), .. }), "{refused}");
    assert_eq!(try_once(config(&near, Some(tls(own(), shown())))).await, Ok(()));
    // Without encryption nobody gets in, and the server just hangs up.
    assert_eq!(
        ends_in(&near, None).await,
        Error::HungUp { address: near.clone(), is_encrypted: false }
    );
    // And a server that does not encrypt.
    let data = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let server = Embedded::start(data.path().join("data"), any).unwrap();
    let address = server.client_address().to_string();
    // It takes what begins TLS for a request that is too large: the next time it may have been another reason to hang up.
    let ended = ends_in(&address, Some(tls(own(), shown()))).await;
    assert_eq!(ended, Error::Tls { address: address.clone(), why: TlsFailure::HungUp });
    // Nor one that speaks first, and something else.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let speaks = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"220 welcome\r\n").await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    check(&address, tls(own(), shown()), TlsFailure::NotEncrypted).await;
    speaks.abort();
}
