//! Keys, certificates and whom to trust, from PEM files.
//!
//! Called by: `config`. Calls: rustls, the file system.
//! Invariant: what is returned was checked whole: the key fits its certificate, the authorities can be used.
//! Does not know: which socket it is for.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use coordinator_tls::{FileError, authorities, identity, provider};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use tracing::warn;

/// Of a file's mode.
const OTHERS_READ: u32 = 0o004;

/// Why files cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// That of the key and its certificates.
    #[error("{0}")]
    KeyStore(FileError),
    /// That of the authorities.
    #[error("{0}")]
    TrustStore(FileError),
    /// Certificates of clients are to be checked by nothing.
    #[error("certificates of clients need a trust store to be checked")]
    Unchecked,
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
    let wrong = |error| TlsError::KeyStore(FileError::new(key_store, error));
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(wrong)?;
    let own = identity(key_store, None).map_err(TlsError::KeyStore)?;
    // No error: some systems keep keys so on purpose, in a folder that is closed.
    if anybody_may_read(key_store) {
        let path = key_store.display();
        warn!(%path, "every user of this machine may read this key; chmod o= takes that back");
    }
    let builder = match (auth, trust_store) {
        (ClientAuth::None, _) => builder.with_no_client_auth(),
        (ClientAuth::Need | ClientAuth::Want, None) => {
            return Err(TlsError::Unchecked);
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
                built.map_err(|error| TlsError::TrustStore(FileError::new(path, error)))?,
            )
        }
    };
    let config = builder.with_single_cert(own.chain, own.key).map_err(wrong)?;
    Ok(Arc::new(config))
}

/// What a dialler needs who shows its own certificate.
///
/// # Errors
/// As [`serving`].
pub fn dialling(key_store: &Path, trust_store: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let wrong = |error| TlsError::KeyStore(FileError::new(key_store, error));
    let own = identity(key_store, None).map_err(TlsError::KeyStore)?;
    let trusted = authorities(trust_store).map_err(TlsError::TrustStore)?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_root_certificates(trusted)
        .with_client_auth_cert(own.chain, own.key)
        .map_err(wrong)?;
    Ok(Arc::new(config))
}

/// Whether the file's mode lets others than its owner and group read it.
fn anybody_may_read(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & OTHERS_READ != 0)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn each_file_has_to_hold_what_it_is_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        std::fs::write(path("own.pem"), key.serialize_pem() + &certificate).unwrap();
        std::fs::write(path("ca.pem"), &certificate).unwrap();
        std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(path("own.p12"), [0x30, 0x82, 0x0a, 0x11]).unwrap();
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
