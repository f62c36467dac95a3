//! How to consume.
//!
//! *Called by* `consumer` and whoever makes one. Decides nothing.

/// What to do where there is no position, or none that the log has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reset {
    /// Begin at the first record there is.
    Earliest,
    /// Begin after the last one.
    #[default]
    Latest,
    /// Tell the caller.
    Error,
}

/// How to consume. Times in milliseconds, sizes in bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a broker may wait for `fetch_bytes_min`.
    pub fetch_wait_ms: i32,
    /// The broker answers as soon as that much is there.
    pub fetch_bytes_min: i32,
    /// At most that much in one answer, but at least one batch.
    pub fetch_bytes_max: i32,
    /// At most that much of one partition in an answer, but at least one batch; and as much is read ahead.
    pub partition_bytes_max: i32,
    /// What is read ahead of all partitions together, passed by one answer of each leader at most.
    pub buffer_bytes_max: usize,
    /// What to do without a usable position.
    pub reset: Reset,
    /// Leave out what belongs to open or aborted transactions.
    pub is_committed_only: bool,
    /// The first wait before something is tried again.
    pub retry_backoff_ms: u64,
    /// The longest wait before something is tried again.
    pub retry_backoff_max_ms: u64,
    /// After how long metadata is asked for anew although nothing is wrong.
    pub metadata_age_max_ms: u64,
    /// A bug put in on purpose.
    #[cfg(planted)]
    pub planted: Option<crate::planted::Planted>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fetch_wait_ms: 500,
            fetch_bytes_min: 1,
            fetch_bytes_max: 50 << 20,
            partition_bytes_max: 1 << 20,
            buffer_bytes_max: 64 << 20,
            reset: Reset::Latest,
            is_committed_only: false,
            retry_backoff_ms: 20,
            retry_backoff_max_ms: 1000,
            metadata_age_max_ms: 300_000,
            #[cfg(planted)]
            planted: None,
        }
    }
}
