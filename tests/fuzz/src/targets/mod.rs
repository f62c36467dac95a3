//! All targets.
//!
//! ```text
//! zookeeper   what clients and servers of the coordinator say to one another
//! server      a client's conversation with one of them
//! stored      what is in their files
//! members     what they tell one another, and texts that people write
//! secrets     files of keys, certificates and passwords
//! import      ZooKeeper's own files
//! kafka       Kafka's wire
//! broker      a broker's files and nodes
//! ```

mod broker;
mod import;
mod kafka;
mod members;
mod secrets;
mod server;
mod stored;
mod zookeeper;

use crate::target::Target;

/// In the order in which they are listed.
#[must_use]
pub fn all() -> Vec<Target> {
    let tables: [&[Target]; 8] = [
        &zookeeper::TARGETS,
        &server::TARGETS,
        &stored::TARGETS,
        &members::TARGETS,
        &secrets::TARGETS,
        &import::TARGETS,
        &kafka::TARGETS,
        &broker::TARGETS,
    ];
    tables.concat()
}

/// The one of that name.
#[must_use]
pub fn named(name: &str) -> Option<Target> {
    all().into_iter().find(|target| target.name == name)
}
