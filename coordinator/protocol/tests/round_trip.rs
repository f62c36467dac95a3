//! Every request, answer and event, also those that no recording holds: encoded and decoded again it
//! is the same value, cut anywhere it is an error, and one changed byte never panics.

use bytes::Bytes;
use coordinator_protocol::{
    Acl, AddWatchMode, AddWatchRequest, AuthRequest, CheckRequest, ChildrenPageRequest, ClientInfo,
    CreateMode, CreateRequest, CreateTtlRequest, DecodeError, DeleteRequest, EnsembleInfo,
    ErrorCode, EventType, Item, ItemKind, MemberInfo, MultiOp, MultiReadOp, MultiReadResult,
    MultiResult, OpCode, PERSISTENT_PATHS_MAX, PathWatch, Reader, ReconfigRequest, Record,
    ReplyHeader, Request, Response, SET_WATCHES_PATHS_MAX, SessionId, SessionOptionsRequest,
    SetAclRequest, SetDataRequest, SetWatchesRequest, Stat, SubscribeRequest, SubscriptionEvent,
    SubscriptionEventKind, TransferAnswer, TransferOutcome, TransferRequest, WatchKind,
    WatchKindRequest, WatcherEvent, Xid, Zxid, decode_request, encode_event, encode_reply,
    encode_request, encode_subscription_event,
};

fn path() -> String {
    "/brokers/ids/1".to_owned()
}

fn data() -> Option<Bytes> {
    Some(Bytes::from_static(b"{\"version\":5}"))
}

fn stat() -> Stat {
    Stat {
        czxid: Zxid::new(1),
        mzxid: Zxid::new(2),
        ctime_ms: 3,
        mtime_ms: 4,
        version: 5,
        cversion: 6,
        aversion: 7,
        ephemeral_owner: SessionId::new(8),
        data_length: 9,
        num_children: 10,
        pzxid: Zxid::new(11),
    }
}

fn create(mode: CreateMode) -> CreateRequest {
    CreateRequest { path: path(), data: data(), acl: Acl::open(), flags: mode.code() }
}

fn create_ttl() -> CreateTtlRequest {
    let flags = CreateMode::PersistentTtl.code();
    CreateTtlRequest { path: path(), data: None, acl: Acl::open(), flags, ttl_ms: 60_000 }
}

fn set_watches() -> SetWatchesRequest {
    SetWatchesRequest {
        relative_zxid: Zxid::new(77),
        data_watches: vec![path()],
        exist_watches: vec![path(), path()],
        child_watches: vec![],
        ..SetWatchesRequest::default()
    }
}

fn path_watch() -> PathWatch {
    PathWatch { path: path(), watch: true }
}

fn multi_ops() -> Vec<MultiOp> {
    vec![
        MultiOp::Create(create(CreateMode::Ephemeral)),
        MultiOp::Create2(create(CreateMode::PersistentSequential)),
        MultiOp::CreateContainer(create(CreateMode::Container)),
        MultiOp::CreateTtl(create_ttl()),
        MultiOp::Delete(DeleteRequest { path: path(), version: 3 }),
        MultiOp::SetData(SetDataRequest { path: path(), data: data(), version: -1 }),
        MultiOp::Check(CheckRequest { path: path(), version: 9 }),
    ]
}

fn writes() -> Vec<Request> {
    vec![
        Request::Create(create(CreateMode::Persistent)),
        Request::Create2(create(CreateMode::EphemeralSequential)),
        Request::CreateContainer(create(CreateMode::Container)),
        Request::CreateTtl(create_ttl()),
        Request::Delete(DeleteRequest { path: path(), version: -1 }),
        Request::DeleteContainer(path()),
        Request::SetData(SetDataRequest { path: path(), data: None, version: 3 }),
        Request::SetAcl(SetAclRequest { path: path(), acl: Acl::open(), version: 0 }),
        Request::Check(CheckRequest { path: path(), version: 1 }),
        Request::Multi(multi_ops()),
        Request::Multi(Vec::new()),
        Request::Reconfig(ReconfigRequest {
            joining_servers: Some("server.4=a:1:2".to_owned()),
            leaving_servers: None,
            new_members: None,
            config_id: -1,
        }),
        Request::SessionOptions(SessionOptionsRequest { fast_death_grace_ms: 200 }),
        Request::TransferLeader(TransferRequest { to: 3 }),
        Request::CloseSession,
    ]
}

fn reads() -> Vec<Request> {
    vec![
        Request::Exists(path_watch()),
        Request::GetData(path_watch()),
        Request::GetAcl(path()),
        Request::GetChildren(path_watch()),
        Request::GetChildren2(path_watch()),
        Request::Sync(path()),
        Request::GetEphemerals(path()),
        Request::GetAllChildrenNumber(path()),
        Request::GetChildrenPage(ChildrenPageRequest {
            path: path(),
            after: "a".to_owned(),
            prefix: String::new(),
            count_max: 100,
        }),
        Request::MultiRead(vec![
            MultiReadOp::GetData(path_watch()),
            MultiReadOp::GetChildren(path_watch()),
        ]),
        Request::WhoAmI,
        Request::DescribeEnsemble,
        Request::Ping,
    ]
}

fn of_the_connection() -> Vec<Request> {
    let kind = WatchKindRequest { path: path(), kind: WatchKind::Persistent };
    let auth = Some(Bytes::from_static(b"user:password"));
    vec![
        Request::CheckWatches(kind.clone()),
        Request::RemoveWatches(kind),
        Request::AddWatch(AddWatchRequest {
            path: path(),
            mode: AddWatchMode::PersistentRecursive,
        }),
        Request::Auth(AuthRequest { auth_type: 0, scheme: "digest".to_owned(), auth }),
        Request::Sasl(None),
        Request::SetWatches(set_watches()),
        Request::SetWatches2(SetWatchesRequest {
            persistent_watches: vec![path()],
            persistent_recursive_watches: vec![path()],
            ..set_watches()
        }),
        Request::Subscribe(SubscribeRequest {
            subscription: 1,
            path: path(),
            from_zxid: Zxid::new(4),
        }),
        Request::Unsubscribe(1),
    ]
}

fn requests() -> Vec<Request> {
    [writes(), reads(), of_the_connection()].concat()
}

fn responses() -> Vec<(OpCode, Response)> {
    let info = ClientInfo { scheme: "ip".to_owned(), user: "127.0.0.1".to_owned() };
    vec![
        (OpCode::Delete, Response::Empty),
        (OpCode::Sync, Response::Path(path())),
        (OpCode::CreateTtl, Response::PathStat(path(), stat())),
        (OpCode::SetAcl, Response::Stat(stat())),
        (OpCode::GetData, Response::DataStat(None, stat())),
        (OpCode::Reconfig, Response::DataStat(data(), stat())),
        (OpCode::GetAcl, Response::AclStat(Acl::open(), stat())),
        (OpCode::GetEphemerals, Response::Names(vec![path()])),
        (OpCode::GetChildren2, Response::NamesStat(vec!["1".to_owned()], stat())),
        (OpCode::GetAllChildrenNumber, Response::Count(12)),
        (OpCode::GetChildrenPage, Response::NamesPage(vec!["1".to_owned()], true, stat())),
        (
            OpCode::Multi,
            Response::Multi(vec![
                MultiResult::Create(path()),
                MultiResult::Create2(path(), stat()),
                MultiResult::Delete,
                MultiResult::SetData(stat()),
                MultiResult::Check,
                MultiResult::Error(ErrorCode::RuntimeInconsistency),
            ]),
        ),
        (
            OpCode::MultiRead,
            Response::MultiRead(vec![
                MultiReadResult::GetData(data(), stat()),
                MultiReadResult::GetChildren(vec!["1".to_owned()]),
                MultiReadResult::Error(ErrorCode::NoNode),
            ]),
        ),
        (OpCode::Sasl, Response::Token(data())),
        (OpCode::AddWatch, Response::Code(ErrorCode::Ok)),
        (OpCode::WhoAmI, Response::ClientInfos(vec![info])),
        (
            OpCode::TransferLeader,
            Response::Transfer(TransferAnswer { outcome: TransferOutcome::NotUp, leader: 2 }),
        ),
        (
            OpCode::DescribeEnsemble,
            Response::Ensemble(EnsembleInfo {
                server: 1,
                leader: 2,
                term: 7,
                members: vec![MemberInfo { id: 1, up: true }, MemberInfo { id: 2, up: false }],
            }),
        ),
    ]
}

fn subscription_event() -> SubscriptionEvent {
    let item = |kind| Item { kind, path: path(), data: data(), stat: stat() };
    SubscriptionEvent {
        subscription: 7,
        kind: SubscriptionEventKind::Changes,
        zxid: Zxid::new(99),
        items: vec![
            item(ItemKind::Present),
            item(ItemKind::Created),
            item(ItemKind::DataChanged),
            item(ItemKind::Deleted),
        ],
    }
}

/// Every cut and every changed byte of a frame's content, handed to its decoder.
fn mutate(content: &Bytes, mut decode: impl FnMut(Bytes)) {
    for length in 0..content.len() {
        decode(content.slice(..length));
    }
    for position in 0..content.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = content.to_vec();
            changed[position] = value;
            decode(changed.into());
        }
    }
}

#[test]
fn every_request_survives_the_wire() {
    for request in requests() {
        let xid = request.special_xid().unwrap_or(Xid::new(3));
        let frame = encode_request(xid, &request);
        let length = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
        assert_eq!(length, frame.len() - 4);
        let (header, decoded) = decode_request(frame.slice(4..)).unwrap();
        assert_eq!((header.xid, header.op), (xid, request.op()));
        assert_eq!(decoded, Ok(request));
        mutate(&frame.slice(4..), |content| drop(decode_request(content)));
    }
}

#[test]
fn every_operation_has_a_request() {
    let ops: Vec<i32> = requests().iter().map(|request| request.op().code()).collect();
    let known = (1..=9).chain(11..=22).chain(100..=107).chain(1000..=1002).chain([-11]);
    for op in known {
        assert!(ops.contains(&op), "operation {op}");
    }
}

#[test]
fn unknown_operations_are_values() {
    for op in [10, 500, 2000, -10, -1, i32::MIN] {
        let mut frame = [0, 0, 0, 5, 0, 0, 0, 0, 1, 2, 3];
        frame[4..8].copy_from_slice(&op.to_be_bytes());
        let (header, request) = decode_request(Bytes::copy_from_slice(&frame)).unwrap();
        assert_eq!(header.xid, Xid::new(5));
        assert_eq!(request, Ok(Request::Unknown(op)));
    }
}

#[test]
fn every_answer_survives_the_wire() {
    for (op, response) in responses() {
        let frame = encode_reply(Xid::new(3), Zxid::new(9), Ok(&response));
        let mut reader = Reader::new(frame.slice(4..));
        let header = ReplyHeader::decode(&mut reader).unwrap();
        assert_eq!((header.xid, header.zxid), (Xid::new(3), Zxid::new(9)));
        assert_eq!(Response::decode(op, &mut reader), Ok(response));
        assert_eq!(reader.left(), 0);
        mutate(&frame.slice(20..), |content| {
            drop(Response::decode(op, &mut Reader::new(content)));
        });
    }
}

#[test]
fn an_error_has_no_body() {
    let frame = encode_reply(Xid::new(3), Zxid::new(9), Err(ErrorCode::NoNode));
    assert_eq!(frame.len(), 4 + 16);
    let header = ReplyHeader::decode(&mut Reader::new(frame.slice(4..))).unwrap();
    assert_eq!(header.error, ErrorCode::NoNode);
}

#[test]
fn events_survive_the_wire() {
    let event = WatcherEvent::new(EventType::NodeDeleted, path());
    let frame = encode_event(Zxid::new(5), &event);
    assert_eq!(WatcherEvent::decode(&mut Reader::new(frame.slice(20..))), Ok(event));

    let event = subscription_event();
    let frame = encode_subscription_event(&event);
    let header = ReplyHeader::decode(&mut Reader::new(frame.slice(4..))).unwrap();
    assert_eq!((header.xid, header.zxid), (Xid::SUBSCRIPTION, Zxid::new(99)));
    assert_eq!(SubscriptionEvent::decode(&mut Reader::new(frame.slice(20..))), Ok(event));
    mutate(&frame.slice(20..), |content| {
        drop(SubscriptionEvent::decode(&mut Reader::new(content)));
    });
}

#[test]
fn error_codes_keep_their_numbers() {
    for code in -130..=0 {
        assert_eq!(ErrorCode::from_code(code).code(), code);
    }
    assert_eq!(ErrorCode::from_code(-101), ErrorCode::NoNode);
    assert_eq!(ErrorCode::from_code(-9), ErrorCode::Other(-9));
}

#[test]
fn set_watches_names_as_many_paths_as_the_limit() {
    let names = |count: usize| vec!["/".to_owned(); count];
    let with = |one_shot: usize, persistent: usize| SetWatchesRequest {
        data_watches: names(1),
        exist_watches: names(1),
        child_watches: names(one_shot - 2),
        persistent_watches: names(persistent / 2),
        persistent_recursive_watches: names(persistent - persistent / 2),
        ..SetWatchesRequest::default()
    };
    let decoded = |request: Request| {
        let frame = encode_request(Xid::SET_WATCHES, &request);
        decode_request(frame.slice(4..)).unwrap().1
    };
    let too_many = |limit| Err(DecodeError::TooMany { what: "paths", limit });
    let (all, persistent) = (SET_WATCHES_PATHS_MAX, PERSISTENT_PATHS_MAX);
    for whole in [
        Request::SetWatches(with(all, 0)),
        Request::SetWatches2(with(all, 0)),
        Request::SetWatches2(with(all - persistent, persistent)),
    ] {
        assert_eq!(decoded(whole.clone()), Ok(whole));
    }
    assert_eq!(decoded(Request::SetWatches(with(all + 1, 0))), too_many(all));
    assert_eq!(decoded(Request::SetWatches2(with(all + 1, 0))), too_many(all));
    assert_eq!(decoded(Request::SetWatches2(with(2, persistent + 1))), too_many(persistent));
    let beyond = with(all - persistent + 1, persistent);
    assert_eq!(decoded(Request::SetWatches2(beyond)), too_many(persistent));
}
