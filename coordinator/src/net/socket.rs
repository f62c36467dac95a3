//! A socket, encrypted or not, in the ways that it is used here: everything tries, and waits apart from that.
//!
//! Called by: outboxes, connections, links between members. Calls: the socket, `tls`.
//! Invariant: who waits and then tries gets on, whichever kind it is; who does so for ever lets others run.
//! Does not know: frames.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;

use crate::tls::{Peeked, TlsSession};

/// Read at a time, but into buffers that have more room.
const SCRATCH_BYTES: usize = 64 << 10;

/// What is read from many sockets comes through here: their buffers are as large as what they hold, and a request of some
/// bytes that waits for the disk holds no more than that.
pub struct Scratch(Mutex<Box<[u8]>>);

impl Default for Scratch {
    fn default() -> Self {
        Self(Mutex::new(vec![0; SCRATCH_BYTES].into_boxed_slice()))
    }
}

/// A connected socket.
pub struct Socket {
    stream: TcpStream,
    tls: Option<Box<TlsSession>>,
}

impl Socket {
    /// One without encryption.
    pub fn plain(stream: TcpStream) -> Socket {
        Socket { stream, tls: None }
    }

    /// One whose handshake is done.
    pub fn encrypted(stream: TcpStream, session: TlsSession) -> Socket {
        Socket { stream, tls: Some(Box::new(session)) }
    }

    /// The subject of the certificate that the other side has shown.
    pub fn subject(&self) -> Option<String> {
        self.tls.as_ref()?.subject()
    }

    /// Whether what is said here is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Where the other side is; `None` when it has gone.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }

    /// Whether the other side has shown a certificate that is for `host`.
    pub fn is_for(&self, host: &str) -> bool {
        self.tls.as_ref().is_some_and(|session| session.is_for(host))
    }

    /// Returns when there may be something to read. Cancel-safe.
    pub async fn readable(&self) -> io::Result<()> {
        // A socket that somebody fills as fast as it is read is always readable.
        consume_budget().await;
        if let Some(session) = &self.tls {
            if session.has_plain() {
                return Ok(());
            }
            if session.takes_turns() {
                yield_now().await;
            }
        }
        self.stream.readable().await
    }

    /// Returns when there may be room to write. Cancel-safe.
    pub async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// Reads what is there; 0 for the other side's end, `WouldBlock` for nothing.
    pub fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match &self.tls {
            None => self.stream.try_read_buf(buffer),
            Some(session) => session.try_read(&self.stream, buffer),
        }
    }

    /// The same, by way of `scratch` where the buffer has little room.
    pub fn try_read_by(&self, scratch: &Scratch, buffer: &mut BytesMut) -> io::Result<usize> {
        match &self.tls {
            None => read_plain(&self.stream, scratch, buffer),
            Some(session) => session.try_read(&self.stream, buffer),
        }
    }

    /// Writes what there is room for, `WouldBlock` for nothing.
    pub fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            None => self.stream.try_write_vectored(parts),
            Some(session) => session.try_write(&self.stream, parts),
        }
    }

    /// Whether everything that was written has left the process; sends the rest as far as there is room.
    pub fn try_flush(&self) -> io::Result<bool> {
        self.tls.as_ref().map_or(Ok(true), |session| session.try_flush(&self.stream))
    }

    /// Returns when the other side has ended, and sent nothing before that is still unread. Cancel-safe: takes nothing.
    pub async fn ended(&self) -> io::Result<()> {
        match &self.tls {
            None => match self.stream.peek(&mut [0]).await? {
                0 => Ok(()),
                _ => std::future::pending().await,
            },
            Some(session) => loop {
                match session.try_peek_end(&self.stream) {
                    Ok(Peeked::End) => return Ok(()),
                    Ok(Peeked::More) => std::future::pending().await,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.readable().await?;
                    }
                    Err(error) => return Err(error),
                }
            },
        }
    }

    /// Says that nothing more comes.
    pub fn close_writing(&self) -> io::Result<()> {
        if let Some(session) = &self.tls {
            session.close(&self.stream);
        }
        Ok(rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write)?)
    }

    /// Sends all of it.
    pub async fn write_all(&self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() || !self.try_flush()? {
            match self.try_write(&[IoSlice::new(&bytes)]) {
                Ok(0) if !bytes.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(bytes.split_to(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until `buffer` has `length` bytes; what follows may be in it too.
    pub async fn read_until(&self, buffer: &mut BytesMut, length: usize) -> io::Result<()> {
        while buffer.len() < length {
            self.readable().await?;
            match self.try_read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Reads what is there, at most [`SCRATCH_BYTES`] or what the buffer has room for, whichever is more.
fn read_plain(stream: &TcpStream, scratch: &Scratch, buffer: &mut BytesMut) -> io::Result<usize> {
    let room = buffer.capacity() - buffer.len();
    let is_large = room > 0 && buffer.len() >= SCRATCH_BYTES;
    let (count, most) = match is_large || room >= SCRATCH_BYTES {
        true => (stream.try_read_buf(buffer)?, room),
        false => {
            let mut scratch = scratch.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = stream.try_read(&mut scratch)?;
            buffer.extend_from_slice(scratch.get(..count).unwrap_or_default());
            (count, scratch.len())
        }
    };
    if count > 0 && count < most {
        // Nothing is left there: the system will say when there is, and needs no question that it answers with no.
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = stream.try_io(Interest::READABLE, nothing);
    }
    Ok(count)
}
