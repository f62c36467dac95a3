//! A small coordinator in one process, with as much of the wire's semantics as the client's tests need:
//! sessions, znodes, one-shot watches, subscriptions with history. A test can cut connections, have
//! requests done but never answered, and end sessions.

mod tree;

use bytes::{Bytes, BytesMut};
use coordinator_protocol::{
    ConnectRequest, ConnectResponse, Request, SessionId, SessionPassword, decode_frame,
    decode_request,
};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tree::{Out, Tree};

/// The server.
#[derive(Clone)]
pub struct Fake {
    tree: Arc<Mutex<Tree>>,
    cut: watch::Sender<u64>,
    pub address: String,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let fake = Self { tree: Arc::default(), cut: watch::Sender::new(0), address };
        let server = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(server.clone().serve(stream));
            }
        });
        fake
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Does the next request of a user but does not answer it, and cuts its connection.
    pub fn swallow_next(&self) {
        self.tree.lock().unwrap().swallow = true;
    }

    /// Forgets what subscribers could resume from.
    pub fn forget_history(&self) {
        self.tree.lock().unwrap().forget_history();
    }

    /// Ends every session.
    pub fn expire_all(&self) {
        self.tree.lock().unwrap().end_sessions(|_| true);
        self.cut();
    }

    /// The session's fast-death grace in milliseconds.
    pub fn grace_ms(&self, session: SessionId) -> Option<i32> {
        self.tree.lock().unwrap().sessions.get(&session).copied().flatten()
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut cut = self.cut.subscribe();
        let (out, mut queue) = mpsc::unbounded_channel::<Bytes>();
        let mut inbound = BytesMut::new();
        let mut session = None;
        loop {
            while let Some(frame) = decode_frame(&mut inbound, 1 << 20).unwrap() {
                match session {
                    None => session = Some(self.shake(frame, &out)),
                    Some(session) if !self.answer(frame, session, &out) => return,
                    Some(_) => {}
                }
            }
            tokio::select! {
                read = stream.read_buf(&mut inbound) => if read.unwrap_or(0) == 0 { return },
                Some(frame) = queue.recv() => {
                    if stream.write_all(&frame).await.is_err() {
                        return;
                    }
                }
                _ = cut.changed() => return,
            }
        }
    }

    fn shake(&self, frame: Bytes, out: &Out) -> SessionId {
        let request = ConnectRequest::decode_frame(frame).unwrap();
        let mut tree = self.tree.lock().unwrap();
        let session = tree.open_session(request.session);
        let response = match session {
            None => ConnectResponse::session_is_over(request.read_only),
            Some(session) => ConnectResponse {
                protocol_version: 0,
                timeout_ms: request.timeout_ms,
                session,
                password: SessionPassword::new(&b"0123456789abcdef"[..]),
                read_only: request.read_only,
            },
        };
        out.send(response.encode_frame()).unwrap();
        session.unwrap_or(SessionId::NONE)
    }

    /// Whether the connection stays.
    fn answer(&self, frame: Bytes, session: SessionId, out: &Out) -> bool {
        let (header, request) = decode_request(frame).unwrap();
        let request = request.unwrap();
        let mut tree = self.tree.lock().unwrap();
        let swallow = header.xid.get() > 0 && std::mem::take(&mut tree.swallow);
        let answered_to = if swallow { mpsc::unbounded_channel().0 } else { out.clone() };
        let closes = request == Request::CloseSession;
        tree.handle(header.xid, request, session, &answered_to);
        // After the answer to a close the client hangs up.
        !swallow || closes
    }
}
