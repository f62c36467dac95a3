//! One connection to one broker: many requests in flight, answers in request order.
//!
//! *Called by* `cluster`, `producer`, `consumer`, `admin`. *Calls* `client-protocol`.
//!
//! Invariant: the broker answers in request order, so the n-th answer belongs to the n-th request that expects one;
//! the correlation id only confirms it. One task owns the socket; it ends with the connection, and all calls that
//! wait then fail with the reason. Knows no topic.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use client_protocol::frame::{LENGTH_BYTES, frame_length, split_frame};
use client_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use client_protocol::{
    ApiKey, CorrelationId, DecodeError, EncodedFrame, ErrorCode, Message, Reader, Request, Scope,
    decode_response_header, encode_request,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::error::ClientError;
use crate::options::ClientOptions;

/// Requests sent and not answered; a further call waits until one is.
const IN_FLIGHT_MAX: usize = 32;

/// What an answer may decode into: a large cluster's metadata takes more than a broker allows a stranger.
const DECODED_BYTES_MAX: usize = 512 << 20;

/// A response begins with its correlation id.
const RESPONSE_BYTES_MIN: usize = 4;

const READ_BYTES: usize = 64 << 10;

/// What is reserved ahead for a frame, at most: its length is only a claim.
const RESERVED_BYTES_MAX: usize = 4 << 20;

struct Outgoing {
    pieces: Pieces,
    reply: Reply,
}

enum Reply {
    /// When the answer is there.
    Answered(Pending),
    /// When the request is written, because nothing answers it (acks=0).
    Written(oneshot::Sender<Bytes>),
}

struct Pending {
    correlation_id: CorrelationId,
    reply: oneshot::Sender<Bytes>,
}

/// A request on its way; [`Started::answer`] waits for what answers it.
pub(crate) struct Started<R> {
    connection: Arc<Connection>,
    version: i16,
    timeout: Duration,
    reply: oneshot::Receiver<Bytes>,
    request: PhantomData<fn() -> R>,
}

impl<R: Request> Started<R> {
    /// The answer, and the frame in which its records lie; `None` for a request that is not answered, when it is
    /// written.
    pub(crate) async fn answer(self) -> Result<Option<(R::Response, Bytes)>, ClientError> {
        let Self { connection, version, timeout, reply, .. } = self;
        let late = |_| ClientError::Timeout { address: connection.address.clone(), timeout };
        let frame = tokio::time::timeout(timeout, reply).await.map_err(late)?;
        let frame = frame.map_err(|_| connection.closed())?;
        if frame.is_empty() {
            return Ok(None);
        }
        let response = connection.decode::<R>(&frame, version)?;
        Ok(Some((response, frame)))
    }
}

/// An open connection whose broker told what it speaks.
///
/// Calls take `&self`: any number may run at once and are pipelined.
#[derive(Debug)]
pub struct Connection {
    address: String,
    options: ClientOptions,
    versions: BTreeMap<ApiKey, (i16, i16)>,
    next_correlation_id: AtomicI32,
    outgoing: mpsc::Sender<Outgoing>,
    reason: Arc<OnceLock<String>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "request of {} bytes", self.pieces.remaining())
    }
}

impl Connection {
    /// Connects to `host:port` and asks what the broker speaks.
    ///
    /// # Errors
    /// [`ClientError::Connect`] (retry elsewhere), [`ClientError::Closed`], [`ClientError::Timeout`],
    /// [`ClientError::Answer`].
    pub async fn open(address: &str, options: &ClientOptions) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { address: address.to_owned(), source };
        let connect = TcpStream::connect(address);
        let stream = tokio::time::timeout(options.connect_timeout, connect)
            .await
            .map_err(|_| failed(io::Error::from(io::ErrorKind::TimedOut)))?
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (outgoing, queue) = mpsc::channel(IN_FLIGHT_MAX);
        let reason = Arc::new(OnceLock::new());
        let task = tokio::spawn(run(stream, queue, options.response_bytes_max, reason.clone()));
        let mut connection = Self {
            address: address.to_owned(),
            options: options.clone(),
            versions: BTreeMap::new(),
            next_correlation_id: AtomicI32::new(0),
            outgoing,
            reason,
            task,
        };
        connection.versions = connection.negotiate().await?;
        Ok(connection)
    }

    /// The address it was opened with.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the broker or an error ended it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.outgoing.is_closed() || self.task.is_finished()
    }

    /// The highest version that both sides speak.
    ///
    /// # Errors
    /// [`ClientError::Unsupported`].
    pub fn version_of(&self, key: ApiKey) -> Result<i16, ClientError> {
        let unsupported =
            || ClientError::Unsupported { address: self.address.clone(), api: key.name() };
        let (min, max) = *self.versions.get(&key).ok_or_else(unsupported)?;
        // The newest Fetch is for followers only.
        let ours_max = match key {
            ApiKey::Fetch => key.advertised(Scope::Public).map_or(0, |range| *range.end()),
            key => key.entry().max_version,
        };
        let version = max.min(ours_max);
        if version >= min.max(key.entry().min_version) { Ok(version) } else { Err(unsupported()) }
    }

    /// Sends a request and waits for its answer, at the highest version both speak.
    ///
    /// # Errors
    /// Any [`ClientError`] but [`ClientError::Broker`]: error codes are inside the answer.
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Response, ClientError> {
        self.call_for(request, Duration::ZERO).await.map(|(response, _)| response)
    }

    /// As [`Connection::call`], for a request that lets the broker wait `wait` before it answers. Gives the frame, too,
    /// in which the response's records lie.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn call_for<R: Request>(
        &self,
        request: &R,
        wait: Duration,
    ) -> Result<(R::Response, Bytes), ClientError> {
        let version = self.version_of(R::KEY)?;
        let frame = self.exchange(request, version, wait).await?;
        let response = self.decode::<R>(&frame, version)?;
        Ok((response, frame))
    }

    fn decode<R: Request>(&self, frame: &Bytes, version: i16) -> Result<R::Response, ClientError> {
        let mut reader = Reader::with_budget(frame, DECODED_BYTES_MAX);
        decode_response_header(&mut reader, R::KEY, version)
            .and_then(|_| R::Response::decode(&mut reader, version))
            .map_err(|source| self.bad_answer(R::KEY, source))
    }

    /// Queues a request now, in the order of these calls. `records` go where the request says
    /// [`client_protocol::Records::Spliced`], each in two parts; `wait` is what the request lets the broker wait.
    ///
    /// # Errors
    /// [`ClientError::Closed`], [`ClientError::Unsupported`], [`ClientError::Request`],
    /// [`ClientError::Busy`] when more than [`IN_FLIGHT_MAX`] requests wait; nothing was sent then.
    pub(crate) fn start<R: Request>(
        self: &Arc<Self>,
        request: &R,
        records: Vec<(Bytes, Bytes)>,
        (is_answered, wait): (bool, Duration),
    ) -> Result<Started<R>, ClientError> {
        let version = self.version_of(R::KEY)?;
        let correlation_id = self.correlation_id();
        let pieces = Pieces::new(self.frame(request, version, correlation_id)?, records);
        let (sender, reply) = oneshot::channel();
        let outgoing = if is_answered {
            Reply::Answered(Pending { correlation_id, reply: sender })
        } else {
            Reply::Written(sender)
        };
        let queued = self.outgoing.try_send(Outgoing { pieces, reply: outgoing });
        queued.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ClientError::Busy(self.address.clone()),
            mpsc::error::TrySendError::Closed(_) => self.closed(),
        })?;
        Ok(Started {
            connection: self.clone(),
            version,
            timeout: self.options.request_timeout.saturating_add(wait),
            reply,
            request: PhantomData,
        })
    }

    /// Ends the connection; whatever waits on it fails.
    pub(crate) fn end(&self) {
        // Kept, if it had ended already with a reason of its own.
        let _first = self.reason.set("closed by this side".to_owned());
        self.task.abort();
    }

    /// Ends the connection and waits until its task is gone.
    pub async fn close(mut self) {
        let (closed, _) = mpsc::channel(1);
        self.outgoing = closed;
        // The task ends by itself once the queue is closed, or was aborted; both are fine.
        if let Err(error) = (&mut self.task).await {
            tracing::debug!(%error, "connection task");
        }
    }

    async fn negotiate(&self) -> Result<BTreeMap<ApiKey, (i16, i16)>, ClientError> {
        let ours = ApiKey::ApiVersions.entry();
        let mut answer = self.api_versions(ours.max_version).await?;
        if answer.error_code == ErrorCode::UnsupportedVersion {
            let theirs = answer.api_keys.iter().find(|range| range.api_key == ours.key.code());
            let version = theirs.map_or(0, |range| range.max_version).clamp(0, ours.max_version);
            answer = self.api_versions(version).await?;
        }
        answer.error_code.into_result().map_err(|code| {
            ClientError::broker(format!("ApiVersions at {}", self.address), code, None)
        })?;
        let known = answer.api_keys.iter().filter_map(|range| {
            Some((ApiKey::from_code(range.api_key)?, (range.min_version, range.max_version)))
        });
        Ok(known.collect())
    }

    async fn api_versions(&self, version: i16) -> Result<ApiVersionsResponse, ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: "tidegate".to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let frame = self.exchange(&request, version, Duration::ZERO).await?;
        let mut reader = Reader::new(&frame);
        decode_response_header(&mut reader, ApiKey::ApiVersions, version)
            .and_then(|_| ApiVersionsResponse::decode_answer(&mut reader, version))
            .map_err(|source| self.bad_answer(ApiKey::ApiVersions, source))
    }

    /// Sends a request and waits for the frame that answers it.
    async fn exchange<R: Request>(
        &self,
        request: &R,
        version: i16,
        wait: Duration,
    ) -> Result<Bytes, ClientError> {
        let correlation_id = self.correlation_id();
        let frame = self.frame(request, version, correlation_id)?;
        let (reply, answer) = oneshot::channel();
        let reply = Reply::Answered(Pending { correlation_id, reply });
        let outgoing = Outgoing { pieces: Pieces::new(frame, Vec::new()), reply };
        let exchange = async {
            self.outgoing.send(outgoing).await.map_err(|_| self.closed())?;
            answer.await.map_err(|_| self.closed())
        };
        let timeout = self.options.request_timeout.saturating_add(wait);
        let late = |_| ClientError::Timeout { address: self.address.clone(), timeout };
        tokio::time::timeout(timeout, exchange).await.map_err(late)?
    }

    fn frame<R: Request>(
        &self,
        request: &R,
        version: i16,
        correlation_id: CorrelationId,
    ) -> Result<EncodedFrame, ClientError> {
        Ok(encode_request(correlation_id, Some(&self.options.client_id), version, request)?)
    }

    fn correlation_id(&self) -> CorrelationId {
        CorrelationId::new(self.next_correlation_id.fetch_add(1, Ordering::Relaxed) & i32::MAX)
    }

    fn closed(&self) -> ClientError {
        let reason = self.reason.get().cloned().unwrap_or_else(|| "closed".to_owned());
        ClientError::Closed { address: self.address.clone(), reason }
    }

    fn bad_answer(&self, key: ApiKey, source: DecodeError) -> ClientError {
        ClientError::Answer { address: self.address.clone(), api: key.name(), source }
    }
}

/// Owns the socket until it fails or the connection is dropped.
async fn run(
    stream: TcpStream,
    mut queue: mpsc::Receiver<Outgoing>,
    response_bytes_max: usize,
    reason: Arc<OnceLock<String>>,
) {
    let (mut read, mut write) = stream.into_split();
    let (pending, mut answered) = mpsc::channel(IN_FLIGHT_MAX);
    // Whichever half ends first, the other has nothing left to do; neither holds state that outlives it.
    let ended = tokio::select! {
        ended = write_requests(&mut write, &mut queue, &pending) => ended,
        ended = read_answers(&mut read, &mut answered, response_bytes_max) => ended,
    };
    // Before the waiting calls learn of the end, which they do when the queues are dropped.
    let _first = reason.set(ended);
}

async fn write_requests(
    socket: &mut OwnedWriteHalf,
    queue: &mut mpsc::Receiver<Outgoing>,
    pending: &mpsc::Sender<Pending>,
) -> String {
    while let Some(Outgoing { mut pieces, reply }) = queue.recv().await {
        let mut written = None;
        match reply {
            // Before the first byte is sent, so that the answer finds it waiting.
            Reply::Answered(answer) => {
                if pending.send(answer).await.is_err() {
                    return "the reading half ended".to_owned();
                }
            }
            Reply::Written(reply) => written = Some(reply),
        }
        if let Err(error) = socket.write_all_buf(&mut pieces).await {
            return error.to_string();
        }
        if let Some(reply) = written {
            // The caller may have given up.
            let _given_up = reply.send(Bytes::new());
        }
    }
    "closed by this side".to_owned()
}

async fn read_answers(
    socket: &mut OwnedReadHalf,
    pending: &mut mpsc::Receiver<Pending>,
    response_bytes_max: usize,
) -> String {
    let mut received = BytesMut::with_capacity(READ_BYTES);
    let mut frames = VecDeque::new();
    loop {
        loop {
            match split_frame(&mut received, RESPONSE_BYTES_MIN, response_bytes_max) {
                Ok(Some(frame)) => frames.push_back(frame.freeze()),
                Ok(None) => break,
                Err(error) => return error.to_string(),
            }
        }
        for frame in frames.drain(..) {
            let Ok(Pending { correlation_id, reply }) = pending.try_recv() else {
                return "an answer that no request waits for".to_owned();
            };
            if frame.first_chunk() != Some(&correlation_id.get().to_be_bytes()) {
                return format!("an answer out of order, expected {correlation_id}");
            }
            // The caller may have given up; the answer is then nobody's.
            let _given_up = reply.send(frame);
        }
        // The whole of a frame at once: records are not moved while it grows.
        let missing = match frame_length(&received, RESPONSE_BYTES_MIN, response_bytes_max) {
            Ok(Some(length)) => length.saturating_add(LENGTH_BYTES).saturating_sub(received.len()),
            Ok(None) | Err(_) => 0,
        };
        received.reserve(missing.clamp(READ_BYTES, RESERVED_BYTES_MAX));
        match socket.read_buf(&mut received).await {
            Ok(0) => return "the broker hung up".to_owned(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

/// The parts of one frame, written by one call where the system takes them.
#[derive(Debug)]
struct Pieces(VecDeque<Bytes>);

impl Pieces {
    fn new(frame: EncodedFrame, records: Vec<(Bytes, Bytes)>) -> Self {
        let mut pieces = VecDeque::new();
        let mut rest = frame.bytes;
        let mut written = 0usize;
        for (splice, (header, records)) in frame.splices.iter().zip(records) {
            let before = splice.position.saturating_sub(written).min(rest.len());
            pieces.push_back(rest.split_to(before));
            pieces.push_back(header);
            pieces.push_back(records);
            written = splice.position;
        }
        pieces.push_back(rest);
        pieces.retain(|piece| !piece.is_empty());
        Self(pieces)
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map(Bytes::as_ref).unwrap_or_default()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.0.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count = count.saturating_sub(front.len());
            self.0.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.0) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }
}
