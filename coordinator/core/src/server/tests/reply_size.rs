//! Answers that are larger than clients take.

use bytes::Bytes;
use coordinator_protocol::{
    Acl, CreateRequest, ErrorCode, FRAME_BYTES_MAX, MultiOp, MultiReadOp, MultiReadResult,
    PathWatch, Reader, Record, ReplyHeader, Request, Response,
};

use super::failures::{request, run};
use super::{create, get_data, set_data};
use crate::consensus::Restored;
use crate::server::{Config, Effect, Event, Notice, REPLY_BYTES_MAX_MIN, Server};
use crate::{ConnectionId, Millis, Now, ServerId};

const ID: ServerId = ServerId::new(1).unwrap();
const CLIENT: ConnectionId = ConnectionId::new(1);
/// Of an answer to getData, beside the data.
const DATA_REPLY_BYTES: usize = 16 + 4 + 68;

struct Served {
    server: Server,
    now: Now,
}

impl Served {
    fn with(reply_bytes_max: usize) -> Served {
        let config = Config { reply_bytes_max, ..Config::new(ID, vec![ID]) };
        config.validate().unwrap();
        let server = Server::new(config, Restored::default()).unwrap();
        let now = Now { mono: Millis::new(10), wall_ms: 5 };
        let mut served = Served { server, now };
        let event = Event::Connect {
            connection: CLIENT,
            address: String::new(),
            certificate: None,
            request: super::ensemble::connect_request(10_000),
            entropy: [7; 24],
        };
        run(&mut served.server, vec![event], now);
        served
    }

    /// The answer, its bytes without the length prefix, and how many notifications came.
    fn ask(&mut self, asked: Request) -> (Result<Response, ErrorCode>, usize, usize) {
        let op = asked.op();
        let effects = run(&mut self.server, vec![request(CLIENT, 5, asked)], self.now).concat();
        let (mut answer, mut told) = (None, 0);
        for effect in effects {
            let Effect::Respond { frame, .. } = effect else { continue };
            let mut reader = Reader::new(frame.slice(4..));
            let header = ReplyHeader::decode(&mut reader).unwrap();
            if header.xid.get() < 0 {
                told += 1;
                continue;
            }
            let outcome = match header.error {
                ErrorCode::Ok => Ok(Response::decode(op, &mut reader).unwrap()),
                code => Err(code),
            };
            answer = Some((outcome, frame.len() - 4));
        }
        let (outcome, bytes) = answer.expect("an answer");
        (outcome, bytes, told)
    }

    fn create(&mut self, path: &str, bytes: usize) {
        let data = Some(Bytes::from(vec![b'x'; bytes]));
        let node = CreateRequest { path: path.into(), data, acl: Acl::open(), flags: 0 };
        self.ask(Request::Create(node)).0.unwrap();
    }
}

fn children(path: &str, watch: bool) -> Request {
    Request::GetChildren(PathWatch { path: path.into(), watch })
}

#[test]
fn data_is_answered_up_to_the_setting_and_one_byte_more_is_refused() {
    let limit = REPLY_BYTES_MAX_MIN;
    let mut served = Served::with(limit);
    served.create("/fits", limit - DATA_REPLY_BYTES);
    served.create("/large", limit - DATA_REPLY_BYTES + 1);
    let (answer, bytes, _) = served.ask(get_data("/fits", false));
    assert!(answer.is_ok());
    assert_eq!(bytes, limit);
    assert_eq!(served.server.take_notices(), []);
    let (answer, ..) = served.ask(get_data("/large", true));
    assert_eq!(answer, Err(ErrorCode::ThrottledOp));
    let notice = Notice::LargeReply {
        operation: "getData",
        path: Some("/large".into()),
        bytes: limit + 1,
        session: served.server.state().sessions().next().unwrap().id,
        is_refused: true,
    };
    let noticed = served.server.take_notices();
    assert_eq!(noticed.iter().map(|one| &one.notice).collect::<Vec<_>>(), [&notice]);
    assert_eq!(served.server.measures().refused_replies, 1);
    // What was refused has left no watch, and the session goes on.
    let (answer, _, told) = served.ask(set_data("/large", "x"));
    assert!(answer.is_ok());
    assert_eq!(told, 0);
}

#[test]
fn children_are_refused_before_a_watch_is_left_and_pages_stay_below_the_setting() {
    let limit = REPLY_BYTES_MAX_MIN;
    let mut served = Served::with(limit);
    served.create("/dir", 0);
    for number in 0..200 {
        served.create(&format!("/dir/{number:0996}"), 0);
    }
    for (asked, watched) in [(children("/dir", true), 0), (children("/", true), 1)] {
        let refused = watched == 0;
        assert_eq!(served.ask(asked).0.is_err(), refused);
        assert_eq!(served.server.status().watches, watched);
    }
    let page = coordinator_protocol::ChildrenPageRequest {
        path: "/dir".into(),
        after: String::new(),
        prefix: String::new(),
        count_max: 1_000,
    };
    let (answer, bytes, _) = served.ask(Request::GetChildrenPage(page));
    assert!(matches!(answer, Ok(Response::NamesPage(_, true, _))));
    assert!((limit - 1_100..=limit).contains(&bytes), "{bytes}");
}

#[test]
fn reads_of_many_are_refused_one_by_one_and_all_stay_below_the_setting() {
    let limit = REPLY_BYTES_MAX_MIN;
    let mut served = Served::with(limit);
    served.create("/half", limit / 2 - 200);
    let read = MultiReadOp::GetData(PathWatch { path: "/half".into(), watch: false });
    let (answer, bytes, _) = served.ask(Request::MultiRead(vec![read; 4]));
    let Ok(Response::MultiRead(results)) = answer else { panic!("{answer:?}") };
    let refused = MultiReadResult::Error(ErrorCode::ThrottledOp);
    let are_refused: Vec<bool> = results.iter().map(|result| *result == refused).collect();
    assert_eq!(are_refused, [false, false, true, true]);
    assert!(bytes <= limit);
    assert_eq!(served.server.measures().refused_replies, 2);
}

#[test]
fn errors_of_many_reads_count_as_well() {
    let limit = REPLY_BYTES_MAX_MIN;
    let mut served = Served::with(limit);
    let read = MultiReadOp::GetData(PathWatch { path: "/none".into(), watch: false });
    let fit = (limit - 16 - 9) / 13;
    let (answer, bytes, _) = served.ask(Request::MultiRead(vec![read.clone(); fit]));
    assert!(answer.is_ok() && bytes <= limit && bytes > limit - 13, "{bytes}");
    let (answer, ..) = served.ask(Request::MultiRead(vec![read; fit + 1]));
    assert_eq!(answer, Err(ErrorCode::ThrottledOp));
    assert_eq!(served.server.measures().refused_replies, 1);
    let noticed = served.server.take_notices();
    let is_it = |notice: &Notice| {
        matches!(
            notice,
            Notice::LargeReply { operation: "multiRead", path: None, is_refused: true, .. }
        )
    };
    assert!(noticed.len() == 1 && is_it(&noticed[0].notice), "{noticed:?}");
}

#[test]
fn without_the_setting_all_is_sent_and_what_default_clients_do_not_take_is_told_of() {
    let mut served = Served::with(0);
    // Java's clients take fewer bytes than their setting says.
    served.create("/below", FRAME_BYTES_MAX - DATA_REPLY_BYTES - 1);
    served.create("/at", FRAME_BYTES_MAX - DATA_REPLY_BYTES);
    assert_eq!(served.ask(get_data("/below", false)).1, FRAME_BYTES_MAX - 1);
    assert_eq!(served.server.measures().large_replies, 0);
    assert_eq!(served.server.take_notices(), []);
    assert_eq!(served.ask(get_data("/at", false)).1, FRAME_BYTES_MAX);
    let measures = served.server.measures();
    assert_eq!((measures.large_replies, measures.refused_replies), (1, 0));
    let noticed = served.server.take_notices();
    let is_it = |notice: &Notice| matches!(notice, Notice::LargeReply { path: Some(path), is_refused: false, .. } if path == "/at");
    assert!(noticed.len() == 1 && is_it(&noticed[0].notice), "{noticed:?}");
}

#[test]
fn answer_to_a_write_is_sent_however_large_it_is() {
    let mut served = Served::with(REPLY_BYTES_MAX_MIN);
    let node = |number| {
        let Request::Create(node) = create(&format!("/{number}"), 0) else { panic!() };
        MultiOp::Create2(node)
    };
    let (answer, bytes, _) = served.ask(Request::Multi((0..2_000).map(node).collect()));
    assert!(matches!(answer, Ok(Response::Multi(_))));
    assert!(bytes > REPLY_BYTES_MAX_MIN);
    assert_eq!(served.ask(Request::GetAllChildrenNumber("/".into())).0, Ok(Response::Count(2_003)));
    assert_eq!(served.server.measures().refused_replies, 0);
    let counts = served.server.measures().replies_bytes.counts;
    assert_eq!(counts.iter().sum::<u64>(), 2);
}
