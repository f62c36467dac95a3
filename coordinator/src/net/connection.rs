//! One client's socket: bytes in, events to the core; the core's frames go out through the outbox.
//!
//! Called by: the listener, one task per client. Calls: the protocol's decoders, the core's inputs.
//! Invariant: events of one socket reach the core in the order of its bytes, the end last; a loss counts as the
//! peer's only when an end-of-file or reset came from there.
//! Does not know: sessions, requests' meaning.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coordinator_core::ConnectionId;
use coordinator_core::server::Event;
use coordinator_protocol::{
    ConnectRequest, DecodeError, FourLetterWord, Request, RequestHeader, decode_frame,
    decode_request, decode_request_frame_within, large_frame_bytes,
};
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};
use tracing::{debug, warn};

use super::gate::{Foreign, Gate, Refusal};
use super::large_frames::{LargeFrame, LargeFrames};
use super::listener::RequestLimits;
use super::newcomers::Ticket;
use super::outbox::{Outbox, WriteEnd};
use super::seldom::Seldom;
use super::socket::Scratch;
use crate::admin::{Desk, answer_word, shows_list};
use crate::core_loop::{Input, Inputs};
use crate::tls::{Handshakes, Turn};

/// A first frame may be no longer: a handshake has 45 bytes, its password may be a little longer.
const HANDSHAKE_BYTES_MAX: usize = 1024;
/// Unsent bytes at which a client that does not read is given up.
const UNSENT_BYTES_MAX: usize = 256 << 20;
/// How long a closed connection's last bytes may take, and the peer's own close after them.
const LINGER: Duration = Duration::from_secs(1);
/// How long the answer to a word may take that shows a list.
const LIST_SEND_MAX: Duration = Duration::from_secs(5);
/// What is thrown away after a close, so that the kernel does not reset what was sent.
const LINGER_BYTES_MAX: usize = 1 << 20;

const WRONG_PORT: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    this is a coordinator's clientPort, which speaks ZooKeeper's protocol; HTTP is at its httpPort\n";

/// Why a connection ends.
enum End {
    /// An end-of-file or a reset from the client.
    Peer,
    /// The client broke a rule or does not read.
    Refused,
    /// The core said so.
    Closed,
}

/// What all clients of a listener pass on their way in.
pub struct Entrance {
    /// Who gets in.
    pub gate: Gate,
    /// Where handshakes of TLS are worked on.
    pub handshakes: Handshakes,
    /// How long a client may take from its socket's first moment to the end of what it says first.
    pub greeting_max: Duration,
    /// The way to the core, and what four-letter words are told.
    pub desk: Arc<Desk>,
    /// Those whom the gate refused.
    pub refused: Seldom,
    /// How large requests may be.
    pub requests: RequestLimits,
    /// Room for frames above the usual limit.
    pub large_frames: LargeFrames,
    /// What all of them are read through.
    pub scratch: Scratch,
}

impl Entrance {
    /// One line for many: whoever likes can come again and again.
    fn tell(&self, from: IpAddr, refusal: &Refusal) {
        debug!(%from, %refusal, "a client is refused");
        let is_worth_it = !matches!(refusal, Refusal::HungUp);
        if let Some(clients) = is_worth_it.then(|| self.refused.count()).flatten() {
            warn!(%from, %refusal, clients, "a client is refused, one of so many since the last such line");
        }
    }
}

/// A client that has just connected.
pub struct Guest {
    /// Its socket.
    pub stream: TcpStream,
    /// Where that comes from.
    pub from: IpAddr,
    /// Its time as a newcomer.
    pub ticket: Ticket,
}

/// Serves one client until either side ends it.
pub async fn serve(id: ConnectionId, guest: Guest, entrance: Arc<Entrance>) {
    let Guest { stream, from, ticket } = guest;
    let greeting = tokio::select! {
        greeting = timeout(entrance.greeting_max, greet((stream, from), &ticket, &entrance)) => greeting,
        () = ticket.sent_away() => return debug!(connection = %id, %from, "makes room for another"),
    };
    let Ok(Some(Greeting { first, outbox, buffer })) = greeting else { return };
    let inputs = &entrance.desk.inputs;
    let frame = match first {
        First::Frame(frame) => frame,
        First::Foreign(foreign) => {
            entrance.tell(from, &Refusal::Foreign(foreign));
            return tokio::select! {
                () = say_wrong_port(&outbox, foreign) => {}
                () = ticket.sent_away() => {}
            };
        }
        First::Word(word) => {
            return tokio::select! {
                () = say_word(&outbox, word, &entrance.desk) => {}
                () = ticket.sent_away() => {}
            };
        }
    };
    let Ok(request) = ConnectRequest::decode_frame(frame) else {
        debug!(connection = %id, "the handshake cannot be read");
        return;
    };
    let Ok(entropy) = entropy() else { return };
    if !ticket.admit() {
        return;
    }
    let certificate = outbox.socket().subject();
    let mut reader = Reader { outbox: &outbox, scratch: &entrance.scratch, buffer };
    // The core lets it go on once the session is there.
    outbox.set_reading(false);
    let opened = Input::Opened { connection: id, outbox: Arc::clone(&outbox) };
    // An IPv4 client of a socket for both has the address that access lists name.
    let address = from.to_canonical().to_string();
    let connect = Event::Connect { connection: id, address, certificate, request, entropy };
    if inputs.send(opened).await.is_err() || inputs.send(Input::Event(connect)).await.is_err() {
        return;
    }
    // Dropping either half loses nothing that anybody needs: the connection ends with the first.
    let end = tokio::select! {
        end = reader.requests((id, from), &entrance) => end,
        end = write(id, &outbox, inputs) => end,
    };
    let by_peer = matches!(end, End::Peer);
    debug!(connection = %id, by_peer, "connection ends");
    if matches!(end, End::Closed) {
        linger(&outbox).await;
    }
    // Ignored after a close by the core, which forgot the connection then.
    let _ = inputs.send(Input::Ended { connection: id, by_peer }).await;
}

/// The first thing that a client says.
enum First {
    Word(FourLetterWord),
    Frame(Bytes),
    /// No client of ours.
    Foreign(Foreign),
}

/// What a client has said first, and what it says it on.
struct Greeting {
    first: First,
    outbox: Arc<Outbox>,
    buffer: BytesMut,
}

/// Waits for what the client says first; `None` when it goes, or says what it may not.
async fn greet(
    (stream, from): (TcpStream, IpAddr),
    ticket: &Ticket,
    entrance: &Entrance,
) -> Option<Greeting> {
    let turn = Turn { handshakes: &entrance.handshakes, attendance: ticket };
    let socket = match entrance.gate.admit(stream, turn).await {
        Ok(socket) => socket,
        Err(refusal) => {
            entrance.tell(from, &refusal);
            return None;
        }
    };
    let outbox = Arc::new(Outbox::new(socket, UNSENT_BYTES_MAX));
    let mut reader =
        Reader { outbox: &outbox, scratch: &entrance.scratch, buffer: BytesMut::new() };
    let first = reader.first().await.ok()?;
    let buffer = reader.buffer;
    Some(Greeting { first, outbox, buffer })
}

struct Reader<'a> {
    outbox: &'a Outbox,
    scratch: &'a Scratch,
    buffer: BytesMut,
}

impl Reader<'_> {
    async fn first(&mut self) -> Result<First, End> {
        loop {
            if let Some(word) =
                self.buffer.first_chunk().copied().and_then(FourLetterWord::from_bytes)
            {
                return Ok(First::Word(word));
            }
            if let Some(foreign) = Foreign::of(&self.buffer) {
                return Ok(First::Foreign(foreign));
            }
            if let Some(frame) =
                decode_frame(&mut self.buffer, HANDSHAKE_BYTES_MAX).map_err(|_| End::Refused)?
            {
                return Ok(First::Frame(frame));
            }
            self.read().await?;
        }
    }

    /// Hands request after request to the core; returns why no more come.
    async fn requests(&mut self, (id, from): (ConnectionId, IpAddr), entrance: &Entrance) -> End {
        let mut large = None;
        loop {
            if let Some(end) = self.wait_for_leave().await {
                return end;
            }
            match decode_request_frame_within(&mut self.buffer, entrance.requests.bytes_max) {
                Ok(Some(frame)) => {
                    let decoded = match large.is_some() {
                        true => decode_large(frame).await,
                        false => decode_request(frame),
                    };
                    let Ok((header, request)) = decoded else { return End::Refused };
                    let event = Event::Request { connection: id, header, request };
                    if entrance.desk.inputs.send(Input::Event(event)).await.is_err() {
                        return End::Closed;
                    }
                    large = None;
                }
                Ok(None) => {
                    if let Err(end) = self.read_more(&mut large, from, entrance).await {
                        return end;
                    }
                }
                Err(error) => {
                    entrance.requests.too_large.tell(from, &error);
                    return End::Refused;
                }
            }
        }
    }

    /// Reads on in a frame that is not whole. One above the usual limit first waits for room, and is given it in one piece.
    async fn read_more<'p>(
        &mut self,
        large: &mut Option<LargeFrame<'p>>,
        from: IpAddr,
        entrance: &'p Entrance,
    ) -> Result<(), End> {
        if large.is_none()
            && let Some(bytes) = large_frame_bytes(&self.buffer)
        {
            *large = Some(entrance.large_frames.take(bytes).await.ok_or(End::Closed)?);
            self.buffer.reserve(bytes.saturating_sub(self.buffer.len()));
        }
        match large {
            None => self.read().await,
            Some(large) => timeout_at(large.due(), self.read()).await.unwrap_or_else(|_| {
                entrance.large_frames.tell_late(from);
                Err(End::Refused)
            }),
        }
    }

    /// Waits until reading is allowed, and looks out for the client's end meanwhile: one that gave up
    /// must not be given its session.
    async fn wait_for_leave(&self) -> Option<End> {
        // Cancel-safe: neither takes anything from the socket.
        tokio::select! {
            biased;
            () = self.outbox.may_read() => None,
            end = self.hang_up(), if self.buffer.is_empty() => Some(end),
        }
    }

    /// Returns when the client has hung up, and sent nothing before that is still unread.
    async fn hang_up(&self) -> End {
        match self.outbox.socket().ended().await {
            Ok(()) => End::Peer,
            Err(error) => loss(&error),
        }
    }

    /// Waits for bytes. Memory is only held while some are there: thousands of clients are idle.
    async fn read(&mut self) -> Result<(), End> {
        loop {
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            self.outbox.socket().readable().await.map_err(|error| loss(&error))?;
            match self.outbox.socket().try_read_by(self.scratch, &mut self.buffer) {
                Ok(0) => return Err(End::Peer),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(loss(&error)),
            }
        }
    }
}

/// What is in a large frame: beside the thread that serves all sockets, which a million names would hold up.
async fn decode_large(
    frame: Bytes,
) -> Result<(RequestHeader, Result<Request, DecodeError>), DecodeError> {
    let decoding = tokio::task::spawn_blocking(move || decode_request(frame));
    match decoding.await {
        Ok(decoded) => decoded,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Sends what the core's flushes leave over; returns why nothing more can be sent.
async fn write(id: ConnectionId, outbox: &Outbox, inputs: &Inputs) -> End {
    loop {
        match outbox.drive().await {
            WriteEnd::Drained => {
                if inputs.send(Input::Drained(id)).await.is_err() {
                    return End::Closed;
                }
            }
            WriteEnd::Closed => return End::Closed,
            WriteEnd::Overflowed => {
                debug!(connection = %id, "the client does not read");
                return End::Refused;
            }
            WriteEnd::Failed(error) => return loss(&error),
        }
    }
}

/// Only what the peer's side did counts as its loss: a time-out of our own kernel does not.
fn loss(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => End::Peer,
        _ => End::Refused,
    }
}

async fn say_word(outbox: &Outbox, word: FourLetterWord, desk: &Desk) {
    let is_list = shows_list(word) && desk.whitelist.has(word);
    let (place, limit) = match is_list {
        true => (desk.list_place().await, LIST_SEND_MAX),
        false => (None, LINGER),
    };
    let answer = answer_word(word, desk, place.is_some()).await;
    outbox.push(Bytes::from(answer));
    outbox.close();
    let drained = async { while matches!(outbox.drive().await, WriteEnd::Drained) {} };
    let sent = timeout(limit, drained).await;
    // Kept until the list is out of memory, but not while the client closes.
    drop(place);
    if sent.is_ok() {
        linger(outbox).await;
    }
}

/// Whoever sits before a browser, or has curl, reads it; to others nothing can be said that they would show.
async fn say_wrong_port(outbox: &Outbox, foreign: Foreign) {
    if foreign == Foreign::Http {
        outbox.push(Bytes::from_static(WRONG_PORT));
    }
    outbox.close();
    let drained = async { while matches!(outbox.drive().await, WriteEnd::Drained) {} };
    if timeout(LINGER, drained).await.is_ok() {
        linger(outbox).await;
    }
}

/// Says that nothing more comes and waits for the peer to close: a socket closed on unread bytes is reset, and the
/// reset can overtake the answer.
async fn linger(outbox: &Outbox) {
    let socket = outbox.socket();
    if socket.close_writing().is_err() {
        return;
    }
    let thrown_away = async {
        let mut left = LINGER_BYTES_MAX;
        while left > 0 && socket.readable().await.is_ok() {
            match socket.try_read(&mut BytesMut::with_capacity(1024)) {
                Ok(0) => return,
                Ok(count) => left = left.saturating_sub(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = timeout(LINGER, thrown_away).await;
}

/// Secret bytes for a new session, from the operating system.
fn entropy() -> io::Result<[u8; 24]> {
    let mut bytes = [0; 24];
    let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if count < bytes.len() {
        return Err(io::Error::other("the system has no random bytes"));
    }
    Ok(bytes)
}
