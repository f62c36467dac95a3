//! What commands and the engine's entries do to the members.
//!
//! Called by: the machine. Calls `membership`, `tree`. Invariant: `/zookeeper/config` holds the text of the servers
//! and their version, whenever there are any. It does not know how members are exchanged.

use bytes::Bytes;
use coordinator_protocol::{ErrorCode, Permissions, ReconfigRequest, SessionId};

use super::entry::AdvanceTo;
use super::machine::State;
use super::membership::{ChangePhase, Membership, MembershipChange};
use super::outcome::{OpResult, Outcome};
use crate::members::{MemberIds, Members, to_text};
use crate::tree::{CONFIG_PATH, Change, Identity, is_allowed};

impl State {
    /// The members, once the log says who they are.
    #[must_use]
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// Applies the engine's entry at `index`: who has a part in consensus from here on.
    pub fn apply_members(&mut self, term: u64, index: u64, ids: MemberIds) {
        self.begin_entry(term, index, self.wall_ms);
        if let Some(membership) = &mut self.membership {
            membership.ids = ids;
        }
        self.end_entry();
    }

    pub(super) fn found_members(
        &mut self,
        servers: &Members,
        changes: &mut Vec<Change>,
    ) -> Outcome {
        if self.membership.is_none() {
            self.agree_on(servers.clone(), changes);
        }
        Outcome::MembersMoved
    }

    pub(super) fn reconfigure(
        &mut self,
        (session, generation, sequence): (SessionId, u64, u64),
        identities: &[Identity],
        request: &ReconfigRequest,
    ) -> Outcome {
        match self.admit_reconfig(identities, request) {
            Err(code) => Outcome::Written { session, generation, sequence, result: Err(code) },
            Ok(target) => {
                let id = self.index.saturating_add(1);
                let phase = ChangePhase::CatchUp;
                let change = MembershipChange { id, target, phase, session, generation, sequence };
                if let Some(membership) = &mut self.membership {
                    membership.change = Some(change);
                }
                Outcome::Reconfiguring { session, generation, sequence }
            }
        }
    }

    fn admit_reconfig(
        &self,
        identities: &[Identity],
        request: &ReconfigRequest,
    ) -> Result<Members, ErrorCode> {
        let membership = self.membership.as_ref().ok_or(ErrorCode::ReconfigDisabled)?;
        // ZooKeeper looks at the arguments first, and tells whoever asks what is wrong with them; but not with ids that are
        // none here only.
        let target = membership.target_of(request)?;
        let node = self.tree.get(CONFIG_PATH).ok_or(ErrorCode::NoNode)?;
        if !is_allowed(node.acl(), Permissions::WRITE, identities) {
            return Err(ErrorCode::NoAuth);
        }
        target.ok_or(ErrorCode::BadArguments)
    }

    pub(super) fn advance_members(
        &mut self,
        id: u64,
        to: AdvanceTo,
        changes: &mut Vec<Change>,
    ) -> Outcome {
        let Some(membership) = &mut self.membership else { return Outcome::MembersMoved };
        let arrived = membership.has_arrived() || planted!(self.planted, FinishHalfWay);
        let servers = membership.servers.clone();
        let Some(change) = membership.change.as_mut().filter(|change| change.id == id) else {
            return Outcome::MembersMoved;
        };
        match to {
            AdvanceTo::Exchange if change.phase == ChangePhase::CatchUp => {
                change.phase = ChangePhase::Exchange;
            }
            AdvanceTo::GivenUp if change.phase == ChangePhase::CatchUp => {
                change.phase = ChangePhase::GivenUp;
                change.target = servers;
            }
            AdvanceTo::TurnedBack if change.phase == ChangePhase::Exchange => {
                change.phase = ChangePhase::TurnedBack;
            }
            AdvanceTo::Finished if arrived => {
                let change = change.clone();
                membership.change = None;
                return self.finish_members(change, changes);
            }
            AdvanceTo::Exchange
            | AdvanceTo::GivenUp
            | AdvanceTo::TurnedBack
            | AdvanceTo::Finished => {}
        }
        Outcome::MembersMoved
    }

    fn finish_members(&mut self, change: MembershipChange, changes: &mut Vec<Change>) -> Outcome {
        let MembershipChange { session, generation, sequence, target, phase, .. } = change;
        let result = match phase {
            ChangePhase::GivenUp | ChangePhase::TurnedBack => Err(ErrorCode::NewConfigNoQuorum),
            ChangePhase::CatchUp | ChangePhase::Exchange => Ok(self.agree_on(target, changes)),
        };
        Outcome::Written { session, generation, sequence, result }
    }

    /// These are the servers from now on, under a zxid of their own.
    fn agree_on(&mut self, servers: Members, changes: &mut Vec<Change>) -> OpResult {
        let version = self.zxids.peek();
        let data = Bytes::from(to_text(&servers, version.get()));
        let mut transaction = self.transaction();
        let stat = transaction.write_config(data.clone());
        *changes = transaction.commit();
        self.zxids.advance();
        let ids = self.membership.as_ref().map(|membership| membership.ids.clone());
        let mut membership = Membership::found(servers, version);
        membership.ids = ids.unwrap_or_default();
        self.membership = Some(membership);
        OpResult::Reconfigured { data, stat }
    }
}

#[cfg(test)]
mod tests {
    use coordinator_disk::envelope::HEADER_BYTES;
    use coordinator_protocol::Zxid;

    use super::*;
    use crate::ServerId;
    use crate::members::Member;
    use crate::state::{Command, Entry, State, WriteOp, members_of_snapshot};

    fn id(id: u64) -> ServerId {
        ServerId::new(id).unwrap()
    }

    fn servers() -> Members {
        [(id(1), Member::parse("a:1:2;b:3").unwrap())].into()
    }

    fn founded() -> State {
        let mut state = State::new();
        let commands = vec![Command::FoundMembers { servers: servers() }];
        state.apply(1, 1, &Entry { wall_ms: 7, commands });
        state.apply_members(1, 2, MemberIds::of(&servers()));
        state
    }

    /// Logs hold these bytes: a change is a new version of the schema.
    #[test]
    fn golden_bytes_stay() {
        let advance = |to| Command::AdvanceMembers { change: 9, to };
        let reconfig = Command::Write {
            session: SessionId::new(5),
            generation: 1,
            sequence: 2,
            identities: [].into(),
            op: WriteOp::Reconfig(ReconfigRequest {
                joining_servers: Some("j".into()),
                leaving_servers: None,
                new_members: None,
                config_id: -1,
            }),
        };
        let found = Command::FoundMembers { servers: servers() };
        let found_bytes = [&[5, 1, 1, 1, b'a', 1, 2, 0, 1, 3][..], b"b:3"].concat();
        for (command, bytes) in [
            (reconfig, &[2, 10, 1, 2, 0, 4, 1, 1, b'j', 0, 0, 1][..]),
            (found, &found_bytes),
            (advance(AdvanceTo::Exchange), &[6, 9, 0]),
            (advance(AdvanceTo::GivenUp), &[6, 9, 1]),
            (advance(AdvanceTo::Finished), &[6, 9, 2]),
            (advance(AdvanceTo::TurnedBack), &[6, 9, 3]),
        ] {
            let entry = Entry { wall_ms: 0, commands: vec![command] };
            let encoded = entry.encode().unwrap();
            assert_eq!(encoded[6..8], [3, 0], "{entry:?}");
            assert_eq!(encoded[HEADER_BYTES..], [&[0, 1], bytes].concat(), "{entry:?}");
            assert_eq!(Entry::decode(&encoded), Ok(entry));
        }
        let commands = vec![Command::RemoveDue { path: "/a".into() }];
        let other = Entry { wall_ms: 0, commands }.encode().unwrap();
        assert_eq!(other[6..8], [2, 0], "the build before reads it");
    }

    #[test]
    fn members_are_in_snapshots_and_set_apart_without_them() {
        let state = founded();
        let bytes = state.encode_snapshot();
        let again = State::decode_snapshot(&bytes).unwrap();
        assert_eq!(again, state);
        assert_eq!(members_of_snapshot(&bytes), Some(MemberIds::of(&servers())));
        assert_eq!(again.membership().unwrap().version, Zxid::new(1 << 32 | 1));
        let apart = again.set_apart().unwrap();
        assert_eq!(apart.membership(), None, "settings name those who begin anew");
        let text = |state: &State| state.tree().get(CONFIG_PATH).unwrap().data().unwrap();
        assert!(!text(&state).is_empty() && text(&apart).is_empty());
        apart.check();
        let bytes = State::new().encode_snapshot();
        assert_eq!(bytes[4..][6..8], [2, 0], "the build before reads it");
        assert_eq!(members_of_snapshot(&bytes), None);
        assert_eq!(members_of_snapshot(b"no snapshot"), None);
    }

    #[test]
    fn members_are_founded_once() {
        let mut state = founded();
        let before = state.clone();
        let other = [(id(2), Member::parse("c:1:2;d:3").unwrap())].into();
        let commands = vec![Command::FoundMembers { servers: other }];
        state.apply(1, 3, &Entry { wall_ms: 8, commands });
        assert_eq!(state.membership(), before.membership());
        assert_eq!(state.last_zxid(), before.last_zxid());
    }
}
