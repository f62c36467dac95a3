//! How two members prove to one another that they belong together.
//!
//! Called by: both ends of a new link. Calls: HMAC-SHA-256.
//! Invariant: nothing secret is sent; a proof holds for one link, one direction and one pair of members only, and on an
//! encrypted link for that one session of TLS: who only relays what two members say has no link. Two members that began with
//! different states have none either, and both know why.
//! Does not know: what the link is for.
//!
//! ```text
//! dialler                                        acceptor
//!   | -- Hello{version, cluster, from, to, nonce} -> |   checks all but the secret
//!   | <- Challenge{nonce, proof over both nonces} -- |
//!   | -- Proof ------------------------------------> |   link is up
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use coordinator_core::ServerId;
use coordinator_disk::envelope::{self, EnvelopeError, Schema};
use hmac::{Hmac, Mac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::net::TcpStream;

use super::hosts::host_of;
use super::{Ensemble, Others, PeerTls};
use crate::net::Socket;
use crate::storage::{Beginning, Beginnings};
use crate::tls::{Attendance, Handshakes, TlsSession, Turn};

/// Version of everything that members say to one another; both sides must have the same.
const PROTOCOL_VERSION: u32 = 1;
/// The same on encrypted links, whose proofs are made of more.
const ENCRYPTED_PROTOCOL_VERSION: u32 = 2;
/// A handshake message may be no longer.
const HANDSHAKE_BYTES_MAX: usize = 1024;

const HELLO: Schema = Schema { kind: 0x0201, version: 1 };
const CHALLENGE: Schema = Schema { kind: 0x0202, version: 1 };
const PROOF: Schema = Schema { kind: 0x0203, version: 1 };
/// The forms of those two that say what their sender began with, behind what is otherwise the same. Who has no mark of that
/// speaks as builds did before.
const HELLO_2: Schema = Schema { kind: 0x0201, version: 2 };
const CHALLENGE_2: Schema = Schema { kind: 0x0202, version: 2 };
/// The one thing that an acceptor says on a link later, before it closes it.
const REPLACED: Schema = Schema { kind: 0x0204, version: 1 };

type Digest = [u8; 32];
type Nonce = [u8; 16];
/// What only the two ends of an encrypted link know of it; none in the clear.
type Binding = Option<[u8; 32]>;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Hello {
    protocol_version: u32,
    cluster_id: String,
    from: u64,
    to: u64,
    nonce: Nonce,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Challenge {
    nonce: Nonce,
    proof: Digest,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Proof {
    proof: Digest,
}

/// Another link of the same member has taken this one's place.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Replaced {
    /// Where that comes from, as `address:port`.
    by: String,
}

/// What an acceptor says to the other end of a link that another takes the place of. Builds before end the link at any word.
pub fn replaced_notice(by: SocketAddr) -> Option<Bytes> {
    let bytes = envelope::encode(REPLACED, &Replaced { by: by.to_string() }).ok()?;
    let length = u32::try_from(bytes.len()).ok()?;
    Some([&length.to_be_bytes()[..], &bytes].concat().into())
}

/// Who has taken the place of the link that says this.
pub fn replaced_by(said: &[u8]) -> Option<SocketAddr> {
    let (length, bytes) = said.split_first_chunk::<{ size_of::<u32>() }>()?;
    let whole = u32::from_be_bytes(*length) as usize == bytes.len();
    let Replaced { by } = envelope::decode(REPLACED, bytes).ok().filter(|_| whole)?;
    by.parse().ok()
}

/// A message of a handshake, read and written again; `None` for bytes that are none. All that tests of another crate need to
/// know of these messages.
#[must_use]
pub fn rewritten_handshake(bytes: &[u8]) -> Option<Vec<u8>> {
    fn again<T: DeserializeOwned + Serialize>(schema: Schema, bytes: &[u8]) -> Option<Vec<u8>> {
        let message: T = envelope::decode(schema, bytes).ok()?;
        envelope::encode(schema, &message).ok()
    }
    again::<Hello>(HELLO, bytes)
        .or_else(|| again::<(Hello, Beginning)>(HELLO_2, bytes))
        .or_else(|| again::<Challenge>(CHALLENGE, bytes))
        .or_else(|| again::<(Challenge, Beginning)>(CHALLENGE_2, bytes))
        .or_else(|| again::<Proof>(PROOF, bytes))
        .or_else(|| again::<Replaced>(REPLACED, bytes))
}

/// Why a link does not come up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The other side went away or says something else.
    #[error("the other side ended the handshake: {0}")]
    Broken(String),
    /// The other side speaks another version.
    #[error("peer protocol version {found}, this server has {expected}")]
    Version {
        /// Its version.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// The other side belongs to another ensemble.
    #[error("it belongs to cluster {found:?}, this server to {expected:?}")]
    Cluster {
        /// Its cluster.
        found: String,
        /// Ours.
        expected: String,
    },
    /// It takes itself or us for a member that it or we are not.
    #[error(
        "it says it is server {from} and calls server {to}: check the ids and addresses of the members (who joined while this server \
         missed it is let in with `reconfigEnabled = true`, or named in the settings)"
    )]
    Member {
        /// Who it says it is.
        from: u64,
        /// Whom it wants.
        to: u64,
    },
    /// It takes itself for who we are.
    #[error(
        "another server says it is {id}, as this one is: one of the two has a wrong id or a copied folder, or another member's \
         server.N is this server's own address"
    )]
    Same {
        /// Who both say they are.
        id: u64,
    },
    /// It does not encrypt, or its certificate is not good.
    #[error("no TLS with it: {0}")]
    Encryption(String),
    /// Its certificate is good, but another's.
    #[error("it says it is server {from}, but its certificate is not for {host}")]
    Host {
        /// Who it says it is.
        from: u64,
        /// Where that member is.
        host: String,
    },
    /// Two such members could never agree: their logs begin at the same place.
    #[error(
        "server {peer} began with another state (checksum {found}) than this one ({expected}): import or restore every member \
         from the same files; or, while the others are a quorum, start the one that differs from them without its dataDir (moved \
         away whole), and it gets theirs"
    )]
    Beginning {
        /// Who it is.
        peer: ServerId,
        /// What it began with.
        found: Beginning,
        /// What this server began with.
        expected: Beginning,
    },
    /// It does not know the secret.
    #[error("it does not know this ensemble's peerSecret")]
    Secret,
}

/// A link whose other end has proved who it is.
pub struct Link {
    /// Who is there.
    pub peer: ServerId,
    /// What it sends on.
    pub socket: Socket,
    /// What it has sent since.
    pub buffer: BytesMut,
}

/// What a member knows for its handshakes.
pub struct Credentials {
    cluster_id: String,
    secret: String,
    tls: Option<PeerTls>,
    own_id: ServerId,
    /// With their addresses.
    others: Others,
    takes_unknown: bool,
    beginnings: Arc<Beginnings>,
    /// Apart from one another: strangers who have this member shake hands do not hold its own links up.
    accepting: Handshakes,
    dialling: Handshakes,
}

impl Credentials {
    /// Those of a member of `ensemble`.
    pub fn new(ensemble: &Ensemble) -> Credentials {
        Credentials {
            cluster_id: ensemble.cluster_id.clone(),
            secret: ensemble.secret.clone(),
            tls: ensemble.tls.clone(),
            own_id: ensemble.own_id,
            others: ensemble.others.clone(),
            takes_unknown: ensemble.takes_unknown,
            beginnings: Arc::clone(&ensemble.beginnings),
            accepting: Handshakes::new(),
            dialling: Handshakes::new(),
        }
    }

    /// This member.
    pub fn own_id(&self) -> ServerId {
        self.own_id
    }

    /// The dialler's side, on a socket to `host`.
    pub async fn dial(
        &self,
        (stream, host): (TcpStream, &str),
        peer: ServerId,
    ) -> Result<Socket, HandshakeError> {
        let (socket, binding) = match &self.tls {
            None => (Socket::plain(stream), None),
            Some(tls) => {
                let turn = Turn { handshakes: &self.dialling, attendance: &() };
                let config = tls.dialling.get();
                let session = TlsSession::dial(&stream, config, host, turn).await;
                encrypted(stream, session.map_err(encryption)?)?
            }
        };
        let buffer = &mut BytesMut::new();
        let hello = Hello {
            protocol_version: self.protocol_version(),
            cluster_id: self.cluster_id.clone(),
            from: self.own_id.get(),
            to: peer.get(),
            nonce: nonce()?,
        };
        let own = self.beginnings.own();
        send_marked(&socket, [HELLO, HELLO_2], (&hello, own)).await?;
        let (challenge, others): (Challenge, _) =
            receive_marked(&socket, buffer, [CHALLENGE, CHALLENGE_2]).await?;
        let beginnings = Both { dialler: own, acceptor: others };
        let talk = Talk { hello, nonce: challenge.nonce, binding, beginnings };
        self.verify("acceptor", &talk, &challenge.proof)?;
        let proof = self.prove("dialler", &talk).finalize().into_bytes().into();
        // Sent in any case: the other side is to know, too, whom it has no link with.
        send(&socket, PROOF, &Proof { proof }).await?;
        let compared = compare(peer, own, others);
        self.beginnings.note(peer, others.filter(|_| compared.is_err()));
        compared.map(|()| socket)
    }

    /// The acceptor's side; returns who is there, and what it has sent since.
    pub async fn accept(
        &self,
        stream: TcpStream,
        attendance: &dyn Attendance,
    ) -> Result<Link, HandshakeError> {
        let (socket, binding) = match &self.tls {
            None => (Socket::plain(stream), None),
            Some(tls) => {
                let turn = Turn { handshakes: &self.accepting, attendance };
                let session = TlsSession::accept(&stream, tls.serving.get(), turn).await;
                encrypted(stream, session.map_err(encryption)?)?
            }
        };
        let mut buffer = BytesMut::new();
        let (hello, others): (Hello, _) =
            receive_marked(&socket, &mut buffer, [HELLO, HELLO_2]).await?;
        let (peer, host) = self.check(&hello)?;
        if let Some(host) = host.filter(|host| binding.is_some() && !socket.is_for(host)) {
            return Err(HandshakeError::Host { from: hello.from, host });
        }
        // To who says nothing of it, it matters nothing, and the build may be one that does not know it.
        let own = self.beginnings.own().filter(|_| others.is_some());
        let beginnings = Both { dialler: others, acceptor: own };
        let talk = Talk { hello, nonce: nonce()?, binding, beginnings };
        let proof = self.prove("acceptor", &talk).finalize().into_bytes().into();
        let challenge = Challenge { nonce: talk.nonce, proof };
        send_marked(&socket, [CHALLENGE, CHALLENGE_2], (&challenge, own)).await?;
        let answer: Proof = receive(&socket, &mut buffer, PROOF).await?;
        self.verify("dialler", &talk, &answer.proof)?;
        compare(peer, own, others)?;
        Ok(Link { peer, socket, buffer })
    }

    fn protocol_version(&self) -> u32 {
        if self.tls.is_some() { ENCRYPTED_PROTOCOL_VERSION } else { PROTOCOL_VERSION }
    }

    /// Whether `peer` may have a link. Where members change, whoever proves the secret may: a server that missed changes
    /// does not know who has joined, and what it hears from them is all that can tell it.
    pub fn takes(&self, peer: ServerId) -> bool {
        self.takes_unknown || self.others.borrow().contains_key(&peer)
    }

    /// Who says hello, and the host where that member is, if it is known here.
    fn check(&self, hello: &Hello) -> Result<(ServerId, Option<String>), HandshakeError> {
        let (found, expected) = (hello.protocol_version, self.protocol_version());
        if found != expected {
            return Err(HandshakeError::Version { found, expected });
        }
        if hello.cluster_id != self.cluster_id {
            let (found, expected) = (hello.cluster_id.clone(), self.cluster_id.clone());
            return Err(HandshakeError::Cluster { found, expected });
        }
        if hello.from == self.own_id.get() {
            return Err(HandshakeError::Same { id: hello.from });
        }
        let peer = ServerId::new(hello.from).filter(|peer| *peer != self.own_id);
        match peer.filter(|peer| hello.to == self.own_id.get() && self.takes(*peer)) {
            Some(peer) => {
                let others = self.others.borrow();
                Ok((peer, others.get(&peer).map(|address| host_of(address).to_owned())))
            }
            None => Err(HandshakeError::Member { from: hello.from, to: hello.to }),
        }
    }

    fn prove(&self, role: &str, talk: &Talk) -> Hmac<Sha256> {
        let Talk { hello, nonce, binding, beginnings } = talk;
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes())
            .expect("HMAC takes a key of any length");
        // Every part has a fixed length or is followed by a byte that it cannot hold; the version tells whether there
        // is a binding, and the byte behind the role which beginnings there are.
        mac.update(role.as_bytes());
        let Both { dialler, acceptor } = *beginnings;
        mac.update(&[u8::from(dialler.is_some()) + 2 * u8::from(acceptor.is_some())]);
        for beginning in [dialler, acceptor].into_iter().flatten() {
            mac.update(&beginning.bytes());
        }
        mac.update(&hello.protocol_version.to_be_bytes());
        mac.update(&hello.from.to_be_bytes());
        mac.update(&hello.to.to_be_bytes());
        mac.update(&hello.nonce);
        mac.update(nonce);
        if let Some(binding) = binding {
            mac.update(binding);
        }
        mac.update(hello.cluster_id.as_bytes());
        mac
    }

    fn verify(&self, role: &str, talk: &Talk, proof: &Digest) -> Result<(), HandshakeError> {
        self.prove(role, talk).verify_slice(proof).map_err(|_| HandshakeError::Secret)
    }
}

/// What a proof is about.
struct Talk {
    hello: Hello,
    /// The acceptor's.
    nonce: Nonce,
    binding: Binding,
    beginnings: Both,
}

/// What the two ends say that they began with.
#[derive(Clone, Copy)]
struct Both {
    dialler: Option<Beginning>,
    acceptor: Option<Beginning>,
}

/// Whether what this server began with and what `peer` did can be one history.
fn compare(
    peer: ServerId,
    own: Option<Beginning>,
    others: Option<Beginning>,
) -> Result<(), HandshakeError> {
    match (own, others) {
        (Some(expected), Some(found)) if found != expected => {
            Err(HandshakeError::Beginning { peer, found, expected })
        }
        _ => Ok(()),
    }
}

fn encrypted(stream: TcpStream, session: TlsSession) -> Result<(Socket, Binding), HandshakeError> {
    let binding = session.binding().map_err(encryption)?;
    Ok((Socket::encrypted(stream, session), Some(binding)))
}

async fn send<T: Serialize>(
    socket: &Socket,
    schema: Schema,
    message: &T,
) -> Result<(), HandshakeError> {
    let bytes = envelope::encode(schema, message).map_err(broken)?;
    let length = u32::try_from(bytes.len()).map_err(broken)?;
    let frame = [&length.to_be_bytes()[..], &bytes].concat();
    socket.write_all(Bytes::from(frame)).await.map_err(broken)
}

/// Sends `message` in the first form, or in the second with what its sender began with.
async fn send_marked<T: Serialize>(
    socket: &Socket,
    [plain, marked]: [Schema; 2],
    (message, beginning): (&T, Option<Beginning>),
) -> Result<(), HandshakeError> {
    match beginning {
        None => send(socket, plain, message).await,
        Some(beginning) => send(socket, marked, &(message, beginning)).await,
    }
}

async fn receive<T: DeserializeOwned>(
    socket: &Socket,
    buffer: &mut BytesMut,
    schema: Schema,
) -> Result<T, HandshakeError> {
    envelope::decode(schema, &receive_bytes(socket, buffer).await?).map_err(broken)
}

/// A message in either form.
async fn receive_marked<T: DeserializeOwned>(
    socket: &Socket,
    buffer: &mut BytesMut,
    [plain, marked]: [Schema; 2],
) -> Result<(T, Option<Beginning>), HandshakeError> {
    let bytes = receive_bytes(socket, buffer).await?;
    let decoded = match envelope::decode(plain, &bytes) {
        Err(EnvelopeError::Schema { found, .. }) if found == marked => {
            let decoded = envelope::decode(marked, &bytes);
            decoded.map(|(message, beginning)| (message, Some(beginning)))
        }
        decoded => decoded.map(|message| (message, None)),
    };
    decoded.map_err(broken)
}

async fn receive_bytes(socket: &Socket, buffer: &mut BytesMut) -> Result<BytesMut, HandshakeError> {
    socket.read_until(buffer, size_of::<u32>()).await.map_err(broken)?;
    let length = buffer.get_u32() as usize;
    if length > HANDSHAKE_BYTES_MAX {
        return Err(HandshakeError::Broken(format!("a message of {length} bytes")));
    }
    socket.read_until(buffer, length).await.map_err(broken)?;
    Ok(buffer.split_to(length))
}

fn encryption(error: std::io::Error) -> HandshakeError {
    HandshakeError::Encryption(error.to_string())
}

fn broken(error: impl std::fmt::Display) -> HandshakeError {
    HandshakeError::Broken(error.to_string())
}

fn nonce() -> Result<Nonce, HandshakeError> {
    let mut bytes = Nonce::default();
    let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match count {
        Ok(count) if count == bytes.len() => Ok(bytes),
        _ => Err(HandshakeError::Broken("the system has no random bytes".to_owned())),
    }
}

#[cfg(test)]
mod tests;
