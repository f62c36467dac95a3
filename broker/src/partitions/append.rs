//! The append thread of a log directory: it loops over the worker.
//!
//! Called by: submissions, which push jobs; the thread runs [`run`]. Calls: the worker, `partition`,
//! the commit queue. Invariant: jobs reach the worker in the order in which they were pushed, and
//! what happened is carried out before the next jobs are taken. Decides nothing.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use broker_core::ids::TopicPartition;
use client_protocol::ErrorCode;

use super::directory::Directory;
use super::partition::Partition;
use super::waiting::Ticket;
use super::worker::{Appender, Happened, Job, Owner};

/// A job of the shell's.
pub(super) type PartitionJob = Job<Arc<Partition>, Ticket>;

impl Owner for Arc<Partition> {
    fn key(&self) -> TopicPartition {
        self.key
    }

    fn topic(&self) -> &str {
        &self.topic
    }
}

/// What the append thread is asked.
pub(super) enum Command {
    Job(PartitionJob),
    /// Close all logs and end.
    Close,
}

/// Jobs that wait for the thread. Bounded by what the listeners admit: each produce holds part of
/// its connection's frame budget, each fetched append that of one fetch.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Commands>,
    ready: Condvar,
}

#[derive(Default)]
struct Commands {
    waiting: Vec<Command>,
    sleeping: bool,
    ended: bool,
}

impl Queue {
    /// Adds a job; gives it back when the thread has ended.
    pub fn push(&self, command: Command) -> Option<Command> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.ended {
            return Some(command);
        }
        inner.waiting.push(command);
        let wake = std::mem::take(&mut inner.sleeping);
        drop(inner);
        if wake {
            self.ready.notify_one();
        }
        None
    }

    /// Waits for jobs and takes all of them, in exchange for an empty list.
    fn take(&self, into: &mut Vec<Command>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inner.waiting.is_empty() {
            inner.sleeping = true;
            inner = self.ready.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.sleeping = false;
        std::mem::swap(&mut inner.waiting, into);
    }

    /// Refuses jobs from here on and takes those that wait.
    fn end(&self) -> Vec<Command> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.ended = true;
        std::mem::take(&mut inner.waiting)
    }
}

impl Command {
    /// Answers what will not be done.
    pub fn refuse(self, error: ErrorCode) {
        match self {
            Self::Job(Job::Produce(_, job)) => job.produce.refuse(error),
            Self::Job(Job::Log(..) | Job::Adopted(..)) | Self::Close => {}
        }
    }
}

/// Runs the thread until it is asked to close.
pub(super) fn run(directory: &Arc<Directory>) {
    let mut worker = Appender::new(Arc::clone(&directory.folder));
    let (mut commands, mut happened) = (Vec::new(), Vec::new());
    loop {
        directory.queue.take(&mut commands);
        let wall_ms = directory.hub.clock.wall_ms();
        if directory.is_failed() {
            worker.fence();
        }
        let mut close = false;
        for command in commands.drain(..) {
            match command {
                Command::Job(job) => worker.do_job(job, wall_ms, &mut happened),
                Command::Close => close = true,
            }
            carry_out(directory, &mut happened);
        }
        worker.finish(wall_ms, &mut happened);
        carry_out(directory, &mut happened);
        if close {
            for command in directory.queue.end() {
                command.refuse(ErrorCode::NotLeaderOrFollower);
            }
            if !directory.is_failed() {
                directory.set_closed(worker.close(wall_ms, &mut happened));
                carry_out(directory, &mut happened);
            }
            return;
        }
    }
}

/// Does what the worker's news ask for.
fn carry_out(directory: &Directory, happened: &mut Vec<Happened<Arc<Partition>, Ticket>>) {
    for news in happened.drain(..) {
        match news {
            Happened::Opened(of, view, loaded) => of.log_opened(view, loaded),
            Happened::EpochAdopted(of, epoch) => of.epoch_adopted(epoch),
            Happened::Appended { of, appended, waits, done } => {
                // Before any answer: who hears of a record may ask for it at once.
                of.appended(&appended, waits);
                for stored in done {
                    stored.produce.settle(Ok(stored.placed));
                }
            }
            Happened::Refused { of, batch, error, produce } => {
                // Before the answer: what was sent behind it may be read next.
                of.refused(batch, error);
                produce.refuse(error);
            }
            Happened::AppendRefused(of, epoch) => of.append_refused(epoch),
            Happened::Truncated(of, truncated) => of.truncated(truncated),
            Happened::LogStartMoved(of, start) => of.log_start_moved(start),
            Happened::Removed(of, segments) => directory.discard_later(of, segments),
            Happened::ToClean(of, plan) => directory.cleaner.submit(of, *plan),
            Happened::ToSync(of, ticket) => directory.rounds.submit(of, ticket),
            Happened::ToUnlink(paths) => directory.unlink_later(paths),
            Happened::Failed(error) => directory.fail(&error.to_string()),
        }
    }
}
