//! The send side of a connection: pieces of answers, in order, to a socket.
//!
//! Called by: `connection`. Calls: the socket (sendmsg, sendfile), a blocking pool for cold reads.
//! Invariant: pieces leave in the order they came; the reactor never waits for a disk: what is not
//! in the page cache is first read by the blocking pool. Does not know where answers begin or end.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use coordinator_disk::File;
use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::response::{Piece, Response};

/// File ranges up to this are copied into the write of their header: one call instead of three.
const INLINE_FILE_BYTES: usize = 32 << 10;
/// Bytes of a file handed to the kernel at once; both ends are probed before.
const SENDFILE_BYTES_MAX: usize = 512 << 10;
/// Slices gathered into one write.
const SLICES_MAX: usize = 32;
/// Bytes sent before other connections get their turn.
const TURN_BYTES_MAX: usize = 4 << 20;
/// Buffer of the blocking pool's read-ahead.
const WARM_BUFFER_BYTES: usize = 64 << 10;

/// What the blocking pool brought.
enum Warmed {
    /// The range is in the page cache now.
    Cached,
    /// The range itself, where there is no descriptor to send from.
    Bytes(Bytes),
}

/// Pieces waiting for the socket.
#[derive(Default)]
pub struct SendQueue {
    pieces: VecDeque<Piece>,
    warming: Option<JoinHandle<io::Result<Warmed>>>,
    /// The front file range was just read by the blocking pool: send without another probe.
    front_is_warm: bool,
    bytes_sent: u64,
}

impl SendQueue {
    /// Queues an answer behind the others.
    pub fn push(&mut self, response: Response) {
        self.pieces.extend(response.into_pieces().into_iter().filter(|piece| piece.length() > 0));
    }

    /// True when everything has been handed to the kernel.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes handed to the kernel since the connection began; stands still while the peer stalls.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Sends until the queue is empty (`Ready(Ok)`), the socket is full or a cold range is read.
    ///
    /// # Errors
    /// The connection is broken, or a file is shorter than promised: close.
    pub fn poll_flush(
        &mut self,
        context: &mut Context<'_>,
        stream: &TcpStream,
    ) -> Poll<io::Result<()>> {
        let turn_end = self.bytes_sent + TURN_BYTES_MAX as u64;
        while !self.pieces.is_empty() {
            ready!(self.poll_warmed(context))?;
            let sent = if matches!(self.pieces.front(), Some(Piece::File { .. })) {
                self.inline_small_files();
                ready!(self.poll_send_front(context, stream))?
            } else {
                self.inline_small_files();
                ready!(poll_write(context, stream, || self.send_gathered(stream)))?
            };
            self.consume(sent);
            if self.bytes_sent >= turn_end && !self.pieces.is_empty() {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends from the front, which was a file range: it may have become bytes, may be sent by the
    /// kernel, or must be read by the blocking pool first (then `Pending`).
    fn poll_send_front(
        &mut self,
        context: &mut Context<'_>,
        stream: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        let Some(Piece::File { file, position, length }) = self.pieces.front() else {
            return poll_write(context, stream, || self.send_gathered(stream));
        };
        let (position, length) = (*position, (*length).min(SENDFILE_BYTES_MAX));
        let warm = self.front_is_warm
            || file.descriptor().is_some_and(|file| is_cached(file, position, length));
        if !warm {
            let file = Arc::clone(file);
            self.warming = Some(tokio::task::spawn_blocking(move || {
                warm_range(file.as_ref(), position, length)
            }));
            ready!(self.poll_warmed(context))?;
            return self.poll_send_front(context, stream);
        }
        poll_write(context, stream, || {
            let Some(descriptor) = file.descriptor() else { return Err(short_file()) };
            let mut from = position;
            match rustix::fs::sendfile(stream, descriptor, Some(&mut from), length)? {
                0 => Err(short_file()),
                sent => Ok(sent),
            }
        })
    }

    /// One write of the bytes at the front, up to the next file range.
    fn send_gathered(&self, stream: &TcpStream) -> io::Result<usize> {
        let mut slices = [io::IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            let Piece::Bytes(bytes) = piece else { break };
            *slot = io::IoSlice::new(bytes);
            count += 1;
        }
        let mut flags = SendFlags::NOSIGNAL;
        if self.pieces.len() > count {
            flags |= SendFlags::MORE;
        }
        let mut control = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(stream, &slices[..count], &mut control, flags)?)
    }

    /// Replaces small cached file ranges among the next slices by their bytes.
    fn inline_small_files(&mut self) {
        for piece in self.pieces.iter_mut().take(SLICES_MAX) {
            let Piece::File { file, position, length } = piece else { continue };
            if *length > INLINE_FILE_BYTES {
                break;
            }
            let Some(descriptor) = file.descriptor() else { break };
            let Some(bytes) = read_cached(descriptor, *position, *length) else { break };
            *piece = Piece::Bytes(bytes);
        }
    }

    fn poll_warmed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(warming) = self.warming.as_mut() else { return Poll::Ready(Ok(())) };
        let outcome = ready!(std::pin::Pin::new(warming).poll(context));
        self.warming = None;
        match outcome.map_err(io::Error::other)?? {
            Warmed::Cached => self.front_is_warm = true,
            Warmed::Bytes(bytes) => self.replace_front(bytes),
        }
        Poll::Ready(Ok(()))
    }

    /// Puts the first bytes of the file range at the front in its place.
    fn replace_front(&mut self, bytes: Bytes) {
        if let Some(Piece::File { position, length, .. }) = self.pieces.front_mut() {
            *position += bytes.len() as u64;
            *length = length.saturating_sub(bytes.len());
            if *length == 0 {
                self.pieces.pop_front();
            }
        }
        self.pieces.push_front(Piece::Bytes(bytes));
    }

    fn consume(&mut self, sent: usize) {
        self.front_is_warm = false;
        self.bytes_sent += sent as u64;
        let mut left = sent;
        while let Some(front) = self.pieces.front_mut() {
            if front.length() <= left {
                left -= front.length();
                self.pieces.pop_front();
                continue;
            }
            match front {
                Piece::Bytes(bytes) => bytes.advance(left),
                Piece::File { position, length, .. } => {
                    *position += left as u64;
                    *length -= left;
                }
            }
            return;
        }
        assert_eq!(left, 0, "sent more than was queued");
    }
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        if let Some(warming) = &self.warming {
            warming.abort();
        }
    }
}

/// Runs a write that may find the socket full; registers for room then.
fn poll_write(
    context: &mut Context<'_>,
    stream: &TcpStream,
    mut write: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(context))?;
        match stream.try_io(Interest::WRITABLE, &mut write) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return Poll::Ready(outcome),
        }
    }
}

/// Whether both ends of the range are in the page cache. A hole between them makes one sendfile
/// wait for the disk, which read-ahead makes rare.
fn is_cached(file: BorrowedFd<'_>, position: u64, length: usize) -> bool {
    let last = position + (length as u64).saturating_sub(1);
    [position, last].into_iter().all(|at| {
        let mut byte = [0u8];
        let mut slices = [io::IoSliceMut::new(&mut byte)];
        match rustix::io::preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT) {
            Ok(_) => true,
            // A filesystem without the flag cannot be asked: take it as cached.
            Err(error) => error == Errno::OPNOTSUPP,
        }
    })
}

/// The range, if all of it is in the page cache.
fn read_cached(file: BorrowedFd<'_>, position: u64, length: usize) -> Option<Bytes> {
    let mut buffer = vec![0u8; length];
    let mut slices = [io::IoSliceMut::new(&mut buffer)];
    let read = rustix::io::preadv2(file, &mut slices, position, ReadWriteFlags::NOWAIT).ok()?;
    (read == length).then(|| Bytes::from(buffer))
}

/// On the blocking pool: brings the range into the page cache, or reads it where that is no help.
fn warm_range(file: &dyn File, position: u64, length: usize) -> io::Result<Warmed> {
    if file.descriptor().is_none() {
        let mut buffer = vec![0u8; length];
        file.read_exact_at(position, &mut buffer)?;
        return Ok(Warmed::Bytes(Bytes::from(buffer)));
    }
    let mut buffer = vec![0u8; WARM_BUFFER_BYTES.min(length)];
    let mut done = 0;
    while done < length {
        let step = buffer.len().min(length - done);
        let read = file.read_at(position + done as u64, &mut buffer[..step])?;
        if read == 0 {
            return Err(short_file());
        }
        done += read;
    }
    Ok(Warmed::Cached)
}

fn short_file() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a file is shorter than the answer promised")
}
