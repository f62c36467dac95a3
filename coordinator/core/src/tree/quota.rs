//! Quotas: how many nodes and bytes there may be at and below a path.
//!
//! Called by: `store`, which tells what comes and goes, and `transaction`, which asks first. Calls: nothing.
//! Invariant: the usage of each quota is what its subtree holds, whatever was taken back meanwhile.
//! It does not know nodes.
//!
//! As in ZooKeeper a quota on `/a/b` is the node `/zookeeper/quota/a/b/zookeeper_limits`, whose data says
//! `count=N,bytes=N=;byteHardLimit=N;countHardLimit=N`, -1 or nothing for no limit. The first two are for
//! people to be warned by; the hard ones are kept to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::path::ancestors;

/// Where quotas are.
const QUOTA_PATH: &str = "/zookeeper/quota";
const LIMITS: &str = "/zookeeper_limits";
const STATS: &str = "/zookeeper_stats";

/// What a subtree may hold, its top included; `None` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    count: Option<u64>,
    bytes: Option<u64>,
}

/// What a subtree holds, its top included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nodes.
    pub count: u64,
    /// Bytes of data.
    pub bytes: u64,
}

/// All quotas by the path that they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Quotas(BTreeMap<Arc<str>, (Limits, Usage)>);

impl Quotas {
    /// Sets the limits for `path`, whose subtree holds `usage`.
    pub(super) fn set(&mut self, path: &str, limits: Limits, usage: impl FnOnce() -> Usage) {
        match self.0.get_mut(path) {
            Some((held, _)) => *held = limits,
            None => {
                self.0.insert(path.into(), (limits, usage()));
            }
        }
    }

    /// There is no quota for `path` any more.
    pub(super) fn remove(&mut self, path: &str) {
        self.0.remove(path);
    }

    /// What the quota for `path` counts, if there is one.
    pub(super) fn usage(&self, path: &str) -> Option<Usage> {
        self.0.get(path).map(|(_, usage)| *usage)
    }

    /// Whether `path` may get so much more; nobody asks where something goes.
    pub(super) fn allow(&self, path: &str, more: Usage) -> bool {
        self.above(path).all(|above| {
            self.0.get(above).is_none_or(|(limits, usage)| {
                let fits = |limit: Option<u64>, held: u64, more: u64| {
                    more == 0 || limit.is_none_or(|limit| held.saturating_add(more) <= limit)
                };
                fits(limits.count, usage.count, more.count)
                    && fits(limits.bytes, usage.bytes, more.bytes)
            })
        })
    }

    /// So much came at `path`.
    pub(super) fn add(&mut self, path: &str, more: Usage) {
        self.change(path, |usage| {
            usage.count += more.count;
            usage.bytes += more.bytes;
        });
    }

    /// So much went from `path`.
    pub(super) fn subtract(&mut self, path: &str, less: Usage) {
        self.change(path, |usage| {
            usage.count -= less.count;
            usage.bytes -= less.bytes;
        });
    }

    /// Every quota, for checks.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Usage)> {
        self.0.iter().map(|(path, (_, usage))| (&**path, *usage))
    }

    fn change(&mut self, path: &str, how: impl Fn(&mut Usage)) {
        if self.0.is_empty() {
            return;
        }
        for above in std::iter::once(path).chain(ancestors(path)) {
            if let Some((_, usage)) = self.0.get_mut(above) {
                how(usage);
            }
        }
    }

    /// `path` and what lies above it; nothing while there are no quotas.
    fn above<'a>(&self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let any = !self.0.is_empty();
        any.then(|| std::iter::once(path).chain(ancestors(path))).into_iter().flatten()
    }
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
    (!limited.is_empty() && !limited.starts_with("/zookeeper")).then_some(limited)
}

/// The hard limits in a node's data; what cannot be read limits nothing.
pub(super) fn parse_limits(data: &[u8]) -> Limits {
    let text = std::str::from_utf8(data).unwrap_or_default();
    let value = |name: &str| {
        let mut parts = text.split([',', ';']).filter_map(|part| part.split_once('='));
        let (_, value) = parts.find(|(key, _)| key.trim() == name)?;
        value.trim_end_matches('=').trim().parse::<u64>().ok()
    };
    Limits { count: value("countHardLimit"), bytes: value("byteHardLimit") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_zookeepers_tools_write_them() {
        let limits = |text: &str| {
            let Limits { count, bytes } = parse_limits(text.as_bytes());
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
    fn only_nodes_of_the_right_name_are_quotas() {
        assert_eq!(limited_by("/zookeeper/quota/a/b/zookeeper_limits"), Some("/a/b"));
        assert_eq!(counted_by("/zookeeper/quota/a/b/zookeeper_stats"), Some("/a/b"));
        for path in [
            "/zookeeper/quota/zookeeper_limits",
            "/zookeeper/quota/a/zookeeper_stats",
            "/zookeeper/quota/zookeeper/quota/zookeeper_limits",
            "/quota/a/zookeeper_limits",
            "/zookeeper/quota/azookeeper_limits/b",
        ] {
            assert_eq!(limited_by(path), None, "{path}");
        }
    }
}
