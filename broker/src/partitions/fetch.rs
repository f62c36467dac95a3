//! Fetching: what may be read, where it lies, and waiting until there is enough.
//!
//! Called by: the Fetch handler, for consumers and followers. Calls: `partition`, the published
//! logs. Invariant: records are answered as ranges of files, whole batches, never copied; what
//! would block on the disk runs on the blocking pool; a fetch that waits holds no lock and is
//! taken off every partition when it ends, however it ends. Does not know the wire.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use broker_core::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicPartition};
use broker_core::partition::{ConsumerFetch, EpochEnd, FetchRefused, FollowerFetch, Readable};
use broker_core::purgatory::{FetchTerms, FetchWait, Found, Look};
use broker_log::{FileSlice, LogView, Lookup, ReadRequest};
use client_protocol::ErrorCode;

use super::partition::Partition;
use super::registry::{Hub, Partitions};
use super::waiting::Waker;
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

impl Reader {
    fn replica(&self) -> Option<BrokerId> {
        match self {
            Self::Consumer => None,
            Self::Follower { replica, .. } => Some(*replica),
        }
    }
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
        let replica = request.reader.replica();
        let wait_max_ms = u64::try_from(request.wait_max.as_millis()).unwrap_or(u64::MAX);
        let deadline = self.hub.clock.now().plus(wait_max_ms);
        let terms = FetchTerms { replica, bytes_min: request.bytes_min.into(), deadline };
        let (bytes_max, hub) = (request.bytes_max, Arc::clone(&self.hub));
        async move {
            let (mut found, mut slices) = read_all(&mut parts, bytes_max).await;
            let mut look = Look::First;
            while !terms.is_answered(look, found, hub.clock.now()) {
                look = wait(&parts, &terms, &hub).await;
                parts.iter_mut().for_each(|part| part.refresh());
                (found, slices) = read_all(&mut parts, bytes_max).await;
            }
            parts.into_iter().zip(slices).map(|(part, slice)| part.answer(slice)).collect()
        }
    }

    /// The decision about one partition; no I/O.
    fn begin_part(&self, request: &FetchRequest, asked: &FetchPartition) -> Part {
        let replica = request.reader.replica();
        let state = Err(refusal(ErrorCode::None));
        let mut part = Part { asked: *asked, replica, partition: None, state };
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
                partition.follower_came(replica, asked.bytes_max);
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

/// One partition on its way through a fetch.
struct Part {
    asked: FetchPartition,
    /// The follower that fetches.
    replica: Option<BrokerId>,
    partition: Option<Arc<Partition>>,
    state: Result<(Readable, LeaderEpoch), FetchRefused>,
}

impl Part {
    /// Looks again at what may be read, without telling the core of the fetch once more.
    fn refresh(&mut self) {
        let (Ok((readable, epoch)), Some(partition)) = (&mut self.state, &self.partition) else {
            return;
        };
        let refreshed =
            partition.read_core(|core| core.read_again(*readable, *epoch, self.replica));
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
        // Even the first batch is not for who only tells how far it is.
        let only_tells = self.replica.is_some() && self.asked.bytes_max == 0;
        let has_some = readable.up_to > readable.from && !only_tells;
        let Some(view) = partition.view().filter(|_| has_some) else {
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
async fn read_all(parts: &mut [Part], bytes_max: u32) -> (Found, Vec<Option<FileSlice>>) {
    let mut found = Found::default();
    let mut slices = Vec::with_capacity(parts.len());
    let mut left = bytes_max;
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
        slices.push(slice);
    }
    (found, slices)
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
    waker: Waker,
    partitions: Vec<Arc<Partition>>,
}

impl ParkedFetch {
    /// Notes the fetch on all its partitions; false when one of them has news already.
    fn park(&mut self, parts: &[Part], replica: Option<BrokerId>) -> bool {
        for part in parts {
            let (Ok((readable, epoch)), Some(partition)) = (&part.state, &part.partition) else {
                return false;
            };
            let wait = FetchWait { fetch: self.waker.clone(), replica, above: readable.up_to };
            if !partition.park_fetch(wait, *epoch) {
                return false;
            }
            self.partitions.push(Arc::clone(partition));
        }
        true
    }
}

impl Drop for ParkedFetch {
    fn drop(&mut self) {
        for partition in self.partitions.drain(..) {
            partition.forget_fetch(&self.waker);
        }
    }
}

/// Waits until a partition has news, or for the deadline. Cancel-safe: dropping it takes the fetch
/// off all partitions.
async fn wait(parts: &[Part], terms: &FetchTerms, hub: &Hub) -> Look {
    let mut parked = ParkedFetch { waker: Waker::new(), partitions: Vec::new() };
    if !parked.park(parts, terms.replica) {
        return Look::NotParked;
    }
    // The clock counts whole milliseconds: one more, and the deadline is over.
    let left_ms = terms.deadline.since(hub.clock.now()).saturating_add(1);
    tokio::select! {
        () = parked.waker.woken() => Look::Woken,
        () = tokio::time::sleep(Duration::from_millis(left_ms)) => Look::Woken,
    }
}

fn refusal(error: ErrorCode) -> FetchRefused {
    FetchRefused { error, log_start: Offset::ZERO }
}
