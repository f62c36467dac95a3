//! One encrypted connection over a socket, in the ways that an outbox uses a socket.
//!
//! Called by: `net::socket`. Calls: rustls, the socket, `handshakes`.
//! Invariant: nothing is lost between calls: what was decrypted and not taken, and what was encrypted and not sent, stays
//! with the session. A call never waits for the socket but in the handshake, and none takes longer than a record.
//! Does not know: what is inside.

use std::io::{self, IoSlice, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use rustls::{AlertDescription, CertificateError};
use rustls::{ClientConfig, ClientConnection, Connection, IoState, ServerConfig, ServerConnection};
use tokio::net::TcpStream;

use super::{Attendance, Handshakes, subject};

/// Bytes in a row that bring nothing to read, before a connection is given up: three records of the greatest length and
/// more. Records without contents would cost time for ever else, for all that is needed is to send them.
const BARREN_BYTES_MAX: usize = 64 << 10;
/// Reads from the socket within one call: what a whole record takes.
const RECEIVES_MAX: usize = 5;
/// What [`TlsSession::binding`] is for; labels of private use begin so.
const BINDING: &[u8] = b"EXPERIMENTAL tidegate member proof";
/// Taken out of a session at a time.
const PLAIN_BYTES: usize = 16 << 10;

/// An encrypted connection after its handshake.
pub struct TlsSession(Mutex<State>);

/// How a handshake gets its share of this server.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    /// Where it is worked on.
    pub handshakes: &'a Handshakes,
    /// Told who keeps whom waiting.
    pub attendance: &'a dyn Attendance,
}

struct State {
    connection: Connection,
    /// Received since there was something to read last.
    barren_bytes: usize,
    /// Whether a call ended with nothing to read before the socket was empty.
    has_more: bool,
}

impl TlsSession {
    /// The listener's side of the handshake.
    ///
    /// # Errors
    /// When the other side breaks the rules, shows a certificate that is not good, or goes.
    pub async fn accept(
        stream: &TcpStream,
        config: Arc<ServerConfig>,
        turn: Turn<'_>,
    ) -> io::Result<TlsSession> {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        shake_hands(stream, connection.into(), turn).await
    }

    /// The dialler's side. The other side's certificate must be for `host`.
    ///
    /// # Errors
    /// As [`TlsSession::accept`].
    pub async fn dial(
        stream: &TcpStream,
        config: Arc<ClientConfig>,
        host: &str,
        turn: Turn<'_>,
    ) -> io::Result<TlsSession> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        shake_hands(stream, connection.into(), turn).await
    }

    /// The subject of the certificate that the other side has shown.
    pub fn subject(&self) -> Option<String> {
        let state = self.state();
        subject(state.connection.peer_certificates()?.first()?)
    }

    /// Whether the certificate that the other side has shown is for `host`. That a trusted authority has signed it was
    /// checked in the handshake.
    pub fn is_for(&self, host: &str) -> bool {
        let state = self.state();
        let shown = state.connection.peer_certificates().and_then(|chain| chain.first());
        let parsed = shown.and_then(|shown| ParsedCertificate::try_from(shown).ok());
        let (Some(certificate), Ok(name)) = (parsed, ServerName::try_from(host)) else {
            return false;
        };
        verify_server_name(&certificate, &name).is_ok()
    }

    /// What only the two ends of this session know, the same at both (RFC 5705).
    ///
    /// # Errors
    /// When the session cannot tell, which none does after its handshake.
    pub fn binding(&self) -> io::Result<[u8; 32]> {
        let exported = self.state().connection.export_keying_material([0; 32], BINDING, None);
        exported.map_err(io::Error::other)
    }

    /// Whether something was decrypted that nobody has taken yet: the socket says nothing of it.
    pub fn has_plain(&self) -> bool {
        let processed = self.state().connection.process_new_packets();
        matches!(processed, Ok(state) if state.plaintext_bytes_to_read() > 0)
    }

    /// Whether it is somebody else's turn before the next try: the last one found nothing to read, but did not look at
    /// all that is there. True once.
    pub fn takes_turns(&self) -> bool {
        std::mem::take(&mut self.state().has_more)
    }

    /// Takes what the other side sent, as `TcpStream::try_read_buf`: 0 for its end.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing yet, `InvalidData` when the other side breaks the rules.
    pub fn try_read(&self, stream: &TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
        let mut state = self.state();
        for _ in 0..RECEIVES_MAX {
            match take_plain(&mut state.connection, buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => return taken,
            }
            if state.receive(stream)? == 0 {
                return Ok(0);
            }
        }
        let taken = take_plain(&mut state.connection, buffer);
        state.has_more = taken.is_err();
        taken
    }

    /// Whether the other side has said that it ends, or sent something that is not taken. What it sent stays.
    ///
    /// # Errors
    /// As [`TlsSession::try_read`].
    pub fn try_peek_end(&self, stream: &TcpStream) -> io::Result<Peeked> {
        let mut state = self.state();
        for _ in 0..RECEIVES_MAX {
            let found = state.connection.process_new_packets().map_err(broken)?;
            if found.plaintext_bytes_to_read() > 0 {
                return Ok(Peeked::More);
            }
            if found.peer_has_closed() || state.receive(stream)? == 0 {
                return Ok(Peeked::End);
            }
        }
        state.has_more = true;
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Encrypts and sends some of `parts`, as `TcpStream::try_write_vectored`. What was encrypted and did not fit into the
    /// socket is sent by [`TlsSession::try_flush`].
    ///
    /// # Errors
    /// `WouldBlock` while the socket takes nothing.
    pub fn try_write(&self, stream: &TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let connection = &mut self.state().connection;
        if !send(connection, stream)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = connection.writer().write_vectored(parts)?;
        send(connection, stream)?;
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    /// Sends what is encrypted already; whether that was all.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn try_flush(&self, stream: &TcpStream) -> io::Result<bool> {
        send(&mut self.state().connection, stream)
    }

    /// Says that nothing more comes.
    pub fn close(&self, stream: &TcpStream) {
        let connection = &mut self.state().connection;
        connection.send_close_notify();
        // The other side may be gone.
        let _ = send(connection, stream);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Reads from the socket once: 0 for its end.
    fn receive(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let (count, found) = receive(&mut self.connection, stream)?;
        self.barren_bytes =
            if found.plaintext_bytes_to_read() > 0 { 0 } else { self.barren_bytes + count };
        if self.barren_bytes > BARREN_BYTES_MAX {
            let text = "records without contents, one after the other";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(count)
    }
}

/// What looking out for the end shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peeked {
    /// The other side ended.
    End,
    /// It sent something before.
    More,
}

async fn shake_hands(
    stream: &TcpStream,
    mut session: Connection,
    turn: Turn<'_>,
) -> io::Result<TlsSession> {
    while session.is_handshaking() {
        if session.wants_write() {
            stream.writable().await?;
            send(&mut session, stream)?;
            continue;
        }
        stream.readable().await?;
        match session.read_tls(&mut Raw(stream)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        let processed;
        (session, processed) = turn.handshakes.process(session, turn.attendance).await?;
        after(&mut session, stream, processed)?;
    }
    // The last words of the handshake; what does not fit goes before the first answer.
    send(&mut session, stream)?;
    Ok(TlsSession(Mutex::new(State { connection: session, barren_bytes: 0, has_more: false })))
}

/// All that is decrypted, up to a bound: 0 when the other side has closed.
fn take_plain(session: &mut Connection, buffer: &mut BytesMut) -> io::Result<usize> {
    let mut chunk = [0; PLAIN_BYTES];
    let count = session.reader().read(&mut chunk)?;
    buffer.extend_from_slice(&chunk[..count]);
    Ok(count)
}

/// Reads from the socket once, 0 for its end, and says what the session has then.
fn receive(session: &mut Connection, stream: &TcpStream) -> io::Result<(usize, IoState)> {
    let count = session.read_tls(&mut Raw(stream))?;
    let processed = session.process_new_packets();
    Ok((count, after(session, stream, processed)?))
}

/// What has to be done whether or not the other side keeps the rules: the protocol's own answers are sent, such as the
/// alert that says what is wrong.
fn after(
    session: &mut Connection,
    stream: &TcpStream,
    processed: Result<IoState, rustls::Error>,
) -> io::Result<IoState> {
    let sent = send(session, stream);
    let state = processed.map_err(broken)?;
    sent?;
    Ok(state)
}

/// Sends what the socket takes of what is encrypted; whether that was all.
fn send(session: &mut Connection, stream: &TcpStream) -> io::Result<bool> {
    while session.wants_write() {
        match session.write_tls(&mut Raw(stream)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// In words that say what to look at, where the error's own do not: authorities that `tidegate certs` makes all have one name, so
/// that what another one of them has signed is a bad signature.
fn broken(error: rustls::Error) -> io::Error {
    let told = match &error {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            "its certificate is signed by another authority than those that the trust store here names"
        }
        // What others send for a name that does not fit, or for anything at all.
        rustls::Error::AlertReceived(
            AlertDescription::BadCertificate | AlertDescription::CertificateUnknown,
        ) => {
            "it refuses the certificate that it was shown: one for another host, or signed by another authority than those that \
             its trust store names?"
        }
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA | AlertDescription::DecryptError,
        ) => {
            "it refuses the certificate that it was shown, as one that is signed by another authority than those that its trust \
             store names"
        }
        _ => return io::Error::new(io::ErrorKind::InvalidData, error),
    };
    io::Error::new(io::ErrorKind::InvalidData, format!("{told} ({error})"))
}

/// A socket that never waits.
struct Raw<'a>(&'a TcpStream);

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
