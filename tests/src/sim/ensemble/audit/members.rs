//! What operators were told: a change that was called done is one that was agreed on, each later one under a later zxid, and who
//! is said to lead now has led since the question.

use coordinator_core::state::{OpResult, Outcome};
use coordinator_protocol::{Request, Response, TransferOutcome, Zxid};

use super::{Audited, Facts};
use crate::sim::ensemble::client::Heard;
use crate::sim::ensemble::world::World;

pub(super) fn audit(facts: &Facts<'_>, world: &World, audited: &mut Audited) {
    let mut last = Zxid::ZERO;
    for decided in facts.decided {
        if let Outcome::Written { result: Ok(OpResult::Reconfigured { data, stat }), .. } =
            &decided.applied.outcome
        {
            let version = format!("version={:x}", stat.mzxid.get());
            assert!(data.ends_with(version.as_bytes()), "{version} is not in {data:?}");
            assert!(stat.mzxid > last, "the members went from {last} to {}", stat.mzxid);
            last = stat.mzxid;
            audited.reconfigs += 1;
        }
    }
    for talk in world.talks.values() {
        for heard in &talk.heard {
            let Heard::Reply { at, request, outcome: Ok(Response::Transfer(answer)), .. } = heard
            else {
                continue;
            };
            let Request::TransferLeader(asked) = &talk.sent[*request].request else {
                panic!("a transfer that nobody asked for: {answer:?}")
            };
            if answer.outcome != TransferOutcome::Done {
                continue;
            }
            let is_named = asked.to != 0;
            assert!(!is_named || answer.leader == asked.to, "{asked:?} is done: {answer:?}");
            let to = usize::try_from(answer.leader - 1).expect("a machine's number");
            let between = (talk.sent[*request].at, *at);
            assert!(
                world.ledger.has_led(to, between),
                "{asked:?} is done: {answer:?}, and it did not lead"
            );
            audited.transfers += u64::from(is_named);
        }
    }
}
