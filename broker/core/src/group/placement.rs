//! Which partition of `__consumer_offsets` a group belongs to.
//!
//! *Called by* FindCoordinator and every group API. *Calls* nothing. Invariant: as Kafka's tools and
//! brokers compute it, so that both find the same partition. Does not know who leads it.

use client_protocol::PartitionId;

/// The topic in which groups are kept.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The partition of a group, of `partitions` (at least 1) in all: Java's `String.hashCode` over
/// UTF-16 units, its sign bit cleared, modulo.
#[must_use]
pub fn partition_of(group: &str, partitions: i32) -> PartitionId {
    let hash = group
        .encode_utf16()
        .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    PartitionId::new((hash & i32::MAX).checked_rem(partitions.max(1)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_go_where_java_puts_them() {
        // Computed by a JVM: (s.hashCode() & 0x7fffffff) % 50. The longest hashes to the most negative
        // number, and beyond the basic plane a character is two units.
        for (group, expected) in [
            ("", 0),
            ("a", 47),
            ("test", 48),
            ("console-consumer-1", 24),
            ("polygenelubricants", 0),
            ("\u{1f600}", 49),
            ("gr\u{fc}ppe", 36),
        ] {
            assert_eq!(partition_of(group, 50).get(), expected, "{group}");
        }
        assert_eq!(partition_of("test", 0).get(), 0);
    }
}
