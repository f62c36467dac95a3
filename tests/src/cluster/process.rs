//! One operating-system process by its id: start, signal, ask whether it lives.
//!
//! Called by: `cluster`. A process is known by its id *and* its start time, so that a reused id is
//! never taken for it, let alone killed.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::{Deserialize, Serialize};

/// A started process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Start time in clock ticks after boot (field 22 of `/proc/PID/stat`).
    pub started: u64,
}

/// What `/proc` says of one process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Resident memory in KiB.
    pub resident_kib: u64,
    /// User and system time so far, in seconds.
    pub cpu_s: f64,
}

impl Process {
    /// Starts `program` in its own process group, output appended to `log`.
    ///
    /// # Errors
    /// When the program or the log cannot be opened.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Process> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = i32::try_from(child.id())?;
        let started = stat(pid).map_or(0, |stat| stat.started);
        ensure!(started > 0, "{} ended at once; see {}", program.display(), log.display());
        Ok(Process { pid, started })
    }

    /// Whether it still runs; a finished child of ours is reaped on the way.
    pub fn is_alive(self) -> bool {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // Not a child of ours when another command started it: the answer is in /proc then.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        stat(self.pid).is_some_and(|stat| stat.started == self.started && stat.state != 'Z')
    }

    /// Sends `signal`; a process that is gone is left alone.
    ///
    /// # Errors
    /// When the kernel refuses the signal.
    pub fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid).context("process id 0")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal process {}", self.pid))
    }

    /// Waits until it is gone.
    ///
    /// # Errors
    /// When it still runs after `limit`, which is a hang guard and no measure.
    pub fn wait_gone(self, limit: Duration) -> Result<()> {
        let began = Instant::now();
        while self.is_alive() {
            if began.elapsed() > limit {
                bail!("process {} still runs after {limit:?}", self.pid);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Memory and CPU time, or `None` when it is gone.
    pub fn usage(self) -> Option<Usage> {
        let stat = stat(self.pid).filter(|stat| stat.started == self.started)?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        let resident_kib = line.split_whitespace().nth(1)?.parse().ok()?;
        let ticks_per_s = rustix::param::clock_ticks_per_second();
        Some(Usage { resident_kib, cpu_s: stat.cpu_ticks as f64 / ticks_per_s as f64 })
    }
}

struct Stat {
    state: char,
    started: u64,
    cpu_ticks: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        started: number(19)?,
        cpu_ticks: number(11)? + number(12)?,
    })
}
