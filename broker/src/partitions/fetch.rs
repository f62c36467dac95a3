//! Fetching: what may be read, where it lies, and waiting until there is enough.
//!
//! Called by: the Fetch handler, for consumers and followers. Calls: `partition`, the published
//! logs. Invariant: records are answered as ranges of files, whole batches, never copied; what
//! would block on the disk runs on the blocking pool; a fetch that waits holds no lock and is
//! taken off every partition when it ends, however it ends. Does not know the wire.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicPartition};
use broker_core::partition::{
    ConsumerFetch, EpochEnd, FetchRefused, FollowerFetch, Partition as Core, Readable,
};
use broker_log::{FileSlice, LogView, Lookup, ReadRequest};
use client_protocol::ErrorCode;
use tokio::sync::Notify;

use super::partition::Partition;
use super::registry::Partitions;
use super::waiting::FetchWaiter;
use crate::response::Piece;

/// Bytes read at a time to bring a cold range into the page cache.
const WARM_BYTES: usize = 256 << 10;

/// Who fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Reads what is committed.
    Consumer,
    /// Reads to the end of the log, and tells how far it is.
    Follower {
        /// Which broker.
        replica: BrokerId,
        /// Which life of it.
        broker_epoch: BrokerEpoch,
    },
}

/// One partition of a fetch.
#[derive(Clone, Copy, Debug)]
pub struct FetchPartition {
    /// What to read.
    pub partition: TopicPartition,
    /// First offset wanted; of a follower, its log end.
    pub fetch_offset: Offset,
    /// The leader epoch that the sender knows.
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// Epoch of the last record that the sender has.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Of a follower: everything below is on its disk.
    pub durable_end: Option<Offset>,
    /// Bytes at most, but the first batch found whole; 0 from a follower that only tells how far it
    /// is, which leaves an older fetch of its own waiting.
    pub bytes_max: u32,
}

/// A whole fetch.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// Who asks.
    pub reader: Reader,
    /// How long to wait for `bytes_min`.
    pub wait_max: Duration,
    /// Answer as soon as that many bytes of records are there.
    pub bytes_min: u32,
    /// Bytes of records at most, but the first batch found whole.
    pub bytes_max: u32,
    /// In order of priority.
    pub partitions: Vec<FetchPartition>,
}

/// What one partition answers.
pub struct Fetched {
    /// Whether it could be read.
    pub error: ErrorCode,
    /// Everything below is committed; `None` on error.
    pub high_watermark: Option<Offset>,
    /// First offset of the log; also with OFFSET_OUT_OF_RANGE.
    pub log_start: Option<Offset>,
    /// The sender's log leaves this one: where its last epoch ends here.
    pub diverging: Option<EpochEnd>,
    /// Whole batches; the first may begin before the offset asked for.
    pub records: Option<Piece>,
}

impl Partitions {
    /// Notes a follower's progress at once, in the order of the calls, and reads what is there. The
    /// future waits for `bytes_min` where too little is there; it yields one answer per partition,
    /// in their order. Dropping it gives the fetch up.
    pub fn fetch(
        self: &Arc<Self>,
        request: FetchRequest,
    ) -> impl Future<Output = Vec<Fetched>> + Send + use<> {
        let mut parts: Vec<Part> =
            request.partitions.iter().map(|p| self.begin_part(&request, p)).collect();
        let settings = Limits {
            follower: matches!(request.reader, Reader::Follower { .. }),
            bytes_min: request.bytes_min,
            bytes_max: request.bytes_max,
        };
        let replica = match request.reader {
            Reader::Consumer => None,
            Reader::Follower { replica, .. } => Some(replica),
        };
        let deadline = Instant::now().checked_add(request.wait_max);
        async move {
            let mut found = read_all(&mut parts, &settings).await;
            if let Some(deadline) = deadline.filter(|_| !found.is_enough(&settings)) {
                let waiter = Arc::new(FetchWaiter { replica, woken: Notify::new() });
                let parked = ParkedFetch { waiter, partitions: Vec::new() };
                found = wait(parked, &mut parts, &settings, deadline).await.unwrap_or(found);
            }
            parts.into_iter().zip(found.slices).map(|(part, slice)| part.answer(slice)).collect()
        }
    }

    /// The decision about one partition; no I/O.
    fn begin_part(&self, request: &FetchRequest, asked: &FetchPartition) -> Part {
        let mut part =
            Part { asked: *asked, partition: None, state: Err(refusal(ErrorCode::None)) };
        let partition = match self.partition(asked.partition) {
            Ok(partition) => partition,
            Err(error) => {
                part.state = Err(refusal(error));
                return part;
            }
        };
        let now = partition.now();
        let decided = match request.reader {
            Reader::Consumer => {
                let fetch = ConsumerFetch {
                    fetch_offset: asked.fetch_offset,
                    leader_epoch: asked.current_leader_epoch,
                    last_fetched_epoch: asked.last_fetched_epoch,
                };
                partition.read_core(|core| (core.consumer_fetch(&fetch), core.leading()))
            }
            Reader::Follower { replica, broker_epoch } => {
                // One that asks for no records only tells progress beside the one that waits.
                if asked.bytes_max > 0 {
                    partition.with_fetches(|fetches| fetches.superseded(replica));
                }
                let fetch = FollowerFetch {
                    replica,
                    broker_epoch,
                    leader_epoch: asked.current_leader_epoch.unwrap_or(LeaderEpoch::new(-1)),
                    fetch_offset: asked.fetch_offset,
                    last_fetched_epoch: asked.last_fetched_epoch,
                    durable_end: asked.durable_end.unwrap_or(Offset::ZERO),
                };
                partition.with_core(None, |core, effects| {
                    (core.follower_fetch(&fetch, now, effects), core.leading())
                })
            }
        };
        part.state = match decided {
            Some((Ok(readable), Some(epoch))) => Ok((readable, epoch)),
            Some((Err(refused), _)) => Err(refused),
            Some((Ok(_), None)) | None => Err(refusal(ErrorCode::NotLeaderOrFollower)),
        };
        part.partition = Some(partition);
        part
    }
}

struct Limits {
    follower: bool,
    bytes_min: u32,
    bytes_max: u32,
}

/// One partition on its way through a fetch.
struct Part {
    asked: FetchPartition,
    partition: Option<Arc<Partition>>,
    state: Result<(Readable, LeaderEpoch), FetchRefused>,
}

/// What a look at all partitions found.
struct FoundBytes {
    slices: Vec<Option<FileSlice>>,
    bytes: u64,
    /// Something that must be told at once: an error, a divergence, the end of a segment.
    urgent: bool,
}

impl FoundBytes {
    fn is_enough(&self, limits: &Limits) -> bool {
        self.urgent || self.bytes >= u64::from(limits.bytes_min)
    }
}

impl Part {
    /// Looks again at what may be read, without telling the core of the fetch once more.
    fn refresh(&mut self, follower: bool) {
        let (Ok((readable, epoch)), Some(partition)) = (&mut self.state, &self.partition) else {
            return;
        };
        let refreshed = partition.read_core(|core| refreshed(core, *readable, *epoch, follower));
        match refreshed.flatten() {
            Some(now) => *readable = now,
            None => self.state = Err(refusal(ErrorCode::NotLeaderOrFollower)),
        }
    }

    /// The bytes of this partition; `Err` when only the disk can tell.
    fn look(&self, bytes_left: u32, first: bool) -> Result<Option<FileSlice>, Cold> {
        let (Ok((readable, _)), Some(partition)) = (&self.state, &self.partition) else {
            return Ok(None);
        };
        let Some(view) = partition.view().filter(|_| readable.up_to > readable.from) else {
            return Ok(None);
        };
        let request = ReadRequest {
            offset: readable.from.get(),
            limit: readable.up_to.get(),
            bytes_max: self.asked.bytes_max.min(bytes_left),
            at_least_one: first,
        };
        match view.lookup_hot(&request) {
            Some(Lookup::Slice(slice)) => Ok(Some(slice)),
            // Below the start: retention was faster; the next fetch hears OFFSET_OUT_OF_RANGE.
            Some(Lookup::Empty | Lookup::OutOfRange(_)) => Ok(None),
            None => Err(Cold { view: view.clone(), request }),
        }
    }

    fn is_urgent(&self) -> bool {
        match &self.state {
            Err(_) => true,
            Ok((readable, _)) => readable.diverging.is_some(),
        }
    }

    fn answer(self, slice: Option<FileSlice>) -> Fetched {
        match self.state {
            Err(refused) => Fetched {
                error: refused.error,
                high_watermark: None,
                log_start: (refused.error == ErrorCode::OffsetOutOfRange)
                    .then_some(refused.log_start),
                diverging: None,
                records: None,
            },
            Ok((readable, _)) => Fetched {
                error: ErrorCode::None,
                high_watermark: Some(readable.high_watermark),
                log_start: Some(readable.log_start),
                diverging: readable.diverging,
                records: slice.map(|slice| Piece::File {
                    file: slice.file,
                    position: slice.position,
                    length: slice.length as usize,
                }),
            },
        }
    }
}

/// A look-up that may block.
struct Cold {
    view: LogView,
    request: ReadRequest,
}

impl Cold {
    /// Finds the bytes and brings them into the page cache, where the send will look.
    fn find(self) -> Result<Option<FileSlice>, ErrorCode> {
        match self.view.lookup(&self.request) {
            Ok(Lookup::Slice(slice)) => {
                warm(&slice).map_err(|_| ErrorCode::KafkaStorageError)?;
                Ok(Some(slice))
            }
            Ok(Lookup::Empty | Lookup::OutOfRange(_)) => Ok(None),
            Err(error) => {
                tracing::error!("cannot read: {error}");
                Err(ErrorCode::KafkaStorageError)
            }
        }
    }
}

/// Reads a range that is not in the page cache, so that sending it does not block.
fn warm(slice: &FileSlice) -> std::io::Result<()> {
    if is_cached(slice) {
        return Ok(());
    }
    let mut buffer = vec![0; WARM_BYTES.min(slice.length as usize)];
    let end = slice.position.saturating_add(u64::from(slice.length));
    let mut position = slice.position;
    while position < end {
        match slice.file.read_at(position, &mut buffer)? {
            0 => return Ok(()),
            count => position = position.saturating_add(count as u64),
        }
    }
    Ok(())
}

/// Whether both ends of a range can be read without blocking; false where that cannot be asked.
fn is_cached(slice: &FileSlice) -> bool {
    let Some(descriptor) = slice.file.descriptor() else { return true };
    let last = slice.position.saturating_add(u64::from(slice.length.saturating_sub(1)));
    let flags = rustix::io::ReadWriteFlags::NOWAIT;
    [slice.position, last].into_iter().all(|position| {
        let mut byte = [0];
        let mut parts = [std::io::IoSliceMut::new(&mut byte)];
        rustix::io::preadv2(descriptor, &mut parts, position, flags).is_ok()
    })
}

/// Looks at every partition in order until the bytes are used up.
async fn read_all(parts: &mut [Part], limits: &Limits) -> FoundBytes {
    let mut found = FoundBytes { slices: Vec::with_capacity(parts.len()), bytes: 0, urgent: false };
    let mut left = limits.bytes_max;
    for part in parts.iter_mut() {
        found.urgent |= part.is_urgent();
        let looked = match part.look(left, found.bytes == 0) {
            Ok(slice) => Ok(slice),
            Err(cold) => find_cold(cold).await,
        };
        let slice = looked.unwrap_or_else(|error| {
            part.state = Err(refusal(error));
            found.urgent = true;
            None
        });
        if let Some(slice) = &slice {
            left = left.saturating_sub(slice.length);
            found.bytes = found.bytes.saturating_add(u64::from(slice.length));
            found.urgent |= slice.more;
        }
        found.slices.push(slice);
    }
    found
}

async fn find_cold(cold: Cold) -> Result<Option<FileSlice>, ErrorCode> {
    match tokio::task::spawn_blocking(move || cold.find()).await {
        Ok(found) => found,
        // The runtime is going down.
        Err(_) => Err(ErrorCode::UnknownServerError),
    }
}

/// A fetch that is noted on partitions; taken off them when dropped.
struct ParkedFetch {
    waiter: Arc<FetchWaiter>,
    partitions: Vec<Arc<Partition>>,
}

impl ParkedFetch {
    /// Notes the fetch on all its partitions; false when one of them has news already.
    fn park(&mut self, parts: &[Part]) -> bool {
        for part in parts {
            let (Ok((readable, epoch)), Some(partition)) = (&part.state, &part.partition) else {
                return false;
            };
            if !partition.park_fetch(&self.waiter, readable.up_to, *epoch) {
                return false;
            }
            self.partitions.push(Arc::clone(partition));
        }
        true
    }

    fn leave(&mut self) {
        for partition in self.partitions.drain(..) {
            partition.with_fetches(|fetches| fetches.remove(&self.waiter));
        }
    }
}

impl Drop for ParkedFetch {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Waits until there is enough, something urgent, or the deadline; `None` when there was nothing to
/// wait for. Cancel-safe: dropping it takes the fetch off all partitions.
async fn wait(
    mut parked: ParkedFetch,
    parts: &mut [Part],
    limits: &Limits,
    deadline: Instant,
) -> Option<FoundBytes> {
    let timeout = tokio::time::sleep_until(deadline.into());
    tokio::pin!(timeout);
    let mut found = None;
    loop {
        let over = if parked.park(parts) {
            tokio::select! {
                () = parked.waiter.woken.notified() => false,
                () = &mut timeout => true,
            }
        } else {
            Instant::now() >= deadline
        };
        parked.leave();
        let superseded = limits.follower && !over;
        parts.iter_mut().for_each(|part| part.refresh(limits.follower));
        let now = read_all(parts, limits).await;
        // A follower is woken by bytes or by its own newer fetch, which waits for this answer.
        if over || superseded || now.is_enough(limits) {
            return Some(now);
        }
        found.replace(now);
    }
}

/// What may be read now, if the leadership that was asked is still in force.
fn refreshed(core: &Core, was: Readable, epoch: LeaderEpoch, follower: bool) -> Option<Readable> {
    if core.leading() != Some(epoch) {
        return None;
    }
    if was.diverging.is_some() {
        return Some(was);
    }
    let limit = if follower { core.positions().end } else { core.high_watermark() };
    Some(Readable {
        from: was.from,
        up_to: limit.max(was.from),
        high_watermark: core.high_watermark(),
        log_start: core.positions().start,
        diverging: None,
    })
}

fn refusal(error: ErrorCode) -> FetchRefused {
    FetchRefused { error, log_start: Offset::ZERO }
}
