//! Whom to trust and what to show, from PEM files.
//!
//! Called by: whoever makes a [`crate::Config`]. Calls: rustls, the file system.
//! Invariant: what is returned was checked whole: the key fits its certificate, the authorities can be used.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// Certificates that are read from one file.
const CERTIFICATES_MAX: usize = 1_000;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {why}", path.display())]
pub struct TlsFileError {
    /// Which one.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl TlsFileError {
    fn new(path: &Path, why: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), why: why.to_string() }
    }
}

/// Which files there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of authorities whose signature a server has to show.
    pub authorities: PathBuf,
    /// The certificate that this side shows, and the chain to its authority, if there is one. It is an identity of scheme x509.
    pub certificate: Option<PathBuf>,
    /// Its key, where that is not in the same file.
    pub key: Option<PathBuf>,
}

/// How connections to servers are encrypted.
#[derive(Clone)]
pub struct Tls {
    pub(super) config: Arc<ClientConfig>,
    /// Whether there is something to show.
    pub(super) has_certificate: bool,
}

/// Without what is secret.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("has_certificate", &self.has_certificate)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files, now and never again.
    ///
    /// # Errors
    /// [`TlsFileError`] with the file that is missing or does not hold what it should.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsFileError> {
        let trusted = &files.authorities;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsFileError::new(trusted, error))?
            .with_root_certificates(authorities(trusted)?);
        let config = match (&files.certificate, &files.key) {
            (None, None) => builder.with_no_client_auth(),
            (None, Some(key)) => {
                return Err(TlsFileError::new(key, "a key needs the certificate that it is for"));
            }
            (Some(certificate), key) => {
                let chain = certificates(certificate)?;
                let path = key.as_ref().unwrap_or(certificate);
                let key = PrivateKeyDer::from_pem_file(path)
                    .map_err(|error| TlsFileError::new(path, format!("no key: {error}")))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| TlsFileError::new(certificate, error))?
            }
        };
        Ok(Self { config: Arc::new(config), has_certificate: files.certificate.is_some() })
    }
}

/// Named here and not installed for the whole process: there is no global state.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsFileError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| TlsFileError::new(path, error))?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let wrong = |why: String| TlsFileError::new(path, why);
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let found: Result<Vec<_>, _> = found.take(CERTIFICATES_MAX + 1).collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    match found.len() {
        0 => Err(wrong("it holds no certificate in PEM form".to_owned())),
        count if count > CERTIFICATES_MAX => {
            Err(wrong(format!("it holds more than {CERTIFICATES_MAX} certificates")))
        }
        _ => Ok(found),
    }
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
        std::fs::write(path("ca.pem"), &certificate).unwrap();
        std::fs::write(path("both.pem"), key.serialize_pem() + &certificate).unwrap();
        std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(path("other.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        std::fs::write(path("empty.pem"), "").unwrap();
        std::fs::write(path("many.pem"), certificate.repeat(CERTIFICATES_MAX + 1)).unwrap();
        let read = |authorities: &str, certificate: Option<&str>, key: Option<&str>| {
            let files = TlsFiles {
                authorities: path(authorities),
                certificate: certificate.map(path),
                key: key.map(path),
            };
            Tls::read(&files).map(|tls| tls.has_certificate).map_err(|error| error.path)
        };
        assert_eq!(read("ca.pem", None, None), Ok(false));
        assert_eq!(read("ca.pem", Some("both.pem"), None), Ok(true));
        assert_eq!(read("ca.pem", Some("ca.pem"), Some("key.pem")), Ok(true));
        for (authorities, certificate, key, wrong) in [
            ("none.pem", None, None, "none.pem"),
            ("empty.pem", None, None, "empty.pem"),
            ("many.pem", None, None, "many.pem"),
            ("ca.pem", Some("ca.pem"), None, "ca.pem"),
            ("ca.pem", None, Some("key.pem"), "key.pem"),
            ("ca.pem", Some("both.pem"), Some("ca.pem"), "ca.pem"),
            ("ca.pem", Some("both.pem"), Some("other.pem"), "both.pem"),
        ] {
            assert_eq!(read(authorities, certificate, key), Err(path(wrong)));
        }
    }
}
