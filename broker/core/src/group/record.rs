//! The records of `__consumer_offsets`, in Kafka's own format: keys and values, both ways.
//!
//! *Called by* the shard (what it writes) and whoever loads a partition (what it replays).
//! *Calls* nothing. Invariant: what is encoded here decodes to the same value; bytes that are no
//! such record are an error, never a panic, and reserve no memory from a declared count.
//! Does not know what a record means.
//!
//! Keys: version 0 and 1 name a group's offset in a partition, 2 names a group. Values of offsets
//! are written at version 3 (1 with an expiry of their own) and read at 0-4; values of groups are
//! written at version 3 and read at 0-4. Version 4, of Kafka 4, is the first flexible one: compact
//! lengths and tagged fields, which are passed over.

use bytes::{BufMut, Bytes, BytesMut};

/// One record, as it stands in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRecord {
    /// What it is about.
    pub key: Bytes,
    /// What it says; `None` is a tombstone.
    pub value: Option<Bytes>,
}

/// One record, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupRecord {
    /// How far a group has read in a partition; `None` forgets it.
    Offset {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition's number.
        partition: i32,
        /// What was committed.
        value: Option<OffsetValue>,
    },
    /// A group's generation and members; `None` forgets them.
    Group {
        /// The group.
        group: String,
        /// What was stored.
        value: Option<GroupValue>,
    },
}

/// A committed offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffsetValue {
    /// Where the group will read on.
    pub offset: i64,
    /// Epoch of the last record read; -1 for none.
    pub leader_epoch: i32,
    /// The group's own note.
    pub metadata: String,
    /// Milliseconds since 1970 UTC.
    pub commit_timestamp_ms: i64,
    /// When it expires whatever becomes of the group, milliseconds since 1970 UTC.
    pub expire_timestamp_ms: Option<i64>,
}

/// A group as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupValue {
    /// `consumer` and the like.
    pub protocol_type: String,
    /// Its generation.
    pub generation: i32,
    /// The protocol that its members chose; `None` without members.
    pub protocol: Option<String>,
    /// The member that shares the work out; `None` without members.
    pub leader: Option<String>,
    /// When it came into this state, milliseconds since 1970 UTC; -1 for unknown.
    pub state_timestamp_ms: i64,
    /// Its members.
    pub members: Vec<MemberValue>,
}

/// A member as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberValue {
    /// Its id.
    pub member_id: String,
    /// Set for a static member.
    pub instance_id: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where its client connects from.
    pub client_host: String,
    /// How long the group waits for it to join again.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// What the leader must know of it, for the chosen protocol.
    pub subscription: Bytes,
    /// Its work.
    pub assignment: Bytes,
}

/// Why bytes are no record of this kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// The bytes end too early, or a length is wrong.
    #[error("the record is cut short or damaged")]
    Damaged,
    /// A record of another kind, of a newer version of Kafka.
    #[error("records with keys of version {0} are not known here")]
    UnknownKey(i16),
    /// A newer version of the value.
    #[error("values of version {0} are not known here")]
    UnknownValue(i16),
}

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const GROUP_VALUE: i16 = 3;
const OFFSET_VALUE: i16 = 3;
const EXPIRING_OFFSET_VALUE: i16 = 1;
/// The first version of a value with compact lengths and tagged fields, and the last that is known.
const FLEXIBLE_VALUE: i16 = 4;

impl GroupRecord {
    /// The bytes of the record. `None` when a text is longer than the format can hold.
    #[must_use]
    pub fn encode(&self) -> Option<LogRecord> {
        let mut key = BytesMut::new();
        let value = match self {
            Self::Offset { group, topic, partition, value } => {
                key.put_i16(OFFSET_KEY);
                put_string(&mut key, group)?;
                put_string(&mut key, topic)?;
                key.put_i32(*partition);
                value.as_ref().map(OffsetValue::encode)
            }
            Self::Group { group, value } => {
                key.put_i16(GROUP_KEY);
                put_string(&mut key, group)?;
                value.as_ref().map(GroupValue::encode)
            }
        };
        let value = match value {
            Some(encoded) => Some(encoded?),
            None => None,
        };
        Some(LogRecord { key: key.freeze(), value })
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`RecordError`]: the record cannot be used.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Self, RecordError> {
        let mut key = Cursor(key);
        match key.i16()? {
            0 | OFFSET_KEY => {
                let (group, topic, partition) = (key.string()?, key.string()?, key.i32()?);
                let value = value.map(OffsetValue::decode).transpose()?;
                Ok(Self::Offset { group, topic, partition, value })
            }
            GROUP_KEY => {
                let group = key.string()?;
                Ok(Self::Group { group, value: value.map(GroupValue::decode).transpose()? })
            }
            other => Err(RecordError::UnknownKey(other)),
        }
    }
}

impl OffsetValue {
    fn encode(&self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        let version = match self.expire_timestamp_ms {
            Some(_) => EXPIRING_OFFSET_VALUE,
            None => OFFSET_VALUE,
        };
        out.put_i16(version);
        out.put_i64(self.offset);
        if version >= 3 {
            out.put_i32(self.leader_epoch);
        }
        put_string(&mut out, &self.metadata)?;
        out.put_i64(self.commit_timestamp_ms);
        if let Some(expire) = self.expire_timestamp_ms {
            out.put_i64(expire);
        }
        Some(out.freeze())
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Cursor(bytes);
        let version = from.value_version()?;
        let flexible = version >= FLEXIBLE_VALUE;
        let offset = from.i64()?;
        let leader_epoch = if version >= 3 { from.i32()? } else { -1 };
        let metadata = from.text(flexible)?.ok_or(RecordError::Damaged)?;
        let commit_timestamp_ms = from.i64()?;
        let expire = if version == EXPIRING_OFFSET_VALUE { from.i64()? } else { -1 };
        from.tagged_fields(flexible)?;
        let expire_timestamp_ms = Some(expire).filter(|at| *at != -1);
        Ok(Self { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms })
    }
}

impl GroupValue {
    fn encode(&self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        out.put_i16(GROUP_VALUE);
        put_string(&mut out, &self.protocol_type)?;
        out.put_i32(self.generation);
        put_nullable(&mut out, self.protocol.as_deref())?;
        put_nullable(&mut out, self.leader.as_deref())?;
        out.put_i64(self.state_timestamp_ms);
        out.put_i32(i32::try_from(self.members.len()).ok()?);
        for member in &self.members {
            put_string(&mut out, &member.member_id)?;
            put_nullable(&mut out, member.instance_id.as_deref())?;
            put_string(&mut out, &member.client_id)?;
            put_string(&mut out, &member.client_host)?;
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            put_bytes(&mut out, &member.subscription)?;
            put_bytes(&mut out, &member.assignment)?;
        }
        Some(out.freeze())
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Cursor(bytes);
        let version = from.value_version()?;
        let flexible = version >= FLEXIBLE_VALUE;
        let mut value = Self {
            protocol_type: from.text(flexible)?.ok_or(RecordError::Damaged)?,
            generation: from.i32()?,
            protocol: from.text(flexible)?,
            leader: from.text(flexible)?,
            state_timestamp_ms: if version >= 2 { from.i64()? } else { -1 },
            members: Vec::new(),
        };
        let count = from.length(flexible)?.unwrap_or(0);
        for _ in 0..count {
            // Grows as members are read: the count alone reserves nothing.
            value.members.push(MemberValue::decode(&mut from, version)?);
        }
        from.tagged_fields(flexible)?;
        Ok(value)
    }
}

impl MemberValue {
    fn decode(from: &mut Cursor<'_>, version: i16) -> Result<Self, RecordError> {
        let flexible = version >= FLEXIBLE_VALUE;
        let text = |from: &mut Cursor<'_>| from.text(flexible)?.ok_or(RecordError::Damaged);
        let member_id = text(from)?;
        let instance_id = if version >= 3 { from.text(flexible)? } else { None };
        let (client_id, client_host) = (text(from)?, text(from)?);
        let rebalance = if version >= 1 { Some(from.i32()?) } else { None };
        let session_timeout_ms = from.i32()?;
        let member = Self {
            member_id,
            instance_id,
            client_id,
            client_host,
            // Before it was stored, the session's time-out took its place.
            rebalance_timeout_ms: rebalance.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            subscription: from.bytes(flexible)?,
            assignment: from.bytes(flexible)?,
        };
        from.tagged_fields(flexible)?;
        Ok(member)
    }
}

fn put_string(out: &mut BytesMut, text: &str) -> Option<()> {
    out.put_i16(i16::try_from(text.len()).ok()?);
    out.put_slice(text.as_bytes());
    Some(())
}

fn put_nullable(out: &mut BytesMut, text: Option<&str>) -> Option<()> {
    match text {
        Some(text) => put_string(out, text),
        None => {
            out.put_i16(-1);
            Some(())
        }
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &Bytes) -> Option<()> {
    out.put_i32(i32::try_from(bytes.len()).ok()?);
    out.put_slice(bytes);
    Some(())
}

/// Reads big-endian fields off the front.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(RecordError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        self.take(N)?.try_into().map_err(|_| RecordError::Damaged)
    }

    pub(super) fn i16(&mut self) -> Result<i16, RecordError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    /// The version that a value begins with.
    fn value_version(&mut self) -> Result<i16, RecordError> {
        let version = self.i16()?;
        let known = (0..=FLEXIBLE_VALUE).contains(&version);
        if known { Ok(version) } else { Err(RecordError::UnknownValue(version)) }
    }

    /// An unsigned number of seven bits a byte.
    fn varint(&mut self) -> Result<u32, RecordError> {
        let mut number = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                return Err(RecordError::Damaged);
            }
            number |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(RecordError::Damaged)
    }

    /// The length of bytes or of an array; `None` for null.
    fn length(&mut self, flexible: bool) -> Result<Option<usize>, RecordError> {
        let length = match flexible {
            true => i64::from(self.varint()?).saturating_sub(1),
            false => i64::from(self.i32()?),
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| RecordError::Damaged),
        }
    }

    fn text(&mut self, flexible: bool) -> Result<Option<String>, RecordError> {
        let length = match flexible {
            true => self.length(true)?,
            false => match self.i16()? {
                -1 => None,
                length => Some(usize::try_from(length).map_err(|_| RecordError::Damaged)?),
            },
        };
        let Some(length) = length else { return Ok(None) };
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| RecordError::Damaged)?;
        Ok(Some(text.to_owned()))
    }

    pub(super) fn string(&mut self) -> Result<String, RecordError> {
        self.text(false)?.ok_or(RecordError::Damaged)
    }

    fn bytes(&mut self, flexible: bool) -> Result<Bytes, RecordError> {
        let length = self.length(flexible)?.ok_or(RecordError::Damaged)?;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    /// Passes over what later versions of Kafka added, such as the topic's id.
    fn tagged_fields(&mut self, flexible: bool) -> Result<(), RecordError> {
        let count = if flexible { self.varint()? } else { 0 };
        for _ in 0..count {
            self.varint()?;
            let length = usize::try_from(self.varint()?).map_err(|_| RecordError::Damaged)?;
            self.take(length)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(expire: Option<i64>) -> GroupRecord {
        GroupRecord::Offset {
            group: "g".to_owned(),
            topic: "t".to_owned(),
            partition: 7,
            value: Some(OffsetValue {
                offset: 42,
                leader_epoch: if expire.is_some() { -1 } else { 3 },
                metadata: "note".to_owned(),
                commit_timestamp_ms: 1_000,
                expire_timestamp_ms: expire,
            }),
        }
    }

    fn group() -> GroupRecord {
        let member = MemberValue {
            member_id: "m".to_owned(),
            instance_id: Some("i".to_owned()),
            client_id: "c".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            rebalance_timeout_ms: 300_000,
            session_timeout_ms: 45_000,
            subscription: Bytes::from_static(b"sub"),
            assignment: Bytes::from_static(b"work"),
        };
        let value = GroupValue {
            protocol_type: "consumer".to_owned(),
            generation: 5,
            protocol: Some("range".to_owned()),
            leader: Some("m".to_owned()),
            state_timestamp_ms: 2_000,
            members: vec![member.clone(), MemberValue { instance_id: None, ..member }],
        };
        GroupRecord::Group { group: "g".to_owned(), value: Some(value) }
    }

    fn tombstones() -> [GroupRecord; 2] {
        let (group, topic) = ("g".to_owned(), "t".to_owned());
        [
            GroupRecord::Offset { group: group.clone(), topic, partition: 0, value: None },
            GroupRecord::Group { group, value: None },
        ]
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let all = [offset(None), offset(Some(9_000)), group()];
        for record in all.into_iter().chain(tombstones()) {
            let log = record.encode().expect("fits");
            assert_eq!(GroupRecord::decode(&log.key, log.value.as_deref()), Ok(record));
        }
    }

    #[test]
    fn the_bytes_are_kafkas() {
        // Laid out by hand from Kafka's OffsetCommitKey, OffsetCommitValue and GroupMetadataValue.
        let log = offset(None).encode().expect("fits");
        assert_eq!(log.key[..], *b"\0\x01\0\x01g\0\x01t\0\0\0\x07");
        let value = b"\0\x03\0\0\0\0\0\0\0\x2a\0\0\0\x03\0\x04note\0\0\0\0\0\0\x03\xe8";
        assert_eq!(log.value.as_deref(), Some(&value[..]));
        let log = offset(Some(9_000)).encode().expect("fits");
        let value = b"\0\x01\0\0\0\0\0\0\0\x2a\0\x04note\0\0\0\0\0\0\x03\xe8\0\0\0\0\0\0\x23\x28";
        assert_eq!(log.value.as_deref(), Some(&value[..]));
        let log = group().encode().expect("fits");
        assert_eq!(log.key[..], *b"\0\x02\0\x01g");
        let value = log.value.expect("no tombstone");
        let head =
            b"\0\x03\0\x08consumer\0\0\0\x05\0\x05range\0\x01m\0\0\0\0\0\0\x07\xd0\0\0\0\x02";
        assert_eq!(value[..head.len()], head[..]);
        let first = b"\0\x01m\0\x01i\0\x01c\0\x0a/127.0.0.1\0\x04\x93\xe0\0\0\xaf\xc8\0\0\0\x03sub\0\0\0\x04work";
        assert_eq!(value[head.len()..head.len() + first.len()], first[..]);
    }

    #[test]
    fn older_values_are_read() {
        let value = b"\0\0\0\0\0\0\0\0\0\x2a\0\x04note\0\0\0\0\0\0\x03\xe8";
        let key = b"\0\0\0\x01g\0\x01t\0\0\0\x07";
        let record = GroupRecord::decode(key, Some(value)).expect("version 0");
        let GroupRecord::Offset { value: Some(value), .. } = record else { panic!("an offset") };
        assert_eq!((value.offset, value.leader_epoch, value.expire_timestamp_ms), (42, -1, None));
        // Version 0 of a group: no rebalance time-out, no time, no instance.
        let value = b"\0\0\0\x08consumer\0\0\0\x05\xff\xff\xff\xff\0\0\0\x01\0\x01m\0\x01c\0\x01h\0\0\xaf\xc8\0\0\0\0\0\0\0\0";
        let record = GroupRecord::decode(b"\0\x02\0\x01g", Some(value)).expect("version 0");
        let GroupRecord::Group { value: Some(value), .. } = record else { panic!("a group") };
        assert_eq!(value.members[0].rebalance_timeout_ms, 45_000);
        assert_eq!((value.state_timestamp_ms, value.protocol), (-1, None));
    }

    #[test]
    fn values_of_kafka_4_are_read() {
        // Laid out by hand from Kafka 4's OffsetCommitValue: with the topic's id as tagged field 0.
        let mut value = b"\0\x04\0\0\0\0\0\0\0\x2a\0\0\0\x03\x05note\0\0\0\0\0\0\x03\xe8".to_vec();
        value.extend_from_slice(b"\x01\x00\x10");
        value.extend_from_slice(&[7; 16]);
        let key = offset(None).encode().expect("fits").key;
        assert_eq!(GroupRecord::decode(&key, Some(&value)), Ok(offset(None)));
        for end in 2..value.len() {
            let cut = GroupRecord::decode(&key, Some(&value[..end]));
            assert_eq!(cut, Err(RecordError::Damaged), "{end}");
        }
        let mut value =
            b"\0\x04\x09consumer\0\0\0\x05\x06range\x02m\0\0\0\0\0\0\x07\xd0\x03".to_vec();
        let times = b"\x02c\x0b/127.0.0.1\0\x04\x93\xe0\0\0\xaf\xc8\x04sub\x05work\0";
        for instance in [&b"\x02i"[..], b"\0"] {
            value.extend_from_slice(b"\x02m");
            value.extend_from_slice(instance);
            value.extend_from_slice(times);
        }
        value.push(0);
        let key = group().encode().expect("fits").key;
        assert_eq!(GroupRecord::decode(&key, Some(&value)), Ok(group()));
        for end in 2..value.len() {
            let cut = GroupRecord::decode(&key, Some(&value[..end]));
            assert_eq!(cut, Err(RecordError::Damaged), "{end}");
        }
        // A count or a length that says more than there is reserves nothing.
        let huge = b"\0\x04\x01\0\0\0\x05\0\0\0\0\0\0\0\0\x07\xd0\xff\xff\xff\xff\x0f";
        assert_eq!(GroupRecord::decode(&key, Some(huge)), Err(RecordError::Damaged));
    }

    #[test]
    fn damage_and_news_are_errors() {
        for record in [offset(None), group()] {
            let log = record.encode().expect("fits");
            let value = log.value.expect("a value");
            for end in 0..log.key.len() {
                let cut = GroupRecord::decode(&log.key[..end], Some(&value));
                assert_eq!(cut, Err(RecordError::Damaged));
            }
            for end in 0..value.len() {
                let cut = GroupRecord::decode(&log.key, Some(&value[..end]));
                assert_eq!(cut, Err(RecordError::Damaged), "{end}");
            }
            for at in 0..value.len() {
                let mut bent = value.to_vec();
                bent[at] ^= 0xff;
                let _read_or_refused = GroupRecord::decode(&log.key, Some(&bent));
            }
        }
        assert_eq!(GroupRecord::decode(b"\0\x03", None), Err(RecordError::UnknownKey(3)));
        let key = offset(None).encode().expect("fits").key;
        let refused = GroupRecord::decode(&key, Some(b"\0\x05"));
        assert_eq!(refused, Err(RecordError::UnknownValue(5)));
        let long = GroupRecord::Group { group: "g".repeat(40_000), value: None };
        assert_eq!(long.encode(), None);
    }
}
