//! What is still to be sent on one socket.
//!
//! Called by: the core's task, which pushes and flushes; the socket's own task, which drives the rest out when the
//! socket is full. Calls: the socket.
//! Invariant: frames leave whole and in the order in which they were pushed; nothing leaves behind a close.
//! Does not know: what a frame is.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::socket::Socket;

/// Frames handed to one system call.
const FRAMES_PER_WRITE: usize = 64;
/// How long what is unsent at a close may take.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// A socket and its unsent frames.
pub struct Outbox {
    socket: Socket,
    state: Mutex<State>,
    /// Wakes the writing half of the socket's task.
    write: Notify,
    /// Wakes the reading half.
    read: Notify,
    /// More unsent bytes than this end the connection: the other side does not read.
    unsent_bytes_max: usize,
    /// How long a close waits for the other side to take the rest.
    close_wait: Duration,
}

struct State {
    frames: VecDeque<Bytes>,
    unsent: usize,
    closing: bool,
    reading: bool,
    overflowed: bool,
}

/// How much stays unsent after a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsent {
    /// In bytes.
    pub bytes: usize,
}

/// Why [`Outbox::drive`] came to its end.
#[derive(Debug)]
pub enum WriteEnd {
    /// Everything is sent for now; drive again.
    Drained,
    /// Everything that was pushed before the close is sent.
    Closed,
    /// The other side takes nothing and too much is waiting.
    Overflowed,
    /// The socket failed.
    Failed(io::Error),
}

impl Outbox {
    /// An outbox that gives up when more than `unsent_bytes_max` wait.
    pub fn new(socket: Socket, unsent_bytes_max: usize) -> Outbox {
        let state = State {
            frames: VecDeque::new(),
            unsent: 0,
            closing: false,
            reading: true,
            overflowed: false,
        };
        let (write, read) = (Notify::new(), Notify::new());
        let state = Mutex::new(state);
        Outbox { socket, state, write, read, unsent_bytes_max, close_wait: CLOSE_WAIT }
    }

    /// The socket, for reading.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Adds a frame; [`Outbox::flush`] sends it. Ignored behind a close.
    pub fn push(&self, frame: Bytes) {
        let mut state = self.state();
        if state.closing || state.overflowed || frame.is_empty() {
            return;
        }
        if state.unsent + frame.len() > self.unsent_bytes_max {
            state.overflowed = true;
            state.frames.clear();
            state.unsent = 0;
            self.write.notify_one();
            return;
        }
        state.unsent += frame.len();
        state.frames.push_back(frame);
    }

    /// Sends what the socket takes without waiting; the socket's task does the rest.
    pub fn flush(&self) -> Unsent {
        let mut state = self.state();
        let sent = state.send(&self.socket);
        let unsent = Unsent { bytes: state.unsent };
        if !matches!(sent, Ok(true)) || state.closing {
            self.write.notify_one();
        }
        unsent
    }

    /// Ends the connection once everything pushed so far is sent, or the other side took nothing of it for too long.
    pub fn close(&self) {
        self.state().closing = true;
        self.write.notify_one();
    }

    /// Whether the socket's task may read on.
    pub fn set_reading(&self, on: bool) {
        self.state().reading = on;
        if on {
            self.read.notify_one();
        }
    }

    /// Returns when reading is allowed. Cancel-safe.
    pub async fn may_read(&self) {
        loop {
            if self.state().reading {
                return;
            }
            self.read.notified().await;
        }
    }

    /// Waits until something is left over by a flush, and sends it. Cancel-safe: what was not sent stays.
    pub async fn drive(&self) -> WriteEnd {
        self.write.notified().await;
        let mut give_up_at = None;
        loop {
            let (all_sent, closing, overflowed) = {
                let mut state = self.state();
                match state.send(&self.socket) {
                    Ok(all_sent) => (all_sent, state.closing, state.overflowed),
                    Err(error) => return WriteEnd::Failed(error),
                }
            };
            match (overflowed, all_sent, closing) {
                (true, _, _) => return WriteEnd::Overflowed,
                (false, true, true) => return WriteEnd::Closed,
                (false, true, false) => return WriteEnd::Drained,
                (false, false, _) => {}
            }
            if closing {
                give_up_at.get_or_insert_with(|| Instant::now() + self.close_wait);
            }
            if let Err(error) = self.room(give_up_at).await {
                return WriteEnd::Failed(error);
            }
        }
    }

    /// Waits until the socket may take more or somebody flushes or closes. Once `give_up_at` has come it fails: who
    /// takes nothing must not hold memory and a place for ever. Cancel-safe.
    async fn room(&self, give_up_at: Option<Instant>) -> io::Result<()> {
        let late = async {
            match give_up_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            writable = self.socket.writable() => writable,
            () = self.write.notified() => Ok(()),
            () = late => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sends what the socket takes; whether that was all.
    fn send(&mut self, socket: &Socket) -> io::Result<bool> {
        while self.unsent > 0 {
            let mut parts = [IoSlice::new(&[]); FRAMES_PER_WRITE];
            let count = self.frames.len().min(FRAMES_PER_WRITE);
            for (part, frame) in parts.iter_mut().zip(&self.frames) {
                *part = IoSlice::new(frame);
            }
            match socket.try_write(&parts[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        socket.try_flush()
    }

    fn advance(&mut self, sent: usize) {
        self.unsent -= sent;
        let mut sent = sent;
        while let Some(frame) = self.frames.front_mut() {
            if sent < frame.len() {
                frame.advance(sent);
                return;
            }
            sent -= frame.len();
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn close_does_not_wait_for_ever_for_who_does_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (silent, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let mut outbox = Outbox::new(Socket::plain(accepted.unwrap().0), 64 << 20);
        outbox.close_wait = Duration::from_millis(20);
        outbox.push(Bytes::from(vec![0; 32 << 20]));
        assert!(outbox.flush().bytes > 0, "more than the kernel holds");
        // The close comes while the rest is being sent.
        let close = async { outbox.close() };
        let (end, ()) = tokio::join!(outbox.drive(), close);
        assert!(
            matches!(&end, WriteEnd::Failed(error) if error.kind() == io::ErrorKind::TimedOut),
            "{end:?}"
        );
        drop(silent);
    }
}
