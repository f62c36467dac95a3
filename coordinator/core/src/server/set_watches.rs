//! setWatches of many paths: they are set again in parts, so that no step takes long.
//!
//! Called by the pipeline, which says whose turn it is, and at the end of a step. Calls `read`. Invariant: one step sets
//! no more than a few tens of milliseconds' worth, however many connections ask; each is given its share in turn. Each
//! path is compared with the tree in the step that sets it: what changed before is told then, what changes later fires. The
//! answer comes behind all of it. It does not know what a watch is.

use std::collections::BTreeSet;

use coordinator_protocol::{ErrorCode, Response, SetWatchesRequest};

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
    rest: SetWatchesRequest,
    outcome: Result<(), ErrorCode>,
}

impl Unset {
    pub(super) fn new(request: SetWatchesRequest) -> Self {
        Self { rest: request, outcome: Ok(()) }
    }

    /// Whether it can be answered. What failed ends its connection, and the watches with it.
    pub(super) fn is_done(&self) -> bool {
        self.outcome.is_err() || self.rest.path_count() == 0
    }

    pub(super) fn outcome(self) -> Result<Response, ErrorCode> {
        self.outcome.map(|()| Response::Empty)
    }

    /// The next paths, in order: what costs `budget`, beyond the last of them, unless more are persistent.
    fn take(&mut self, budget: usize) -> SetWatchesRequest {
        let rest = &mut self.rest;
        let mut part = SetWatchesRequest {
            relative_zxid: rest.relative_zxid,
            persistent_watches: std::mem::take(&mut rest.persistent_watches),
            persistent_recursive_watches: std::mem::take(&mut rest.persistent_recursive_watches),
            ..SetWatchesRequest::default()
        };
        let mut left = budget.saturating_sub(cost(&part));
        for (from, to) in [
            (&mut rest.data_watches, &mut part.data_watches),
            (&mut rest.exist_watches, &mut part.exist_watches),
            (&mut rest.child_watches, &mut part.child_watches),
        ] {
            let fits = |path: &&String| {
                let fits = left > 0;
                left = left.saturating_sub(cost_of(path));
                fits
            };
            let count = from.iter().take_while(fits).count();
            to.extend(from.drain(..count));
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
            let outcome = self.set_watches(id, &part);
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
