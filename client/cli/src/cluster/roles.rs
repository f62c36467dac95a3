//! Asks coordinators for their role with the four-letter commands `srvr` and `mntr`.
//!
//! *Called by* `status`. *Calls* nothing of ours.
//!
//! Invariant: an answer is bounded in bytes and time, because the address may be anybody's.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use coordinator_client::{Stream, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ANSWER_BYTES_MAX: u64 = 64 << 10;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// ZooKeeper's words, and ours, for a server without a leader.
const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

/// What one coordinator says of itself; empty where it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// `leader`, `follower`, `standalone` and the like.
    pub mode: String,
    /// The last write it has applied, in hex.
    pub zxid: String,
    /// How many znodes it holds.
    pub znodes: String,
    /// How many clients are connected.
    pub connections: String,
    /// Its version.
    pub version: String,
    /// Ephemeral znodes (`mntr` only).
    pub ephemerals: String,
    /// Watches (`mntr` only).
    pub watches: String,
}

/// Asks one coordinator.
pub async fn ask(address: &str, tls: Option<&Tls>) -> anyhow::Result<Role> {
    let srvr = command(address, tls, b"srvr").await?;
    // Often not allowed; the table then has gaps.
    let mntr = command(address, tls, b"mntr").await.unwrap_or_default();
    let role = parse(&srvr, &mntr);
    anyhow::ensure!(
        !role.mode.is_empty(),
        "no coordinator, or not serving: {:?}",
        first_line(&srvr)
    );
    Ok(role)
}

/// Whether a coordinator is there that says of itself that it serves nobody.
pub async fn is_without_quorum(address: &str, tls: Option<&Tls>) -> bool {
    command(address, tls, b"srvr").await.is_ok_and(|answer| says_no_quorum(&answer))
}

fn says_no_quorum(srvr: &str) -> bool {
    first_line(srvr).trim_end() == NOT_SERVING
}

async fn command(address: &str, tls: Option<&Tls>, word: &[u8; 4]) -> anyhow::Result<String> {
    let exchange = async {
        let mut stream = Stream::connect(address, tls).await?;
        stream.write_all(word).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer =
        tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.context("no answer in time")??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn parse(srvr: &str, mntr: &str) -> Role {
    let pairs = |text: &str, separator: char| -> BTreeMap<String, String> {
        let pairs = text.lines().filter_map(|line| line.split_once(separator));
        pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
    };
    let (srvr, mntr) = (pairs(srvr, ':'), pairs(mntr, '\t'));
    let said = |key: &str| srvr.get(key).cloned().unwrap_or_default();
    let measured = |key: &str| mntr.get(key).cloned().unwrap_or_default();
    let version = said("Zookeeper version");
    Role {
        mode: said("Mode"),
        zxid: said("Zxid"),
        znodes: said("Node count"),
        connections: said("Connections"),
        version: version.split([',', '-']).next().unwrap_or_default().to_owned(),
        ephemerals: measured("zk_ephemerals_count"),
        watches: measured("zk_watch_count"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_without_a_quorum_says_so_in_its_own_words() {
        assert!(says_no_quorum("This ZooKeeper instance is not currently serving requests\n"));
        for other in ["", "Zookeeper version: 3.9.5\nMode: leader\n", "HTTP/1.1 400 Bad Request"] {
            assert!(!says_no_quorum(other), "{other}");
        }
    }

    #[test]
    fn roles_are_read_from_both_answers() {
        let srvr = "Zookeeper version: 3.9.5-abc, built on 2026-01-01 00:00 UTC\n\
            Latency min/avg/max: 0/0.5/9\nConnections: 4\nOutstanding: 0\n\
            Zxid: 0x10000002a\nMode: leader\nNode count: 31\n";
        let mntr = "zk_server_state\tleader\nzk_watch_count\t7\nzk_ephemerals_count\t4\n";
        let role = parse(srvr, mntr);
        assert_eq!((&*role.mode, &*role.zxid, &*role.version), ("leader", "0x10000002a", "3.9.5"));
        assert_eq!((&*role.znodes, &*role.connections), ("31", "4"));
        assert_eq!((&*role.ephemerals, &*role.watches), ("4", "7"));
        assert_eq!(
            parse("mntr is not executed because it is not in the whitelist.", ""),
            Role::default()
        );
    }
}
