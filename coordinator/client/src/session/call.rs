//! One call of a user, from the moment it is made until it is answered.
//!
//! Called by: `client` (makes them), `session::state` (answers them).

use crate::error::Error;
use crate::session::watches::OneShot;
use crate::subscription::SubscriptionSink;
use crate::watch::WatchEvent;
use coordinator_protocol::{AddWatchMode, OpCode, Request, Response, Zxid};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// The answer to a call.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The last write that the server had applied when it answered.
    pub(crate) zxid: Zxid,
    /// The body.
    pub(crate) response: Response,
}

/// What has to be noted when a call is answered.
#[derive(Debug)]
pub(crate) enum Hook {
    /// Nothing.
    None,
    /// The server holds a one-shot watch now. For exists: `Data`, or `Exist` if there is no znode.
    OneShot(OneShot, mpsc::Sender<WatchEvent>),
    /// The server holds a persistent watch now.
    Persistent(AddWatchMode, mpsc::Sender<WatchEvent>),
    /// The server will send this subscription's events.
    Subscribe(i32, SubscriptionSink),
    /// Made by the session itself after a connect, and made again after the next: goes on with this
    /// subscription.
    Resume(i32),
    /// Made by the session itself after a connect, and made again after the next: its options.
    Options,
}

/// A request, who waits for its answer, and what the answer means.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) hook: Hook,
    pub(crate) answer: Option<oneshot::Sender<Result<Reply, Error>>>,
    pub(crate) made_at: Instant,
}

impl Call {
    /// Whether the session makes this call again by itself after a reconnect.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.hook, Hook::Resume(_) | Hook::Options)
    }

    /// Whether asking twice is the same as asking once.
    pub(crate) fn is_repeatable(&self) -> bool {
        matches!(
            self.request.op(),
            OpCode::Exists
                | OpCode::GetData
                | OpCode::GetAcl
                | OpCode::GetChildren
                | OpCode::GetChildren2
                | OpCode::Sync
                | OpCode::MultiRead
                | OpCode::GetEphemerals
                | OpCode::GetAllChildrenNumber
                | OpCode::GetChildrenPage
                | OpCode::WhoAmI
                | OpCode::DescribeEnsemble
                | OpCode::AddWatch
                | OpCode::Subscribe
                | OpCode::Unsubscribe
        )
    }

    /// Ends the call without success.
    pub(crate) fn fail(self, error: Error) {
        if let Hook::Subscribe(_, sink) = self.hook {
            sink.end(error.clone());
        }
        if let Some(answer) = self.answer {
            // The caller may have stopped waiting.
            let _ = answer.send(Err(error));
        }
    }
}
