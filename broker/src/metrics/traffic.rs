//! Counters of what passes through the APIs, by topic.
//!
//! Called by: `api/produce`, `api/fetch`; read by `collect`. Invariant: only topics that exist have
//! counters of their own, so a stranger's names cost nothing; what names no topic counts as `""`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Counters of one topic, since the start.
#[derive(Debug, Default)]
pub struct TopicTraffic {
    /// Bytes of batches that were produced.
    pub bytes_in: AtomicU64,
    /// Bytes of batches that consumers fetched.
    pub bytes_out: AtomicU64,
    /// Records in the batches that were produced.
    pub messages_in: AtomicU64,
    /// Partitions of produce requests.
    pub produce_requests: AtomicU64,
    /// Those that were refused.
    pub failed_produce_requests: AtomicU64,
    /// Partitions of consumers' fetch requests.
    pub fetch_requests: AtomicU64,
    /// Those that were refused.
    pub failed_fetch_requests: AtomicU64,
}

/// Counters of all topics.
#[derive(Debug, Default)]
pub struct Traffic {
    topics: RwLock<BTreeMap<String, Arc<TopicTraffic>>>,
}

impl Traffic {
    /// One batch of a produce request: its bytes and records, or that it was refused. `known` is
    /// whether the topic exists.
    pub fn produced(&self, topic: &str, known: bool, batch: Option<(u64, u64)>) {
        let counters = self.topic(if known { topic } else { "" });
        counters.produce_requests.fetch_add(1, Ordering::Relaxed);
        match batch {
            Some((bytes, messages)) => {
                counters.bytes_in.fetch_add(bytes, Ordering::Relaxed);
                counters.messages_in.fetch_add(messages, Ordering::Relaxed);
            }
            None => {
                counters.failed_produce_requests.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// One partition of a consumer's fetch: the bytes that it got, or that it was refused.
    pub fn fetched(&self, topic: &str, known: bool, bytes: Option<u64>) {
        let counters = self.topic(if known { topic } else { "" });
        counters.fetch_requests.fetch_add(1, Ordering::Relaxed);
        match bytes {
            Some(bytes) => counters.bytes_out.fetch_add(bytes, Ordering::Relaxed),
            None => counters.failed_fetch_requests.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Counters of each topic; those for which `keep` is false are forgotten first.
    pub fn topics(&self, keep: impl Fn(&str) -> bool) -> Vec<(String, Arc<TopicTraffic>)> {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.retain(|name, _| name.is_empty() || keep(name));
        topics.iter().map(|(name, counters)| (name.clone(), Arc::clone(counters))).collect()
    }

    fn topic(&self, name: &str) -> Arc<TopicTraffic> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counters) = topics.get(name) {
            return Arc::clone(counters);
        }
        drop(topics);
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(topics.entry(name.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_topics_share_one_counter_and_dead_ones_leave() {
        let traffic = Traffic::default();
        traffic.produced("a", true, Some((100, 3)));
        traffic.produced("a", true, None);
        traffic.produced("stranger", false, None);
        traffic.fetched("other stranger", false, None);
        let names = |topics: Vec<(String, Arc<TopicTraffic>)>| {
            topics.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let all = traffic.topics(|_| true);
        let a = &all[1].1;
        assert_eq!(
            (a.bytes_in.load(Ordering::Relaxed), a.messages_in.load(Ordering::Relaxed)),
            (100, 3)
        );
        assert_eq!(a.produce_requests.load(Ordering::Relaxed), 2);
        assert_eq!(a.failed_produce_requests.load(Ordering::Relaxed), 1);
        assert_eq!(names(all), ["", "a"]);
        assert_eq!(names(traffic.topics(|name| name != "a")), [""]);
    }
}
