//! What is stored and what members send, changed under a sound checksum: refused or sound, and never a panic.
//!
//! A checksum says that bytes are as somebody wrote them, not that it was this program, in this version, and in its right mind.

use coordinator_disk::envelope::HEADER_BYTES;
use coordinator_protocol::{Request, SessionId};

use super::ensemble::{Ensemble, member};
use super::{create, set_data};
use crate::server::peer::PeerMessage;
use crate::state::{Command, Entry, State};

/// What a byte becomes: ends of ranges, and what begins numbers of two, four, eight and sixteen bytes.
const VALUES: [u8; 9] = [0, 1, 0x7f, 0x80, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];
/// Where frames have a length before them.
const LENGTH_BYTES: usize = 4;

/// Makes length and checksum of an envelope what its content says.
fn seal(envelope: &mut [u8]) {
    let length = u32::try_from(envelope.len() - HEADER_BYTES).unwrap();
    envelope[8..12].copy_from_slice(&length.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&envelope[..12]);
    hasher.update(&envelope[HEADER_BYTES..]);
    let crc = hasher.finalize();
    envelope[12..16].copy_from_slice(&crc.to_le_bytes());
}

/// Every cut, every changed byte, and bytes behind the end, of one envelope's content; returns how many the decoder took.
fn mutate(envelope: &[u8], takes: impl Fn(&[u8]) -> bool) -> usize {
    let mut all = Vec::new();
    for length in HEADER_BYTES..envelope.len() {
        all.push(envelope[..length].to_vec());
    }
    for (position, value) in
        (HEADER_BYTES..envelope.len()).flat_map(|at| VALUES.map(|value| (at, value)))
    {
        let mut changed = envelope.to_vec();
        changed[position] = value;
        all.push(changed);
    }
    all.push([envelope, &[0; 9]].concat());
    all.into_iter()
        .map(|mut changed| {
            seal(&mut changed);
            usize::from(takes(&changed))
        })
        .sum()
}

/// A server that has had a session, ephemerals, data, lists and a quota, and its log.
fn lived() -> (State, Vec<Vec<u8>>) {
    let mut ensemble = Ensemble::new(1);
    let only = ensemble.await_leader();
    let id = ensemble.connect(only, 30_000);
    for request in [
        create("/a", 0),
        create("/a/e", 1),
        create("/a/s", 2),
        create("/c", 4),
        set_data("/a", "other"),
        create("/zookeeper/quota/a", 0),
        create("/zookeeper/quota/a/zookeeper_limits", 0),
        Request::Multi(vec![]),
    ] {
        ensemble.ask(id, request).unwrap();
    }
    let entries = ensemble.logged_entries(member(1)).into_iter();
    let entries = entries.map(|entry| entry.data.to_vec()).filter(|data| !data.is_empty());
    (ensemble.server(only).state().clone(), entries.collect())
}

#[test]
fn changed_entry_is_refused_or_applied() {
    let (_, entries) = lived();
    let taken: usize = entries
        .iter()
        .map(|entry| {
            assert!(Entry::decode(entry).is_ok());
            mutate(entry, |bytes| {
                let Ok(entry) = Entry::decode(bytes) else { return false };
                let mut state = State::new();
                state.apply(1, 1, &entry);
                state.check();
                true
            })
        })
        .sum();
    assert!(taken > 100, "only {taken} were read at all");
}

#[test]
fn changed_snapshot_is_refused_or_sound() {
    let (state, _) = lived();
    let snapshot = state.encode_snapshot();
    let mut rest = &snapshot[..];
    let mut parts = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let (part, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        parts.push(part);
        rest = after;
    }
    let mut taken = 0;
    for (at, part) in parts.iter().enumerate() {
        taken += mutate(part, |changed| {
            let mut bytes = Vec::new();
            for (other, part) in parts.iter().enumerate() {
                let part = if other == at { changed } else { part };
                bytes.extend_from_slice(&u32::try_from(part.len()).unwrap().to_le_bytes());
                bytes.extend_from_slice(part);
            }
            let Ok(state) = State::decode_snapshot(&bytes) else { return false };
            state.check();
            true
        });
    }
    assert!(parts.len() >= 3 && taken > 100, "{} parts, {taken} were read at all", parts.len());
}

#[test]
fn changed_message_of_a_member_is_read_or_refused() {
    let (_, entries) = lived();
    let commands = entries.iter().flat_map(|entry| Entry::decode(entry).unwrap().commands);
    let commands: Vec<Command> = commands.collect();
    let messages = [
        PeerMessage::Forward(commands),
        PeerMessage::Touched(vec![(SessionId::new(7), 1), (SessionId::new(i64::MAX), u64::MAX)]),
        PeerMessage::Lost(vec![(SessionId::new(7), 1)]),
        PeerMessage::Resend,
        PeerMessage::Transfer(Some(member(2))),
    ];
    for message in messages {
        let bytes = message.encode().expect("small");
        assert_eq!(PeerMessage::decode(&bytes).as_ref(), Ok(&message));
        mutate(&bytes, |bytes| PeerMessage::decode(bytes).is_ok());
    }
}
