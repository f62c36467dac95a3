//! A client that waits for each answer, for tests of the shell.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use coordinator_protocol::{
    ConnectRequest, ConnectResponse, ErrorCode, OpCode, Reader, Record, ReplyHeader, Request,
    Response, SessionId, SessionPassword, Xid, Zxid, decode_frame, encode_request,
};

/// A hang guard, no measure.
const SOON: Duration = Duration::from_secs(120);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What a client talks over.
pub trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// One session's connection.
pub struct Client {
    socket: Box<dyn Wire>,
    buffer: BytesMut,
    session: ConnectResponse,
    last_zxid: Zxid,
    next_xid: i32,
}

impl Client {
    /// Opens a session. A server without a leader closes the connection after some seconds: then again.
    pub fn connect(address: SocketAddr) -> Client {
        let began = Instant::now();
        loop {
            if let Some(client) = Client::try_connect(address) {
                return client;
            }
            assert!(began.elapsed() < SOON, "no session at {address}");
        }
    }

    /// Opens a session, unless the server closes the connection first.
    pub fn try_connect(address: SocketAddr) -> Option<Client> {
        Client::attach(address, SessionId::NONE, SessionPassword::zeros(), Zxid::new(0))
    }

    /// Attaches to the same session on another connection, which takes it from this one.
    pub fn reconnect(&self, address: SocketAddr) -> Client {
        let ConnectResponse { session, password, .. } = self.session.clone();
        Client::attach(address, session, password, self.last_zxid).expect("the session lives")
    }

    fn attach(
        address: SocketAddr,
        session: SessionId,
        password: SessionPassword,
        last_zxid: Zxid,
    ) -> Option<Client> {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Client::over(Box::new(socket), session, password, last_zxid)
    }

    /// Opens a session over a socket, or attaches to it, unless the server closes the connection first.
    pub fn over(
        mut socket: Box<dyn Wire>,
        session: SessionId,
        password: SessionPassword,
        last_zxid: Zxid,
    ) -> Option<Client> {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: last_zxid,
            timeout_ms: 30_000,
            session,
            password,
            read_only: Some(false),
        };
        socket.write_all(&request.encode_frame()).ok()?;
        let mut buffer = BytesMut::new();
        let frame = read_frame(&mut *socket, &mut buffer)?;
        let session = ConnectResponse::decode_frame(frame).unwrap();
        assert!(!session.is_session_over());
        Some(Client { socket, buffer, session, last_zxid, next_xid: 1 })
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        self.session.session
    }

    /// Sends one request and waits for its answer; notifications before it are dropped.
    pub fn ask(&mut self, request: &Request) -> (ErrorCode, Option<Response>) {
        self.ask_all(std::slice::from_ref(request)).remove(0)
    }

    /// Sends all requests, then waits for all answers.
    pub fn ask_all(&mut self, requests: &[Request]) -> Vec<(ErrorCode, Option<Response>)> {
        let first = self.next_xid;
        let mut bytes = Vec::new();
        for request in requests {
            bytes.extend_from_slice(&encode_request(Xid::new(self.next_xid), request));
            self.next_xid += 1;
        }
        self.socket.write_all(&bytes).unwrap();
        (first..).zip(requests).map(|(xid, request)| self.answer(xid, request.op())).collect()
    }

    /// The same, unless the server closes the connection first, as it does while it knows no leader.
    pub fn try_ask(&mut self, request: &Request) -> Option<(ErrorCode, Option<Response>)> {
        let xid = self.next_xid;
        self.next_xid += 1;
        self.socket.write_all(&encode_request(Xid::new(xid), request)).ok()?;
        self.try_answer(xid, request.op())
    }

    /// The same for what the server may not even read to its end.
    pub fn try_ask_raw(&mut self, request: &Request) -> Option<(ErrorCode, Option<Response>)> {
        let xid = self.next_xid;
        self.next_xid += 1;
        // The server may have gone before it is written.
        let _ = self.socket.write_all(&encode_request(Xid::new(xid), request));
        self.try_answer(xid, request.op())
    }

    fn answer(&mut self, xid: i32, op: OpCode) -> (ErrorCode, Option<Response>) {
        self.try_answer(xid, op).expect("an answer")
    }

    fn try_answer(&mut self, xid: i32, op: OpCode) -> Option<(ErrorCode, Option<Response>)> {
        loop {
            let frame = read_frame(&mut *self.socket, &mut self.buffer)?;
            let mut reader = Reader::new(frame);
            let header = ReplyHeader::decode(&mut reader).unwrap();
            if header.xid.get() < 0 {
                continue;
            }
            assert_eq!(header.xid.get(), xid, "answers come in the order of requests");
            assert!(header.zxid >= self.last_zxid, "time went back");
            self.last_zxid = header.zxid;
            if header.error != ErrorCode::Ok {
                return Some((header.error, None));
            }
            return Some((ErrorCode::Ok, Some(Response::decode(op, &mut reader).unwrap())));
        }
    }

    /// Sends bytes that need not be a request.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Waits for the end of the connection; false when an answer comes first.
    pub fn is_closed_by_server(&mut self) -> bool {
        read_frame(&mut *self.socket, &mut self.buffer).is_none()
    }
}

/// The next frame, or `None` at the end of the connection.
fn read_frame(socket: &mut dyn Wire, buffer: &mut BytesMut) -> Option<Bytes> {
    let mut chunk = [0; 4096];
    loop {
        if let Some(frame) = decode_frame(buffer, ANSWER_BYTES_MAX).unwrap() {
            return Some(frame);
        }
        match socket.read(&mut chunk) {
            Ok(count) if count > 0 => buffer.extend_from_slice(&chunk[..count]),
            Ok(_) => return None,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::InvalidData
                ) =>
            {
                return None;
            }
            Err(error) => panic!("no answer: {error}"),
        }
    }
}
