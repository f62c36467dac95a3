//! Who gets in at the client port, and how: encrypted or not, told apart by the first byte.
//!
//! Called by: connections. Calls: `tls`.
//! Invariant: without encryption nobody gets in where that is not allowed. A handshake of TLS begins with 0x16; what
//! ZooKeeper's clients say first begins with a length below 2^24 or a letter.
//! Does not know: sessions.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use coordinator_core::server::IDENTITY_BYTES_MAX;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tracing::{debug, warn};

use super::socket::Socket;
use crate::tls::{TlsSession, Turn};

/// The first byte of a handshake of TLS.
const HANDSHAKE: u8 = 0x16;

/// What is allowed at the client port.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// For clients that encrypt; they are refused without.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether clients that do not encrypt are refused.
    pub only_tls: bool,
}

impl Gate {
    /// Waits for the client's first byte, and for the end of its handshake if that is one of TLS.
    pub async fn admit(
        &self,
        stream: TcpStream,
        from: IpAddr,
        turn: Turn<'_>,
    ) -> io::Result<Socket> {
        let mut first = [0];
        let count = stream.peek(&mut first).await?;
        let encrypts = count > 0 && first == [HANDSHAKE];
        match &self.tls {
            Some(config) if encrypts => {
                let shaken = TlsSession::accept(&stream, Arc::clone(config), turn).await;
                let session =
                    shaken.inspect_err(|error| debug!(%from, %error, "no handshake of TLS"))?;
                let socket = Socket::encrypted(stream, session);
                check_subject(socket.subject().as_deref()).inspect_err(
                    |_| warn!(%from, max = IDENTITY_BYTES_MAX, "a client is refused: its certificate has a longer subject"),
                )?;
                Ok(socket)
            }
            _ if encrypts || self.only_tls => {
                let expected = if encrypts { "without TLS" } else { "by TLS only" };
                warn!(%from, "a client is refused: this port is used {expected}");
                Err(io::ErrorKind::InvalidData.into())
            }
            _ => Ok(Socket::plain(stream)),
        }
    }
}

/// A certificate that can be no identity would silently let its owner do nothing.
fn check_subject(subject: Option<&str>) -> io::Result<()> {
    match subject {
        Some(subject) if subject.len() > IDENTITY_BYTES_MAX => {
            Err(io::ErrorKind::InvalidData.into())
        }
        Some(_) | None => Ok(()),
    }
}
