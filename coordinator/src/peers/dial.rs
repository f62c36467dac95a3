//! The link on which this member sends to one other.
//!
//! Called by: `peers`, one task per other member. Calls: the handshake, the core's inputs.
//! Invariant: the core hears "up" and "lost" in turn, beginning with "up"; a link that came up once is told as lost
//! before the next is tried.
//! Does not know: what is sent.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use coordinator_core::ServerId;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::contested::Contested;
use super::handshake::{Credentials, replaced_by};
use super::hosts::{Hosts, host_of};
use super::{HANDSHAKE_WAIT, tune};
use crate::core_loop::{Input, Inputs};
use crate::net::{Outbox, Socket, WriteEnd};

/// Unsent bytes at which a peer that does not read is given up until it does.
const UNSENT_BYTES_MAX: usize = 256 << 20;
/// Between two tries: at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// After another server's link took the place of this one's.
const REPLACED_WAIT: Duration = Duration::from_secs(1);
/// Bytes of what a peer says when it ends a link.
pub const LAST_WORD_BYTES_MAX: usize = 256;

/// Whom to dial.
pub struct Target {
    /// The member.
    pub peer: ServerId,
    /// `host:port`.
    pub address: String,
    /// Rung when the peer is known to be there.
    pub kick: Arc<Notify>,
    /// Where its addresses are kept.
    pub hosts: Arc<Hosts>,
}

/// Keeps the link up until the task is dropped.
pub async fn run(target: Target, credentials: Arc<Credentials>, inputs: Inputs) {
    let Target { peer, address, kick, .. } = &target;
    let peer = *peer;
    let mut retry = RETRY_FIRST;
    let mut reported = String::new();
    let mut contested = Contested::default();
    loop {
        match connect(&target, &credentials).await {
            Ok(socket) => {
                retry = RETRY_FIRST;
                reported.clear();
                let outbox = Arc::new(Outbox::new(socket, UNSENT_BYTES_MAX));
                let up = Input::PeerUp { peer, outbox: Arc::clone(&outbox) };
                if inputs.send(up).await.is_err() {
                    return;
                }
                let replaced = hold(peer, &outbox).await;
                if inputs.send(Input::PeerLost(peer)).await.is_err() {
                    return;
                }
                if let Some(from) = replaced {
                    tell_replaced(&target, &credentials, from, &mut contested);
                    // Neither of the two gets anywhere by taking the other's place as fast as it can.
                    sleep(REPLACED_WAIT).await;
                    continue;
                }
            }
            // A peer that is down for an hour is worth one line, not thousands.
            Err(reason) if reason != reported => {
                warn!(%peer, %address, %reason, "no link to peer");
                reported = reason;
            }
            Err(_) => {}
        }
        // Either end of the wait is as good.
        let _ = timeout(retry, kick.notified()).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

/// The link was closed for another: this task has one at a time, so that was not of this server.
fn tell_replaced(
    target: &Target,
    credentials: &Credentials,
    from: SocketAddr,
    contested: &mut Contested,
) {
    if contested.is_due(Instant::now()) {
        let (own, peer) = (credentials.own_id(), target.peer);
        warn!(
            %from, told_by = %peer,
            "another server says it is {own}, as this one is: one of the two has a wrong id or a copied folder"
        );
    }
}

async fn connect(target: &Target, credentials: &Credentials) -> Result<Socket, String> {
    let Target { peer, address, hosts, .. } = target;
    let attempt = async {
        let found = hosts.resolve(*peer, address).await.map_err(|error| error.to_string())?;
        let stream = TcpStream::connect(&*found).await.map_err(|error| error.to_string())?;
        tune(&stream).map_err(|error| error.to_string())?;
        credentials.dial((stream, host_of(address)), *peer).await.map_err(|error| error.to_string())
    };
    match timeout(HANDSHAKE_WAIT, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {HANDSHAKE_WAIT:?}")),
    }
}

/// Returns when the link ends; with where it comes from, if another took its place.
async fn hold(peer: ServerId, outbox: &Outbox) -> Option<SocketAddr> {
    let sent = async {
        loop {
            match outbox.drive().await {
                WriteEnd::Drained => {}
                end => return (format!("{end:?}"), None),
            }
        }
    };
    // The other side speaks on this link but once: whatever can be read is its end.
    let ended = async {
        loop {
            if let Err(error) = outbox.socket().readable().await {
                return (error.to_string(), None);
            }
            let mut said = BytesMut::with_capacity(LAST_WORD_BYTES_MAX);
            match outbox.socket().try_read(&mut said) {
                Ok(0) => return ("closed by the peer".to_owned(), None),
                Ok(_) => return ("the peer ended it with a word".to_owned(), replaced_by(&said)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return (error.to_string(), None),
            }
        }
    };
    let (reason, replaced) = tokio::select! {
        // What the peer said last is still there when nothing can be sent any more.
        biased;
        end = ended => end,
        end = sent => end,
    };
    debug!(%peer, %reason, "link ends");
    replaced
}
