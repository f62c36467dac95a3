//! One connection: frames in, answers out in the order of the requests.
//!
//! Called by: `listener`. Calls: `service` (dispatch), `receive`, `send`. One task owns all of it.
//! Invariant: frames are dispatched one after the other in arrival order; many may be in flight,
//! within the limits of `budget`; answer n leaves wholly before answer n + 1. Does not know what a
//! frame says.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Sleep};

use super::budget::{
    ANSWER_BYTES_WAITING_MAX, Budget, Limits, REQUEST_BYTES_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX,
    SEND_STALL_MAX,
};
use super::receive::{FrameError, ReceiveBuffer};
use super::send::SendQueue;
use super::service::Service;
use crate::response::{Answer, Dispatch, LaterAnswer};

/// How often limits of time are looked at.
const TICK: Duration = Duration::from_secs(5);
/// A frame that has begun must be whole within this, plus what its bytes need at the slowest rate.
const FRAME_TIME_MAX: Duration = Duration::from_secs(60);
const FRAME_BYTES_PER_SECOND_MIN: usize = 64 << 10;
/// How long a stopping server waits for answers that are on their way.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Reads before other connections get their turn.
const TURN_READS_MAX: usize = 16;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionEnd {
    /// The peer closed.
    #[error("the peer closed")]
    PeerClosed,
    /// The server stops.
    #[error("the server stops")]
    Stopping,
    /// No request for too long.
    #[error("idle")]
    Idle,
    /// A frame began and did not end in time.
    #[error("a frame took too long to arrive")]
    SlowFrame,
    /// The peer does not take its answers.
    #[error("the peer stopped reading its answers")]
    SendStalled,
    /// The service asked for it.
    #[error("closed: {0}")]
    Refused(&'static str),
    /// Forged length.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The socket or a file failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

enum Waiting {
    Now(Answer),
    Later(LaterAnswer),
}

/// A dispatched request whose answer has not left.
struct InFlight {
    answer: Waiting,
    request_bytes: usize,
    answer_bytes: usize,
    _permit: OwnedSemaphorePermit,
}

type TakingBudget = Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>;

/// A frame that waits for the shared budget.
struct Stalled {
    frame: BytesMut,
    permit: TakingBudget,
}

/// The state of one connection.
pub struct Connection<S: Service> {
    stream: TcpStream,
    service: Arc<S>,
    session: S::Session,
    limits: Limits,
    budget: Budget,
    receive: ReceiveBuffer,
    send: SendQueue,
    in_flight: VecDeque<InFlight>,
    request_bytes: usize,
    answer_bytes: usize,
    stalled: Option<Stalled>,
    /// A limit stopped dispatching: whole frames may have arrived that nobody has looked at.
    undispatched: bool,
    peer_closed: bool,
    stopping_since: Option<Instant>,
    frame_at: Instant,
    /// When the frame that is arriving began.
    partial_since: Option<Instant>,
    sent_mark: (u64, Instant),
    tick: Pin<Box<Sleep>>,
}

impl<S: Service> Connection<S> {
    /// Wraps an accepted socket.
    pub fn new(
        stream: TcpStream,
        service: Arc<S>,
        session: S::Session,
        limits: Limits,
        budget: Budget,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream,
            service,
            session,
            limits,
            budget,
            receive: ReceiveBuffer::new(limits.request_bytes_max),
            send: SendQueue::default(),
            in_flight: VecDeque::new(),
            request_bytes: 0,
            answer_bytes: 0,
            stalled: None,
            undispatched: false,
            peer_closed: false,
            stopping_since: None,
            frame_at: now,
            partial_since: None,
            sent_mark: (0, now),
            tick: Box::pin(tokio::time::sleep(TICK.min(limits.idle_max))),
        }
    }

    /// Serves until the peer, a limit, the service or `stop` ends it.
    pub async fn serve(mut self, mut stop: watch::Receiver<bool>) -> ConnectionEnd {
        let mut stopped = Box::pin(async move {
            // A dropped sender means the listener is gone: stop as well.
            let _ = stop.wait_for(|stop| *stop).await;
        });
        std::future::poll_fn(|context| {
            if self.stopping_since.is_none() && stopped.as_mut().poll(context).is_ready() {
                self.stopping_since = Some(Instant::now());
                self.tick.as_mut().reset(Instant::now() + STOP_GRACE);
            }
            self.poll_serve(context)
        })
        .await
    }

    /// Does all that can be done now; `Ready` when the connection is over.
    fn poll_serve(&mut self, context: &mut Context<'_>) -> Poll<ConnectionEnd> {
        for _ in 0..TURN_READS_MAX {
            if let Err(end) = self.dispatch_received(context) {
                return Poll::Ready(end);
            }
            if let Poll::Ready(end) = self.poll_answers(context) {
                return Poll::Ready(end);
            }
            if let Poll::Ready(end) = self.poll_tick(context) {
                return Poll::Ready(end);
            }
            if self.undispatched && self.below_limits() {
                continue;
            }
            if let Some(end) = self.finished() {
                return Poll::Ready(end);
            }
            if !self.may_read() {
                return Poll::Pending;
            }
            match self.poll_receive(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Ready(Ok(())) => {}
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Dispatches whole frames while the limits allow.
    fn dispatch_received(&mut self, context: &mut Context<'_>) -> Result<(), ConnectionEnd> {
        self.undispatched = true;
        if let Some(stalled) = self.stalled.as_mut() {
            let Poll::Ready(permit) = stalled.permit.as_mut().poll(context) else { return Ok(()) };
            if let Some(Stalled { frame, .. }) = self.stalled.take() {
                self.dispatch(frame, permit);
            }
        }
        while self.below_limits() {
            let Some(frame) = self.receive.next_frame()? else {
                self.undispatched = false;
                return Ok(());
            };
            self.frame_at = Instant::now();
            self.partial_since = None;
            if let Some(permit) = self.budget.try_take(frame.len()) {
                self.dispatch(frame, permit);
                continue;
            }
            let (budget, bytes) = (self.budget.clone(), frame.len());
            let mut permit: TakingBudget = Box::pin(async move { budget.take(bytes).await });
            match permit.as_mut().poll(context) {
                Poll::Ready(permit) => self.dispatch(frame, permit),
                Poll::Pending => self.stalled = Some(Stalled { frame, permit }),
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, frame: BytesMut, permit: OwnedSemaphorePermit) {
        let request_bytes = frame.len();
        let (answer, answer_bytes) = match self.service.dispatch(&mut self.session, frame) {
            Dispatch::Now(answer) => {
                let bytes = match &answer {
                    Answer::Respond(response) => response.bytes_held(),
                    Answer::Nothing | Answer::Close(_) => 0,
                };
                (Waiting::Now(answer), bytes)
            }
            Dispatch::Later(answer) => (Waiting::Later(answer), 0),
        };
        self.request_bytes += request_bytes;
        self.answer_bytes += answer_bytes;
        self.in_flight.push_back(InFlight { answer, request_bytes, answer_bytes, _permit: permit });
    }

    /// Moves ready answers to the socket, in order.
    fn poll_answers(&mut self, context: &mut Context<'_>) -> Poll<ConnectionEnd> {
        loop {
            match self.collect_answers(context) {
                Ok(collected) if !collected && self.send.is_empty() => return Poll::Pending,
                Ok(_) => {}
                Err(end) => return Poll::Ready(end),
            }
            match self.send.poll_flush(context, &self.stream) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Queues the answers that are ready at the front; true if there was one.
    fn collect_answers(&mut self, context: &mut Context<'_>) -> Result<bool, ConnectionEnd> {
        let mut collected = false;
        let mut bytes = 0;
        // What one flush takes is bounded, so that a peer that does not read holds little.
        while bytes < ANSWER_BYTES_WAITING_MAX && self.send.is_empty() | collected {
            let Some(front) = self.in_flight.front_mut() else { break };
            if let Waiting::Later(answer) = &mut front.answer {
                let Poll::Ready(answer) = answer.as_mut().poll(context) else { break };
                front.answer = Waiting::Now(answer);
            }
            let Some(done) = self.in_flight.pop_front() else { break };
            self.request_bytes -= done.request_bytes;
            self.answer_bytes -= done.answer_bytes;
            collected = true;
            match done.answer {
                Waiting::Now(Answer::Respond(response)) => {
                    bytes += response.bytes_held();
                    self.send.push(response);
                }
                Waiting::Now(Answer::Nothing) => {}
                Waiting::Now(Answer::Close(reason)) if self.send.is_empty() => {
                    return Err(ConnectionEnd::Refused(reason));
                }
                Waiting::Now(Answer::Close(_)) | Waiting::Later(_) => {
                    // Earlier answers leave first: look at it again when they have.
                    self.in_flight.push_front(InFlight {
                        request_bytes: 0,
                        answer_bytes: 0,
                        ..done
                    });
                    return Ok(true);
                }
            }
        }
        Ok(collected)
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionEnd>> {
        loop {
            match self.stream.poll_read_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Ready(Ok(())) => {}
            }
            let mut spare = self.receive.spare()?;
            match self.stream.try_read_buf(&mut spare) {
                Ok(0) => self.peer_closed = true,
                Ok(_) => {
                    if self.receive.partial_bytes() > 0 && self.partial_since.is_none() {
                        self.partial_since = Some(Instant::now());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
            return Poll::Ready(Ok(()));
        }
    }

    fn poll_tick(&mut self, context: &mut Context<'_>) -> Poll<ConnectionEnd> {
        while self.tick.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if let Some(end) = self.overdue(now) {
                return Poll::Ready(end);
            }
            if now - self.frame_at > TICK && self.in_flight.is_empty() {
                self.receive.release();
            }
            self.tick.as_mut().reset(now + TICK.min(self.limits.idle_max));
        }
        Poll::Pending
    }

    fn overdue(&mut self, now: Instant) -> Option<ConnectionEnd> {
        if self.stopping_since.is_some_and(|since| now >= since + STOP_GRACE) {
            return Some(ConnectionEnd::Stopping);
        }
        if self.send.is_empty() || self.send.bytes_sent() != self.sent_mark.0 {
            self.sent_mark = (self.send.bytes_sent(), now);
        } else if now > self.sent_mark.1 + SEND_STALL_MAX {
            return Some(ConnectionEnd::SendStalled);
        }
        let arrived = self.receive.partial_bytes() / FRAME_BYTES_PER_SECOND_MIN;
        let allowed = FRAME_TIME_MAX + Duration::from_secs(arrived as u64);
        if self.partial_since.is_some_and(|since| now > since + allowed) {
            return Some(ConnectionEnd::SlowFrame);
        }
        let quiet = self.in_flight.is_empty() && self.send.is_empty();
        (quiet && now >= self.frame_at + self.limits.idle_max).then_some(ConnectionEnd::Idle)
    }

    /// The end, when nothing is left to do.
    fn finished(&self) -> Option<ConnectionEnd> {
        // What arrived before the peer closed has been dispatched; nobody waits for the answers.
        if self.peer_closed && !self.undispatched {
            return Some(ConnectionEnd::PeerClosed);
        }
        let quiet = self.in_flight.is_empty() && self.send.is_empty();
        (self.stopping_since.is_some() && quiet).then_some(ConnectionEnd::Stopping)
    }

    fn below_limits(&self) -> bool {
        self.stalled.is_none()
            && self.in_flight.len() < REQUESTS_IN_FLIGHT_MAX
            && self.request_bytes < REQUEST_BYTES_IN_FLIGHT_MAX
            && self.answer_bytes < ANSWER_BYTES_WAITING_MAX
    }

    fn may_read(&self) -> bool {
        self.below_limits() && !self.peer_closed && self.stopping_since.is_none()
    }
}
