//! The API table: key, name, versions, who may call.
//!
//! *Called by* `header`, `messages`, the broker's dispatch and the client's negotiation. *Calls* nothing.
//!
//! Invariant: a version in the table is one this crate decodes and encodes, both request and response.

use std::ops::RangeInclusive;

/// Who stands at the other end of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Any client.
    Public,
    /// Brokers of the same cluster only.
    InterBroker,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct ApiEntry {
    /// The API.
    pub key: ApiKey,
    /// Kafka's name for it.
    pub name: &'static str,
    /// Lowest version this crate speaks.
    pub min_version: i16,
    /// Highest version this crate speaks.
    pub max_version: i16,
    /// First version with compact lengths and tagged fields; `None` when no version has them.
    pub flexible_from: Option<i16>,
    /// Who may call it.
    pub audience: Audience,
}

/// Who may call an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Anybody, who is told of these versions in ApiVersions. They differ from what is spoken where clients need a
    /// lower minimum to be seen (Produce), or where only followers may use the newest (Fetch).
    Everyone {
        /// Lowest version advertised.
        min: i16,
        /// Highest version advertised.
        max: i16,
    },
    /// Brokers of the same cluster.
    Brokers,
}

const fn everyone(min: i16, max: i16) -> Audience {
    Audience::Everyone { min, max }
}

macro_rules! apis {
    ($(
        $(#[$meta:meta])*
        $name:ident = $key:literal, $min:literal..=$max:literal, flexible $flexible:expr, for $audience:expr;
    )*) => {
        /// The APIs this crate speaks, by their key on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($(#[$meta])* $name = $key,)*
        }

        /// All of them, by ascending key.
        pub const API_TABLE: &[ApiEntry] = &[$(ApiKey::$name.entry(),)*];

        impl ApiKey {
            /// The API of a key, if this crate speaks it.
            #[must_use]
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Its number on the wire.
            #[must_use]
            pub const fn code(self) -> i16 {
                match self {
                    $(Self::$name => $key,)*
                }
            }

            /// Its line of the table.
            #[must_use]
            pub const fn entry(self) -> ApiEntry {
                match self {
                    $(Self::$name => ApiEntry {
                        key: self,
                        name: stringify!($name),
                        min_version: $min,
                        max_version: $max,
                        flexible_from: $flexible,
                        audience: $audience,
                    },)*
                }
            }
        }
    };
}

apis! {
    /// Append records. Clients see a minimum of 0 (librdkafka turns compression off without it), but only 3 and
    /// later are answered.
    Produce = 0, 3..=11, flexible Some(9), for everyone(0, 11);
    /// Read records. Version 13 is what our followers speak.
    Fetch = 1, 4..=13, flexible Some(12), for everyone(4, 12);
    /// Offsets by timestamp.
    ListOffsets = 2, 1..=7, flexible Some(6), for everyone(1, 7);
    /// Brokers, topics, leaders.
    Metadata = 3, 0..=12, flexible Some(9), for everyone(0, 12);
    /// A stopping broker asks the controller to move its leaders. Inter-broker.
    ControlledShutdown = 7, 3..=3, flexible Some(3), for Audience::Brokers;
    /// Remember how far a group has read.
    OffsetCommit = 8, 2..=9, flexible Some(8), for everyone(2, 9);
    /// How far a group has read.
    OffsetFetch = 9, 1..=9, flexible Some(6), for everyone(1, 9);
    /// Which broker is the group's or transaction's coordinator.
    FindCoordinator = 10, 0..=4, flexible Some(3), for everyone(0, 4);
    /// Become a member of a group's next generation.
    JoinGroup = 11, 0..=9, flexible Some(6), for everyone(0, 9);
    /// A member lives.
    Heartbeat = 12, 0..=4, flexible Some(4), for everyone(0, 4);
    /// Members go.
    LeaveGroup = 13, 0..=5, flexible Some(4), for everyone(0, 5);
    /// Hand out, or get, the work of a generation.
    SyncGroup = 14, 0..=5, flexible Some(4), for everyone(0, 5);
    /// State and members of groups.
    DescribeGroups = 15, 0..=5, flexible Some(5), for everyone(0, 5);
    /// The groups that a broker coordinates.
    ListGroups = 16, 0..=5, flexible Some(3), for everyone(0, 5);
    /// Which APIs and versions the broker speaks.
    ApiVersions = 18, 0..=4, flexible Some(3), for everyone(0, 4);
    /// Create topics.
    CreateTopics = 19, 2..=7, flexible Some(5), for everyone(2, 7);
    /// Delete topics.
    DeleteTopics = 20, 1..=6, flexible Some(4), for everyone(1, 6);
    /// A producer id for an idempotent producer.
    InitProducerId = 22, 0..=4, flexible Some(2), for everyone(0, 4);
    /// Where an epoch ends in the leader's log.
    OffsetForLeaderEpoch = 23, 2..=4, flexible Some(4), for everyone(2, 4);
    /// Settings of topics and brokers.
    DescribeConfigs = 32, 1..=4, flexible Some(4), for everyone(1, 4);
    /// Give topics more partitions.
    CreatePartitions = 37, 0..=3, flexible Some(2), for everyone(0, 3);
    /// Forget groups.
    DeleteGroups = 42, 0..=2, flexible Some(2), for everyone(0, 2);
    /// Elect leaders anew.
    ElectLeaders = 43, 0..=2, flexible Some(2), for everyone(0, 2);
    /// Forget how far a group has read in some partitions.
    OffsetDelete = 47, 0..=0, flexible None, for everyone(0, 0);
    /// A leader asks the controller to change an ISR. Inter-broker.
    AlterPartition = 56, 2..=3, flexible Some(0), for Audience::Brokers;
    /// Brokers and controller.
    DescribeCluster = 60, 0..=1, flexible Some(0), for everyone(0, 1);
    /// Private: the controller asks a broker what its replicas hold. Inter-broker.
    DescribeReplicas = 10_000, 0..=0, flexible Some(0), for Audience::Brokers;
}

impl ApiKey {
    /// Kafka's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// Whether the version has compact lengths and tagged fields.
    #[must_use]
    pub const fn is_flexible(self, version: i16) -> bool {
        match self.entry().flexible_from {
            Some(from) => version >= from,
            None => false,
        }
    }

    /// Only brokers of the same cluster may call it.
    #[must_use]
    pub const fn is_inter_broker(self) -> bool {
        matches!(self.entry().audience, Audience::Brokers)
    }

    /// Whether this crate can decode and encode the version.
    #[must_use]
    pub fn speaks(self, version: i16) -> bool {
        let entry = self.entry();
        (entry.min_version..=entry.max_version).contains(&version)
    }

    /// Whether a request of that version may be answered on a listener of that scope.
    #[must_use]
    pub fn allows(self, version: i16, scope: Scope) -> bool {
        self.speaks(version) && self.advertised(scope).is_some_and(|range| range.contains(&version))
    }

    /// What ApiVersions says on a listener of that scope; `None` when the API is not mentioned there.
    #[must_use]
    pub fn advertised(self, scope: Scope) -> Option<RangeInclusive<i16>> {
        let entry = self.entry();
        match (entry.audience, scope) {
            (Audience::Everyone { min, max }, Scope::Public) => Some(min..=max),
            (Audience::Everyone { .. } | Audience::Brokers, Scope::InterBroker) => {
                Some(entry.min_version..=entry.max_version)
            }
            (Audience::Brokers, Scope::Public) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_ordered_and_consistent() {
        assert!(API_TABLE.is_sorted_by_key(|entry| entry.key.code()));
        for entry in API_TABLE {
            assert_eq!(ApiKey::from_code(entry.key.code()), Some(entry.key));
            assert!(entry.min_version <= entry.max_version, "{}", entry.name);
            if let Audience::Everyone { max, .. } = entry.audience {
                assert!(max <= entry.max_version, "{}", entry.name);
            }
        }
    }

    #[test]
    fn followers_fetch_is_not_for_strangers() {
        assert!(!ApiKey::Fetch.allows(13, Scope::Public));
        assert!(ApiKey::Fetch.allows(13, Scope::InterBroker));
        assert!(!ApiKey::AlterPartition.allows(3, Scope::Public));
        assert!(!ApiKey::Produce.allows(0, Scope::Public));
        assert_eq!(ApiKey::Produce.advertised(Scope::Public), Some(0..=11));
        assert_eq!(ApiKey::DescribeReplicas.advertised(Scope::Public), None);
    }
}
