//! setWatches of many paths: they are set again in parts, so that no step takes long.
//!
//! Called by the pipeline, which says whose turn it is, and at the end of a step. Calls `read`. Invariant: one step sets
//! no more than a few tens of milliseconds' worth, however many connections ask; each is given its share in turn. Each
//! path is compared with the tree in the step that sets it: what changed before is told then, what changes later fires. The
//! answer comes behind all of it. It does not know what a watch is.

use std::collections::BTreeSet;
use std::vec;

use coordinator_protocol::{ErrorCode, Request, Response, SetWatchesRequest, Zxid};

use super::connection::{Connection, Step};
use super::limits::{SET_WATCHES_BYTES_PER_COUNT, SET_WATCHES_PER_STEP_MAX};
use super::step::Server;
use crate::ConnectionId;

/// Connections whose turn it is to set watches.
#[derive(Debug, Default)]
pub(super) struct Rearming {
    waiting: BTreeSet<ConnectionId>,
    /// Who was given the last part: the next is for those behind it.
    last: Option<ConnectionId>,
}

impl Rearming {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Its oldest request sets watches, and it may be told what it missed.
    pub(super) fn wait(&mut self, id: ConnectionId) {
        self.waiting.insert(id);
    }

    /// Whether it was waiting.
    pub(super) fn forget(&mut self, id: ConnectionId) -> bool {
        self.waiting.remove(&id)
    }

    fn next(&self) -> Option<ConnectionId> {
        let behind = |id: &&ConnectionId| self.last.is_none_or(|last| **id > last);
        self.waiting.iter().find(behind).or_else(|| self.waiting.first()).copied()
    }
}

/// A request to set watches of which some are not set.
#[derive(Debug)]
pub(super) struct Unset {
    relative_zxid: Zxid,
    /// Those of which as many are set as fit, in order. What was taken is freed: there may be a million.
    data: vec::IntoIter<String>,
    exist: vec::IntoIter<String>,
    child: vec::IntoIter<String>,
    /// Those that are set in one step.
    persistent: Vec<String>,
    recursive: Vec<String>,
    outcome: Result<(), ErrorCode>,
}

impl Unset {
    pub(super) fn new(request: SetWatchesRequest) -> Self {
        Self {
            relative_zxid: request.relative_zxid,
            data: request.data_watches.into_iter(),
            exist: request.exist_watches.into_iter(),
            child: request.child_watches.into_iter(),
            persistent: request.persistent_watches,
            recursive: request.persistent_recursive_watches,
            outcome: Ok(()),
        }
    }

    /// Whether it can be answered. What failed ends its connection, and the watches with it.
    pub(super) fn is_done(&self) -> bool {
        let one_shot = [&self.data, &self.exist, &self.child];
        let persistent = [&self.persistent, &self.recursive];
        let is_empty = one_shot.into_iter().all(|rest| rest.as_slice().is_empty())
            && persistent.into_iter().all(Vec::is_empty);
        self.outcome.is_err() || is_empty
    }

    pub(super) fn outcome(self) -> Result<Response, ErrorCode> {
        self.outcome.map(|()| Response::Empty)
    }

    /// The next paths, in order: what costs `budget`, beyond the last of them, unless more are persistent.
    fn take(&mut self, budget: usize) -> SetWatchesRequest {
        let mut part = SetWatchesRequest {
            relative_zxid: self.relative_zxid,
            persistent_watches: std::mem::take(&mut self.persistent),
            persistent_recursive_watches: std::mem::take(&mut self.recursive),
            ..SetWatchesRequest::default()
        };
        let mut left = budget.saturating_sub(cost(&part));
        for (from, to) in [
            (&mut self.data, &mut part.data_watches),
            (&mut self.exist, &mut part.exist_watches),
            (&mut self.child, &mut part.child_watches),
        ] {
            while left > 0
                && let Some(path) = from.next()
            {
                left = left.saturating_sub(cost_of(&path));
                to.push(path);
            }
        }
        part
    }
}

/// What a request takes of a step.
pub(super) fn cost(request: &SetWatchesRequest) -> usize {
    let one_shot = [&request.data_watches, &request.exist_watches, &request.child_watches];
    let persistent = [&request.persistent_watches, &request.persistent_recursive_watches];
    let paths = one_shot.into_iter().chain(persistent).flatten();
    paths.map(|path| cost_of(path)).fold(0, usize::saturating_add)
}

fn cost_of(path: &str) -> usize {
    path.len().saturating_div(SET_WATCHES_BYTES_PER_COUNT).saturating_add(1)
}

impl Server {
    /// Sets as many watches as have a place in this step.
    pub(super) fn set_more_watches(&mut self) {
        let mut left = SET_WATCHES_PER_STEP_MAX;
        while left > 0 {
            let Some(id) = self.rearming.next() else { return };
            // In an earlier step it might be told what it missed. If it is owed events now, or has no room, it waits.
            self.rearming.forget(id);
            self.run_pipeline(id);
            if !self.rearming.forget(id) {
                continue;
            }
            let unset = self.connections.get_mut(id).and_then(Connection::unset_watches);
            let Some(part) = unset.map(|unset| unset.take(left)) else { continue };
            self.rearming.last = Some(id);
            left = left.saturating_sub(cost(&part));
            let outcome = self.read(id, Request::SetWatches2(part));
            // What it was told may have closed it.
            let unset = self.connections.get_mut(id).and_then(Connection::unset_watches);
            if let (Some(unset), Err(code)) = (unset, outcome) {
                unset.outcome = Err(code);
            }
            self.run_pipeline(id);
        }
    }
}

impl Connection {
    /// What its oldest request has not set yet.
    fn unset_watches(&mut self) -> Option<&mut Unset> {
        match &mut self.pipeline.front_mut()?.step {
            Step::SetWatches(unset) => Some(unset),
            _ => None,
        }
    }
}
