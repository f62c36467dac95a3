//! When a leader with a quorum was last heard of: the measure of "no quorum, no answers".
//!
//! Called by the engine. Calls: nothing. Invariant: the time given is never later than the last
//! moment at which a majority of members took part in a leader's term with this server.
//! It does not know sessions or what follows from a lost quorum.
//!
//! When a message arrives says nothing: it may have waited in a socket for as long as this process
//! stood still. So each message carries a stamp of its sender's clock, and the latest stamp that
//! its sender has of its receiver: who gets its own stamp back knows that the other side took part
//! after that moment of its own clock.
//!
//! ```text
//!   follower   s ------------.                      .----> certain at s - lag
//!                             \                    /
//!   leader     c ............. r ---- {echo: s, lag: r - c}      c: its quorum's certainty
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Millis, ServerId};

/// A moment of one process's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Differs between processes that were the same member.
    life: u64,
    at_ms: u64,
}

/// The latest stamp of the receiver that the sender has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Echo {
    stamp: Stamp,
    /// From a leader: how long before the stamp came it was last sure of a quorum, 0 if it was
    /// since; `None` if it never was, and from others.
    lag_ms: Option<u64>,
}

/// What stands beside every message of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proof {
    stamp: Stamp,
    echo: Option<Echo>,
}

/// What one member knows about contact in its ensemble.
#[derive(Debug)]
pub(super) struct Contact {
    voters: BTreeSet<ServerId>,
    id: ServerId,
    life: u64,
    /// The latest stamp of each other member, and when it came.
    stamps: BTreeMap<ServerId, (Stamp, Millis)>,
    /// On a leader: until when, at least, each other member took part in this term.
    answered: BTreeMap<ServerId, Millis>,
    /// On a follower: see the module's invariant.
    followed: Option<Millis>,
    leading: bool,
}

impl Contact {
    /// `life` should differ from that of all earlier processes of this member.
    pub(super) fn new(id: ServerId, voters: BTreeSet<ServerId>, life: u64) -> Self {
        Self {
            voters,
            id,
            life,
            stamps: BTreeMap::new(),
            answered: BTreeMap::new(),
            followed: None,
            leading: false,
        }
    }

    /// Others vote from now on. What the same ones said before still counts.
    pub(super) fn set_voters(&mut self, voters: BTreeSet<ServerId>) {
        self.voters = voters;
    }

    /// This server won an election. The votes may have waited for it: nothing is sure by them.
    pub(super) fn begin_leading(&mut self) {
        self.leading = true;
        self.answered.clear();
    }

    /// This server no longer leads. What it knew last keeps its age.
    pub(super) fn end_leading(&mut self, now: Millis) {
        self.followed = self.confirmed_at(now);
        self.leading = false;
    }

    /// What goes along with a message to `to`. `current`: the message is of this server's term; one
    /// that waited for the disk may be of an earlier one, and proves nothing of this one.
    pub(super) fn proof(&self, to: ServerId, current: bool, now: Millis) -> Proof {
        let stamp = Stamp { life: self.life, at_ms: now.get() };
        let heard = self.stamps.get(&to).filter(|_| current);
        let echo = heard.map(|(stamp, came)| {
            let certain = self.confirmed_at(now).filter(|_| self.leading);
            Echo { stamp: *stamp, lag_ms: certain.map(|at| came.since(at)) }
        });
        Proof { stamp, echo }
    }

    /// A message came, whatever it says.
    pub(super) fn heard(&mut self, from: ServerId, proof: &Proof, now: Millis) {
        self.stamps.insert(from, (proof.stamp, now));
    }

    /// The leader that this server follows spoke.
    pub(super) fn heard_leader(&mut self, proof: &Proof, now: Millis) {
        if let Some((echoed, Some(lag_ms))) = self.echoed(proof, now) {
            let at = Millis::new(echoed.get().saturating_sub(lag_ms));
            self.followed = self.followed.max(Some(at));
        }
    }

    /// A member answered this leader in its term.
    pub(super) fn heard_member(&mut self, from: ServerId, proof: &Proof, now: Millis) {
        if self.leading
            && let Some((echoed, _)) = self.echoed(proof, now)
        {
            let answered = self.answered.entry(from).or_insert(echoed);
            *answered = echoed.max(*answered);
        }
    }

    /// The last moment of certainty; `None` if there was none yet.
    pub(super) fn confirmed_at(&self, now: Millis) -> Option<Millis> {
        if !self.leading {
            return self.followed;
        }
        let quorum = self.voters.len() / 2 + 1;
        let others_needed = quorum.saturating_sub(usize::from(self.voters.contains(&self.id)));
        if others_needed == 0 {
            return Some(now);
        }
        let of_voters = self.answered.iter().filter(|(id, _)| self.voters.contains(id));
        let mut times: Vec<Millis> = of_voters.map(|(_, at)| *at).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.get(others_needed.saturating_sub(1)).copied().max(self.followed)
    }

    /// The moment of this process that the sender has heard of, and the lag that it tells.
    fn echoed(&self, proof: &Proof, now: Millis) -> Option<(Millis, Option<u64>)> {
        let echo = proof.echo?;
        let at = Millis::new(echo.stamp.at_ms);
        (echo.stamp.life == self.life && at <= now).then_some((at, echo.lag_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: u64) -> ServerId {
        ServerId::new(id).unwrap()
    }

    /// Of the first of so many members.
    fn contact(members: u64, life: u64) -> Contact {
        Contact::new(server(1), (1..=members).map(server).collect(), life)
    }

    fn at(ms: u64) -> Millis {
        Millis::new(ms)
    }

    /// A member's answer to what this process sent at `ms`.
    fn answer(life: u64, ms: u64) -> Proof {
        let stamp = Stamp { life: 99, at_ms: 0 };
        Proof { stamp, echo: Some(Echo { stamp: Stamp { life, at_ms: ms }, lag_ms: None }) }
    }

    #[test]
    fn leader_counts_when_it_asked_the_slowest_member_of_its_best_quorum() {
        let mut contact = contact(5, 7);
        assert_eq!(contact.confirmed_at(at(5)), None);
        contact.begin_leading();
        contact.heard_member(server(2), &answer(7, 90), at(95));
        assert_eq!(contact.confirmed_at(at(99)), None, "votes may have waited in a socket");
        contact.heard_member(server(3), &answer(7, 50), at(96));
        contact.heard_member(server(4), &answer(7, 40), at(97));
        assert_eq!(contact.confirmed_at(at(99)), Some(at(50)));
        contact.heard_member(server(3), &answer(7, 45), at(98));
        assert_eq!(
            contact.confirmed_at(at(99)),
            Some(at(50)),
            "an older answer takes nothing away"
        );
        contact.end_leading(at(99));
        assert_eq!(contact.confirmed_at(at(200)), Some(at(50)));
    }

    #[test]
    fn answers_to_another_life_or_to_the_future_prove_nothing() {
        let mut contact = contact(3, 7);
        contact.begin_leading();
        contact.heard_member(server(2), &answer(6, 50), at(95));
        contact.heard_member(server(2), &answer(7, 96), at(95));
        let stamp = Stamp { life: 99, at_ms: 0 };
        contact.heard_member(server(2), &Proof { stamp, echo: None }, at(95));
        assert_eq!(contact.confirmed_at(at(99)), None);
    }

    /// A leader and a follower, each with a clock of its own: the leader's shows 1,000 more.
    #[test]
    fn follower_is_as_sure_as_its_leader_was_when_it_heard_it() {
        let (mut leader, mut follower) = (contact(3, 1), contact(3, 2));
        leader.begin_leading();
        let asked = leader.proof(server(2), true, at(1_100));
        follower.heard(server(1), &asked, at(105));
        follower.heard_leader(&asked, at(105));
        assert_eq!(follower.confirmed_at(at(105)), None, "it echoes nothing");
        let answered = follower.proof(server(1), true, at(106));
        leader.heard(server(2), &answered, at(1_110));
        leader.heard_member(server(2), &answered, at(1_110));
        assert_eq!(leader.confirmed_at(at(1_111)), Some(at(1_100)));
        let word = leader.proof(server(2), true, at(1_200));
        follower.heard_leader(&word, at(90_000));
        assert_eq!(follower.confirmed_at(at(90_000)), Some(at(96)), "whenever the word arrives");
    }

    #[test]
    fn message_of_an_earlier_term_echoes_nothing() {
        let mut member = contact(3, 2);
        member.heard(server(1), &answer(2, 5), at(10));
        assert!(member.proof(server(1), true, at(11)).echo.is_some());
        assert_eq!(member.proof(server(1), false, at(11)).echo, None);
        assert_eq!(member.proof(server(3), true, at(11)).echo, None);
    }

    #[test]
    fn single_member_is_always_sure() {
        let mut contact = contact(1, 1);
        contact.begin_leading();
        assert_eq!(contact.confirmed_at(at(900)), Some(at(900)));
    }
}
