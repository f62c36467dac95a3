//! Where the other members are, by name and by address.
//!
//! Called by: the tasks that dial, the one that accepts. Calls: the system's name service.
//! Invariant: a member's addresses are those that its host had when it was dialled last.
//! Does not know: links.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use coordinator_core::ServerId;
use tokio::net::lookup_host;

/// The addresses of the others.
#[derive(Default)]
pub struct Hosts(Mutex<BTreeMap<ServerId, Vec<IpAddr>>>);

impl Hosts {
    /// Looks `host:port` of `peer` up, and keeps what it stands for.
    ///
    /// # Errors
    /// Those of the name service; what was known before stays.
    pub async fn resolve(&self, peer: ServerId, address: &str) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<SocketAddr> = lookup_host(address).await?.collect();
        let known = found.iter().map(|address| address.ip().to_canonical()).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, known);
        Ok(found)
    }

    /// A member is none any more.
    pub fn forget(&self, peer: ServerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
    }

    /// Whether a member lives there.
    pub fn has(&self, address: IpAddr) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().flatten().any(|known| *known == address.to_canonical())
    }
}

/// The host of `host:port`.
pub fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_those_of_the_last_look() {
        let (hosts, peer) = (Hosts::default(), ServerId::new(1).unwrap());
        let has = |text: &str| hosts.has(text.parse().unwrap());
        assert!(!has("127.0.0.1"));
        let found = hosts.resolve(peer, "127.0.0.1:7").await.unwrap();
        assert_eq!(found, ["127.0.0.1:7".parse().unwrap()]);
        // A socket for both kinds tells of an IPv4 address in this way.
        assert!(has("127.0.0.1") && has("::ffff:127.0.0.1") && !has("127.0.0.2"));
        assert!(hosts.resolve(peer, "no port").await.is_err());
        assert!(has("127.0.0.1"));
        hosts.resolve(peer, "127.0.0.2:7").await.unwrap();
        assert!(has("127.0.0.2") && !has("127.0.0.1"));
        hosts.forget(peer);
        assert!(!has("127.0.0.2"));
    }

    #[test]
    fn host_is_what_stands_before_the_port() {
        for (address, host) in [("a.b:1", "a.b"), ("127.0.0.1:1", "127.0.0.1"), ("[::1]:1", "::1")]
        {
            assert_eq!(host_of(address), host);
        }
    }
}
