//! Members of consumer groups as processes of any client, and what each one says that it was given and read.
//!
//! Called by: the tests of groups. Calls: `kinds`, which knows how each client is started and how it talks.
//!
//! A member's output is read as it comes. From when it is given a partition until it gives it back is a stint: within one, each
//! record read follows the one before, and nothing is read outside of one. What breaks that is kept, and fails whatever waits
//! for the member next.

mod kinds;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::tests::cluster::HANG_GUARD;
use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};

pub use kinds::{Joining, KINDS, Kind, Strategy};

/// How much of a member's output is kept for whoever looks into a failure.
const SAID_MAX: usize = 40;
/// How many lines of its log, likewise.
const LOG_LINES: usize = 25;

/// One thing that a member said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These partitions are its own from now on, besides those that were.
    Given(Vec<i32>),
    /// These are no longer.
    Gone(Vec<i32>),
    /// It read the record of this partition and offset.
    Read(i32, i64),
}

/// Reading of one partition from when it was given to the member until it was given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stint {
    /// Which.
    pub partition: i32,
    /// Offset of the first record read, and of the one after the last.
    pub read: Option<(i64, i64)>,
}

/// What a member has said so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its partitions.
    pub owned: BTreeSet<i32>,
    /// Every partition that it gave back, once for each time.
    pub given_back: Vec<i32>,
    /// How often something was given or given back.
    pub changes: usize,
    /// In the order in which they began.
    pub stints: Vec<Stint>,
    /// What no member may do.
    pub wrong: Option<String>,
    said: Vec<String>,
}

impl Seen {
    fn take(&mut self, event: Event) {
        match event {
            Event::Given(partitions) => {
                self.changes += usize::from(!partitions.is_empty());
                for partition in partitions {
                    if self.owned.insert(partition) {
                        self.stints.push(Stint { partition, read: None });
                    }
                }
            }
            Event::Gone(partitions) => {
                let gone = partitions.into_iter().filter(|partition| self.owned.remove(partition));
                let before = self.given_back.len();
                self.given_back.extend(gone);
                self.changes += usize::from(self.given_back.len() > before);
            }
            Event::Read(partition, offset) => self.read(partition, offset),
        }
    }

    fn read(&mut self, partition: i32, offset: i64) {
        if !self.owned.contains(&partition) {
            self.complain(format!("partition {partition} is not its own, but it read {offset}"));
        }
        let Some(stint) = self.stints.iter_mut().rev().find(|stint| stint.partition == partition)
        else {
            return;
        };
        match &mut stint.read {
            None => stint.read = Some((offset, offset + 1)),
            Some((_, next)) if *next == offset => *next = offset + 1,
            Some((_, next)) => {
                let next = *next;
                self.complain(format!("partition {partition}: {offset} read where {next} was due"));
            }
        }
    }

    fn complain(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// The last stint of a partition.
    pub fn latest(&self, partition: i32) -> Option<&Stint> {
        self.stints.iter().rev().find(|stint| stint.partition == partition)
    }

    fn note(&mut self, line: &str) {
        self.said.push(line.to_owned());
        if self.said.len() > SAID_MAX {
            self.said.remove(0);
        }
    }
}

/// A running member.
pub struct Member {
    /// Its name in messages.
    pub name: String,
    child: Child,
    log: PathBuf,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
    began: Instant,
}

impl Member {
    /// Starts one; what it says besides goes to a file of its name in `folder`.
    ///
    /// # Errors
    /// When the client is not there or cannot be started.
    pub fn start(
        kind: &Kind,
        joining: &Joining<'_>,
        (name, folder): (&str, &Path),
    ) -> Result<Self> {
        let name = format!("{} {} {name}", kind.name, joining.group);
        let file: String =
            name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        let log = folder.join(format!("{file}.log"));
        let mut command = kind.command(joining, (folder, &log))?;
        let (output, input) = pipe()?;
        command.stdin(Stdio::null()).stdout(input.try_clone()?);
        if kind.is_told_on_stderr {
            // Into one pipe, so that what it reads stays in order with what it is given.
            command.stderr(input);
        } else {
            command.stderr(File::create(&log)?);
        }
        let shown = format!("{command:?}");
        let child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
        // Its ends of the pipe: the reading ends with the process.
        drop(command);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (told, parse) = (seen.clone(), kind.parse);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line);
                let mut seen = told.lock().unwrap_or_else(PoisonError::into_inner);
                match parse(&line) {
                    Some(Event::Read(partition, offset)) => {
                        seen.take(Event::Read(partition, offset));
                    }
                    event => {
                        seen.note(&line);
                        if let Some(event) = event {
                            seen.take(event);
                        }
                    }
                }
            }
        });
        Ok(Self { name, child, log, seen, reader: Some(reader), began: Instant::now() })
    }

    /// What it has said so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has it end, and gives all that it said.
    ///
    /// # Errors
    /// When it does not go.
    pub fn end(mut self, how: Signal) -> Result<Seen> {
        self.signal(how)?;
        let is_gone = self.wait_gone(2 * HANG_GUARD)?;
        ensure!(is_gone, "does not go after {how:?}: {}", self.state());
        self.all_said()
    }

    /// The same of one that may hang: then it is killed, which the second value says.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn end_or_kill(mut self, how: Signal) -> Result<(Seen, bool)> {
        self.signal(how)?;
        let is_gone = self.wait_gone(HANG_GUARD / 2)?;
        if !is_gone {
            self.child.kill()?;
            self.child.wait()?;
        }
        Ok((self.all_said()?, !is_gone))
    }

    fn wait_gone(&mut self, limit: Duration) -> Result<bool> {
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > limit {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(true)
    }

    fn all_said(mut self) -> Result<Seen> {
        let reader = self.reader.take().context("ended already")?;
        reader.join().map_err(|_| anyhow!("{}: the reader of its output panicked", self.name))?;
        Ok(self.seen())
    }

    /// Its end, if it ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// For a failure's message.
    pub fn state(&self) -> String {
        let seen = self.seen();
        let said: String = seen.said.iter().map(|line| format!("\n        {line}")).collect();
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rev().take(LOG_LINES).collect::<Vec<_>>();
        let log: String = last.iter().rev().map(|line| format!("\n        | {line}")).collect();
        format!(
            "{} ({:.0} s old): owns {:?}, wrong: {:?}, stints {:?}; said:{said}{log}",
            self.name,
            self.began.elapsed().as_secs_f64(),
            seen.owned,
            seen.wrong,
            seen.stints.iter().map(|stint| (stint.partition, stint.read)).collect::<Vec<_>>(),
        )
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            let id = i32::try_from(self.child.id())?;
            kill_process(Pid::from_raw(id).context("process id 0")?, signal)?;
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(events: impl IntoIterator<Item = Event>) -> Seen {
        let mut seen = Seen::default();
        events.into_iter().for_each(|event| seen.take(event));
        seen
    }

    #[test]
    fn a_stint_is_from_given_to_given_back() {
        use Event::{Given, Gone, Read};
        let seen = after([
            Given(vec![0, 1]),
            Read(0, 5),
            Read(0, 6),
            Gone(vec![0]),
            Given(vec![0]),
            Read(0, 6),
        ]);
        let stint = |partition, read| Stint { partition, read };
        assert_eq!(seen.stints, [stint(0, Some((5, 7))), stint(1, None), stint(0, Some((6, 7)))]);
        assert_eq!((seen.given_back, seen.changes, seen.wrong), (vec![0], 3, None));
    }

    #[test]
    fn what_is_left_out_or_read_without_a_share_is_wrong() {
        use Event::{Given, Gone, Read};
        assert!(after([Given(vec![0]), Read(0, 5), Read(0, 7)]).wrong.is_some());
        assert!(after([Given(vec![0]), Read(0, 5), Read(0, 5)]).wrong.is_some());
        assert!(after([Given(vec![0]), Gone(vec![0]), Read(0, 0)]).wrong.is_some());
        assert!(after([Read(0, 0)]).wrong.is_some());
    }
}
