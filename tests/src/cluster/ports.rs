//! Claims loopback ports that stay a cluster's own for as long as its folder is there.
//!
//! Called by: `cluster::up`, the bench's peers. A port from the kernel's ephemeral range could be taken by some
//! client's outgoing connection between a kill and a restart, so ports come from below that range; and one of
//! another cluster, whose node may be down at the moment, is told by a list that all clusters of the machine keep
//! in the temporary folder.
//!
//! Knows nothing of nodes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

/// Where probing starts; below it live well-known services.
const PORT_MIN: u16 = 10_000;
/// How many ports may be probed before the machine counts as full.
const PROBES_MAX: u32 = 20_000;
/// Each line is a file in the folder of who claimed, a tab, and the ports with spaces between. The claim ends with the
/// file, which a folder that was made anew does not have.
const LIST: &str = "tidegate-claimed-ports";

/// Finds `count` distinct free loopback ports below the ephemeral range. Nobody else is given them while `folder`,
/// which has to be there already, exists.
///
/// # Errors
/// When the range holds too few free ports, which something else has to end for; or the list cannot be kept.
pub fn claim_ports(count: usize, folder: &Path) -> Result<Vec<u16>> {
    claim_in(&std::env::temp_dir().join(LIST), count, folder)
}

fn claim_in(list: &Path, count: usize, folder: &Path) -> Result<Vec<u16>> {
    let folder = folder
        .canonicalize()
        .with_context(|| format!("no folder {} to claim ports for", folder.display()))?;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(list)
        .with_context(|| format!("cannot open {}", list.display()))?;
    // Until the file is closed: two that start at the same moment choose one after the other.
    flock(&file, FlockOperation::LockExclusive)?;
    let mut claims = read_claims(&mut file)?;
    let taken: BTreeSet<u16> = claims.iter().flat_map(|(_, ports)| ports).copied().collect();
    let ports = free_ports(count, &taken)?;
    let first = ports.first().copied().unwrap_or_default();
    let mark = folder.join(format!(".ports-{first}"));
    File::create(&mark)?;
    claims.push((mark.display().to_string(), ports.clone()));
    write_claims(&mut file, &claims)?;
    Ok(ports)
}

/// Claims that have not ended.
fn read_claims(file: &mut File) -> Result<Vec<(String, Vec<u16>)>> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let claim = |line: &str| {
        let (mark, ports) = line.split_once('\t')?;
        let ports = ports.split(' ').filter_map(|port| port.parse().ok()).collect();
        Path::new(mark).exists().then(|| (mark.to_string(), ports))
    };
    Ok(text.lines().filter_map(claim).collect())
}

fn write_claims(file: &mut File, claims: &[(String, Vec<u16>)]) -> Result<()> {
    let line = |(mark, ports): &(String, Vec<u16>)| {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        format!("{mark}\t{}\n", ports.join(" "))
    };
    let text: String = claims.iter().map(line).collect();
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.write_all(text.as_bytes())?)
}

fn free_ports(count: usize, taken: &BTreeSet<u16>) -> Result<Vec<u16>> {
    let range = u32::from(ephemeral_min().saturating_sub(PORT_MIN).max(1));
    let mut draw = seed();
    let mut held = Vec::with_capacity(count);
    for _ in 0..PROBES_MAX {
        if held.len() == count {
            break;
        }
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let port = PORT_MIN + u16::try_from((draw >> 33) as u32 % range)?;
        if taken.contains(&port) {
            continue;
        }
        // Held until the last is found, so that all are distinct.
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
        let mut ports = free_ports(12, &BTreeSet::new()).unwrap();
        assert!(ports.iter().all(|port| (PORT_MIN..ephemeral_min()).contains(port)), "{ports:?}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 12);
    }

    #[test]
    fn ports_stay_claimed_as_long_as_the_folder_is_there() {
        let home = std::env::temp_dir().join(format!("tidegate-ports-{}", std::process::id()));
        let folders = ["a", "b"].map(|name| home.join(name));
        folders.iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
        let list = home.join("list");
        let claimed = |list: &Path| {
            let claims = read_claims(&mut File::open(list).unwrap()).unwrap();
            claims.into_iter().map(|(_, ports)| ports).collect::<Vec<_>>()
        };
        let one = claim_in(&list, 3, &folders[0]).unwrap();
        let other = claim_in(&list, 3, &folders[1]).unwrap();
        assert_eq!(claimed(&list), [one.clone(), other.clone()]);
        assert!(one.iter().all(|port| !other.contains(port)));
        fs::remove_dir_all(&folders[0]).unwrap();
        assert_eq!(claimed(&list), std::slice::from_ref(&other));
        assert!(claim_in(&list, 3, &folders[0]).is_err());
        fs::create_dir(&folders[0]).unwrap();
        assert_eq!(claimed(&list), [other], "a folder made anew has claimed nothing yet");
        fs::remove_dir_all(&home).unwrap();
    }

    #[test]
    fn a_taken_port_is_not_chosen() {
        let all: BTreeSet<u16> = (PORT_MIN..ephemeral_min()).collect();
        assert!(free_ports(1, &all).is_err());
    }
}
