//! Producing: check, ask the leader, hand the batch to its log directory's append thread.
//!
//! Called by: the Produce handler. Calls: `partition`, the append queue.
//! Invariant: submission is synchronous, so the order in which requests of a connection are
//! submitted is the order in which their batches stand in the log; each batch's bytes are checked
//! once, here, on the caller's thread, and are never copied. Does not know the wire.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use broker_core::hosted::Asked;
use broker_core::ids::TopicPartition;
use broker_log::BatchMeta;
use bytes::BytesMut;
use client_protocol::records::{set_log_append_time, validate_produced};
use client_protocol::{ErrorCode, LeaderEpoch, Offset};
use tokio::sync::oneshot;

use super::append::Command;
use super::partition::Partition;
use super::registry::Partitions;
use super::waiting::{Reply, Ticket};
use super::worker::{Job, Placed, ProduceJob, sequenced};

/// The records of one partition.
pub struct ProduceBatch {
    /// Where they go.
    pub partition: TopicPartition,
    /// The bytes that should be exactly one batch: cut out of the request's frame
    /// ([`BytesMut::split_to`]), as the offsets are written into them.
    pub records: BytesMut,
}

/// One Produce request.
pub struct ProduceRequest {
    /// 0, 1 or -1.
    pub acks: i16,
    /// How long the in-sync replicas may take.
    pub timeout: Duration,
    /// The request's version knows zstd.
    pub zstd_allowed: bool,
    /// The request names a transactional id.
    pub transactional: bool,
    /// Whether the broker may serve: if not, all is refused, and remembered as what comes again.
    pub may_serve: bool,
    /// In the request's order.
    pub batches: Vec<ProduceBatch>,
}

/// A batch that was appended, as far as `acks` asks.
pub type Produced = Placed;

/// A batch that was not appended, or not by enough replicas in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The code to answer.
    pub error: ErrorCode,
    /// In words.
    pub reason: Option<String>,
}

/// What became of one batch.
pub type ProduceOutcome = Result<Produced, Refused>;

/// The outcomes of a request's batches in their order, once all are known. With acks=0 too that is
/// when they are appended: until then the request counts among what its connection has in flight,
/// else a fast sender could fill the memory while a disk is slow.
pub enum PendingProduce {
    /// Known already.
    Now(Vec<ProduceOutcome>),
    /// On the way.
    Later(oneshot::Receiver<Vec<ProduceOutcome>>),
}

impl Future for PendingProduce {
    type Output = Vec<ProduceOutcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(outcomes) => Poll::Ready(std::mem::take(outcomes)),
            // A lost sender means that the broker stops: the connection closes with it.
            Self::Later(receiver) => {
                Pin::new(receiver).poll(context).map(Result::unwrap_or_default)
            }
        }
    }
}

impl Partitions {
    /// Submits a request. When this returns, the place of its batches in their logs is fixed
    /// relative to every later submission. Await the result for what became of them; an empty
    /// result means that the broker stopped meanwhile.
    pub fn produce(&self, request: ProduceRequest) -> PendingProduce {
        self.produce_under(None, request)
    }

    /// As [`Partitions::produce`], but under this leader epoch or not at all.
    pub(super) fn produce_under(
        &self,
        leader_epoch: Option<LeaderEpoch>,
        request: ProduceRequest,
    ) -> PendingProduce {
        let count = request.batches.len();
        if count == 0 {
            return PendingProduce::Now(Vec::new());
        }
        let rules = Rules {
            acks: request.acks,
            zstd_allowed: request.zstd_allowed,
            transactional: request.transactional,
            may_serve: request.may_serve,
            leader_epoch,
            timeout_ms: u64::try_from(request.timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let (reply, receiver) = Reply::new(count);
        for (index, batch) in request.batches.into_iter().enumerate() {
            let ticket = Ticket::new(&reply, index);
            if let Err(refused) = self.submit(batch, &rules, ticket.clone()) {
                ticket.settle(Err(refused));
            }
        }
        PendingProduce::Later(receiver)
    }

    fn submit(&self, batch: ProduceBatch, rules: &Rules, ticket: Ticket) -> Result<(), Refused> {
        let ProduceBatch { partition, mut records } = batch;
        let partition = self.partition(partition).map_err(|error| match rules.may_serve {
            true => refused(error),
            // What it knows of partitions may be old.
            false => refused(ErrorCode::NotLeaderOrFollower),
        })?;
        let log_append_time_ms = check(&partition, &mut records, rules)?;
        let meta = client_meta(&records)?;
        let (batch, may_serve) = (sequenced(&meta), rules.may_serve);
        let asked = Asked { acks: rules.acks, batch, may_serve };
        let permit = partition.admit_produce(asked).map_err(refused)?;
        if rules.leader_epoch.is_some_and(|epoch| epoch != permit.leader_epoch) {
            return Err(refused(ErrorCode::NotLeaderOrFollower));
        }
        let deadline = partition.now().plus(rules.timeout_ms);
        let directory = partition.directory();
        let job = ProduceJob {
            leader_epoch: permit.leader_epoch,
            acks: rules.acks,
            deadline,
            meta,
            records,
            behind: permit.behind,
            log_append_time_ms,
            produce: ticket,
        };
        directory.push(Command::Job(Job::Produce(partition, job)));
        Ok(())
    }
}

struct Rules {
    acks: i16,
    zstd_allowed: bool,
    transactional: bool,
    may_serve: bool,
    leader_epoch: Option<LeaderEpoch>,
    timeout_ms: u64,
}

/// Checks the batch, and gives it the time of the append where the topic wants that.
fn check(
    partition: &Partition,
    records: &mut BytesMut,
    rules: &Rules,
) -> Result<Option<i64>, Refused> {
    let settings = partition.settings();
    let now_ms = partition.wall_ms();
    let produce_rules = settings.produce_rules(rules.zstd_allowed, rules.transactional, now_ms);
    let wrong = |error: client_protocol::records::BatchError| Refused {
        error: error.error_code(),
        reason: Some(error.to_string()),
    };
    validate_produced(records, &produce_rules).map_err(wrong)?;
    if !settings.log_append_time {
        return Ok(None);
    }
    set_log_append_time(records, now_ms).map_err(wrong)?;
    Ok(Some(now_ms))
}

/// The header as the log takes it. What a client writes as base offset and epoch means nothing, so
/// it is set to something valid before it is read.
fn client_meta(records: &BytesMut) -> Result<BatchMeta, Refused> {
    let mut header = [0; client_protocol::records::BATCH_HEADER_BYTES];
    let unreadable = || refused(ErrorCode::CorruptMessage);
    let bytes = records.get(..client_protocol::records::BATCH_HEADER_BYTES);
    header.copy_from_slice(bytes.ok_or_else(unreadable)?);
    client_protocol::records::assign_offsets(&mut header, Offset::ZERO, LeaderEpoch::new(0))
        .map_err(|_| unreadable())?;
    BatchMeta::parse(&header).ok_or_else(unreadable)
}

fn refused(error: ErrorCode) -> Refused {
    Refused { error, reason: None }
}
