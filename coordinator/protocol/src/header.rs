//! What stands before every request and every answer.
//!
//! Called by: `request`, `response`.

use crate::error_code::ErrorCode;
use crate::ids::{Xid, Zxid};
use crate::jute::record;
use crate::op_code::OpCode;

record! {
    /// Before every request of an open session.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RequestHeader {
        /// The client's number for it, which its answer repeats.
        pub xid: Xid,
        /// The operation.
        pub op: OpCode,
    }
}

record! {
    /// Before every answer, notification and subscription event.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ReplyHeader {
        /// The request's xid, or a special one for what was not asked for.
        pub xid: Xid,
        /// The last write that the server had applied; for a notification, the write that fired it.
        pub zxid: Zxid,
        /// What the request came to. A body follows only `Ok`.
        pub error: ErrorCode,
    }
}
