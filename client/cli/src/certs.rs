//! A private authority, and certificates that it signs.
//!
//! *Called by* `main`. *Calls* rcgen, rustls and the file system.
//!
//! Keys are readable by their owner only, and nothing that is there is ever replaced: a certificate that somebody uses
//! cannot be lost by a command that was given twice.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use crate::args::{CertsCommand, Format};
use crate::output::{print_json, print_line};

const AUTHORITY: &str = "Tidegate authority";
const AUTHORITY_CERTIFICATE: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca-key.pem";
const HOUR: Duration = Duration::from_secs(3600);
/// For which a server's certificate is good when no host is named.
const OWN_HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

/// Does what was said, and tells what it wrote.
pub fn run(command: &CertsCommand, format: Format) -> anyhow::Result<()> {
    let written = match command {
        CertsCommand::Init { days, dir } => init(dir, *days)?,
        CertsCommand::Sign { name, hosts, client, days, dir } => {
            let purpose = if *client { Purpose::Client } else { Purpose::Server { hosts } };
            vec![sign(dir, name, purpose, *days)?]
        }
    };
    match format {
        Format::Json => print_json(&json!({ "written": written }))?,
        Format::Table => {
            for path in written {
                print_line(&path.display().to_string())?;
            }
        }
    }
    Ok(())
}

/// Makes the authority: both of its files, or none.
fn init(dir: &Path, days: u32) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for name in [AUTHORITY_KEY, AUTHORITY_CERTIFICATE] {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok() {
            bail!(
                "{} is there: what it has signed would not be good beside another",
                path.display()
            );
        }
    }
    let mut params = authority()?;
    limit(&mut params, days)?;
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = write(dir, AUTHORITY_KEY, &authority.key().serialize_pem(), 0o600)?;
    match write(dir, AUTHORITY_CERTIFICATE, &authority.pem(), 0o644) {
        Ok(certificate) => Ok(vec![key, certificate]),
        Err(error) => {
            // Made a moment ago, and nobody has used it: the error is what has to be told.
            let _ = std::fs::remove_file(&key);
            Err(error)
        }
    }
}

/// What a certificate is good for.
#[derive(Clone, Copy)]
enum Purpose<'a> {
    /// To serve at these hosts, at this one without any; and to dial other servers.
    Server {
        /// Names and addresses.
        hosts: &'a [String],
    },
    /// To dial servers.
    Client,
}

impl Purpose<'_> {
    fn hosts(self) -> Vec<String> {
        match self {
            Purpose::Server { hosts: [] } => OWN_HOSTS.map(str::to_owned).to_vec(),
            Purpose::Server { hosts } => hosts.to_vec(),
            Purpose::Client => Vec::new(),
        }
    }

    fn usages(self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Purpose::Server { .. } => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        }
    }
}

/// Key and certificate of `CN=name` in one file.
fn sign(dir: &Path, name: &str, purpose: Purpose<'_>, days: u32) -> anyhow::Result<PathBuf> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(plain) || name.starts_with('.') {
        bail!("{name:?} is no name: letters, digits, hyphens, underscores and dots");
    }
    if ["ca", "ca-key"].contains(&name) {
        bail!("{name} is the authority's own");
    }
    let own = dir.join(format!("{name}.pem"));
    if own.symlink_metadata().is_ok() {
        bail!(
            "{} is there and is not replaced. To renew it, move it elsewhere and sign again with the same name; servers read \
             their files at their start, and the old one is good until its days are over",
            own.display()
        );
    }
    let path = dir.join(AUTHORITY_KEY);
    let key = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}; `certs init` makes it", path.display()))?;
    let key = KeyPair::from_pem(&key).with_context(|| format!("in {}", path.display()))?;
    check_authority(dir, &key)?;
    let issuer = Issuer::new(authority()?, key);
    let mut params = CertificateParams::new(purpose.hosts())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = purpose.usages();
    params.use_authority_key_identifier_extension = true;
    limit(&mut params, days)?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    write(dir, &format!("{name}.pem"), &(key.serialize_pem() + &certificate.pem()), 0o600)
}

/// Has it good from now on for so many days, of which the first hour is over: clocks differ.
fn limit(params: &mut CertificateParams, days: u32) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(HOUR);
    params.not_after = params.not_before + 24 * HOUR * days;
    Ok(())
}

/// The same each time but for its days, so that its key is enough to sign with.
fn authority() -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Whether `key` is that of the authority whom everybody trusts: what another key signs is good nowhere.
fn check_authority(dir: &Path, key: &KeyPair) -> anyhow::Result<()> {
    let path = dir.join(AUTHORITY_CERTIFICATE);
    let certificate = CertificateDer::from_pem_file(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let mut store = RootCertStore::empty();
    store.add(certificate).with_context(|| format!("in {}", path.display()))?;
    let own = key.subject_public_key_info();
    // Without the head, of 2 to 4 bytes.
    let is_same = |trusted: &[u8]| own.ends_with(trusted) && own.len() <= trusted.len() + 4;
    if !store.roots.iter().any(|root| is_same(&root.subject_public_key_info)) {
        bail!("{AUTHORITY_KEY} is not the key of {}: it is another authority's", path.display());
    }
    Ok(())
}

/// Makes a file that is there whole or not at all.
fn write(dir: &Path, name: &str, text: &str, mode: u32) -> anyhow::Result<PathBuf> {
    let (path, begun) = (dir.join(name), dir.join(format!(".{name}.{}", std::process::id())));
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(&begun);
    let mut file = made.with_context(|| format!("cannot make {}", begun.display()))?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", begun.display()))
        // A link, unlike a rename, replaces nothing.
        .and_then(|()| {
            std::fs::hard_link(&begun, &path)
                .with_context(|| format!("cannot make {}", path.display()))
        });
    // Its other name is all that is wanted, if there is one.
    let _ = std::fs::remove_file(&begun);
    written?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("cannot write {}", dir.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::crypto::ring;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::server::WebPkiClientVerifier;

    use super::*;

    const SERVER: Purpose<'_> = Purpose::Server { hosts: &[] };
    const DAYS: u32 = 30;

    #[test]
    fn authority_is_made_once_and_signs_what_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("certs");
        assert!(sign(&dir, "bob", SERVER, DAYS).unwrap_err().to_string().contains("certs init"));
        let written = init(&dir, DAYS).unwrap();
        let key = std::fs::read(&written[0]).unwrap();
        assert!(init(&dir, DAYS).is_err(), "a second authority in the same place");
        assert_eq!(std::fs::read(&written[0]).unwrap(), key);
        let bob = sign(&dir, "bob", SERVER, DAYS).unwrap();
        let again = sign(&dir, "bob", SERVER, DAYS).unwrap_err().to_string();
        assert!(again.contains("bob.pem") && again.contains("To renew it"), "{again}");
        let text = std::fs::read_to_string(&bob).unwrap();
        assert!(text.contains("PRIVATE KEY") && text.contains("BEGIN CERTIFICATE"));
        for (path, mode) in [(&bob, 0o600), (&written[0], 0o600), (&written[1], 0o644)] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
        for name in ["", "../bob", "ca", "ca-key", ".bob", "b/b"] {
            assert!(sign(&dir, name, SERVER, DAYS).is_err(), "{name:?}");
        }
    }

    /// The names in `dir`, in order.
    fn names(dir: &Path) -> Vec<String> {
        let found = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn authority_is_there_whole_or_not_at_all() {
        for lone in [AUTHORITY_CERTIFICATE, AUTHORITY_KEY] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(lone), "what was there").unwrap();
            assert!(init(folder.path(), DAYS).is_err());
            assert_eq!(names(folder.path()), [lone]);
        }
        let folder = tempfile::tempdir().unwrap();
        // A link to nothing is a name that cannot be had, too.
        std::os::unix::fs::symlink("nowhere", folder.path().join(AUTHORITY_CERTIFICATE)).unwrap();
        assert!(init(folder.path(), DAYS).is_err());
        assert_eq!(names(folder.path()), [AUTHORITY_CERTIFICATE]);
    }

    #[test]
    fn key_that_is_not_that_of_the_certificate_signs_nothing() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        init(one.path(), DAYS).unwrap();
        init(other.path(), DAYS).unwrap();
        let key = one.path().join(AUTHORITY_KEY);
        std::fs::copy(&key, other.path().join(AUTHORITY_KEY)).unwrap();
        let refused = sign(other.path(), "bob", SERVER, DAYS).unwrap_err().to_string();
        assert!(refused.contains("another authority's"), "{refused}");
        assert_eq!(names(other.path()), [AUTHORITY_KEY, AUTHORITY_CERTIFICATE]);
        sign(one.path(), "bob", SERVER, DAYS).unwrap();
        assert_eq!(names(one.path()), ["bob.pem", AUTHORITY_KEY, AUTHORITY_CERTIFICATE]);
    }

    /// Who takes the certificate in `path` some time from now: those who dial `hosts`, and servers for that of a client.
    fn takers(dir: &Path, path: &Path, hosts: &[&str], after: Duration) -> (Vec<bool>, bool) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let at = UnixTime::since_unix_epoch(now + after);
        let mut store = RootCertStore::empty();
        store.add(CertificateDer::from_pem_file(dir.join(AUTHORITY_CERTIFICATE)).unwrap()).unwrap();
        let (store, provider) = (Arc::new(store), Arc::new(ring::default_provider()));
        let certificate = CertificateDer::from_pem_file(path).unwrap();
        let dialler =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(&provider));
        let dialler = dialler.build().unwrap();
        let dials = |host: &&str| {
            let name = ServerName::try_from(*host).unwrap();
            dialler.verify_server_cert(&certificate, &[], &name, &[], at).is_ok()
        };
        let server = WebPkiClientVerifier::builder_with_provider(store, provider).build().unwrap();
        let serves = server.verify_client_cert(&certificate, &[], at).is_ok();
        (hosts.iter().map(dials).collect(), serves)
    }

    #[test]
    fn certificate_is_good_for_what_was_asked() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        init(dir, DAYS).unwrap();
        let hosts = ["example.org".to_owned(), "10.0.0.1".to_owned()];
        let tried = ["localhost", "127.0.0.1", "example.org", "10.0.0.1"];
        let check = |name: &str, purpose: Purpose<'_>, expected: [bool; 4]| {
            let path = sign(dir, name, purpose, DAYS).unwrap();
            assert_eq!(
                takers(dir, &path, &tried, Duration::ZERO),
                (expected.to_vec(), true),
                "{name}"
            );
        };
        check("here", SERVER, [true, true, false, false]);
        check("there", Purpose::Server { hosts: &hosts }, [false, false, true, true]);
        check("client", Purpose::Client, [false; 4]);
    }

    #[test]
    fn certificate_is_good_for_so_long() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        init(dir, DAYS).unwrap();
        let short = sign(dir, "short", SERVER, 1).unwrap();
        let long = sign(dir, "long", SERVER, 9).unwrap();
        // An hour is over, and a minute is for the test.
        let minute = Duration::from_secs(60);
        let check = |path: &Path, after: Duration, expected: bool| {
            assert_eq!(takers(dir, path, &["localhost"], after), (vec![expected], expected));
        };
        check(&short, 23 * HOUR - minute, true);
        check(&short, 23 * HOUR + minute, false);
        check(&long, (9 * 24 - 1) * HOUR - minute, true);
        check(&long, (9 * 24 - 1) * HOUR + minute, false);
    }
}
