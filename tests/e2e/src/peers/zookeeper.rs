//! Apache ZooKeeper, one server or an ensemble, with its defaults (it syncs each write).
//!
//! Called by: `peers`, and by `kafka` for Kafka 3.9.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use tests::cluster::ports::claim_ports;
use tests::cluster::process::Process;

use super::java::{self, Program};
use super::{Folder, Product, System};

/// As its distribution has it.
pub const HEAP: [&str; 1] = ["-Xmx1000m"];
/// In each server's folder.
const SETTINGS: &str = "zoo.cfg";
const PROGRAM: Program = Program {
    jars: "zookeeper",
    heap: &HEAP,
    class: "org.apache.zookeeper.server.quorum.QuorumPeerMain",
};

/// Starts ZooKeeper alone.
///
/// # Errors
/// When a server does not come up.
pub fn start(nodes: u32, data: &Path) -> Result<System> {
    let folder = Folder::new(data, "zookeeper")?;
    let began = Instant::now();
    let mut system = System::empty(Product::ZooKeeper, folder);
    start_servers(nodes, &mut system)?;
    system.ready_ms = began.elapsed().as_secs_f64() * 1e3;
    Ok(system)
}

/// Starts servers below the system's folder, as its ensemble, and waits until each answers in its role.
///
/// # Errors
/// When a server does not come up.
pub fn start_servers(nodes: u32, system: &mut System) -> Result<()> {
    let folder = system.folder()?;
    let count = usize::try_from(nodes)?;
    let ports = claim_ports(count * 3, &folder)?;
    let (clients, rest) = ports.split_at(count);
    let (peers, elections) = rest.split_at(count);
    let members: String = (0..count)
        .map(|at| format!("server.{}=127.0.0.1:{}:{}\n", at + 1, peers[at], elections[at]))
        .collect();
    let mut folders: Vec<PathBuf> = Vec::new();
    for (at, port) in clients.iter().enumerate() {
        let home = home(&folder, at);
        std::fs::create_dir_all(home.join("data"))?;
        std::fs::write(home.join("data/myid"), (at + 1).to_string())?;
        let mut settings = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={port}\n\
             clientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=*\n\
             maxClientCnxns=0\n",
            home.join("data").display()
        );
        if count > 1 {
            settings.push_str(&members);
        }
        std::fs::write(home.join(SETTINGS), settings)?;
        system.ensemble.push(start_again(&folder, at)?);
        folders.push(home);
    }
    for ((process, home), port) in system.ensemble.iter().zip(&folders).zip(clients) {
        java::wait_ready(*process, home, || answers(*port))?;
    }
    system.ensemble_addresses = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    Ok(())
}

/// Starts a server whose settings are there.
///
/// # Errors
/// When Java or the jars are not there.
pub fn start_again(folder: &Path, at: usize) -> Result<Process> {
    let home = home(folder, at);
    PROGRAM.start(&home, &[&home.join(SETTINGS).display().to_string()])
}

/// Where a server has its data.
pub fn data(folder: &Path, at: usize) -> PathBuf {
    home(folder, at).join("data")
}

fn home(folder: &Path, at: usize) -> PathBuf {
    folder.join(format!("zookeeper-{}", at + 1))
}

/// Whether a server says which role it has.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"srvr")?;
        let mut text = String::new();
        stream.take(4096).read_to_string(&mut text)?;
        Ok(text)
    };
    ask().is_ok_and(|text| text.contains("Mode:"))
}
