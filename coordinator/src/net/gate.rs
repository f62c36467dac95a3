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
/// Above the keys of all requests that Kafka's clients begin with.
const KAFKA_KEY_MAX: u8 = 100;

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
    /// It takes this for a server of another kind.
    #[error("it speaks {0}")]
    Foreign(Foreign),
    /// Its certificate cannot be an identity, and would silently let it do nothing.
    #[error("the subject of its certificate is longer than {IDENTITY_BYTES_MAX} bytes")]
    Subject,
}

/// What else clients speak that come here by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    #[error("HTTP, which is at httpPort (admin.serverAddress)")]
    Http,
    #[error("Kafka's protocol, which is for brokers")]
    Kafka,
}

impl Foreign {
    /// By the first bytes, as far as they are there. A length that begins with a letter is none of ours; where a handshake has its
    /// version, which is 0, Kafka's requests have their key and version.
    pub fn of(bytes: &[u8]) -> Option<Foreign> {
        const METHODS: [&[u8]; 5] = [b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI"];
        if METHODS.iter().any(|method| bytes.starts_with(method)) {
            return Some(Foreign::Http);
        }
        let [0, _, _, _, 0, key, 0, _, ..] = bytes else { return None };
        (1..=KAFKA_KEY_MAX).contains(key).then_some(Foreign::Kafka)
    }
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

#[cfg(test)]
mod tests {
    use coordinator_protocol::{ConnectRequest, SessionId, SessionPassword, Zxid};

    use super::*;

    #[test]
    fn clients_of_other_servers_are_told_by_their_first_bytes() {
        assert_eq!(Foreign::of(b"GET / HTTP/1.1\r\n"), Some(Foreign::Http));
        // ApiVersions of version 3, and Metadata of version 1.
        assert_eq!(Foreign::of(&[0, 0, 0, 30, 0, 18, 0, 3, 0, 0]), Some(Foreign::Kafka));
        assert_eq!(Foreign::of(&[0, 0, 0, 20, 0, 3, 0, 1, 0, 0]), Some(Foreign::Kafka));
        let handshake = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 4_000,
            session: SessionId::NONE,
            password: SessionPassword::zeros(),
            read_only: Some(false),
        };
        let handshake = handshake.encode_frame();
        for cut in 0..handshake.len() {
            assert_eq!(Foreign::of(&handshake[..cut]), None, "cut at {cut}");
        }
        assert_eq!(Foreign::of(b"ruok"), None);
    }
}
