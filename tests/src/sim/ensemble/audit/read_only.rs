//! Without a quorum a client that wants no more is answered reads, of a state that was committed (`reads` looks at that as at all
//! others), and nothing else: no write, no sync; and the log knows nothing of the connection.

use coordinator_protocol::{ErrorCode, Request, Response};

use super::{Audited, Facts};
use crate::sim::ensemble::client::{Heard, is_write};
use crate::sim::ensemble::world::World;

pub(super) fn audit(facts: &Facts<'_>, world: &World, audited: &mut Audited) {
    for talk in world.talks.values().filter(|talk| talk.read_only) {
        let logged = facts.opened.get(&(talk.server, talk.origin));
        assert_eq!(logged, None, "connection {} is in the log, and reads only", talk.connection);
        for heard in &talk.heard {
            let Heard::Reply { request, outcome, .. } = heard else { continue };
            let asked = &talk.sent[*request].request;
            audited.read_only += 1;
            if !is_write(asked) && !matches!(asked, Request::Sync(_)) {
                continue;
            }
            let refused = matches!(outcome, Err(ErrorCode::NotReadOnly));
            // The end of a session that is the server's own.
            let ends = matches!((asked, outcome), (Request::CloseSession, Ok(Response::Empty)));
            assert!(refused || ends, "{asked:?} was answered {outcome:?} without a quorum");
        }
    }
}
