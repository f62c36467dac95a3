//! Quotas: how many nodes and bytes there may be at and below a path.
//!
//! Called by: `store`, which keeps the usage with the nodes. Calls: nothing.
//! Invariant: to set, take away and ask for a quota costs the same however much it is for.
//! It does not know nodes.
//!
//! As in ZooKeeper a quota on `/a/b` is the node `/zookeeper/quota/a/b/zookeeper_limits`, whose data says
//! `count=N,bytes=N=;byteHardLimit=N;countHardLimit=N`, -1 or nothing for no limit. The first two are for
//! people to be warned by; the hard ones are kept to.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Where quotas are.
const QUOTA_PATH: &str = "/zookeeper/quota";
const LIMITS: &str = "/zookeeper_limits";
const STATS: &str = "/zookeeper_stats";

/// Quotas are for paths with at most so many components: each write counts at that many nodes above it.
pub(super) const LIMITED_COMPONENTS_MAX: usize = 32;

/// What a subtree may hold, its top included; `None` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    count: Option<u64>,
    bytes: Option<u64>,
    /// Beyond which people are warned.
    soft: SoftLimits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SoftLimits {
    count: Option<u64>,
    bytes: Option<u64>,
}

/// A subtree holds more than its soft limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverSoftLimit {
    /// Its top.
    pub path: String,
    /// Of what: `count` or `bytes`.
    pub what: &'static str,
    /// How many there should be.
    pub limit: u64,
    /// How many there are.
    pub usage: u64,
}

/// What a subtree holds, its top included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nodes.
    pub count: u64,
    /// Bytes of data.
    pub bytes: u64,
}

impl Usage {
    /// Both together.
    pub(super) fn plus(self, more: Usage) -> Usage {
        Usage { count: self.count + more.count, bytes: self.bytes + more.bytes }
    }

    /// Without a part of it.
    pub(super) fn minus(self, less: Usage) -> Usage {
        Usage { count: self.count - less.count, bytes: self.bytes - less.bytes }
    }
}

impl Limits {
    /// Whether more is there than people want, and are only warned of.
    pub(super) fn over_soft(self, path: &str, usage: Usage) -> Option<OverSoftLimit> {
        let over = |what, limit: Option<u64>, usage| {
            let limit = limit.filter(|limit| usage > *limit)?;
            Some(OverSoftLimit { path: path.to_owned(), what, limit, usage })
        };
        let SoftLimits { count, bytes } = self.soft;
        over("count", count, usage.count).or_else(|| over("bytes", bytes, usage.bytes))
    }

    /// Whether `more` may come to what is there; nobody asks where something goes.
    pub(super) fn allow(self, usage: Usage, more: Usage) -> bool {
        let fits = |limit: Option<u64>, held: u64, more: u64| {
            more == 0 || limit.is_none_or(|limit| held.saturating_add(more) <= limit)
        };
        fits(self.count, usage.count, more.count) && fits(self.bytes, usage.bytes, more.bytes)
    }
}

/// All quotas by the path that they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Quotas(BTreeMap<Arc<str>, Limits>);

impl Quotas {
    /// Sets the limits for `path`.
    pub(super) fn set(&mut self, path: &str, limits: Limits) {
        self.0.insert(path.into(), limits);
    }

    /// There is no quota for `path` any more.
    pub(super) fn remove(&mut self, path: &str) {
        self.0.remove(path);
    }

    /// The limits for `path`, if there are any.
    pub(super) fn get(&self, path: &str) -> Option<Limits> {
        self.0.get(path).copied()
    }

    /// Whether there are none at all.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The paths above `path` for which is kept what lies below them, the root first: those with at most
/// [`LIMITED_COMPONENTS_MAX`] components.
pub(super) fn counted_above(path: &str) -> impl Iterator<Item = &str> {
    let root = (path != "/").then_some("/");
    let slashes = path.match_indices('/').skip(1);
    root.into_iter()
        .chain(slashes.map_while(|(at, _)| path.get(..at)))
        .take(LIMITED_COMPONENTS_MAX + 1)
}

/// Whether what lies below `path` is kept.
pub(super) fn is_counted(path: &str) -> bool {
    path == "/" || path.matches('/').count() <= LIMITED_COMPONENTS_MAX
}

/// Whether `path` would hold the limits for a path that is too deep for a quota.
pub(super) fn is_too_deep(path: &str) -> bool {
    limited_by(path).is_some_and(|limited| !is_counted(limited))
}

/// The path for which `path` holds the limits, if that is what it is for.
pub(super) fn limited_by(path: &str) -> Option<&str> {
    named(path, LIMITS)
}

/// The path of which `path` shows the usage, if that is what it is for.
pub fn counted_by(path: &str) -> Option<&str> {
    named(path, STATS)
}

fn named<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let limited = path.strip_prefix(QUOTA_PATH)?.strip_suffix(name)?;
    // Quotas on the root, or on what the quotas are kept in, are not there in ZooKeeper either.
    let of_system = limited == "/zookeeper" || limited.starts_with("/zookeeper/");
    (!limited.is_empty() && !of_system).then_some(limited)
}

/// The limits in a node's data; what cannot be read limits nothing.
pub(super) fn parse_limits(data: &[u8]) -> Limits {
    let text = std::str::from_utf8(data).unwrap_or_default();
    let value = |name: &str| {
        let mut parts = text.split([',', ';']).filter_map(|part| part.split_once('='));
        let (_, value) = parts.find(|(key, _)| key.trim() == name)?;
        value.trim_end_matches('=').trim().parse::<u64>().ok()
    };
    let soft = SoftLimits { count: value("count"), bytes: value("bytes") };
    Limits { count: value("countHardLimit"), bytes: value("byteHardLimit"), soft }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_zookeepers_tools_write_them() {
        let limits = |text: &str| {
            let Limits { count, bytes, .. } = parse_limits(text.as_bytes());
            (count, bytes)
        };
        assert_eq!(limits("count=5,bytes=-1"), (None, None));
        let both = "count=-1,bytes=-1=;byteHardLimit=100;countHardLimit=7";
        assert_eq!(limits(both), (Some(7), Some(100)));
        assert_eq!(limits("count=-1,bytes=9=;byteHardLimit=-1;countHardLimit=0"), (Some(0), None));
        assert_eq!(limits("countHardLimit=x"), (None, None));
        assert_eq!(parse_limits(&[0xff, 0xfe]), Limits::default());
    }

    #[test]
    fn soft_limits_are_passed_by_one_more_and_not_before() {
        let limits = parse_limits(b"count=5,bytes=100=;byteHardLimit=-1;countHardLimit=-1");
        let over = |count, bytes| {
            let found = limits.over_soft("/a", Usage { count, bytes });
            found.map(|over| (over.what, over.limit, over.usage))
        };
        assert_eq!(over(5, 100), None);
        assert_eq!(over(6, 0), Some(("count", 5, 6)));
        assert_eq!(over(1, 101), Some(("bytes", 100, 101)));
        let none = parse_limits(b"count=-1,bytes=-1=;byteHardLimit=9;countHardLimit=9");
        assert_eq!(none.over_soft("/a", Usage { count: 99, bytes: 99 }), None);
    }

    #[test]
    fn only_nodes_of_the_right_name_are_quotas() {
        assert_eq!(limited_by("/zookeeper/quota/a/b/zookeeper_limits"), Some("/a/b"));
        assert_eq!(counted_by("/zookeeper/quota/a/b/zookeeper_stats"), Some("/a/b"));
        assert_eq!(
            limited_by("/zookeeper/quota/zookeepers/x/zookeeper_limits"),
            Some("/zookeepers/x")
        );
        assert_eq!(
            limited_by("/zookeeper/quota/zookeeper-apps/zookeeper_limits"),
            Some("/zookeeper-apps")
        );
        for path in [
            "/zookeeper/quota/zookeeper_limits",
            "/zookeeper/quota/zookeeper/zookeeper_limits",
            "/zookeeper/quota/a/zookeeper_stats",
            "/zookeeper/quota/zookeeper/quota/zookeeper_limits",
            "/quota/a/zookeeper_limits",
            "/zookeeper/quota/azookeeper_limits/b",
        ] {
            assert_eq!(limited_by(path), None, "{path}");
        }
    }

    #[test]
    fn paths_above_are_counted_down_to_the_limit() {
        assert_eq!(counted_above("/a/b/c").collect::<Vec<_>>(), ["/", "/a", "/a/b"]);
        assert_eq!(counted_above("/a").collect::<Vec<_>>(), ["/"]);
        assert_eq!(counted_above("/").count(), 0);
        let deepest = "/a".repeat(LIMITED_COMPONENTS_MAX);
        assert!(is_counted(&deepest) && !is_counted(&format!("{deepest}/b")));
        assert_eq!(counted_above(&format!("{deepest}/b")).last(), Some(&*deepest));
        assert_eq!(counted_above(&format!("{deepest}/b/c")).last(), Some(&*deepest));
        assert!(!is_too_deep(&format!("/zookeeper/quota{deepest}/zookeeper_limits")));
        assert!(is_too_deep(&format!("/zookeeper/quota{deepest}/b/zookeeper_limits")));
        assert!(!is_too_deep(&format!("/zookeeper/quota{deepest}/b")));
    }
}
