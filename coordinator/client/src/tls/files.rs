//! Whom to trust and what to show, from PEM files.
//!
//! Called by: whoever makes a [`crate::Config`]. Calls: `coordinator_tls`, which reads files.
//! Invariant: what is returned was checked whole: the key fits its certificate, the authorities can be used.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use coordinator_tls::{FileError, authorities, identity, provider};
use rustls::ClientConfig;

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
    /// [`FileError`] with the file that is missing or does not hold what it should.
    pub fn read(files: &TlsFiles) -> Result<Self, FileError> {
        let trusted = &files.authorities;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| FileError::new(trusted, error))?
            .with_root_certificates(authorities(trusted)?);
        let config = match (&files.certificate, &files.key) {
            (None, None) => builder.with_no_client_auth(),
            (None, Some(key)) => {
                return Err(FileError::new(key, "a key needs the certificate that it is for"));
            }
            (Some(certificate), key) => {
                let own = identity(certificate, key.as_deref())?;
                builder
                    .with_client_auth_cert(own.chain, own.key)
                    .map_err(|error| FileError::new(certificate, error))?
            }
        };
        Ok(Self { config: Arc::new(config), has_certificate: files.certificate.is_some() })
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
        // How Java's key stores begin.
        std::fs::write(path("own.jks"), [0xfe, 0xed, 0xfe, 0xed]).unwrap();
        let read = |authorities: &str, certificate: Option<&str>, key: Option<&str>| {
            let files = TlsFiles {
                authorities: path(authorities),
                certificate: certificate.map(path),
                key: key.map(path),
            };
            Tls::read(&files).map(|tls| tls.has_certificate)
        };
        let told = read("ca.pem", Some("own.jks"), None).unwrap_err().to_string();
        assert!(
            told.contains("own.jks: this is a JKS store") && told.contains("keytool"),
            "{told}"
        );
        assert_eq!(read("ca.pem", None, None), Ok(false));
        assert_eq!(read("ca.pem", Some("both.pem"), None), Ok(true));
        assert_eq!(read("ca.pem", Some("ca.pem"), Some("key.pem")), Ok(true));
        for (authorities, certificate, key, wrong) in [
            ("none.pem", None, None, "none.pem"),
            ("empty.pem", None, None, "empty.pem"),
            ("own.jks", None, None, "own.jks"),
            ("ca.pem", Some("own.jks"), None, "own.jks"),
            ("ca.pem", Some("ca.pem"), None, "ca.pem"),
            ("ca.pem", None, Some("key.pem"), "key.pem"),
            ("ca.pem", Some("both.pem"), Some("ca.pem"), "ca.pem"),
            ("ca.pem", Some("both.pem"), Some("other.pem"), "both.pem"),
        ] {
            let error = read(authorities, certificate, key).unwrap_err();
            assert_eq!(error.path, path(wrong), "{error}");
        }
    }
}
