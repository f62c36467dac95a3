//! What stands in the bytes of a PEM file.
//!
//! Called by: `files`, and who tests it with bytes of any kind. Calls: rustls.
//! Invariant: what is returned is as long as the bytes say at most; other formats are told by how they begin.
//! Does not know: files.

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Certificates of one chain, or of trusted authorities, that are read from one file.
pub const CERTIFICATES_MAX: usize = 1_000;

/// How Java's key stores begin.
const JKS: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
/// What PKCS12, and all else that is DER, begins with.
const DER: u8 = 0x30;
/// Of what follows BEGIN, in an error.
const LABEL_CHARS_MAX: usize = 40;

/// All certificates that stand in `bytes`, one at least.
///
/// # Errors
/// In words, where there are none, too many, or one that is cut off or no base64.
pub fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(bytes).take(CERTIFICATES_MAX + 1).collect();
    let found = found.map_err(told)?;
    match found.len() {
        0 => Err(none(bytes, "certificate", "CERTIFICATE", "")),
        count if count > CERTIFICATES_MAX => {
            Err(format!("it holds more than {CERTIFICATES_MAX} certificates"))
        }
        _ => Ok(found),
    }
}

/// The first key that stands in `bytes`; whether it fits a certificate is not looked at.
///
/// # Errors
/// In words, where there is none, or it is cut off or no base64.
pub fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            let beside = match contains(bytes, b"-----BEGIN CERTIFICATE-----") {
                true => ", beside its certificate and",
                false => ",",
            };
            let hint = format!("{beside} not encrypted (`openssl pkey` takes a password off)");
            none(bytes, "private key", "PRIVATE KEY", &hint)
        }
        other => told(other),
    })
}

/// Those of [`certificates`], to trust what they sign.
///
/// # Errors
/// As [`certificates`], and where one is no certificate.
pub fn authorities(bytes: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(bytes)? {
        store.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(store)
}

/// What is said of bytes in which `what` is not found.
fn none(bytes: &[u8], what: &str, label: &str, hint: &str) -> String {
    let convert = "`openssl pkcs12 -in STORE.p12 -nodes -out STORE.pem` makes PEM of it";
    if bytes.starts_with(&JKS) {
        return format!(
            "this is a JKS store, and a PEM file is needed: `keytool -importkeystore -srckeystore STORE.jks -destkeystore STORE.p12 \
             -deststoretype pkcs12`, and {convert}"
        );
    }
    if bytes.first() == Some(&DER) {
        return format!("this is a PKCS12 store or other DER, and a PEM file is needed: {convert}");
    }
    format!("it holds no {what} in PEM form: -----BEGIN {label}-----{hint}")
}

/// The library's own words show a label as numbers.
fn told(error: pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            let label = String::from_utf8_lossy(&end_marker);
            let label: String = label.chars().take(LABEL_CHARS_MAX).collect();
            format!("-----BEGIN {label}----- has no END: is the file cut off, or being written?")
        }
        pem::Error::IllegalSectionStart { .. } => {
            "a line begins with -----BEGIN and does not end with -----".to_owned()
        }
        pem::Error::Base64Decode(_) => {
            "what stands between a BEGIN and its END is no base64".to_owned()
        }
        other => other.to_string(),
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|found| found == part)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (key.serialize_pem(), params.self_signed(&key).unwrap().pem())
    }

    #[test]
    fn certificates_are_read_up_to_the_limit() {
        let (_, one) = pair();
        let count = |count: usize| authorities(one.repeat(count).as_bytes()).map(|all| all.len());
        assert!(count(0).unwrap_err().contains("holds no certificate"));
        assert_eq!(count(CERTIFICATES_MAX), Ok(CERTIFICATES_MAX));
        let refused = count(CERTIFICATES_MAX + 1).unwrap_err();
        assert!(refused.contains("more than 1000 certificates"), "{refused}");
    }

    #[test]
    fn bytes_of_another_kind_are_told_with_what_was_expected() {
        let (key, certificate) = pair();
        let p12 = [&[DER, 0x82, 0x0a, 0x11][..], &[0xfe; 99]].concat();
        let jks = [&JKS[..], &[0; 99]].concat();
        let check = |found: Result<(), String>, words: &[&str]| {
            let why = found.unwrap_err();
            assert!(words.iter().all(|word| why.contains(word)), "{why}");
        };
        let is_key = |bytes: &[u8]| private_key(bytes).map(|_| ());
        let is_chain = |bytes: &[u8]| certificates(bytes).map(|_| ());
        check(is_chain(key.as_bytes()), &["no certificate", "BEGIN CERTIFICATE"]);
        check(is_key(certificate.as_bytes()), &["beside its certificate", "BEGIN PRIVATE KEY"]);
        let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        check(is_key(encrypted.as_bytes()), &["KEY-----, not encrypted"]);
        for found in [is_key(&p12), is_chain(&p12)] {
            check(found, &["PKCS12", "openssl pkcs12"]);
        }
        for found in [is_key(&jks), is_chain(&jks)] {
            check(found, &["JKS", "keytool", "openssl pkcs12"]);
        }
        let cut = &certificate[..certificate.len() / 2];
        check(is_chain(cut.as_bytes()), &["BEGIN CERTIFICATE----- has no END", "cut off"]);
        let broken = certificate.replacen("CERTIFICATE-----\n", "CERTIFICATE-----\n!", 1);
        check(is_chain(broken.as_bytes()), &["no base64"]);
        check(is_chain(b"-----BEGIN CERT\n"), &["-----BEGIN and does not end with"]);
        let both = key + &certificate;
        assert!(is_key(both.as_bytes()).is_ok() && is_chain(both.as_bytes()).is_ok());
    }
}
