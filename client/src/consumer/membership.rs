//! The consumer as a member of a group: subscribing, changes of the share, commits.
//!
//! *Called by* applications through [`Consumer`]. *Calls* `client-core`'s member.
//!
//! Invariant: what is revoked is let go only after the listener was called and, with auto-commit, what was processed is
//! committed; so that whoever gets it begins where this member ended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use client_core::TopicPartition;
use client_core::consumer::read::Position;
use client_core::group::Notice;
use client_protocol::Offset;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::state::{Done, Pending};
use super::{Consumer, Present};
use crate::error::ClientError;

/// How long leaving a group may take; the session time-out does what is not done by then.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// Hears of changes of the share, inside of [`Consumer::poll`].
pub trait RebalanceListener: Send + Sync {
    /// These are read from now on; no record of them was given out yet.
    fn assigned(&mut self, _partitions: &[TopicPartition]) {}

    /// These go to others. What it gives is committed before they go, in place of what auto-commit would say.
    fn revoked(&mut self, _partitions: &[TopicPartition]) -> Vec<(TopicPartition, Offset)> {
        Vec::new()
    }

    /// These have gone to others already: what was done about them since the last commit will be done again.
    fn lost(&mut self, _partitions: &[TopicPartition]) {}
}

impl Consumer {
    /// Wants a share of these topics: joins the group, or changes what the member wants. What is assigned comes with
    /// [`Consumer::poll`].
    ///
    /// # Errors
    /// [`ClientError::NoGroup`].
    pub fn subscribe(&mut self, topics: &[&str]) -> Result<(), ClientError> {
        let topics: BTreeSet<Arc<str>> = topics.iter().map(|topic| Arc::from(*topic)).collect();
        let now_ms = self.shared.now_ms();
        let mut state = self.shared.state();
        let state = &mut *state;
        let member = state.member.as_mut().ok_or(ClientError::NoGroup)?;
        member.subscribe(topics, now_ms, &mut state.effects);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// As [`Consumer::subscribe`], with a listener.
    ///
    /// # Errors
    /// As [`Consumer::subscribe`].
    pub fn subscribe_with(
        &mut self,
        topics: &[&str],
        listener: impl RebalanceListener + 'static,
    ) -> Result<(), ClientError> {
        self.listener = Some(Box::new(listener));
        self.subscribe(topics)
    }

    /// Its id and generation, while it is in one.
    #[must_use]
    pub fn member(&self) -> Option<(String, i32)> {
        let state = self.shared.state();
        let identity = state.member.as_ref()?.identity()?;
        Some((identity.0.to_owned(), identity.1))
    }

    /// Whether the group has told this member its share, which [`Consumer::assignment`] then gives, and no rebalance is
    /// under way that this member knows of.
    #[must_use]
    pub fn has_share(&self) -> bool {
        let state = self.shared.state();
        let member = state.member.as_ref();
        // What the member wants done may be to read a share that was told this moment.
        state.effects.is_empty()
            && member.is_some_and(|member| member.identity().is_some() && member.is_at_rest())
    }

    /// Has the group remember that everything given out so far was processed.
    ///
    /// # Errors
    /// [`ClientError::NoGroup`], [`ClientError::Group`]: with UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION or
    /// REBALANCE_IN_PROGRESS others may have the share by now, or soon: go on polling.
    pub async fn commit(&self) -> Result<(), ClientError> {
        let positions: Vec<_> = {
            let state = self.shared.state();
            let positions = state.fetcher.positions();
            positions.filter_map(|(partition, at)| Some((partition.clone(), at?))).collect()
        };
        self.commit_positions(positions).await
    }

    /// Has the group remember where reading is to go on: an offset is that of the next record to be processed.
    ///
    /// # Errors
    /// As [`Consumer::commit`].
    pub async fn commit_offsets(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, Offset)>,
    ) -> Result<(), ClientError> {
        let positions = offsets
            .into_iter()
            .map(|(partition, offset)| (partition, Position { offset, epoch: None }));
        self.commit_positions(positions.collect()).await
    }

    async fn commit_positions(
        &self,
        positions: Vec<(TopicPartition, Position)>,
    ) -> Result<(), ClientError> {
        let mut done = self.start_commit(positions)?;
        end_of(&mut done).await
    }

    fn start_commit(
        &self,
        positions: Vec<(TopicPartition, Position)>,
    ) -> Result<Done, ClientError> {
        let (sender, done) = oneshot::channel();
        let now_ms = self.shared.now_ms();
        let mut state = self.shared.state();
        if state.is_over {
            return Err(ClientError::ShutDown);
        }
        let token = state.token();
        let member = state.member.as_mut().ok_or(ClientError::NoGroup)?;
        if positions.is_empty() {
            // Nobody can have given up yet.
            let _received = sender.send(Ok(()));
            return Ok(done);
        }
        member.commit(token, positions, now_ms);
        state.waiting.insert(token, sender);
        drop(state);
        self.shared.wake.notify_one();
        Ok(done)
    }

    /// Deals with what the group told; `false` when there is nothing.
    pub(super) async fn attend(&mut self) -> Result<bool, ClientError> {
        if self.pending.is_none() {
            let notice = self.shared.state().notices.pop_front();
            self.pending = notice.map(|notice| Pending { notice, commit: None, is_told: false });
        }
        let Some(pending) = &mut self.pending else { return Ok(false) };
        match &pending.notice {
            Notice::Assigned(partitions) => {
                if let Some(listener) = &mut self.listener {
                    listener.assigned(partitions);
                }
            }
            Notice::Lost(partitions) => {
                if let Some(listener) = &mut self.listener {
                    listener.lost(partitions);
                }
            }
            Notice::Out(error) => {
                let error = ClientError::Group(error.clone());
                self.pending = None;
                return Err(error);
            }
            Notice::Revoked { number, partitions } => {
                let (number, partitions) = (*number, partitions.clone());
                self.give_up(number, &partitions).await;
            }
        }
        self.pending = None;
        Ok(true)
    }

    /// Cancel-safe: the listener is asked once, and what it said to commit is waited for by whichever call comes next.
    async fn give_up(&mut self, number: u64, partitions: &[TopicPartition]) {
        let is_due = {
            let state = self.shared.state();
            state.member.as_ref().is_some_and(|member| member.is_revoking(number))
        };
        if !is_due {
            // The listener hears next that they are lost. Perhaps they were given anew: then they are read on.
            return;
        }
        self.commit_revoked(partitions);
        let commit = self.pending.as_mut().and_then(|pending| pending.commit.as_mut());
        if let Some(commit) = commit
            && let Err(error) = end_of(commit).await
        {
            tracing::warn!(%error, "what was processed of a revoked share is not committed");
        }
        let mut state = self.shared.state();
        // Lost meanwhile, and perhaps given anew: then there is nothing to let go.
        let let_go = state.member.as_mut().and_then(|member| member.let_go(number));
        state.let_go(&let_go.unwrap_or_default());
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Asks the listener, once, and has what it says committed.
    fn commit_revoked(&mut self, partitions: &[TopicPartition]) {
        let Some(pending) = &mut self.pending else { return };
        if std::mem::replace(&mut pending.is_told, true) {
            return;
        }
        let mut offsets = if self.options.auto_commit.is_some() {
            self.shared.state().processed_of(|partition| partitions.contains(partition))
        } else {
            Vec::new()
        };
        if let Some(listener) = &mut self.listener {
            let said = listener.revoked(partitions);
            offsets.retain(|(partition, _)| !said.iter().any(|(of, _)| of == partition));
            let said = said
                .into_iter()
                .map(|(partition, offset)| (partition, Position { offset, epoch: None }));
            offsets.extend(said);
        }
        match self.start_commit(offsets) {
            Ok(done) => {
                if let Some(pending) = &mut self.pending {
                    pending.commit = Some(done);
                }
            }
            Err(error) => tracing::warn!(%error, "a revoked share is not committed"),
        }
    }

    /// Commits what was given out (with auto-commit), leaves the group at once, and ends the connections.
    ///
    /// # Errors
    /// When the commit fails; the consumer is closed all the same.
    pub async fn close(mut self) -> Result<(), ClientError> {
        let shared = self.shared.clone();
        let _present = Present::new(&shared.is_polling);
        let has_group = shared.state().member.is_some();
        let mut result = Ok(());
        if has_group {
            if self.options.auto_commit.is_some() {
                let commit = tokio::time::timeout(LEAVE_MAX, self.commit());
                result = commit.await.unwrap_or(Err(ClientError::ShutDown));
            }
            {
                let mut state = shared.state();
                let state = &mut *state;
                if let Some(member) = &mut state.member {
                    member.leave(&mut state.effects);
                }
            }
            shared.wake.notify_one();
            self.wait_left().await;
        }
        self.driver.abort();
        // Aborted, or ended by itself: gone either way.
        let _ended = (&mut self.driver).await;
        result
    }

    async fn wait_left(&self) {
        let deadline = Instant::now() + LEAVE_MAX;
        loop {
            let mut ready = std::pin::pin!(self.shared.ready.notified());
            ready.as_mut().enable();
            let is_leaving =
                self.shared.state().member.as_ref().is_some_and(|member| member.is_leaving());
            if !is_leaving || tokio::time::timeout_at(deadline, ready).await.is_err() {
                return;
            }
        }
    }
}

async fn end_of(commit: &mut Done) -> Result<(), ClientError> {
    match commit.await {
        Ok(result) => result.map_err(ClientError::Group),
        Err(_) => Err(ClientError::ShutDown),
    }
}
