//! Keys, certificates and whom to trust, from PEM files.
//!
//! Called by: `config`. Calls: rustls, the file system.
//! Invariant: what is returned was checked whole: the key fits its certificate, the authorities can be used.
//! Does not know: which socket it is for.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tracing::warn;

/// Certificates of one chain, or of trusted authorities, that are read from one file.
const CERTIFICATES_MAX: usize = 1_000;

/// Of a file's mode.
const OTHERS_READ: u32 = 0o004;

/// How Java's key stores begin.
const JKS: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
/// What PKCS12, and all else that is DER, begins with.
const DER: u8 = 0x30;

/// Why files cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// That of the key and its certificates.
    #[error("{0}")]
    KeyStore(String),
    /// That of the authorities.
    #[error("{0}")]
    TrustStore(String),
}

/// Whether those who connect have to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// They must.
    Need,
    /// They may; one that is shown must be good.
    Want,
    /// They are not asked.
    None,
}

/// What a listener needs: `key_store` holds its key and its chain, `trust_store` the authorities of clients.
///
/// # Errors
/// [`TlsError`] with the file that is missing or does not hold what it should.
pub fn serving(
    key_store: &Path,
    trust_store: Option<&Path>,
    auth: ClientAuth,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::KeyStore(error.to_string()))?;
    let (chain, key) = key_and_chain(key_store).map_err(TlsError::KeyStore)?;
    // No error: some systems keep keys so on purpose, in a folder that is closed.
    if anybody_may_read(key_store) {
        let path = key_store.display();
        warn!(%path, "every user of this machine may read this key; chmod o= takes that back");
    }
    let builder = match (auth, trust_store) {
        (ClientAuth::None, _) => builder.with_no_client_auth(),
        (ClientAuth::Need | ClientAuth::Want, None) => {
            return Err(TlsError::TrustStore(
                "certificates of clients need a trust store to be checked".into(),
            ));
        }
        (ClientAuth::Need | ClientAuth::Want, Some(path)) => {
            let trusted = authorities(path).map_err(TlsError::TrustStore)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(trusted, provider());
            let verifier = match auth {
                ClientAuth::Want => verifier.allow_unauthenticated(),
                ClientAuth::Need | ClientAuth::None => verifier,
            };
            let built = verifier.build();
            builder.with_client_cert_verifier(
                built.map_err(|error| TlsError::TrustStore(wrong(path, error)))?,
            )
        }
    };
    let config = builder
        .with_single_cert(chain, key)
        .map_err(|error| TlsError::KeyStore(wrong(key_store, error)))?;
    Ok(Arc::new(config))
}

/// What a dialler needs who shows its own certificate.
///
/// # Errors
/// As [`serving`].
pub fn dialling(key_store: &Path, trust_store: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let (chain, key) = key_and_chain(key_store).map_err(TlsError::KeyStore)?;
    let trusted = authorities(trust_store).map_err(TlsError::TrustStore)?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::KeyStore(error.to_string()))?
        .with_root_certificates(trusted)
        .with_client_auth_cert(chain, key)
        .map_err(|error| TlsError::KeyStore(wrong(key_store, error)))?;
    Ok(Arc::new(config))
}

/// Named here and not installed for the whole process: there is no global state.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn key_and_chain(
    path: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => wrong(path, no_pem(path, "private key", "PRIVATE KEY")),
        other => wrong(path, other),
    })?;
    Ok((certificates(path)?, key))
}

/// Whether the file's mode lets others than its owner and group read it.
fn anybody_may_read(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & OTHERS_READ != 0)
}

fn authorities(path: &Path) -> Result<Arc<RootCertStore>, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| wrong(path, error))?;
    }
    Ok(Arc::new(store))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, error))?;
    let found: Result<Vec<_>, _> = found.take(CERTIFICATES_MAX + 1).collect();
    let found = found.map_err(|error| wrong(path, error))?;
    if found.len() > CERTIFICATES_MAX {
        return Err(wrong(path, format!("it holds more than {CERTIFICATES_MAX} certificates")));
    }
    if found.is_empty() {
        return Err(wrong(path, no_pem(path, "certificate", "CERTIFICATE")));
    }
    Ok(found)
}

/// What is said of a file in which `what` is not found: others' formats are told by how they begin.
fn no_pem(path: &Path, what: &str, label: &str) -> String {
    let mut begin = [0; JKS.len()];
    // One that is shorter is neither.
    let _ = File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    let convert = "`openssl pkcs12 -in STORE.p12 -nodes -out STORE.pem` makes PEM of it";
    match begin {
        JKS => format!(
            "this is a JKS store, and a PEM file is needed: `keytool -importkeystore -srckeystore STORE.jks -destkeystore STORE.p12 \
             -deststoretype pkcs12`, and {convert}"
        ),
        [DER, ..] => {
            format!("this is a PKCS12 store or other DER, and a PEM file is needed: {convert}")
        }
        _ => format!(
            "it holds no {what} in PEM form: -----BEGIN {label}-----{}",
            if what == "certificate" {
                ""
            } else {
                ", beside its certificate and not encrypted (`openssl pkey` takes a password off)"
            }
        ),
    }
}

fn wrong(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn file_holds_certificates_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let one = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let count = |count: usize| {
            std::fs::write(&path, one.repeat(count)).unwrap();
            authorities(&path).map(|store| store.len())
        };
        assert!(count(0).unwrap_err().to_string().contains("holds no certificate"));
        assert_eq!(count(CERTIFICATES_MAX), Ok(CERTIFICATES_MAX));
        let refused = count(CERTIFICATES_MAX + 1).unwrap_err().to_string();
        assert!(refused.contains("more than 1000 certificates"), "{refused}");
    }

    #[test]
    fn file_of_another_kind_is_told_with_what_was_expected() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        std::fs::write(path("own.pem"), key.serialize_pem() + &certificate).unwrap();
        std::fs::write(path("ca.pem"), &certificate).unwrap();
        std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(path("own.p12"), [&[DER, 0x82, 0x0a, 0x11][..], &[0xfe; 99]].concat())
            .unwrap();
        std::fs::write(path("own.jks"), [&JKS[..], &[0; 99]].concat()).unwrap();
        let serve = |own: &str, trusted: &str| {
            serving(&path(own), Some(&path(trusted)), ClientAuth::Need).map(|_| ()).unwrap_err()
        };
        let check = |error: TlsError, is_trust: bool, words: &[&str]| {
            assert_eq!(matches!(error, TlsError::TrustStore(_)), is_trust, "{error}");
            for word in words {
                assert!(error.to_string().contains(word), "{error}");
            }
        };
        check(serve("own.pem", "key.pem"), true, &["key.pem", "no certificate"]);
        check(serve("ca.pem", "ca.pem"), false, &["ca.pem", "BEGIN PRIVATE KEY"]);
        check(serve("key.pem", "ca.pem"), false, &["key.pem", "no certificate"]);
        check(serve("own.p12", "ca.pem"), false, &["PKCS12", "openssl pkcs12"]);
        check(serve("own.jks", "ca.pem"), false, &["JKS", "keytool", "openssl pkcs12"]);
        check(serve("own.pem", "own.p12"), true, &["openssl pkcs12"]);
        let dialled = dialling(&path("own.pem"), &path("key.pem")).map(|_| ()).unwrap_err();
        check(dialled, true, &["no certificate"]);
    }

    #[test]
    fn key_that_anybody_may_read_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.pem");
        std::fs::write(&path, "").unwrap();
        for (mode, expected) in [(0o600, false), (0o640, false), (0o604, true), (0o644, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(anybody_may_read(&path), expected, "{mode:o}");
        }
        assert!(!anybody_may_read(&folder.path().join("none")));
    }
}
