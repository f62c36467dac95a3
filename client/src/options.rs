//! Settings that every part of the client shares.
//!
//! *Called by* all of the crate. Producer and consumer add their own.

use std::time::Duration;

use coordinator_client::Tls as CoordinatorTls;

/// How to talk to brokers.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The name that brokers see in requests and may log or meter.
    pub client_id: String,
    /// How long a connection may take to open, its first exchange included.
    pub connect_timeout: Duration,
    /// How long a broker may take to answer, beyond what the request itself lets it wait.
    pub request_timeout: Duration,
    /// How long to go on retrying what may succeed later, all attempts together.
    pub retry_timeout: Duration,
    /// How long to wait before each new attempt.
    pub retry_backoff: Duration,
    /// Coordinators as `host:port`. With them, producers and consumers hear of brokers that come and go and of new
    /// leaders when it happens; without, they find out from brokers, as with any cluster.
    pub coordinators: Vec<String>,
    /// How coordinators are spoken to encrypted; without, they are spoken to unencrypted.
    pub coordinator_tls: Option<CoordinatorTls>,
    /// The folder in the coordinator below which the cluster lives: empty, or `/path`.
    pub coordinator_root: String,
    /// The largest response accepted, in bytes.
    pub response_bytes_max: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            client_id: "tidegate".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            retry_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(50),
            coordinators: Vec::new(),
            coordinator_tls: None,
            coordinator_root: String::new(),
            response_bytes_max: 128 << 20,
        }
    }
}
