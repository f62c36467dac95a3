//! Operations of our own for people who run an ensemble: who is in it, and who is to lead it.
//!
//! Called by: `request`, `response`.
//! It does not know addresses, and not who may ask.

use crate::jute::{closed_enum, record};

record! {
    /// Asks the leader to hand its office to another member.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TransferRequest {
        /// To whom; 0 for the most suitable.
        pub to: i32,
    }
}

closed_enum! {
    /// What became of a transfer.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum TransferOutcome as "transfer outcome" {
        /// It leads.
        Done = 0,
        /// It led already.
        AlreadyLeader = 1,
        /// The ensemble has no such voting member.
        NotMember = 2,
        /// The server that was asked has no link to it, or of any other where none was named.
        NotUp = 3,
        /// It did not come to that in time; it may still.
        TookTooLong = 4,
    }
}

record! {
    /// The answer to a transfer.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TransferAnswer {
        /// What became of it.
        pub outcome: TransferOutcome,
        /// Who leads, as far as the server knows; 0 for nobody.
        pub leader: i32,
    }
}

record! {
    /// A member, as the server that was asked sees it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MemberInfo {
        /// Its id.
        pub id: i32,
        /// Whether there is a link to it; true of the server itself.
        pub up: bool,
    }
}

record! {
    /// What a server knows of its ensemble.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct EnsembleInfo {
        /// Its own id.
        pub server: i32,
        /// Who leads; 0 for nobody.
        pub leader: i32,
        /// The term of that.
        pub term: i64,
        /// All members, in ascending order.
        pub members: Vec<MemberInfo>,
    }
}
