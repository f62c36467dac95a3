//! The links on which other members send to this one.
//!
//! Called by: `peers`. Calls: the handshake, the core's inputs.
//! Invariant: at most one link per peer is read; a newer one takes the place of the older, which is silent before the
//! newer one speaks. Memory grows with bytes that arrived, not with a declared length.
//! Does not know: what messages mean.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use coordinator_core::ServerId;
use coordinator_core::server::Event;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::contested::Contested;
use super::handshake::{Credentials, Link, replaced_notice};
use super::hosts::Hosts;
use super::{HANDSHAKE_WAIT, Kicks, MESSAGE_BYTES_MAX, Others, PREFIX_BYTES, tune};
use crate::core_loop::{Input, Inputs};
use crate::net::{Newcomers, Scratch, Seldom, Socket, Ticket};

/// Handshakes at once, with those who come from where a member lives, and again with all others. One of them makes
/// room for one more: members prove themselves within milliseconds, and whoever says nothing must not keep them out.
const HANDSHAKES_MAX: usize = 128;
/// Read at a time.
const READ_BYTES: usize = 64 << 10;

/// What the other ends of new links have to do with.
pub struct Door {
    /// How they prove who they are.
    pub credentials: Arc<Credentials>,
    /// Where members come from.
    pub hosts: Arc<Hosts>,
    /// Rung when a member is in.
    pub(super) kicks: Arc<Kicks>,
    /// Those who proved nothing, or something else.
    pub refused: Seldom,
    /// Who may come.
    pub others: Others,
}

/// Accepts until the task is dropped.
pub async fn run(listener: TcpListener, door: Door, inputs: Inputs) {
    let (proven, mut links) = mpsc::channel(HANDSHAKES_MAX);
    let (members, strangers) = (Newcomers::default(), Newcomers::default());
    let mut others = door.others.clone();
    let door = Arc::new(door);
    let mut handshakes = JoinSet::new();
    let mut readers = Readers::default();
    loop {
        // Accepting and receiving lose nothing when the other arm wins.
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let newcomers = if door.hosts.has(from.ip()) { &members } else { &strangers };
                    if let Some(ticket) = enter(newcomers, from.ip()) {
                        let entered = (stream, from, ticket);
                        handshakes.spawn(prove(entered, Arc::clone(&door), proven.clone()));
                    }
                }
                Err(error) => {
                    warn!(%error, "cannot take a peer in");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
            Some(link) = links.recv() => {
                let peer = link.peer;
                readers.replace(link, &inputs).await;
                door.kicks.of(peer).notify_one();
            }
            Ok(()) = others.changed() => {
                let known = others.borrow_and_update();
                readers.contested.retain(|peer, _| known.contains_key(peer));
                readers.tasks.retain(|peer, reader| {
                    let stays = known.contains_key(peer);
                    if !stays {
                        reader.task.abort();
                    }
                    stays
                });
            }
            Some(_) = handshakes.join_next() => {}
        }
    }
}

/// A place among those who have to prove themselves, `None` when there is none to be had.
fn enter(newcomers: &Newcomers, from: IpAddr) -> Option<Ticket> {
    if newcomers.count() >= HANDSHAKES_MAX && !newcomers.make_room() {
        return None;
    }
    Some(newcomers.enter(from))
}

async fn prove(
    (stream, from, ticket): (TcpStream, SocketAddr, Ticket),
    door: Arc<Door>,
    proven: mpsc::Sender<Link>,
) {
    if tune(&stream).is_err() {
        return;
    }
    let proof = tokio::select! {
        proof = timeout(HANDSHAKE_WAIT, door.credentials.accept(stream, &ticket)) => proof,
        () = ticket.sent_away() => return debug!("a peer makes room for another"),
    };
    match proof {
        Ok(Ok(link)) if ticket.admit() => {
            // The receiver only goes with the whole server.
            let _ = proven.send(link).await;
        }
        Ok(Ok(_)) => debug!("a peer made room for another"),
        Ok(Err(error)) => {
            debug!(%error, %from, "a peer is refused");
            if let Some(peers) = door.refused.count() {
                warn!(%error, %from, peers, "a peer is refused, one of so many since the last such line");
            }
        }
        Err(_) => debug!("a peer said nothing"),
    }
}

/// What reads each peer's link.
#[derive(Default)]
struct Readers {
    tasks: BTreeMap<ServerId, Reader>,
    contested: BTreeMap<ServerId, Contested>,
}

struct Reader {
    task: JoinHandle<()>,
    socket: Arc<Socket>,
}

impl Readers {
    async fn replace(&mut self, link: Link, inputs: &Inputs) {
        let peer = link.peer;
        let Link { socket, buffer, .. } = link;
        let socket = Arc::new(socket);
        if let Some(older) = self.tasks.remove(&peer) {
            // Whoever dials again has closed what it had, and that was read to its end.
            let is_alive = !older.task.is_finished();
            older.task.abort();
            // Waited for, so that nothing of the older link comes behind the newer one's first message.
            let _ = older.task.await;
            if is_alive {
                self.taken_over(peer, &older.socket, &socket);
            }
        }
        let (inputs, reads) = (inputs.clone(), Arc::clone(&socket));
        let task = tokio::spawn(async move {
            let reason = read(peer, (&reads, buffer), &inputs).await;
            debug!(%peer, %reason, "link from peer ends");
        });
        self.tasks.insert(peer, Reader { task, socket });
    }

    /// A link took the place of one that works. The other end of that is told: if it lives it is not who has dialled.
    fn taken_over(&mut self, peer: ServerId, older: &Socket, newer: &Socket) {
        let (Some(before), Some(from)) = (older.remote(), newer.remote()) else { return };
        if let Some(notice) = replaced_notice(from) {
            // A few bytes on a link on which nothing was ever written; whoever is gone needs none of it.
            let _ = older.try_write(&[IoSlice::new(&notice)]);
            let _ = older.try_flush();
        }
        if self.contested.entry(peer).or_default().taken_over(Instant::now()) {
            warn!(
                %peer, %from, %before,
                "two servers say they are {peer}: one of the two has a wrong id or a copied folder"
            );
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        for reader in self.tasks.values() {
            reader.task.abort();
        }
    }
}

/// Hands message after message to the core; returns why no more come.
async fn read(
    peer: ServerId,
    (socket, mut buffer): (&Socket, BytesMut),
    inputs: &Inputs,
) -> String {
    let scratch = Scratch::default();
    loop {
        match take_message(&mut buffer) {
            Err(reason) => return reason,
            Ok(Some(bytes)) => {
                let event = Event::PeerMessage { from: peer, bytes };
                if inputs.send(Input::Event(event)).await.is_err() {
                    return "the server stops".to_owned();
                }
            }
            Ok(None) => {
                if let Err(error) = socket.readable().await {
                    return error.to_string();
                }
                // A long message is not read by way of anything else.
                if buffer.len() >= READ_BYTES {
                    buffer.reserve(READ_BYTES);
                }
                match socket.try_read_by(&scratch, &mut buffer) {
                    Ok(0) => return "closed by the peer".to_owned(),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return error.to_string(),
                }
            }
        }
    }
}

fn take_message(buffer: &mut BytesMut) -> Result<Option<Bytes>, String> {
    let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(format!("a message of {length} bytes, at most {MESSAGE_BYTES_MAX}"));
    }
    if buffer.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomer_beyond_the_limit_takes_the_place_of_the_oldest() {
        let (newcomers, from) = (Newcomers::default(), IpAddr::from([127, 0, 0, 1]));
        let mut tickets: Vec<Ticket> =
            (0..=HANDSHAKES_MAX).map(|_| enter(&newcomers, from).unwrap()).collect();
        assert_eq!(newcomers.count(), HANDSHAKES_MAX);
        assert!(!tickets.remove(0).admit());
        assert!(tickets.into_iter().all(Ticket::admit));
    }

    #[test]
    fn message_at_the_limit_waits_for_its_bytes_and_one_above_is_refused() {
        let prefix =
            |length: usize| BytesMut::from(&u32::try_from(length).unwrap().to_be_bytes()[..]);
        assert_eq!(take_message(&mut prefix(MESSAGE_BYTES_MAX)), Ok(None));
        assert!(take_message(&mut prefix(MESSAGE_BYTES_MAX + 1)).is_err());
        let mut buffer = prefix(3);
        buffer.extend_from_slice(b"abcd");
        assert_eq!(take_message(&mut buffer), Ok(Some(Bytes::from_static(b"abc"))));
        assert_eq!(&buffer[..], b"d");
    }
}
