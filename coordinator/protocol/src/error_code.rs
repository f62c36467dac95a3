//! ZooKeeper's error codes.
//!
//! Called by: everything that answers or is answered.
//! Invariant: a code that we have no name for keeps its number.

use crate::jute::open_enum;
use serde::{Deserialize, Serialize};
use std::fmt;

open_enum! {
    /// What a request came to. It is a value of the protocol, not a failure of the program.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub enum ErrorCode {
        /// It was done.
        Ok = 0,
        /// A failure of the server that has no name of its own.
        SystemError = -1,
        /// In a multi: not tried, because an earlier operation failed.
        RuntimeInconsistency = -2,
        /// Two things that must agree do not.
        DataInconsistency = -3,
        /// Made by clients only: the connection was lost and the outcome is unknown.
        ConnectionLoss = -4,
        /// The request could not be read.
        MarshallingError = -5,
        /// The server does not know the operation.
        Unimplemented = -6,
        /// It took too long.
        OperationTimeout = -7,
        /// An argument breaks a rule (of paths, of flags).
        BadArguments = -8,
        /// There is no such session.
        UnknownSession = -12,
        /// The new membership would have no quorum.
        NewConfigNoQuorum = -13,
        /// Another change of the membership is under way.
        ReconfigInProgress = -14,
        /// The mark below which the codes of the API begin.
        ApiError = -100,
        /// The znode does not exist.
        NoNode = -101,
        /// The access list forbids it.
        NoAuth = -102,
        /// The expected version is not the znode's.
        BadVersion = -103,
        /// The parent is ephemeral.
        NoChildrenForEphemerals = -108,
        /// The znode exists already.
        NodeExists = -110,
        /// The znode has children.
        NotEmpty = -111,
        /// The session is over.
        SessionExpired = -112,
        /// Made by clients only.
        InvalidCallback = -113,
        /// The access list is empty or not understood.
        InvalidAcl = -114,
        /// The credentials were refused.
        AuthFailed = -115,
        /// The session lives on another server by now.
        SessionMoved = -118,
        /// A server without a quorum does not write.
        NotReadOnly = -119,
        /// A local session cannot own an ephemeral.
        EphemeralOnLocalSession = -120,
        /// There is no such watch.
        NoWatcher = -121,
        /// The request was not answered in time.
        RequestTimeout = -122,
        /// Membership cannot be changed over the protocol.
        ReconfigDisabled = -123,
        /// SASL is required, the session is closed.
        SessionClosedRequireSaslAuth = -124,
        /// A hard quota would be exceeded.
        QuotaExceeded = -125,
        /// The server has too much to do.
        ThrottledOp = -127,
    }
}

impl ErrorCode {
    /// Whether this is [`ErrorCode::Ok`].
    #[must_use]
    pub const fn is_ok(self) -> bool {
        self.code() == 0
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(code) => write!(f, "error {code}"),
            named => write!(f, "{named:?} ({})", named.code()),
        }
    }
}
