//! Reads what a consumer tells its group's leader, as far as the broker may care: the topics.
//!
//! *Called by* `offsets` (a topic that is subscribed is not forgotten), `join` (a static member that
//! comes back for other topics). *Calls* `record`'s cursor. Invariant: opaque bytes stay opaque: what
//! cannot be read is `None`, and nothing depends on it. Does not know partitions or user data.

use std::collections::BTreeSet;

use super::record::Cursor;

/// The protocol type of consumers.
pub(super) const CONSUMER: &str = "consumer";

/// The topics of a consumer's subscription, any version.
pub(super) fn topics(metadata: &[u8]) -> Option<BTreeSet<String>> {
    let mut from = Cursor(metadata);
    from.i16().ok()?;
    let count = from.i32().ok()?;
    let mut topics = BTreeSet::new();
    for _ in 0..count.max(0) {
        topics.insert(from.string().ok()?);
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_and_nonsense_is_not() {
        let read =
            topics(b"\0\x01\0\0\0\x02\0\x01b\0\x01a\xff\xff\xff\xff").expect("a subscription");
        assert_eq!(read.into_iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(topics(b"\0\x01\x7f\xff\xff\xff"), None);
        assert_eq!(topics(b""), None);
    }
}
