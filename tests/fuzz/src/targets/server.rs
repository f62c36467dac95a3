//! A client's whole conversation with a server: what requests do, not only how they are read.

use std::sync::LazyLock;

use bytes::BytesMut;
use coordinator_core::consensus::{EntryKind, PersistWrite};
use coordinator_core::state::{Entry, State};
use coordinator_protocol::{
    Acl, AuthRequest, CheckRequest, ConnectRequest, CreateRequest, CreateTtlRequest, DeleteRequest,
    MultiOp, Reader, Record, ReplyHeader, Request, SetAclRequest, SetDataRequest, SubscribeRequest,
    Xid, decode_frame, decode_request, decode_request_frame, encode_request,
};

use crate::lone_server::{LoneServer, hello};
use crate::seeds::{exchanges, framed};
use crate::target::Target;

/// Requests of one conversation.
const REQUESTS_MAX: usize = 64;

pub const TARGETS: [Target; 1] = [Target {
    name: "server-conversation",
    what: "a handshake and requests, given to a server that stands alone; its log must replay to its state",
    run: conversation,
    seeds: conversations,
}];

/// Requests of every kind that changes something, quotas, access lists and ephemerals among them.
fn lively() -> Vec<Request> {
    let create = |path: &str, flags: i32| CreateRequest {
        path: path.to_owned(),
        data: Some("data".into()),
        acl: Acl::open(),
        flags,
    };
    let set = |path: &str, data: &'static str| SetDataRequest {
        path: path.to_owned(),
        data: Some(data.into()),
        version: -1,
    };
    let list = |scheme: &str, id: &str| {
        vec![Acl { permissions: 31, scheme: scheme.into(), id: id.into() }]
    };
    let auth = |scheme: &str, text: &'static str| {
        Request::Auth(AuthRequest {
            auth_type: 0,
            scheme: scheme.to_owned(),
            auth: Some(text.into()),
        })
    };
    let ttl = CreateTtlRequest {
        path: "/ttl".to_owned(),
        data: None,
        acl: Acl::open(),
        flags: 5,
        ttl_ms: 10_000,
    };
    let limits = "count=5,bytes=-1=;byteHardLimit=100;countHardLimit=7";
    vec![
        auth("digest", "bob:builder"),
        Request::Create(create("/a", 0)),
        Request::Create2(create("/a/e", 1)),
        Request::Create(create("/a/s", 2)),
        Request::Create(create("/c", 4)),
        Request::CreateTtl(ttl),
        Request::SetData(set("/a", "other")),
        Request::SetAcl(SetAclRequest {
            path: "/a".to_owned(),
            acl: list("auth", ""),
            version: -1,
        }),
        Request::SetAcl(SetAclRequest {
            path: "/c".to_owned(),
            acl: list("ip", "127.0.0.0/8"),
            version: -1,
        }),
        Request::Create(create("/zookeeper/quota/a", 0)),
        Request::Create(create("/zookeeper/quota/a/zookeeper_limits", 0)),
        Request::SetData(set("/zookeeper/quota/a/zookeeper_limits", limits)),
        Request::Multi(vec![
            MultiOp::Create(create("/a/m", 0)),
            MultiOp::Check(CheckRequest { path: "/a".to_owned(), version: 1 }),
            MultiOp::SetData(set("/a/m", "more")),
            MultiOp::Delete(DeleteRequest { path: "/a/m".to_owned(), version: -1 }),
        ]),
        Request::Subscribe(SubscribeRequest {
            subscription: 1,
            path: "/".to_owned(),
            from_zxid: coordinator_protocol::Zxid::ZERO,
        }),
        Request::Delete(DeleteRequest { path: "/a/e".to_owned(), version: -1 }),
    ]
}

fn encoded(requests: &[Request]) -> Vec<Vec<u8>> {
    let numbered = requests.iter().zip(1..);
    numbered
        .map(|(request, number)| {
            let xid = request.special_xid().unwrap_or(Xid::new(number));
            encode_request(xid, request).to_vec()
        })
        .collect()
}

fn conversations() -> Vec<Vec<u8>> {
    let hello = hello().encode_frame().to_vec();
    let recorded: Vec<Vec<u8>> = exchanges()
        .into_iter()
        .filter(|exchange| exchange.op.is_some())
        .map(|exchange| framed(&exchange.request))
        .collect();
    let mut all: Vec<Vec<u8>> =
        recorded.chunks(16).map(|some| [hello.clone(), some.concat()].concat()).collect();
    all.push([hello, encoded(&lively()).concat()].concat());
    all
}

/// What is left of a server that has lived through one of each.
pub struct Lived {
    pub state: State,
    pub writes: Vec<PersistWrite>,
}

/// The same for all targets.
pub static LIVED: LazyLock<Lived> = LazyLock::new(|| {
    let mut server = LoneServer::new();
    server.connect(hello());
    for frame in encoded(&lively()) {
        let (header, request) = decode_request(frame[4..].to_vec().into()).expect("our own");
        server.ask(header, request);
    }
    assert!(!server.closed && server.state().tree().node_count() > 6, "its requests were refused");
    Lived { state: server.state().clone(), writes: server.writes }
});

fn conversation(input: &[u8]) -> bool {
    let mut bytes = BytesMut::from(input);
    let mut server = LoneServer::new();
    let Ok(Some(first)) = decode_request_frame(&mut bytes) else { return false };
    let Ok(handshake) = ConnectRequest::decode_frame(first) else { return false };
    server.connect(handshake);
    for _ in 0..REQUESTS_MAX {
        let Ok(Some(frame)) = decode_request_frame(&mut bytes) else { break };
        let Ok((header, request)) = decode_request(frame) else { break };
        server.ask(header, request);
    }
    server.check();
    frames_can_be_read(&server);
    log_replays_to_the_state(&server);
    !server.closed
}

fn frames_can_be_read(server: &LoneServer) {
    for (number, frame) in server.got.iter().enumerate() {
        let mut buffer = BytesMut::from(&frame[..]);
        let whole = decode_frame(&mut buffer, usize::MAX).expect("a length that is none");
        let whole = whole.expect("a whole frame");
        assert!(buffer.is_empty());
        if number > 0 {
            ReplyHeader::decode(&mut Reader::new(whole)).expect("a header");
        }
    }
}

/// What was accepted is what every other server, and this one after a start, can apply.
fn log_replays_to_the_state(server: &LoneServer) {
    let mut state = State::new();
    for entry in server.entries() {
        if entry.kind != EntryKind::Normal || entry.index > server.state().applied_index() {
            continue;
        }
        let decoded = match entry.data.is_empty() {
            true => Entry::default(),
            false => Entry::decode(&entry.data).expect("it was proposed here"),
        };
        state.apply(entry.term, entry.index, &decoded);
    }
    let snapshot = server.state().encode_snapshot();
    assert_eq!(state.encode_snapshot(), snapshot, "the log gives another state");
    let restored = State::decode_snapshot(&snapshot).expect("its own snapshot");
    restored.check();
    assert_eq!(restored.encode_snapshot(), snapshot, "the snapshot gives another state");
}
