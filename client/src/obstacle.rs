//! What has kept a producer or consumer from its work for longer than usual: they go on trying, and this is how their
//! caller can know what they try.
//!
//! *Called by* `producer`, `consumer`, and applications. *Calls* nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use client_core::TopicPartition;
use client_core::group::{Step, Wait};
use client_protocol::ErrorCode;

use crate::error::hint_of;

/// So many partitions are named, the others counted.
const NAMED_MAX: usize = 5;

/// Something that stands in the way, and is tried again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// How long it has stood there.
    pub lasts: Duration,
    /// What it is, in words that stay the same while it is the same.
    pub text: String,
    /// The broker's answer, if there was one.
    pub code: Option<ErrorCode>,
    step: Option<Step>,
}

impl Obstacle {
    /// One that is no group's.
    #[must_use]
    pub fn new(text: &str, lasts: Duration, code: Option<ErrorCode>) -> Self {
        Self { lasts, text: text.to_owned(), code, step: None }
    }

    /// What to look at.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match (self.code.and_then(hint_of), self.step) {
            (Some(hint), _) => hint,
            (None, Some(Step::Join | Step::Share)) => {
                "a member that died is given up after its session time-out, 45 s by default; `tidegate group describe` shows the members"
            }
            (None, Some(Step::Find | Step::Count | Step::Offsets) | None) => {
                "`tidegate cluster status` shows which brokers are down"
            }
        }
    }

    /// Of a member of `group`.
    pub(crate) fn of_group(group: &str, wait: &Wait, now_ms: u64) -> Self {
        let lasts = Duration::from_millis(now_ms.saturating_sub(wait.since_ms));
        let step = Some(wait.step);
        match &wait.setback {
            Some(setback) => Self {
                lasts,
                text: format!("group {group}: {}: {}", wait.step, setback.reason),
                code: setback.code,
                step,
            },
            None => Self { lasts, text: format!("group {group}: {}", wait.step), code: None, step },
        }
    }

    /// Of partitions: since when and why each stands still. Those with the same reason are told together.
    pub(crate) fn of_partitions(
        stands: impl IntoIterator<Item = (TopicPartition, u64, String)>,
        now_ms: u64,
    ) -> Vec<Self> {
        let mut by_reason: BTreeMap<String, (u64, Vec<TopicPartition>)> = BTreeMap::new();
        for (partition, since_ms, reason) in stands {
            let (first_ms, partitions) = by_reason.entry(reason).or_insert((since_ms, Vec::new()));
            *first_ms = since_ms.min(*first_ms);
            partitions.push(partition);
        }
        let obstacle = |(reason, (since_ms, partitions)): (String, (u64, Vec<TopicPartition>))| {
            let named = partitions.iter().take(NAMED_MAX).map(ToString::to_string);
            let mut names = named.collect::<Vec<_>>().join(", ");
            if partitions.len() > NAMED_MAX {
                names = format!("{names} and {} more", partitions.len() - NAMED_MAX);
            }
            let lasts = Duration::from_millis(now_ms.saturating_sub(since_ms));
            Self { lasts, text: format!("{names}: {reason}"), code: None, step: None }
        };
        by_reason.into_iter().map(obstacle).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client_core::group::Setback;

    #[test]
    fn partitions_with_one_reason_are_told_together() {
        let stand = |number, since_ms, reason: &str| {
            (TopicPartition::new("t", number), since_ms, reason.to_owned())
        };
        let mut stands = vec![stand(9, 500, "b")];
        stands.extend((0..7).map(|number| stand(number, 1_000 - u64::from(number == 3), "a")));
        let told = Obstacle::of_partitions(stands, 3_000);
        let texts: Vec<_> = told.iter().map(|o| (o.text.as_str(), o.lasts.as_millis())).collect();
        assert_eq!(texts, [("t/0, t/1, t/2, t/3, t/4 and 2 more: a", 2_001), ("t/9: b", 2_500)]);
    }

    #[test]
    fn a_group_s_obstacle_names_the_answer_and_what_to_do() {
        let setback = Setback {
            code: Some(ErrorCode::CoordinatorNotAvailable),
            reason: "COORDINATOR_NOT_AVAILABLE (no room)".to_owned(),
        };
        let wait = Wait { since_ms: 1_000, step: Step::Find, setback: Some(setback) };
        let told = Obstacle::of_group("g", &wait, 6_000);
        assert_eq!(told.lasts, Duration::from_secs(5));
        let text = "group g: no broker says that it coordinates the group: \
                    COORDINATOR_NOT_AVAILABLE (no room)";
        assert_eq!(told.text, text);
        assert!(told.hint().contains("offsets.topic.replication.factor"), "{}", told.hint());
        let wait = Wait { since_ms: 1_000, step: Step::Join, setback: None };
        assert!(Obstacle::of_group("g", &wait, 6_000).hint().contains("session time-out"));
    }
}
