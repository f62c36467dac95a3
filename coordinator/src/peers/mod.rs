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
mod contested;
mod dial;
mod handshake;
mod hosts;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use coordinator_core::ServerId;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::core_loop::{Input, Inputs};
use crate::net::{Outbox, Seldom};
use crate::storage::Beginnings;
use crate::tls::Current;
use handshake::Credentials;
use hosts::Hosts;

pub use handshake::rewritten_handshake;

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
    /// The others.
    pub others: Others,
    /// Whether members may have joined that are not known here: with `reconfigEnabled`. One that missed changes and was then
    /// started without it hears only from those it knows.
    pub takes_unknown: bool,
    /// What this member began with; who began with something else is noted there.
    pub beginnings: Arc<Beginnings>,
}

/// The other members of now, with `host:port`; the core's task tells of new ones.
pub type Others = watch::Receiver<BTreeMap<ServerId, String>>;

/// Rung when a peer is known to be there: dial it without waiting for the next try.
#[derive(Default)]
struct Kicks(Mutex<BTreeMap<ServerId, Arc<Notify>>>);

impl Kicks {
    fn of(&self, peer: ServerId) -> Arc<Notify> {
        let mut kicks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(kicks.entry(peer).or_default())
    }
}

/// The task that dials one peer, ended with the value.
struct Dialler {
    address: String,
    task: JoinHandle<()>,
}

impl Drop for Dialler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a member encrypts its links. Both sides show a certificate.
#[derive(Debug, Clone)]
pub struct PeerTls {
    /// For links that others dial.
    pub serving: Current<ServerConfig>,
    /// For links that this member dials.
    pub dialling: Current<ClientConfig>,
}

/// Runs all links until the task is dropped.
pub async fn run(listener: TcpListener, ensemble: Ensemble, inputs: Inputs) {
    let (credentials, hosts) = (Arc::new(Credentials::new(&ensemble)), Arc::new(Hosts::default()));
    let (mut others, beginnings) = (ensemble.others, ensemble.beginnings);
    let kicks = Arc::new(Kicks::default());
    let door = accept::Door {
        credentials: Arc::clone(&credentials),
        hosts: Arc::clone(&hosts),
        kicks: Arc::clone(&kicks),
        refused: Seldom::default(),
        others: others.clone(),
    };
    let mut tasks = JoinSet::new();
    // Dropping the set and the diallers, with this task, ends all of them.
    tasks.spawn(accept::run(listener, door, inputs.clone()));
    let mut diallers: BTreeMap<ServerId, Dialler> = BTreeMap::new();
    loop {
        let wanted = others.borrow_and_update().clone();
        let unwanted: Vec<ServerId> = diallers
            .iter()
            .filter(|(peer, dialler)| wanted.get(peer) != Some(&dialler.address))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in unwanted {
            if let Some(mut dialler) = diallers.remove(&peer) {
                dialler.task.abort();
                // Waited for, so that it tells of no link behind this.
                let _ = (&mut dialler.task).await;
            }
            hosts.forget(peer);
            beginnings.note(peer, None);
            if inputs.send(Input::PeerLost(peer)).await.is_err() {
                return;
            }
        }
        for (peer, address) in wanted {
            let (kick, hosts) = (kicks.of(peer), Arc::clone(&hosts));
            diallers.entry(peer).or_insert_with(|| {
                let target = dial::Target { peer, address: address.clone(), kick, hosts };
                let work = dial::run(target, Arc::clone(&credentials), inputs.clone());
                Dialler { address, task: tokio::spawn(work) }
            });
        }
        if others.changed().await.is_err() {
            // The core's task is gone; this one goes with the server.
            return std::future::pending().await;
        }
    }
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
