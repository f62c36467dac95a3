//! A program that goes on while the test does something: what it is told and what it says.
//!
//! Called by: tests that kill servers below a client. It does not know what is said.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result};
use tests::cluster::HANG_GUARD;

/// A client that goes on while the test does something; killed with the value.
pub struct Talk {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl Talk {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Result<Talk> {
        let log = Stdio::inherit();
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let printed = BufReader::new(process.stdout.take().context("no output")?);
        let (tell, lines) = mpsc::channel();
        // It ends with the process.
        std::thread::spawn(move || {
            printed.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        Ok(Talk { process, lines })
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// When it does not read that any more.
    pub fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.process.stdin.as_mut().context("no input")?.write_all(text.as_bytes())?)
    }

    /// Waits for lines with each of these in them, in any order.
    ///
    /// # Errors
    /// When they do not come in time.
    pub fn hear(&self, wanted: &[&str]) -> Result<()> {
        let mut missing = wanted.to_vec();
        while !missing.is_empty() {
            let line = self.lines.recv_timeout(HANG_GUARD);
            let line = line.with_context(|| format!("{missing:?} was not said"))?;
            missing.retain(|wanted| !line.contains(wanted));
        }
        Ok(())
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
