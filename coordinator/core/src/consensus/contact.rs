//! When a leader with a quorum was last heard of: the measure of "no quorum, no answers".
//!
//! Called by the engine. Calls: nothing. Invariant: the time given is never later than the last
//! moment at which a majority of members took part in a leader's term with this server.
//! It does not know sessions or what follows from a lost quorum.

use std::collections::BTreeMap;

use crate::{Millis, ServerId};

/// What one member knows about contact in its ensemble.
#[derive(Debug)]
pub(super) struct Contact {
    quorum: usize,
    /// On a leader: when each other member last answered in this term.
    answered: BTreeMap<ServerId, Millis>,
    /// On a follower: see the module's invariant.
    followed: Option<Millis>,
    leading: bool,
}

impl Contact {
    pub(super) fn new(members: usize) -> Self {
        Self { quorum: members / 2 + 1, answered: BTreeMap::new(), followed: None, leading: false }
    }

    /// This server won an election: a quorum voted for it just now.
    pub(super) fn begin_leading(&mut self, now: Millis) {
        self.leading = true;
        self.answered.clear();
        self.followed = Some(now);
    }

    /// This server no longer leads. What it knew last keeps its age.
    pub(super) fn end_leading(&mut self, now: Millis) {
        self.followed = self.confirmed_at(now);
        self.leading = false;
    }

    /// On a leader: the last moment at which it was certain and `member` was known to hear and be
    /// heard. What only one side hears is no contact: sessions there would be answered while their
    /// touches do not arrive.
    pub(super) fn confirmed_with(&self, member: ServerId, now: Millis) -> Option<Millis> {
        let heard = self.answered.get(&member).copied().max(self.followed);
        self.confirmed_at(now).min(heard)
    }

    /// The leader spoke; `quorum_age_ms` before it did, it was sure of a quorum and heard this
    /// server.
    pub(super) fn heard_leader(&mut self, quorum_age_ms: u64, now: Millis) {
        let at = Millis::new(now.get().saturating_sub(quorum_age_ms));
        self.followed = self.followed.max(Some(at));
    }

    /// A member answered this leader.
    pub(super) fn heard_member(&mut self, from: ServerId, now: Millis) {
        if self.leading {
            self.answered.insert(from, now);
        }
    }

    /// The last moment of certainty; `None` if there was none yet.
    pub(super) fn confirmed_at(&self, now: Millis) -> Option<Millis> {
        if !self.leading {
            return self.followed;
        }
        let others_needed = self.quorum.saturating_sub(1);
        if others_needed == 0 {
            return Some(now);
        }
        let mut times: Vec<Millis> = self.answered.values().copied().collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.get(others_needed.saturating_sub(1)).copied().max(self.followed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: u64) -> ServerId {
        ServerId::new(id).unwrap()
    }

    #[test]
    fn leader_counts_the_slowest_member_of_its_best_quorum() {
        let mut contact = Contact::new(5);
        assert_eq!(contact.confirmed_at(Millis::new(5)), None);
        contact.begin_leading(Millis::new(10));
        contact.heard_member(server(2), Millis::new(90));
        assert_eq!(contact.confirmed_at(Millis::new(99)), Some(Millis::new(10)));
        contact.heard_member(server(3), Millis::new(50));
        contact.heard_member(server(4), Millis::new(40));
        assert_eq!(contact.confirmed_at(Millis::new(99)), Some(Millis::new(50)));
        contact.end_leading(Millis::new(99));
        assert_eq!(contact.confirmed_at(Millis::new(200)), Some(Millis::new(50)));
    }

    #[test]
    fn leader_is_no_surer_with_a_member_than_it_heard_of_it() {
        let mut contact = Contact::new(3);
        contact.begin_leading(Millis::new(10));
        contact.heard_member(server(2), Millis::new(90));
        assert_eq!(contact.confirmed_at(Millis::new(99)), Some(Millis::new(90)));
        assert_eq!(contact.confirmed_with(server(2), Millis::new(99)), Some(Millis::new(90)));
        assert_eq!(contact.confirmed_with(server(3), Millis::new(99)), Some(Millis::new(10)));
        contact.heard_member(server(3), Millis::new(95));
        assert_eq!(contact.confirmed_with(server(2), Millis::new(99)), Some(Millis::new(90)));
        assert_eq!(contact.confirmed_with(server(3), Millis::new(99)), Some(Millis::new(95)));
    }

    #[test]
    fn follower_inherits_the_age_of_its_leaders_quorum() {
        let mut contact = Contact::new(3);
        contact.heard_leader(30, Millis::new(100));
        contact.heard_leader(90, Millis::new(110));
        assert_eq!(contact.confirmed_at(Millis::new(120)), Some(Millis::new(70)));
    }

    #[test]
    fn single_member_is_always_sure() {
        let mut contact = Contact::new(1);
        contact.begin_leading(Millis::new(1));
        assert_eq!(contact.confirmed_at(Millis::new(900)), Some(Millis::new(900)));
    }
}
