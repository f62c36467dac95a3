//! Creates topics that somebody used before they existed.
//!
//! Called by: `metadata`, `find_coordinator`. Invariant: a name is asked of the controller once at a time, and at most
//! [`PENDING_MAX`] names at once, so that clients that repeat themselves cost nothing. The outcome
//! shows in the image; whoever asked will ask again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client_protocol::messages::CreateTopicsRequest;
use client_protocol::messages::create_topics::CreatableTopic;
use tracing::{info, warn};

use super::shared::Shared;

/// Names that may be on their way to the controller.
const PENDING_MAX: usize = 256;
/// How long it is before the same reason is logged again.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// Names that are on their way.
#[derive(Default)]
pub(super) struct AutoCreate {
    pending: Mutex<BTreeSet<String>>,
    told: Mutex<Option<Instant>>,
}

impl AutoCreate {
    /// Asks the controller for topics called `names`, with default numbers.
    pub(super) fn start_named(shared: &Arc<Shared>, names: Vec<String>) {
        let topic = |name| CreatableTopic {
            name,
            num_partitions: shared.config.partitions_default,
            replication_factor: shared.default_replication_factor(),
            ..Default::default()
        };
        Self::start(shared, names.into_iter().map(topic).collect());
    }

    /// Asks the controller for `topics`, apart from those that it was asked for already.
    pub(super) fn start(shared: &Arc<Shared>, mut topics: Vec<CreatableTopic>) {
        let names = topics.iter().map(|topic| topic.name.clone()).collect();
        let names = shared.auto_create.admit(names);
        topics.retain(|topic| names.contains(&topic.name));
        if topics.is_empty() {
            return;
        }
        let shared = Arc::clone(shared);
        // Ends by itself: the call has a time limit. Nobody waits for it.
        tokio::spawn(async move {
            let request = CreateTopicsRequest { topics, ..Default::default() };
            for result in shared.cluster.create_topics(request).await.topics {
                match result.error_message {
                    None => info!(topic = result.name, "created on first use"),
                    Some(why) => warn!(topic = result.name, "not created on first use: {why}"),
                }
            }
            shared.auto_create.done(&names);
        });
    }

    /// Whether it is time to log again why a topic is not created, which is asked for all the time.
    pub(super) fn may_tell(&self, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told.is_none_or(|told| now.duration_since(told) >= TELL_AGAIN);
        if is_due {
            *told = Some(now);
        }
        is_due
    }

    fn admit(&self, names: Vec<String>) -> Vec<String> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let admit = |name: &String| pending.len() < PENDING_MAX && pending.insert(name.clone());
        names.into_iter().filter(admit).collect()
    }

    fn done(&self, names: &[String]) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            pending.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_now_and_then() {
        let (auto, now) = (AutoCreate::default(), Instant::now());
        assert!(auto.may_tell(now));
        assert!(!auto.may_tell(now + TELL_AGAIN - Duration::from_millis(1)));
        assert!(auto.may_tell(now + TELL_AGAIN));
    }

    #[test]
    fn names_are_asked_for_once_and_up_to_the_limit() {
        let auto = AutoCreate::default();
        let one = || vec!["a".to_owned()];
        assert_eq!(auto.admit(one()), one());
        assert!(auto.admit(one()).is_empty());
        auto.done(&one());
        let many: Vec<String> = (0..=PENDING_MAX).map(|n| n.to_string()).collect();
        assert_eq!(auto.admit(many).len(), PENDING_MAX);
        assert!(auto.admit(one()).is_empty());
    }
}
