//! A socket, encrypted or not, in the ways that it is used here: everything tries, and waits apart from that.
//!
//! Called by: outboxes, connections, links between members. Calls: the socket, `tls`.
//! Invariant: who waits and then tries gets on, whichever kind it is; who does so for ever lets others run.
//! Does not know: frames.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use rustix::net::RecvFlags;
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
    if is_large || room >= SCRATCH_BYTES {
        return stream.try_read_buf(buffer);
    }
    let mut scratch = scratch.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = None;
    let read = stream.try_io(Interest::READABLE, || {
        let (count, _) = rustix::net::recv(stream, &mut **scratch, RecvFlags::empty())?;
        found = Some(count);
        // Less than there is room for is all that there is: the system will say when there is more, and is not asked once
        // more to hear that there is not.
        match 0 < count && count < SCRATCH_BYTES {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => Ok(()),
        }
    });
    match (found, read) {
        (Some(count), _) => {
            buffer.extend_from_slice(scratch.get(..count).unwrap_or_default());
            Ok(count)
        }
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(io::ErrorKind::WouldBlock.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// A hang guard.
    const SOON: Duration = Duration::from_secs(60);

    /// Reads until that much is there, or the end.
    async fn read(socket: &Socket, scratch: &Scratch, buffer: &mut BytesMut, length: usize) {
        while buffer.len() < length {
            timeout(SOON, socket.readable()).await.expect("woken").unwrap();
            match socket.try_read_by(scratch, buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    #[tokio::test]
    async fn whatever_fits_into_a_read_the_next_is_woken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut client, accepted) =
            tokio::try_join!(TcpStream::connect(address), listener.accept()).unwrap();
        let (socket, scratch) = (Socket::plain(accepted.0), Scratch::default());
        let mut buffer = BytesMut::new();
        for length in [1, SCRATCH_BYTES - 1, SCRATCH_BYTES, SCRATCH_BYTES + 1, 5 * SCRATCH_BYTES] {
            for round in 0..3 {
                let sent: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
                // Both at once: kernels hold less than the longest.
                let (written, ()) = tokio::join!(
                    client.write_all(&sent),
                    read(&socket, &scratch, &mut buffer, length)
                );
                written.unwrap();
                assert_eq!(buffer[..], sent[..], "{length} bytes, round {round}");
                buffer.clear();
                let nothing = socket.try_read_by(&scratch, &mut buffer).unwrap_err();
                assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            }
            // Large buffers are read into directly, small ones are no larger than they need be.
            buffer = BytesMut::new();
        }
        client.write_all(b"bye").await.unwrap();
        drop(client);
        read(&socket, &scratch, &mut buffer, 4).await;
        assert_eq!(&buffer[..], b"bye");
        assert!(buffer.capacity() < SCRATCH_BYTES, "{}", buffer.capacity());
    }
}
