//! An operator moves leadership, and asks who is in the ensemble.
//!
//! Called by `request`, `read` and the end of each step. Calls consensus, `peer`, `pipeline`. Invariant: a
//! transfer is answered in its turn, by what this server sees of who leads, within a bound. It does not
//! know how the office goes over.
//!
//! Any server takes the request: it asks the leader, whoever that is at the moment, and watches who leads.
//! So nothing has to travel back, and a leader that is lost meanwhile is only asked again in its successor.

use coordinator_protocol::{
    EnsembleInfo, ErrorCode, MemberInfo, Permissions, Response, TransferAnswer, TransferOutcome,
    TransferRequest,
};

use super::connection::Step;
use super::limits::TRANSFERS_MAX;
use super::peer::PeerMessage;
use super::step::Server;
use crate::tree::CONFIG_PATH;
use crate::{ConnectionId, Millis, ServerId};

/// A transfer is given up after so many election time-outs: the leader gives up after one, and then
/// another election may be needed.
const ELECTIONS_WAITED: u64 = 4;

/// Transfers that wait.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    last: u64,
    waiting: Vec<Transfer>,
}

#[derive(Debug)]
struct Transfer {
    number: u64,
    connection: ConnectionId,
    to: Option<ServerId>,
    /// Who led when it came: any other will do where nobody is named.
    from: Option<ServerId>,
    /// The leader that was asked, and its term.
    asked: Option<(ServerId, u64)>,
    deadline: Millis,
}

impl Transfers {
    /// How many came and were begun.
    pub(super) fn asked(&self) -> u64 {
        self.last
    }

    /// When one is given up.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.waiting.iter().map(|transfer| transfer.deadline).min()
    }
}

/// As it stands on the wire; ids are within 1..=254.
fn on_wire(id: Option<ServerId>) -> i32 {
    id.and_then(|id| i32::try_from(id.get()).ok()).unwrap_or(0)
}

impl Server {
    /// Allowed is who may write the configuration, as ZooKeeper decides on its reconfig: without another
    /// list on that node, the super user alone.
    pub(super) fn begin_transfer(&mut self, id: ConnectionId, request: &TransferRequest) -> Step {
        let tree = self.state.tree();
        let allowed =
            tree.get(CONFIG_PATH).is_some_and(|node| self.may(id, Permissions::WRITE, node.acl()));
        if !allowed {
            return Step::Answer(Err(ErrorCode::NoAuth));
        }
        if self.transfers.waiting.len() >= TRANSFERS_MAX {
            return Step::Answer(Err(ErrorCode::ThrottledOp));
        }
        let to = u64::try_from(request.to).ok().and_then(ServerId::new);
        if request.to != 0
            && let Some(outcome) = self.reason_against(to)
        {
            return Step::Answer(Ok(self.transfer_answer(outcome)));
        }
        if request.to == 0 && self.consensus.is_leader() && self.consensus.peers_up() == 0 {
            return Step::Answer(Ok(self.transfer_answer(TransferOutcome::NotUp)));
        }
        let election_ms =
            self.config.tick_ms.saturating_mul(self.config.election_ticks.try_into().unwrap_or(0));
        self.transfers.last = self.transfers.last.saturating_add(1);
        let number = self.transfers.last;
        self.transfers.waiting.push(Transfer {
            number,
            connection: id,
            to,
            from: self.consensus.leader(),
            asked: None,
            deadline: self.now.mono.plus_ms(election_ms.saturating_mul(ELECTIONS_WAITED)),
        });
        Step::Transfer(number)
    }

    /// Why the office cannot go to this server.
    fn reason_against(&self, to: Option<ServerId>) -> Option<TransferOutcome> {
        let Some(to) = to.filter(|to| self.consensus.members().voters.contains(to)) else {
            return Some(TransferOutcome::NotMember);
        };
        if self.consensus.leader() == Some(to) {
            Some(TransferOutcome::AlreadyLeader)
        } else if to != self.config.id && !self.consensus.is_peer_up(to) {
            Some(TransferOutcome::NotUp)
        } else {
            None
        }
    }

    fn transfer_answer(&self, outcome: TransferOutcome) -> Response {
        let leader = on_wire(self.consensus.leader());
        Response::Transfer(TransferAnswer { outcome, leader })
    }

    /// Asks leaders that were not asked yet, and answers what has come to an end.
    pub(super) fn follow_transfers(&mut self) {
        if self.transfers.waiting.is_empty() {
            return;
        }
        let leader = self.consensus.leader();
        let now = self.now.mono;
        let mut still = Vec::new();
        for mut transfer in std::mem::take(&mut self.transfers.waiting) {
            let moved = match transfer.to {
                Some(_) => leader == transfer.to,
                None => leader.is_some() && leader != transfer.from,
            };
            let moved = moved || planted!(self.config.planted, CallTransferDone);
            if moved || now >= transfer.deadline {
                let outcome =
                    if moved { TransferOutcome::Done } else { TransferOutcome::TookTooLong };
                let answer = self.transfer_answer(outcome);
                self.decide_transfer(&transfer, answer);
                continue;
            }
            // Where nobody led when it came, the first leader is only where it begins.
            transfer.from = transfer.from.or(leader);
            let asks = leader.map(|leader| (leader, self.consensus.term()));
            if asks != transfer.asked {
                transfer.asked = asks;
                self.ask_for_transfer(leader, transfer.to);
            }
            still.push(transfer);
        }
        // Some may have come while these were looked at.
        self.transfers.waiting.append(&mut still);
    }

    fn ask_for_transfer(&mut self, leader: Option<ServerId>, to: Option<ServerId>) {
        if leader == Some(self.config.id) {
            self.consensus.hand_over(to, self.now.mono, &mut self.outputs);
            self.settle();
        } else if let Some(leader) = leader {
            self.send_peer(leader, &PeerMessage::Transfer(to));
        }
    }

    fn decide_transfer(&mut self, transfer: &Transfer, answer: Response) {
        let Some(connection) = self.connections.get_mut(transfer.connection) else { return };
        for pending in &mut connection.pipeline {
            if matches!(pending.step, Step::Transfer(number) if number == transfer.number) {
                pending.step = Step::Answer(Ok(answer));
                break;
            }
        }
        self.run_pipeline(transfer.connection);
    }

    /// Who is in the ensemble and who leads, as this server sees it.
    pub(super) fn describe_ensemble(&self) -> EnsembleInfo {
        let ids = self.member_ids();
        let is_up = |id: ServerId| id == self.config.id || self.consensus.is_peer_up(id);
        let member = |id: &ServerId| MemberInfo { id: on_wire(Some(*id)), up: is_up(*id) };
        EnsembleInfo {
            server: on_wire(Some(self.config.id)),
            leader: on_wire(self.consensus.leader()),
            term: i64::try_from(self.consensus.term()).unwrap_or(i64::MAX),
            members: ids.voters.union(&ids.learners).map(member).collect(),
        }
    }
}
