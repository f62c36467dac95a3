//! A socket to a server, encrypted or not.
//!
//! Called by: `connection`, and whoever asks a server something that is no session's. Calls: rustls, the socket.
//! Invariant: what was taken for writing goes out as long as somebody reads, writes or flushes; nothing is lost between calls.
//! It does not know what is inside.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, IoState};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Tls;

/// Taken for one record at a time.
const PLAIN_BYTES_MAX: usize = 16 << 10;

/// A connection to one server.
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    Encrypted(Box<Encrypted>),
}

#[derive(Debug)]
struct Encrypted {
    socket: TcpStream,
    session: ClientConnection,
}

impl Stream {
    /// Connects to `address`, `host:port`, and with `tls` agrees on the encryption. The server's certificate has to be for
    /// the host. Not bounded in time.
    ///
    /// # Errors
    /// Of the socket; `UnexpectedEof` when the server hangs up instead of agreeing, and when its certificate is not good,
    /// `InvalidData` with rustls' error in it.
    pub async fn connect(address: &str, tls: Option<&Tls>) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Self(Kind::Plain(socket))) };
        let name = ServerName::try_from(host_of(address).to_owned()).map_err(io::Error::other)?;
        let session = ClientConnection::new(tls.config.clone(), name).map_err(io::Error::other)?;
        let mut encrypted = Encrypted { socket, session };
        let shaken = std::future::poll_fn(|cx| encrypted.poll_handshake(cx)).await;
        shaken.map_err(|error| match error.kind() {
            // However it hangs up in a handshake, it is the same.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                io::ErrorKind::UnexpectedEof.into()
            }
            _ => error,
        })?;
        Ok(Self(Kind::Encrypted(Box::new(encrypted))))
    }
}

/// Of `host:port`, without brackets.
pub(crate) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_read(cx, into),
            Kind::Encrypted(encrypted) => encrypted.poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Kind::Encrypted(encrypted) => encrypted.poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Kind::Encrypted(encrypted) => encrypted.poll_send(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Kind::Encrypted(encrypted) => {
                encrypted.session.send_close_notify();
                ready!(encrypted.poll_send(cx))?;
                Pin::new(&mut encrypted.socket).poll_shutdown(cx)
            }
        }
    }
}

impl Encrypted {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.is_handshaking() {
            let sent = self.poll_send(cx)?;
            if self.session.is_handshaking() && self.session.wants_read() {
                if ready!(self.poll_receive(cx))? == 0 {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            } else {
                ready!(sent);
            }
        }
        // The last of it may still wait for the socket, and goes before whatever is written first.
        let _ = self.poll_send(cx)?;
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            // What an earlier write left goes on here, because nobody writes who has nothing more to say. Should that fail,
            // the server's last words are worth more than the socket's.
            let _ = self.poll_send(cx);
            match self.session.reader().read(into.initialize_unfilled()) {
                Ok(count) => {
                    into.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // An end without a farewell, which many give.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // One record waits at most, so that a socket that takes nothing holds up the writer.
        if let Err(error) = ready!(self.poll_send(cx)) {
            return Poll::Ready(Err(self.last_words(cx).unwrap_or(error)));
        }
        let part = bytes.get(..PLAIN_BYTES_MAX).unwrap_or(bytes);
        let count = self.session.writer().write(part)?;
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.last_words(cx).unwrap_or(error))),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(count)),
        }
    }

    /// Why the server hung up, if it said so: it does before it reads what is written to it.
    fn last_words(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        loop {
            match self.poll_receive(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    return Some(error);
                }
                Poll::Ready(Ok(0) | Err(_)) | Poll::Pending => return None,
            }
        }
    }

    /// Reads from the socket once, 0 for its end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let count = match self.session.read_tls(&mut Raw { socket: &mut self.socket, cx }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            read => read?,
        };
        let processed: Result<IoState, rustls::Error> = self.session.process_new_packets();
        if let Err(error) = processed {
            // The protocol's own answer, such as the alert that says what is wrong.
            let _ = self.poll_send(cx);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(count))
    }

    /// Sends what is encrypted already.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Raw { socket: &mut self.socket, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The socket as rustls wants it: where it would wait, the task is woken later.
struct Raw<'a, 'b> {
    socket: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

fn at_once<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for Raw<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        at_once(Pin::new(&mut *self.socket).poll_read(self.cx, &mut buffer))?;
        Ok(buffer.filled().len())
    }
}

impl Write for Raw<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        at_once(Pin::new(&mut *self.socket).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        at_once(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_what_stands_before_the_port() {
        assert_eq!(host_of("a.example.org:2181"), "a.example.org");
        assert_eq!(host_of("127.0.0.1:2181"), "127.0.0.1");
        assert_eq!(host_of("[::1]:2181"), "::1");
    }
}
