//! What the broker tells Prometheus, under the names that Kafka's dashboards know.
//!
//! `traffic` counts what the APIs do, `collect` reads everything else when it is asked for: `topics` and `groups` under the names of
//! kafka_exporter, `process` what the system knows.
//!
//! Called by: `api` (counts), `http` (asks). Invariant: a request costs a handful of atomic additions
//! per partition, none per record; topics that are gone leave with the next scrape.

mod collect;
mod groups;
mod process;
mod topics;
mod traffic;

pub use collect::{Metrics, Remote, Sources};
pub use traffic::Traffic;
