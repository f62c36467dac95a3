//! One server of Apache ZooKeeper, killed with the value.
//!
//! Called by: tests that hold ours against it, or take over what it left.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::cluster::HANG_GUARD;
use tests::cluster::ports::claim_ports;

/// For an answer of ZooKeeper: while it starts it may take a word in and never answer.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// What a server, theirs or ours, answers to a word of four letters within `wait`.
pub fn four_letters(address: &str, word: &str, wait: Duration) -> Option<String> {
    let mut socket = TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(wait)).ok()?;
    socket.write_all(word.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A process that serves one port.
pub struct ZooKeeper {
    process: Child,
    address: String,
}

impl ZooKeeper {
    /// Starts `java` (`clients::zookeeper_server`) in `home`, with more lines for its settings. It may not be ready yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut java: Command, home: &Path, settings: &str) -> Result<ZooKeeper> {
        let port = claim_ports(1, home)?.first().copied().context("no port")?;
        let (file, data_dir) = (home.join("zoo.cfg"), home.join("data"));
        fs::write(
            &file,
            format!(
                "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n{settings}",
                data_dir.display()
            ),
        )?;
        let log = File::create(home.join("zookeeper.log"))?;
        java.arg(&file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = java.spawn().context("cannot start java")?;
        Ok(ZooKeeper { process, address: format!("127.0.0.1:{port}") })
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// When it does not for a long time.
    pub fn wait_ready(&self) -> Result<()> {
        let begun = Instant::now();
        let ask = || four_letters(&self.address, "srvr", ANSWER_WAIT);
        while !ask().is_some_and(|said| said.contains("Mode:")) {
            ensure!(begun.elapsed() < 2 * HANG_GUARD, "ZooKeeper does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Where its clients go.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
