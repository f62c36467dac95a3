//! One session over one connection, in ZooKeeper's protocol and nothing more: the same client for both servers.
//!
//! Called by: `ensemble`, `watchers`, `deaths`, `writer`, `znodes`,
//! `snapshots`. Calls: the protocol's codec. Invariant: every wait ends by a hang guard. It
//! sends no pings and does not reconnect by itself: who holds it decides.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use coordinator_protocol::{
    Acl, ConnectRequest, ConnectResponse, CreateMode, CreateRequest, FRAME_BYTES_MAX, MultiOp,
    Reader, Record, ReplyHeader, Request, SessionId, SessionPassword, WatcherEvent, Xid, Zxid,
    decode_frame, encode_request,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The session time-out where nothing depends on it.
pub const SESSION_TIMEOUT_MS: i32 = 30_000;
/// Operations in one multi, where many znodes are made or removed.
pub const MULTI_MAX: usize = 500;
/// A hang guard for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Multis that are sent before the first is answered.
const MULTIS_IN_FLIGHT: usize = 4;

/// A connection with an open session.
pub struct Session {
    stream: TcpStream,
    buffer: BytesMut,
    next_xid: i32,
    /// Who it is, for the next connection.
    pub identity: Identity,
}

/// What a session is attached to another connection by.
#[derive(Clone, Debug)]
pub struct Identity {
    id: SessionId,
    password: SessionPassword,
    /// As the client wants it.
    timeout_ms: i32,
}

impl Session {
    /// Opens a new session.
    ///
    /// # Errors
    /// When the server refuses or hangs.
    pub async fn open(address: &str, timeout_ms: i32) -> Result<Session> {
        let nobody =
            Identity { id: SessionId::NONE, password: SessionPassword::zeros(), timeout_ms };
        let opened = Session::attach(address, nobody, Zxid::ZERO).await?;
        opened.context("a server refused a new session")
    }

    /// Attaches a session whose client has seen everything up to `seen`; none when it is over.
    ///
    /// # Errors
    /// When the server refuses or hangs.
    pub async fn attach(address: &str, identity: Identity, seen: Zxid) -> Result<Option<Session>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let Identity { id, password, timeout_ms } = identity.clone();
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: seen,
            timeout_ms,
            session: id,
            password,
            read_only: Some(false),
        };
        let mut session = Session { stream, buffer: BytesMut::new(), next_xid: 1, identity };
        session.stream.write_all(&hello.encode_frame()).await?;
        let answer = ConnectResponse::decode_frame(session.frame().await?)?;
        if answer.is_session_over() {
            return Ok(None);
        }
        session.identity = Identity { id: answer.session, password: answer.password, timeout_ms };
        Ok(Some(session))
    }

    /// Sends a request without waiting; its answer comes in turn.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, request: &Request) -> Result<()> {
        let xid = Xid::new(self.next_xid);
        self.next_xid = xid.next().get();
        Ok(self.stream.write_all(&encode_request(xid, request)).await?)
    }

    /// The next frame, without its length.
    ///
    /// # Errors
    /// When the connection is gone or the server hangs.
    pub async fn frame(&mut self) -> Result<Bytes> {
        loop {
            if let Some(frame) = decode_frame(&mut self.buffer, FRAME_BYTES_MAX)? {
                return Ok(frame);
            }
            let read = tokio::time::timeout(ANSWER_LIMIT, self.stream.read_buf(&mut self.buffer));
            if read.await.context("a server hangs")?? == 0 {
                bail!("a server closed the connection");
            }
        }
    }

    /// Sends a request and waits for its answer, which must be no error. Nothing else may be in flight.
    ///
    /// # Errors
    /// When the server refuses or hangs.
    pub async fn ask(&mut self, request: &Request) -> Result<Bytes> {
        self.send(request).await?;
        let frame = self.frame().await?;
        check(&frame)?;
        Ok(frame)
    }

    /// What a watch tells, which must come next.
    ///
    /// # Errors
    /// When something else comes, the connection is gone or the server hangs.
    pub async fn event(&mut self) -> Result<WatcherEvent> {
        let mut reader = Reader::new(self.frame().await?);
        let header = ReplyHeader::decode(&mut reader)?;
        ensure!(
            header.xid == Xid::NOTIFICATION,
            "an answer where an event was to come: {header:?}"
        );
        Ok(WatcherEvent::decode(&mut reader)?)
    }

    /// Carries out many operations, so many in one request as `MULTI_MAX` says.
    ///
    /// # Errors
    /// When the server refuses or hangs.
    pub async fn carry_out(&mut self, operations: impl Iterator<Item = MultiOp>) -> Result<()> {
        let mut operations = operations.peekable();
        let mut in_flight = 0;
        while operations.peek().is_some() || in_flight > 0 {
            if operations.peek().is_some() && in_flight < MULTIS_IN_FLIGHT {
                let some: Vec<MultiOp> = operations.by_ref().take(MULTI_MAX).collect();
                self.send(&Request::Multi(some)).await?;
                in_flight += 1;
            } else {
                check(&self.frame().await?)?;
                in_flight -= 1;
            }
        }
        Ok(())
    }
}

/// Creates a znode that is open to everyone.
pub fn create(path: String, data: &Bytes, mode: CreateMode) -> Request {
    let (acl, flags) = (Acl::open(), mode as i32);
    Request::Create(CreateRequest { path, data: Some(data.clone()), acl, flags })
}

/// Which state a reply tells of.
///
/// # Errors
/// When it has no header.
pub fn zxid(frame: &Bytes) -> Result<Zxid> {
    Ok(ReplyHeader::decode(&mut Reader::new(frame.clone()))?.zxid)
}

/// A reply's header is xid, zxid and the error, which has to be none.
///
/// # Errors
/// When there is one.
pub fn check(frame: &[u8]) -> Result<()> {
    let error = frame.get(12..16).context("a reply without a header")?;
    let code = error.iter().fold(0, |code: i32, byte| code << 8 | i32::from(*byte));
    ensure!(code == 0, "a server refused a request: error {code}");
    Ok(())
}
