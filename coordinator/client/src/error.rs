//! How a call can fail, by what the caller can do about it.

use coordinator_protocol::{DecodeError, ErrorCode, FrameError, Zxid};
use thiserror::Error;

use crate::tls::TlsFailure;

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The ensemble answered with this code: the request was understood and not done.
    #[error("refused: {0}")]
    Refused(ErrorCode),
    /// A multi was not done, because of this operation of it. Nothing of it was.
    #[error("operation {index} of a multi was refused: {code}")]
    MultiRefused {
        /// Which operation, counted from 0.
        index: usize,
        /// Why.
        code: ErrorCode,
        /// The last write that the server had applied when it refused.
        zxid: Zxid,
    },
    /// The connection broke while the write was under way: it may or may not have been done, and it
    /// may still be. Read before you try again.
    #[error("the connection was lost, the outcome of the write is unknown")]
    ConnectionLoss,
    /// No server could be reached in time; the request was not sent. Try again.
    #[error("no coordinator could be reached")]
    Unavailable,
    /// No server could be reached in time, and this one could not be spoken to encrypted; the request was not sent. Other
    /// files or settings are needed, here or there.
    #[error("no encrypted connection to {address}: {why}")]
    Tls {
        /// Which server.
        address: String,
        /// Why.
        why: TlsFailure,
    },
    /// No server could be reached in time, and this one hung up before it had answered anything; the request was not sent.
    /// It takes encrypted connections only, has no quorum, or has too many clients.
    #[error("{address} hung up without an answer")]
    HungUp {
        /// Which server.
        address: String,
        /// Whether it had shaken hands of TLS before: then that is not why.
        is_encrypted: bool,
    },
    /// The session is over, and with it its ephemerals, watches and subscriptions. Open a new one.
    #[error("the session has expired")]
    SessionExpired,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// The receiver of a watch or subscription was too slow and has missed something. Open it anew.
    #[error("events were lost, the receiver is too slow")]
    Overrun,
    /// A recipe lost a race too often. Try again later.
    #[error("{attempts} attempts in a row met somebody else's write")]
    Contended {
        /// How many attempts were made.
        attempts: u32,
    },
    /// The server answered with what does not fit the request.
    #[error("the server's answer cannot be read: {0}")]
    Answer(#[from] DecodeError),
    /// The server sent a frame that cannot be taken.
    #[error("the server's frame cannot be read: {0}")]
    Frame(#[from] FrameError),
    /// The server answered one operation with the body of another.
    #[error("the server's answer has another shape than the request's")]
    UnexpectedAnswer,
}

impl Error {
    /// The code with which the ensemble refused, of a multi the failed operation's.
    #[must_use]
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(code) | Self::MultiRefused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the ensemble refused with `code`.
    #[must_use]
    pub fn is(&self, code: ErrorCode) -> bool {
        self.code() == Some(code)
    }

    /// What to do next where no server can be spoken to, for people.
    #[must_use]
    pub const fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Tls { why, .. } => Some(why.advice()),
            Self::HungUp { is_encrypted: false, .. } => Some(
                "does it take encrypted connections only? Then name the authority to trust (--tls-ca, TIDEGATE_TLS_CA; a broker's \
                 zookeeper.ssl.client.enable). Else it has no quorum, or too many clients; its log says which",
            ),
            Self::HungUp { is_encrypted: true, .. } => Some(
                "it encrypts, and took what it was shown: so it has no quorum, or too many clients or sessions of this one; its log \
                 says which",
            ),
            _ => None,
        }
    }

    /// Whether the same call may succeed later in this session. After [`Error::ConnectionLoss`] it
    /// may also already have.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        matches!(
            self,
            Self::ConnectionLoss
                | Self::Unavailable
                | Self::Tls { .. }
                | Self::HungUp { .. }
                | Self::Overrun
                | Self::Contended { .. }
        )
    }

    /// Whether the session is gone for good.
    #[must_use]
    pub const fn is_session_over(&self) -> bool {
        matches!(self, Self::SessionExpired | Self::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_encrypts_already_is_not_told_to() {
        let hung_up = |is_encrypted| Error::HungUp { address: String::new(), is_encrypted };
        let advice = |is_encrypted| hung_up(is_encrypted).advice().unwrap();
        assert!(advice(false).contains("--tls-ca") && advice(false).contains("no quorum"));
        assert!(!advice(true).contains("tls") && advice(true).contains("no quorum"));
    }
}
