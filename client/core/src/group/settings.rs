//! How to be a member.
//!
//! *Called by* the shell, and everything in `group`. Decides nothing.

use super::Assignor;

/// How to be a member. Times in milliseconds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The group.
    pub group_id: String,
    /// Set for a static member, which may restart without a rebalance.
    pub instance_id: Option<String>,
    /// Preferred first. Cooperative only if all of them are.
    pub assignors: Vec<Assignor>,
    /// How long the member may be silent.
    pub session_timeout_ms: i32,
    /// How often it says that it lives.
    pub heartbeat_ms: u64,
    /// How long the caller may take between two looks ([`super::Member::caller_lives`]), and others wait for it in a rebalance.
    pub rebalance_timeout_ms: i32,
    /// How long a commit is tried.
    pub commit_timeout_ms: u64,
    /// The first wait before something is tried again.
    pub retry_backoff_ms: u64,
    /// The longest wait before something is tried again.
    pub retry_backoff_max_ms: u64,
    /// A bug put in on purpose.
    #[cfg(planted)]
    pub planted: Option<crate::planted::Planted>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            group_id: String::new(),
            instance_id: None,
            assignors: vec![Assignor::CooperativeSticky],
            session_timeout_ms: 45_000,
            heartbeat_ms: 3_000,
            rebalance_timeout_ms: 300_000,
            commit_timeout_ms: 60_000,
            retry_backoff_ms: 20,
            retry_backoff_max_ms: 1000,
            #[cfg(planted)]
            planted: None,
        }
    }
}
