//! Links between the members of the ensemble: one TCP connection per direction.
//!
//! ```text
//! this member --- dials, proves who it is, then only sends ---> other member
//! this member <--- the other one's own link, only read here --- other member
//! ```
//!
//! Called by: `server`. Calls: the core's inputs.
//! Invariant: messages of one peer reach the core in the order in which that peer sent them; a closed socket is told
//! to the core at once.
//! Does not know: what messages mean.

mod accept;
mod dial;
mod handshake;
mod hosts;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coordinator_core::ServerId;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::core_loop::Inputs;
use crate::net::{Outbox, Seldom};
use handshake::Credentials;
use hosts::Hosts;

/// Largest message of a peer, without its length prefix.
const MESSAGE_BYTES_MAX: usize = 80 << 20;
/// Bytes before a message: its length, big-endian.
const PREFIX_BYTES: usize = 4;
/// From the first byte of a link to its proof.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(2);
/// Sent bytes may stay unacknowledged for so long before the kernel gives the link up.
const UNACKNOWLEDGED_MS_MAX: u32 = 5_000;

/// Who this member is, and who the others are. It is not shown: what is secret is in it.
#[derive(Clone)]
pub struct Ensemble {
    /// All members on all sides have the same.
    pub cluster_id: String,
    /// What members prove to know.
    pub secret: String,
    /// How links are encrypted, if they are.
    pub tls: Option<PeerTls>,
    /// This member.
    pub own_id: ServerId,
    /// The others, with `host:port`.
    pub others: BTreeMap<ServerId, String>,
}

/// How a member encrypts its links. Both sides show a certificate.
#[derive(Debug, Clone)]
pub struct PeerTls {
    /// For links that others dial.
    pub serving: Arc<ServerConfig>,
    /// For links that this member dials.
    pub dialling: Arc<ClientConfig>,
}

/// Runs all links until the task is dropped.
pub async fn run(listener: TcpListener, ensemble: Ensemble, inputs: Inputs) {
    let (credentials, hosts) = (Arc::new(Credentials::new(&ensemble)), Arc::new(Hosts::default()));
    // An accepted link shows that the other side is there: dial it without waiting for the next try.
    let kicks: BTreeMap<ServerId, Arc<Notify>> =
        ensemble.others.keys().map(|peer| (*peer, Arc::new(Notify::new()))).collect();
    let mut tasks = JoinSet::new();
    for (peer, address) in ensemble.others {
        if let Some(kick) = kicks.get(&peer) {
            let (kick, hosts) = (Arc::clone(kick), Arc::clone(&hosts));
            let target = dial::Target { peer, address, kick, hosts };
            tasks.spawn(dial::run(target, Arc::clone(&credentials), inputs.clone()));
        }
    }
    let door = accept::Door { credentials, hosts, kicks, refused: Seldom::default() };
    tasks.spawn(accept::run(listener, door, inputs));
    // Dropping the set, with this task, ends all of them.
    while tasks.join_next().await.is_some() {}
}

/// Adds a message, with its length before it, to what is sent on a link.
pub fn push_frame(outbox: &Outbox, message: Bytes) {
    let length = u32::try_from(message.len()).expect("the core's messages are bounded");
    outbox.push(Bytes::copy_from_slice(&length.to_be_bytes()));
    outbox.push(message);
}

/// Small messages leave at once, and a peer that vanished without a word is given up.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS_MAX)?;
    Ok(())
}
