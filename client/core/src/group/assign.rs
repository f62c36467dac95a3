//! Shares partitions out among the members of a group: range, round robin, sticky.
//!
//! *Called by* `member`, when the member leads its group. *Calls* nothing.
//!
//! Invariant: every partition of a topic that somebody subscribes to goes to exactly one subscriber of it. Range and round
//! robin give what Kafka's own assignors of these names give. Members are ordered as there: those with an instance id
//! first, by that, the others by their member id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client_protocol::PartitionId;

use crate::metadata::TopicPartition;

/// A member as its subscription tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// Set for a static member.
    pub instance_id: Option<String>,
    /// What it wants.
    pub topics: BTreeSet<Arc<str>>,
    /// What it says it has.
    pub owned: Vec<TopicPartition>,
    /// Since which generation; -1 when it does not say.
    pub generation: i32,
}

/// How many partitions each topic has; a topic without an entry does not exist.
pub type PartitionCounts = BTreeMap<Arc<str>, usize>;

/// What each member gets, by member id.
pub type Shares = BTreeMap<String, Vec<TopicPartition>>;

/// A way of sharing partitions out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// Of each topic a contiguous range for each member.
    Range,
    /// One partition after the other to one member after the other.
    RoundRobin,
    /// Even, and otherwise as it was; what moves is given up by one member before another gets it, and all that does not
    /// move is read on meanwhile.
    CooperativeSticky,
}

impl Assignor {
    /// Its name in JoinGroup.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// Finds one by its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Range, Self::RoundRobin, Self::CooperativeSticky]
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }

    /// Members need not give everything up before they join again.
    #[must_use]
    pub const fn is_cooperative(self) -> bool {
        matches!(self, Self::CooperativeSticky)
    }

    /// Shares everything out that somebody subscribes to.
    #[must_use]
    pub fn assign(self, members: &[Member], counts: &PartitionCounts) -> Shares {
        let mut members: Vec<&Member> = members.iter().collect();
        members.sort_by_key(|member| {
            let instance = &member.instance_id;
            (instance.is_none(), instance.clone().unwrap_or_else(|| member.id.clone()))
        });
        match self {
            Self::Range => range(&members, counts),
            Self::RoundRobin => round_robin(&members, counts),
            Self::CooperativeSticky => {
                let mut shares = sticky(&members, counts);
                wait_for_owners(&members, &mut shares);
                shares
            }
        }
    }
}

fn empty(members: &[&Member]) -> Shares {
    members.iter().map(|member| (member.id.clone(), Vec::new())).collect()
}

fn partitions_of(topic: &Arc<str>, count: usize) -> impl Iterator<Item = TopicPartition> + use<> {
    let topic = topic.clone();
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    (0..count).map(move |index| TopicPartition {
        topic: topic.clone(),
        partition: PartitionId::new(index),
    })
}

/// By topic, the members that want it.
fn subscribed<'a>(
    members: &[&'a Member],
    counts: &PartitionCounts,
) -> Vec<(Arc<str>, usize, Vec<&'a Member>)> {
    let topics = counts.iter().map(|(topic, count)| {
        let wanting = members.iter().copied().filter(|member| member.topics.contains(topic));
        (topic.clone(), *count, wanting.collect::<Vec<_>>())
    });
    topics.filter(|(_, _, members)| !members.is_empty()).collect()
}

fn range(members: &[&Member], counts: &PartitionCounts) -> Shares {
    let mut shares = empty(members);
    for (topic, count, wanting) in subscribed(members, counts) {
        let each = count.checked_div(wanting.len()).unwrap_or(0);
        let more = count.checked_rem(wanting.len()).unwrap_or(0);
        let mut partitions = partitions_of(&topic, count);
        for (index, member) in wanting.iter().enumerate() {
            let size = if index < more { each.saturating_add(1) } else { each };
            let share = partitions.by_ref().take(size);
            shares.entry(member.id.clone()).or_default().extend(share);
        }
    }
    shares
}

fn round_robin(members: &[&Member], counts: &PartitionCounts) -> Shares {
    let mut shares = empty(members);
    let mut turn = members.iter().cycle();
    for (topic, count, _) in subscribed(members, counts) {
        for partition in partitions_of(&topic, count) {
            // Ends: the topic has a subscriber.
            let next = turn.by_ref().find(|member| member.topics.contains(&topic));
            let Some(member) = next else { break };
            shares.entry(member.id.clone()).or_default().push(partition);
        }
    }
    shares
}

/// Everybody keeps what is theirs by the latest generation; the rest goes to whoever has least; then the fullest give to
/// the emptiest until no gift evens things out.
fn sticky(members: &[&Member], counts: &PartitionCounts) -> Shares {
    let mut shares = empty(members);
    let topics = subscribed(members, counts);
    let mut unowned: BTreeSet<TopicPartition> = BTreeSet::new();
    for (topic, count, _) in &topics {
        unowned.extend(partitions_of(topic, *count));
    }
    let mut claims: BTreeMap<&TopicPartition, &Member> = BTreeMap::new();
    for member in members {
        for partition in &member.owned {
            if !unowned.contains(partition) || !member.topics.contains(&partition.topic) {
                continue;
            }
            let rival = claims.get(partition).map(|rival| rival.generation);
            match rival {
                // Two that claim one partition of the same generation: neither can be right.
                Some(generation) if generation >= member.generation => {}
                Some(_) | None => {
                    claims.insert(partition, member);
                }
            }
        }
    }
    for (partition, member) in claims {
        unowned.remove(partition);
        shares.entry(member.id.clone()).or_default().push(partition.clone());
    }
    for partition in unowned {
        let wanting = members.iter().filter(|member| member.topics.contains(&partition.topic));
        let size = |member: &&&Member| shares.get(&member.id).map_or(0, Vec::len);
        let Some(emptiest) = wanting.min_by_key(size) else { continue };
        shares.entry(emptiest.id.clone()).or_default().push(partition);
    }
    even_out(members, &mut shares);
    shares.values_mut().for_each(|share| share.sort());
    shares
}

fn even_out(members: &[&Member], shares: &mut Shares) {
    let size = |shares: &Shares, id: &str| shares.get(id).map_or(0, Vec::len);
    let moves_max = shares.values().map(Vec::len).fold(0, usize::saturating_add);
    // Each gift makes the sum of squares smaller, so it ends; the bound is for certainty.
    for _ in 0..moves_max {
        let mut best: Option<(usize, TopicPartition, &Member, &Member)> = None;
        for from in members {
            for to in members {
                let (full, empty) = (size(shares, &from.id), size(shares, &to.id));
                let difference = full.saturating_sub(empty);
                if difference < 2 || best.as_ref().is_some_and(|(of, ..)| *of >= difference) {
                    continue;
                }
                let share = shares.get(&from.id).map(Vec::as_slice).unwrap_or_default();
                // What came last goes first: it is the least likely to have been there before.
                let gift = share.iter().rev().find(|partition| {
                    let is_owned = from.owned.contains(partition);
                    to.topics.contains(&partition.topic) && !is_owned
                });
                let gift =
                    gift.or_else(|| share.iter().rev().find(|p| to.topics.contains(&p.topic)));
                if let Some(gift) = gift {
                    best = Some((difference, gift.clone(), from, to));
                }
            }
        }
        let Some((_, gift, from, to)) = best else { return };
        if let Some(share) = shares.get_mut(&from.id) {
            share.retain(|partition| *partition != gift);
        }
        shares.entry(to.id.clone()).or_default().push(gift);
    }
}

/// A partition that another member still has is given to nobody this time: it goes when that one has let it go.
fn wait_for_owners(members: &[&Member], shares: &mut Shares) {
    for member in members {
        for partition in &member.owned {
            for (id, share) in shares.iter_mut().filter(|(id, _)| **id != member.id) {
                // Another claim of a later generation is the true one.
                let is_theirs = members.iter().any(|other| {
                    other.id == *id
                        && other.generation > member.generation
                        && other.owned.contains(partition)
                });
                if !is_theirs {
                    share.retain(|given| given != partition);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(topics: &[(&str, usize)]) -> PartitionCounts {
        topics.iter().map(|(topic, count)| ((*topic).into(), *count)).collect()
    }

    fn member(id: &str, topics: &[&str]) -> Member {
        let topics = topics.iter().map(|topic| Arc::from(*topic)).collect();
        Member { id: id.to_owned(), topics, generation: -1, ..Member::default() }
    }

    fn shown(shares: &Shares) -> String {
        let one = |(id, share): (&String, &Vec<TopicPartition>)| {
            let share: Vec<_> =
                share.iter().map(|p| format!("{}{}", p.topic, p.partition)).collect();
            format!("{id}:{}", share.join(","))
        };
        shares.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn range_gives_the_first_members_one_more_of_each_topic() {
        let members = [member("b", &["t", "u"]), member("a", &["t", "u"])];
        let shares = Assignor::Range.assign(&members, &counts(&[("t", 3), ("u", 3)]));
        assert_eq!(shown(&shares), "a:t0,t1,u0,u1 b:t2,u2");
        let shares = Assignor::Range.assign(&members, &counts(&[("t", 1)]));
        assert_eq!(shown(&shares), "a:t0 b:");
        let mut first = member("z", &["t"]);
        first.instance_id = Some("0".to_owned());
        let shares = Assignor::Range.assign(&[member("a", &["t"]), first], &counts(&[("t", 1)]));
        assert_eq!(shown(&shares), "a: z:t0", "static members come first");
    }

    #[test]
    fn round_robin_skips_who_does_not_want_the_topic() {
        let members = [member("a", &["t"]), member("b", &["t", "u"]), member("c", &["t", "u"])];
        let shares = Assignor::RoundRobin.assign(&members, &counts(&[("t", 2), ("u", 3)]));
        assert_eq!(shown(&shares), "a:t0 b:t1,u1 c:u0,u2");
    }

    fn give(members: &mut [Member], shares: &Shares, generation: i32) {
        for member in members {
            member.owned = shares[&member.id].clone();
            member.generation = generation;
        }
    }

    #[test]
    fn sticky_moves_only_what_evens_things_out_and_not_before_it_was_let_go() {
        let counts = counts(&[("t", 6)]);
        let mut members = vec![member("a", &["t"]), member("b", &["t"])];
        let first = Assignor::CooperativeSticky.assign(&members, &counts);
        assert_eq!(first.values().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
        give(&mut members, &first, 1);
        members.push(member("c", &["t"]));
        let second = Assignor::CooperativeSticky.assign(&members, &counts);
        assert_eq!(second["c"], [], "what c is to have is still read by a and b");
        assert_eq!((second["a"].len(), second["b"].len()), (2, 2));
        assert!(second["a"].iter().all(|partition| first["a"].contains(partition)));
        give(&mut members, &second, 2);
        let third = Assignor::CooperativeSticky.assign(&members, &counts);
        assert_eq!((&third["a"], &third["b"]), (&second["a"], &second["b"]));
        assert_eq!(third["c"].len(), 2);
        give(&mut members, &third, 3);
        assert_eq!(Assignor::CooperativeSticky.assign(&members, &counts), third, "at rest");
        members.remove(0);
        let fourth = Assignor::CooperativeSticky.assign(&members, &counts);
        assert_eq!((fourth["b"].len(), fourth["c"].len()), (3, 3));
        assert!(third["b"].iter().all(|partition| fourth["b"].contains(partition)));
    }

    #[test]
    fn a_claim_of_an_older_generation_yields() {
        let counts = counts(&[("t", 2)]);
        let mut old = member("a", &["t"]);
        old.owned = vec![TopicPartition::new("t", 0), TopicPartition::new("t", 1)];
        old.generation = 3;
        let mut new = member("b", &["t"]);
        new.owned = vec![TopicPartition::new("t", 0)];
        new.generation = 4;
        let shares = Assignor::CooperativeSticky.assign(&[old, new], &counts);
        assert_eq!(shown(&shares), "a:t1 b:t0");
    }

    /// Any group, any history: everything is shared out once, evenly where all want the same, and nothing moves at rest.
    #[test]
    fn any_group_comes_to_rest_with_everything_shared_out_once() {
        let mut random = 7u64;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            usize::try_from((random >> 33) % limit).unwrap()
        };
        for round in 0..200 {
            let topics = ["t", "u", "v"];
            let counts = counts(&[("t", below(9)), ("u", 1 + below(4)), ("v", below(20))]);
            let all_want_all = below(2) == 0;
            let mut members = Vec::new();
            for index in 0..=below(6) {
                let wanted: Vec<_> =
                    topics.iter().copied().filter(|_| all_want_all || below(3) > 0).collect();
                members.push(member(&format!("m{index}"), &wanted));
            }
            for generation in 1..6 {
                if generation == 2 && members.len() > 1 {
                    members.swap_remove(0);
                }
                let shares = Assignor::CooperativeSticky.assign(&members, &counts);
                let mut given = BTreeSet::new();
                for (id, share) in &shares {
                    let of = members.iter().find(|member| member.id == *id).unwrap();
                    for partition in share {
                        assert!(given.insert(partition.clone()), "{round}: {partition} twice");
                        assert!(of.topics.contains(&partition.topic));
                        let owner = members.iter().find(|m| m.owned.contains(partition));
                        assert!(owner.is_none_or(|owner| owner.id == *id), "{round}: taken away");
                    }
                }
                let is_at_rest = members.iter().all(|member| member.owned == shares[&member.id]);
                assert!(generation < 5 || is_at_rest, "{round}: not at rest");
                if is_at_rest && generation > 2 {
                    let wanted = counts.iter().filter(|(topic, _)| {
                        members.iter().any(|member| member.topics.contains(*topic))
                    });
                    assert_eq!(given.len(), wanted.map(|(_, count)| count).sum::<usize>());
                    let sizes = || shares.values().map(Vec::len);
                    let spread = sizes().max().unwrap() - sizes().min().unwrap();
                    assert!(!all_want_all || spread <= 1, "{round}: {}", shown(&shares));
                }
                give(&mut members, &shares, generation);
            }
        }
    }
}
