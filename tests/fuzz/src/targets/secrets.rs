//! Files of keys, certificates and passwords.

use std::fmt::Write;

use coordinator::sasl_user_names;
use coordinator_tls::pem;

use crate::budget::{Budget, within};
use crate::target::Target;

/// A certificate is decoded from its base64 and once more copied; a list of them grows by doubling.
const PEM: Budget = Budget { fixed: 64 << 10, per_byte: 64 };
/// For each user a name, twelve bytes of a digest and a place in a map.
const USERS: Budget = Budget { fixed: 8 << 10, per_byte: 256 };
/// Of PEM's lines.
const LINE_CHARS: usize = 64;

pub const TARGETS: [Target; 2] = [
    Target {
        name: "pem-file",
        what: "a file of a key, of certificates, or of both",
        run: pem_file,
        seeds: pem_files,
    },
    Target {
        name: "sasl-users",
        what: "a file of users and their passwords",
        run: users,
        seeds: users_files,
    },
];

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        let word = word << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[word >> (18 - 6 * place) & 63];
            text.push(if place > three.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

fn part(label: &str, bytes: &[u8]) -> String {
    let encoded = base64(bytes);
    let mut text = format!("-----BEGIN {label}-----\n");
    for at in (0..encoded.len()).step_by(LINE_CHARS) {
        let line = &encoded[at..encoded.len().min(at + LINE_CHARS)];
        writeln!(text, "{line}").expect("text takes all");
    }
    text + &format!("-----END {label}-----\n")
}

fn pem_files() -> Vec<Vec<u8>> {
    let (key, certificate) =
        (part("PRIVATE KEY", &[7; 100]), part("CERTIFICATE", &[48, 3, 2, 1, 9]));
    let words = "subject=CN = one\r\n";
    let texts = [
        format!("{words}{certificate}"),
        format!("{key}{certificate}{certificate}"),
        part("EC PRIVATE KEY", &[1; 48]),
        part("RSA PRIVATE KEY", &[]).replace('\n', "\r\n") + &certificate,
        format!("{}{certificate}", part("ENCRYPTED PRIVATE KEY", &[1; 49])),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}

/// What is found is no longer than what was there, and is found again when it is written anew.
fn pem_file(input: &[u8]) -> bool {
    // Most are no certificate, which is for the library to say.
    let _ = within(input.len(), PEM, || pem::authorities(input).map(|found| found.len()));
    let key = within(input.len(), PEM, || pem::private_key(input));
    let chain = within(input.len(), PEM, || pem::certificates(input));
    if let Ok(key) = &key {
        assert!(key.secret_der().len() <= input.len(), "longer than its file");
    }
    let Ok(chain) = chain else { return key.is_ok() };
    assert!(!chain.is_empty() && chain.len() <= pem::CERTIFICATES_MAX);
    assert!(
        chain.iter().map(|one| one.len()).sum::<usize>() <= input.len(),
        "longer than their file"
    );
    let written: String = chain.iter().map(|one| part("CERTIFICATE", one)).collect();
    assert_eq!(pem::certificates(written.as_bytes()), Ok(chain), "written anew it is another");
    true
}

fn users_files() -> Vec<Vec<u8>> {
    let texts = ["# people\nbob:secret\n\nalice:with:colon \n", "b\u{e9}:\u{20ac}\r\nc: \n"];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Each user has a line, and its name is not one that a line cannot have.
fn users(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let Some(names) = within(text.len(), USERS, || sasl_user_names(text)) else { return false };
    for name in &names {
        assert!(!name.is_empty() && name.trim() == name && !name.contains([':', '\n']), "{name:?}");
        let begins =
            |line: &str| line.split_once(':').is_some_and(|(begin, _)| begin.trim() == name);
        assert_eq!(text.lines().filter(|line| !line.starts_with('#') && begins(line)).count(), 1);
    }
    !names.is_empty()
}
