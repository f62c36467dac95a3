//! A private authority, and certificates that it signs.
//!
//! *Called by* `main`. *Calls* rcgen and the file system.
//!
//! Keys are readable by their owner only, and nothing that is there is ever replaced: a certificate that somebody uses
//! cannot be lost by a command that was given twice.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::args::CertsCommand;

const AUTHORITY: &str = "Tidegate authority";
const AUTHORITY_CERTIFICATE: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca-key.pem";
/// For which every certificate is good, beside the hosts that are named.
const OWN_HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

/// Does what was said, and tells what it wrote.
pub fn run(command: &CertsCommand) -> anyhow::Result<()> {
    let written = match command {
        CertsCommand::Init { dir } => init(dir)?,
        CertsCommand::Sign { name, hosts, dir } => vec![sign(dir, name, hosts)?],
    };
    for path in written {
        println!("{}", path.display());
    }
    Ok(())
}

/// Makes the authority.
fn init(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let authority = CertifiedIssuer::self_signed(authority()?, KeyPair::generate()?)?;
    let key = write(dir, AUTHORITY_KEY, &authority.key().serialize_pem(), 0o600)?;
    let certificate = write(dir, AUTHORITY_CERTIFICATE, &authority.pem(), 0o644)?;
    Ok(vec![key, certificate])
}

/// Key and certificate of `CN=name`, good for `hosts`, in one file.
fn sign(dir: &Path, name: &str, hosts: &[String]) -> anyhow::Result<PathBuf> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(plain) || name.starts_with('.') {
        bail!("{name:?} is no name: letters, digits, hyphens, underscores and dots");
    }
    if ["ca", "ca-key"].contains(&name) {
        bail!("{name} is the authority's own");
    }
    let path = dir.join(AUTHORITY_KEY);
    let key = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}; `certs init` makes it", path.display()))?;
    let key = KeyPair::from_pem(&key).with_context(|| format!("in {}", path.display()))?;
    let issuer = Issuer::new(authority()?, key);
    let all: Vec<String> =
        OWN_HOSTS.into_iter().map(str::to_owned).chain(hosts.iter().cloned()).collect();
    let mut params = CertificateParams::new(all)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    write(dir, &format!("{name}.pem"), &(key.serialize_pem() + &certificate.pem()), 0o600)
}

/// The same each time, so that its key alone is enough to sign with.
fn authority() -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn write(dir: &Path, name: &str, text: &str, mode: u32) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
    let mut file = made.with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn authority_is_made_once_and_signs_what_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("certs");
        assert!(sign(&dir, "bob", &[]).unwrap_err().to_string().contains("certs init"));
        let written = init(&dir).unwrap();
        let key = std::fs::read(&written[0]).unwrap();
        assert!(init(&dir).is_err(), "a second authority in the same place");
        assert_eq!(std::fs::read(&written[0]).unwrap(), key);
        let bob = sign(&dir, "bob", &["example.org".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        assert!(sign(&dir, "bob", &[]).is_err(), "the key of somebody who has one");
        let text = std::fs::read_to_string(&bob).unwrap();
        assert!(text.contains("PRIVATE KEY") && text.contains("BEGIN CERTIFICATE"));
        for (path, mode) in [(&bob, 0o600), (&written[0], 0o600), (&written[1], 0o644)] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
        for name in ["", "../bob", "ca", "ca-key", ".bob", "b/b"] {
            assert!(sign(&dir, name, &[]).is_err(), "{name:?}");
        }
    }
}
