//! Picks free loopback ports that stay free while a node is down.
//!
//! Called by: `cluster::up`. A port from the kernel's ephemeral range could be taken by some
//! client's outgoing connection between a kill and a restart, so ports come from below that range:
//! each is probed by binding it, and all of one call are held until the last is found.
//!
//! Knows nothing of nodes.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

/// Where probing starts; below it live well-known services.
const PORT_MIN: u16 = 10_000;
/// How many ports may be probed before the machine counts as full.
const PROBES_MAX: u32 = 20_000;

/// Finds `count` distinct free loopback ports below the ephemeral range.
///
/// # Errors
/// When the range holds too few free ports; retrying helps only after something else stopped.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let range = u32::from(ephemeral_min().saturating_sub(PORT_MIN).max(1));
    let mut draw = seed();
    let mut held = Vec::with_capacity(count);
    for _ in 0..PROBES_MAX {
        if held.len() == count {
            break;
        }
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let port = PORT_MIN + u16::try_from((draw >> 33) as u32 % range)?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push(listener);
        }
    }
    ensure!(held.len() == count, "found {} of {count} free ports from {PORT_MIN} up", held.len());
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

fn ephemeral_min() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}

fn seed() -> u64 {
    let nanos =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    u64::from(std::process::id()) << 32 | u64::from(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_below_the_ephemeral_range() {
        let mut ports = free_ports(12).unwrap();
        assert!(ports.iter().all(|port| (PORT_MIN..ephemeral_min()).contains(port)), "{ports:?}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 12);
    }
}
