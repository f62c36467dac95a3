//! Who gets in at the client port, and how: encrypted or not, told apart by the first byte.
//!
//! Called by: connections. Calls: `tls`.
//! Invariant: without encryption nobody gets in where that is not allowed. A handshake of TLS begins with 0x16; what
//! ZooKeeper's clients say first begins with a length below 2^24 or a letter.
//! Does not know: sessions.

use std::io::ErrorKind;

use coordinator_core::server::IDENTITY_BYTES_MAX;
use rustls::ServerConfig;
use tokio::net::TcpStream;

use super::socket::Socket;
use crate::tls::{Current, TlsSession, Turn};

/// The first byte of a handshake of TLS.
const HANDSHAKE: u8 = 0x16;

/// What is allowed at the client port.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// For clients that encrypt; they are refused without.
    pub tls: Option<Current<ServerConfig>>,
    /// Whether clients that do not encrypt are refused.
    pub only_tls: bool,
}

/// Why a client does not get in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It went before it was in.
    #[error("it hung up")]
    HungUp,
    /// It does not encrypt.
    #[error("this port is used by TLS only")]
    OnlyTls,
    /// It encrypts.
    #[error("this port is used without TLS")]
    NoTls,
    /// It breaks the rules of TLS, or its certificate is not good.
    #[error("no handshake of TLS: {0}")]
    Handshake(String),
    /// Its certificate cannot be an identity, and would silently let it do nothing.
    #[error("the subject of its certificate is longer than {IDENTITY_BYTES_MAX} bytes")]
    Subject,
}

impl Gate {
    /// Waits for the client's first byte, and for the end of its handshake if that is one of TLS.
    pub async fn admit(&self, stream: TcpStream, turn: Turn<'_>) -> Result<Socket, Refusal> {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(0) | Err(_) => return Err(Refusal::HungUp),
            Ok(_) => {}
        }
        let encrypts = first == [HANDSHAKE];
        match &self.tls {
            Some(config) if encrypts => {
                let session = TlsSession::accept(&stream, config.get(), turn).await;
                let session = session.map_err(|error| match error.kind() {
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => Refusal::HungUp,
                    _ => Refusal::Handshake(error.to_string()),
                })?;
                let socket = Socket::encrypted(stream, session);
                match socket.subject() {
                    Some(subject) if subject.len() > IDENTITY_BYTES_MAX => Err(Refusal::Subject),
                    Some(_) | None => Ok(socket),
                }
            }
            _ if encrypts => Err(Refusal::NoTls),
            _ if self.only_tls => Err(Refusal::OnlyTls),
            _ => Ok(Socket::plain(stream)),
        }
    }
}
