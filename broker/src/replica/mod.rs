//! Follower fetchers: one task and one connection per leader broker, over the brokers' listener.
//!
//! - `fetchers`: which partition is fetched from whom; starts and ends the tasks.
//! - `fetcher`: one task: keeps one fetch for records waiting at its leader, and tells progress
//!   beside it.
//! - `contacts`: which leaders were lost a moment ago.
//! - `exchange`: requests and answers on the wire.
//!
//! Decisions (where to fetch, what to cut, what counts) are the partitions'.

mod contacts;
mod exchange;
mod fetcher;
mod fetchers;
#[cfg(test)]
mod tests;

pub use contacts::Contacts;
pub use fetchers::Fetchers;
