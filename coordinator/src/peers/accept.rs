//! The links on which other members send to this one.
//!
//! Called by: `peers`. Calls: the handshake, the core's inputs.
//! Invariant: at most one link per peer is read; a newer one takes the place of the older, which is silent before the
//! newer one speaks. Memory grows with bytes that arrived, not with a declared length.
//! Does not know: what messages mean.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use coordinator_core::ServerId;
use coordinator_core::server::Event;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::handshake::{Credentials, Link};
use super::{HANDSHAKE_WAIT, MESSAGE_BYTES_MAX, PREFIX_BYTES, tune};
use crate::core_loop::{Input, Inputs};

/// Handshakes at once. The oldest makes room for one more: members prove themselves within milliseconds, and whoever says nothing must not keep
/// them out.
const HANDSHAKES_MAX: usize = 64;
/// Read at a time.
const READ_BYTES: usize = 64 << 10;

/// Accepts until the task is dropped.
pub async fn run(
    listener: TcpListener,
    credentials: Arc<Credentials>,
    kicks: BTreeMap<ServerId, Arc<Notify>>,
    inputs: Inputs,
) {
    let (proven, mut links) = mpsc::channel(HANDSHAKES_MAX);
    let mut handshakes = JoinSet::new();
    let mut begun: VecDeque<AbortHandle> = VecDeque::new();
    let mut readers = Readers::default();
    loop {
        // Accepting and receiving lose nothing when the other arm wins.
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let proof = prove(stream, Arc::clone(&credentials), proven.clone());
                    begun.push_back(handshakes.spawn(proof));
                    if begun.len() > HANDSHAKES_MAX {
                        begun.pop_front().inspect(AbortHandle::abort);
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
                if let Some(kick) = kicks.get(&peer) {
                    kick.notify_one();
                }
            }
            Some(_) = handshakes.join_next() => {}
        }
    }
}

async fn prove(stream: TcpStream, credentials: Arc<Credentials>, proven: mpsc::Sender<Link>) {
    if tune(&stream).is_err() {
        return;
    }
    match timeout(HANDSHAKE_WAIT, credentials.accept(stream)).await {
        Ok(Ok(link)) => {
            // The receiver only goes with the whole server.
            let _ = proven.send(link).await;
        }
        Ok(Err(error)) => warn!(%error, "a peer is refused"),
        Err(_) => debug!("a peer said nothing"),
    }
}

/// The task that reads each peer's link.
#[derive(Default)]
struct Readers {
    tasks: BTreeMap<ServerId, JoinHandle<()>>,
}

impl Readers {
    async fn replace(&mut self, link: Link, inputs: &Inputs) {
        let peer = link.peer;
        if let Some(older) = self.tasks.remove(&peer) {
            older.abort();
            // Waited for, so that nothing of the older link comes behind the newer one's first message.
            let _ = older.await;
        }
        let inputs = inputs.clone();
        let task = tokio::spawn(async move {
            let reason = read(link, &inputs).await;
            debug!(%peer, %reason, "link from peer ends");
        });
        self.tasks.insert(peer, task);
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}

/// Hands message after message to the core; returns why no more come.
async fn read(link: Link, inputs: &Inputs) -> String {
    let Link { peer, socket, mut buffer } = link;
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
                buffer.reserve(READ_BYTES);
                match socket.try_read(&mut buffer) {
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
