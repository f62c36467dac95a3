//! What a PEM file holds.
//!
//! Called by: whoever has settings that name files. Calls: `pem`, the file system.
//! Invariant: every error names its file.
//! Does not know: what a key is for.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use crate::pem;

/// A file may be no longer: twice a thousand certificates of eight kilobytes each.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {why}", path.display())]
pub struct FileError {
    /// Which one.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl FileError {
    /// `why` is wrong with the file at `path`.
    pub fn new(path: &Path, why: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), why: why.to_string() }
    }
}

/// What somebody shows, and proves to be theirs.
pub struct Identity {
    /// A certificate, and those between it and its authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The certificate's key.
    pub key: PrivateKeyDer<'static>,
}

/// Without what is secret.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// The chain in the file `certificate`, and its key, in the same file unless `key` names another.
///
/// # Errors
/// [`FileError`] with the file that is missing or does not hold what it should.
pub fn identity(certificate: &Path, key: Option<&Path>) -> Result<Identity, FileError> {
    let bytes = read(certificate)?;
    let key = match key {
        None => pem::private_key(&bytes).map_err(|why| FileError::new(certificate, why))?,
        Some(path) => pem::private_key(&read(path)?).map_err(|why| FileError::new(path, why))?,
    };
    let chain = pem::certificates(&bytes).map_err(|why| FileError::new(certificate, why))?;
    Ok(Identity { chain, key })
}

/// The authorities in a file.
///
/// # Errors
/// As [`identity`].
pub fn authorities(path: &Path) -> Result<Arc<RootCertStore>, FileError> {
    let found = pem::authorities(&read(path)?);
    found.map(Arc::new).map_err(|why| FileError::new(path, why))
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| FileError::new(path, error))?;
    let outcome = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    outcome.map_err(|error| FileError::new(path, error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let why =
            format!("it has more than {FILE_BYTES_MAX} bytes, and is no file of certificates");
        return Err(FileError::new(path, why));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let written = |bytes: u64| {
            // Without blocks of its own: it is only as long.
            File::create(&path).unwrap().set_len(bytes).unwrap();
            read(&path).map(|read| read.len() as u64)
        };
        assert_eq!(written(FILE_BYTES_MAX), Ok(FILE_BYTES_MAX));
        let refused = written(FILE_BYTES_MAX + 1).unwrap_err();
        assert!(refused.to_string().contains("more than 16777216 bytes"), "{refused}");
        assert_eq!(refused.path, path);
        let missing = authorities(&folder.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("No such file"), "{missing}");
    }

    #[test]
    fn key_may_be_in_a_file_of_its_own_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        std::fs::write(path("ca.pem"), &certificate).unwrap();
        std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        let found = identity(&path("ca.pem"), Some(&path("key.pem"))).unwrap();
        assert_eq!(
            (found.chain.len(), format!("{found:?}")),
            (1, "Identity { chain: 1, .. }".into())
        );
        let wrong = |certificate: &str, key: Option<&str>| {
            let key = key.map(path);
            identity(&path(certificate), key.as_deref()).unwrap_err().path
        };
        assert_eq!(wrong("ca.pem", None), path("ca.pem"));
        assert_eq!(wrong("ca.pem", Some("ca.pem")), path("ca.pem"));
        assert_eq!(wrong("key.pem", Some("key.pem")), path("key.pem"));
        assert_eq!(wrong("ca.pem", Some("none.pem")), path("none.pem"));
    }
}
