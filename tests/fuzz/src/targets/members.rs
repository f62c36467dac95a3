//! What members of an ensemble tell one another, and texts that people and clients write.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use coordinator::config::{Config, Values};
use coordinator::{certificate_subject, http_request, rewritten_handshake};
use coordinator_core::ServerId;
use coordinator_core::digest_md5::{self, Failure, Secret};
use coordinator_core::members::{Member, parse_line, to_text};
use coordinator_core::server::rewritten_message;

use crate::budget::{Budget, within};
use crate::lone_server::messages_of_a_start;
use crate::parts::{opened, sealed};
use crate::seeds::unhex;
use crate::target::Target;

/// The envelope's own bounds.
const ENVELOPE: Budget = Budget { fixed: 4 << 20, per_byte: 512 };
const TEXT: Budget = Budget { fixed: 8 << 10, per_byte: 64 };
/// TOML's tables and error texts, and all settings with their defaults.
const SETTINGS: Budget = Budget { fixed: 256 << 10, per_byte: 2 << 10 };
const NONCE: &str = "OA6MG9tEQGm2hh";
/// Settings that look at files or ask for names, which a fuzzed text shall not.
const OUTWARD: [&str; 5] = ["server", "sasl", "ssl", "Address", "Location"];

pub const TARGETS: [Target; 7] = [
    Target {
        name: "member-message",
        what: "a message between members: two bytes for its kind and version, and what is in its envelope",
        run: message,
        seeds: messages,
    },
    Target {
        name: "member-handshake",
        what: "a message of the handshake between members, likewise",
        run: handshake,
        seeds: handshakes,
    },
    Target {
        name: "member-text",
        what: "how servers of an ensemble are written, a line for each",
        run: member_text,
        seeds: member_texts,
    },
    Target { name: "settings", what: "a file of settings", run: settings, seeds: settings_texts },
    Target {
        name: "digest-md5",
        what: "the answer to SASL's challenge",
        run: digest,
        seeds: digests,
    },
    Target {
        name: "http-head",
        what: "the head of a probe's or an operator's HTTP request",
        run: http,
        seeds: http_heads,
    },
    Target {
        name: "certificate-subject",
        what: "a certificate's subject",
        run: subject,
        seeds: certificates,
    },
];

/// Of the envelopes in `coordinator-core` and in the shell.
const MESSAGE_KINDS: [u16; 3] = [0x04, 0x05, 0x06];
const HANDSHAKE_KINDS: [u16; 3] = [0x0201, 0x0202, 0x0203];

/// The first byte chooses the kind, the second is the version.
fn enveloped(kinds: &[u16], input: &[u8]) -> Vec<u8> {
    let (kind, rest) = input.split_first().unwrap_or((&0, &[]));
    sealed(kinds[usize::from(*kind) % kinds.len()], rest)
}

fn unenveloped(kinds: &[u16], envelope: &[u8]) -> Vec<u8> {
    let kind = u16::from_le_bytes([envelope[4], envelope[5]]);
    let at = kinds.iter().position(|known| *known == kind).expect("a kind of these");
    [vec![u8::try_from(at).expect("few kinds")], opened(envelope)].concat()
}

fn messages() -> Vec<Vec<u8>> {
    static MESSAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let real = messages_of_a_start().into_iter();
        let mut all: Vec<Vec<u8>> =
            real.map(|message| unenveloped(&MESSAGE_KINDS, &message)).collect();
        all.sort();
        all.dedup();
        all.truncate(60);
        // As the core's golden test has them: commands, who was heard from, who was lost, a hand-over, members, room.
        let session = [0xfb, 0x04, 0x02];
        all.push([&[0, 2, 1, 1, 3][..], &session, &[7]].concat());
        all.push([&[0, 2, 2, 1][..], &session, &[9]].concat());
        all.push([&[0, 2, 3, 1][..], &session, &[1]].concat());
        all.extend([
            vec![0, 2, 4],
            vec![0, 3, 5, 1, 3],
            vec![0, 4, 6, 9, 1, 1, 1, b'a', 1, 2, 0, 0],
        ]);
        all.push(vec![1, 2, 3, 1, 0]);
        all.push(vec![2, 1, 0xfb, 0, 4]);
        all
    });
    MESSAGES.clone()
}

fn again(bytes: &[u8], rewritten: fn(&[u8]) -> Option<Vec<u8>>) -> bool {
    let Some(once) = within(bytes.len(), ENVELOPE, || rewritten(bytes)) else { return false };
    assert_eq!(rewritten(&once).as_ref(), Some(&once), "what it writes it does not read");
    true
}

fn message(input: &[u8]) -> bool {
    let _ = within(input.len(), ENVELOPE, || rewritten_message(input));
    again(&enveloped(&MESSAGE_KINDS, input), rewritten_message)
}

fn handshakes() -> Vec<Vec<u8>> {
    let hello = [&[0, 1, 1, 4][..], b"fuzz", &[1, 2], &[7; 16]].concat();
    let challenge = [&[1, 1][..], &[7; 16], &[9; 32]].concat();
    let proof = [&[2, 1][..], &[9; 32]].concat();
    vec![hello, challenge, proof]
}

fn handshake(input: &[u8]) -> bool {
    let _ = within(input.len(), ENVELOPE, || rewritten_handshake(input));
    again(&enveloped(&HANDSHAKE_KINDS, input), rewritten_handshake)
}

fn member_texts() -> Vec<Vec<u8>> {
    let texts = [
        "server.1=a.example:2888:3888:participant;0.0.0.0:2181",
        "server.2=[::1]:2888:observer;2181\nserver.3=10.0.0.1:2888",
        "server.254=host:1:2\nversion=100000000",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

fn member_text(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let _ = within(text.len(), TEXT, || Member::parse(text));
    let lines = || text.lines().filter_map(parse_line).collect::<BTreeMap<u64, Member>>();
    let members = within(text.len(), TEXT, lines);
    let taken = !members.is_empty();
    for (id, member) in members {
        let again = Member::parse(&member.to_string());
        assert_eq!(again.as_ref(), Some(&member), "{member} is read as another");
        let Some(server) = ServerId::new(id) else { continue };
        let whole = to_text(&[(server, member.clone())].into(), 9);
        let line = whole.lines().next().expect("a line for each");
        assert_eq!(parse_line(line), Some((id, member)));
    }
    taken
}

fn settings_texts() -> Vec<Vec<u8>> {
    let texts = [
        "id = 2\npeerSecret = 's'\ntickTime = 100\nmaxClientCnxns = 3\nreadonlymode.enabled = true\n",
        "dataDir = '/data'\nclientPort = 0\nhttpPort = 9\n[audit]\nenable = true\nfilesMax = 3\n",
        "minSessionTimeout = 9\nmaxSessionTimeout = 8\nskipACL = 'yes'\nelectionTimeout = 1000\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

fn settings(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let read = || {
        let mut values = Values::default();
        values.add_toml(text).ok()?;
        let _ = values.add_assignment(text);
        // It shows names alone.
        let names = format!("{values:?}");
        if OUTWARD.iter().any(|name| names.contains(name)) {
            return None;
        }
        values.set("clientPortAddress", "127.0.0.1");
        Config::from_values(&values).ok()
    };
    let Some(config) = within(text.len(), SETTINGS, read) else { return false };
    assert!(config.client_address.ip().is_loopback());
    config.core.validate().expect("settings that were checked");
    true
}

fn digests() -> Vec<Vec<u8>> {
    let answer = "charset=utf-8,username=\"bob\",realm=\"zk-sasl-md5\",nonce=\"OA6MG9tEQGm2hh\",nc=00000001,\
                  cnonce=\"OA6MHXh6VqTrRk\",digest-uri=\"zookeeper/zk-sasl-md5\",maxbuf=65536,\
                  response=d388dad90d4bbd760a152321f2143af7,qop=auth,authzid=\"b\\\"ob\"";
    vec![answer.as_bytes().to_vec()]
}

fn digest(input: &[u8]) -> bool {
    static USERS: LazyLock<BTreeMap<String, Secret>> =
        LazyLock::new(|| [("bob".to_owned(), Secret::new("bob", "builder"))].into());
    let outcome = within(input.len(), TEXT, || digest_md5::verify(&USERS, NONCE, input));
    if let Ok((user, _)) = &outcome {
        assert_eq!(user, "bob");
    }
    // One that proves nothing was read all the same.
    outcome != Err(Failure::Malformed)
}

fn http_heads() -> Vec<Vec<u8>> {
    let heads = [
        "GET /metrics?a=b HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: x\r\n\r\n",
        "POST /snapshot HTTP/1.1\r\nhost: [::1]:8080\r\nSec-Fetch-Site: none\r\n\r\n",
        "GET /commands/stat HTTP/1.1\r\nHost: localhost\r\nOrigin: http://example.org\r\n\r\n",
    ];
    heads.map(|head| head.as_bytes().to_vec()).to_vec()
}

/// A page never comes through for a command, however it is spelled.
fn http(input: &[u8]) -> bool {
    let (method, path, is_of_page) = within(input.len(), TEXT, || http_request(input));
    let is_one_word = |text: &str| !text.contains(|letter: char| letter.is_ascii_whitespace());
    assert!(is_one_word(&method) && is_one_word(&path) && !path.contains('?'));
    let tells = |line: &[u8]| {
        let line = line.to_ascii_lowercase();
        line.starts_with(b"origin:") || line.starts_with(b"referer:")
    };
    assert!(is_of_page || !input.split(|byte| *byte == b'\n').skip(1).any(tells));
    !path.is_empty()
}

/// The names of one, in a certificate that has nothing else.
fn certificates() -> Vec<Vec<u8>> {
    let element = |tag: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).expect("short");
        let head = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
        [head, content.to_vec()].concat()
    };
    let attribute = |id: &str, tag: u8, text: &[u8]| {
        let pair = [element(0x06, &unhex(id)), element(tag, text)].concat();
        element(0x31, &element(0x30, &pair))
    };
    let names = [
        attribute("550406", 0x13, b"NL"),
        attribute("55040a", 0x0c, b"Acme, Inc."),
        attribute("550403", 0x0c, "#bob \u{e9}".as_bytes()),
        attribute("2a864886f70d010901", 0x16, b"b@c"),
    ]
    .concat();
    let empty = element(0x30, &[]);
    let body = [
        element(0xa0, &element(0x02, &[2])),
        element(0x02, &[1]),
        empty.clone(),
        empty.clone(),
        empty,
        element(0x30, &names),
    ]
    .concat();
    vec![element(0x30, &element(0x30, &body))]
}

fn subject(input: &[u8]) -> bool {
    let budget = Budget { fixed: 8 << 10, per_byte: 128 };
    let Some(text) = within(input.len(), budget, || certificate_subject(input)) else {
        return false;
    };
    assert!(!text.is_empty(), "nobody is named");
    true
}
