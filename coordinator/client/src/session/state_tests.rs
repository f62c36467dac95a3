//! The session's decisions: one event, and what comes of it.

use super::*;
use crate::subscription::{Subscription, SubscriptionSink, Update};
use crate::tls::TlsFailure;

use coordinator_protocol::{
    CreateMode, CreateRequest, DeleteRequest, OpCode, PathWatch, SubscribeRequest,
    SubscriptionEventKind, decode_frame, decode_request, encode_reply, encode_subscription_event,
};
use tokio::sync::oneshot;

const TIMEOUT: Duration = Duration::from_secs(6);

type Answer = oneshot::Receiver<Result<Reply, Error>>;

struct Setup {
    session: Session,
    state: watch::Receiver<SessionState>,
    contact: Arc<Contact>,
    start: Instant,
}

impl Setup {
    fn new(config: Config) -> Self {
        let start = Instant::now();
        let (sender, state) = watch::channel(SessionState::Connecting);
        let contact = Arc::new(Contact::new(start, config.session_timeout));
        let session = Session::new(config, sender, Arc::clone(&contact));
        Self { session, state, contact, start }
    }

    fn connected() -> Self {
        let mut setup = Self::new(Config::new(Vec::new()));
        assert!(setup.connect(0));
        assert_eq!(setup.sent(), []);
        setup
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn connect(&mut self, ms: u64) -> bool {
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms: 6000,
            session: SessionId::new(7),
            password: SessionPassword::new(&b"secret"[..]),
            read_only: Some(false),
        };
        let now = self.at(ms);
        self.session.on_connected(response, now, now)
    }

    fn call(&mut self, request: Request, hook: Hook, ms: u64) -> Answer {
        let (answer, answered) = oneshot::channel();
        let now = self.at(ms);
        self.session.on_call(Call { request, hook, answer: Some(answer), made_at: now }, now);
        answered
    }

    fn ask(&mut self, request: Request) -> Answer {
        self.call(request, Hook::None, 0)
    }

    /// Takes what was written for the server.
    fn sent(&mut self) -> Vec<(i32, Request)> {
        let mut requests = Vec::new();
        while let Some(frame) = decode_frame(self.session.out(), usize::MAX).unwrap() {
            let (header, request) = decode_request(frame).unwrap();
            requests.push((header.xid.get(), request.unwrap()));
        }
        requests
    }

    fn sent_ops(&mut self) -> Vec<(i32, OpCode)> {
        self.sent().iter().map(|(xid, request)| (*xid, request.op())).collect()
    }

    fn reply(&mut self, xid: i32, zxid: i64, response: Response, ms: u64) -> Result<(), Broken> {
        let frame = encode_reply(Xid::new(xid), Zxid::new(zxid), Ok(&response));
        let now = self.at(ms);
        self.session.on_frame(frame.slice(4..), now)
    }

    fn subscription_event(&mut self, kind: SubscriptionEventKind, zxid: i64) {
        let zxid = Zxid::new(zxid);
        let event = SubscriptionEvent { subscription: 1, kind, zxid, items: Vec::new() };
        let now = self.start;
        self.session.on_frame(encode_subscription_event(&event).slice(4..), now).unwrap();
    }
}

fn delete() -> Request {
    Request::Delete(DeleteRequest { path: "/a".to_owned(), version: -1 })
}

fn exists() -> Request {
    Request::Exists(PathWatch { path: "/a".to_owned(), watch: false })
}

fn create() -> Request {
    let (path, flags) = ("/a".to_owned(), CreateMode::Ephemeral.code());
    Request::Create(CreateRequest { path, data: None, acl: Vec::new(), flags })
}

fn error_of(answer: &mut Answer) -> Option<Error> {
    answer.try_recv().ok().and_then(Result::err)
}

#[test]
fn calls_wait_for_a_connection_and_are_sent_in_order() {
    let mut setup = Setup::new(Config::new(Vec::new()));
    let mut first = setup.ask(create());
    let _second = setup.ask(exists());
    assert_eq!(setup.sent(), []);
    assert!(setup.connect(0));
    assert_eq!(*setup.state.borrow(), SessionState::Connected { session: SessionId::new(7) });
    assert_eq!(setup.sent_ops(), [(1, OpCode::Create), (2, OpCode::Exists)]);
    setup.reply(1, 5, Response::Path("/a".to_owned()), 0).unwrap();
    let reply = first.try_recv().unwrap().unwrap();
    assert_eq!(reply.zxid, Zxid::new(5));
    assert_eq!(reply.response, Response::Path("/a".to_owned()));
}

#[test]
fn lost_writes_are_unknown_and_lost_reads_are_asked_again_first() {
    let mut setup = Setup::connected();
    let mut write = setup.ask(delete());
    let mut read = setup.ask(exists());
    setup.session.on_lost(setup.start);
    assert_eq!(*setup.state.borrow(), SessionState::Connecting);
    assert_eq!(error_of(&mut write), Some(Error::ConnectionLoss));
    let _later = setup.ask(create());
    assert!(setup.connect(0));
    assert_eq!(setup.sent_ops(), [(1, OpCode::Exists), (2, OpCode::Create)]);
    setup.reply(1, 5, Response::Stat(Default::default()), 0).unwrap();
    assert!(read.try_recv().unwrap().is_ok());
}

#[test]
fn reattaches_with_its_password_and_the_newest_zxid_it_saw() {
    let mut setup = Setup::connected();
    let _write = setup.ask(delete());
    setup.reply(1, 9, Response::Empty, 0).unwrap();
    setup.session.on_lost(setup.start);
    let frame = setup.session.connect_request();
    let request = ConnectRequest::decode_frame(frame.slice(4..)).unwrap();
    assert_eq!(request.session, SessionId::new(7));
    assert_eq!(request.password.as_bytes(), b"secret");
    assert_eq!(request.last_zxid_seen, Zxid::new(9));
    assert_eq!(request.timeout_ms, 6000);
}

#[test]
fn an_ended_session_ends_everything() {
    let mut setup = Setup::connected();
    let mut under_way = setup.ask(exists());
    setup.session.on_lost(setup.start);
    let over = ConnectResponse::session_is_over(Some(false));
    assert!(!setup.session.on_connected(over, setup.start, setup.start));
    assert_eq!(error_of(&mut under_way), Some(Error::SessionExpired));
    assert_eq!(*setup.state.borrow(), SessionState::Expired);
    let mut later = setup.ask(exists());
    assert_eq!(error_of(&mut later), Some(Error::SessionExpired));
}

#[test]
fn pings_after_a_third_and_gives_up_after_two() {
    let mut setup = Setup::connected();
    assert_eq!(setup.session.next_tick(), Some(setup.at(2000)));
    setup.session.on_tick(setup.at(1999)).unwrap();
    assert_eq!(setup.sent(), []);
    setup.session.on_tick(setup.at(2000)).unwrap();
    assert_eq!(setup.sent(), [(-2, Request::Ping)]);
    assert_eq!(setup.session.next_tick(), Some(setup.at(4000)));
    let silent = Broken::Silent(TIMEOUT / 3 * 2);
    assert_eq!(setup.session.on_tick(setup.at(4000)), Err(silent));
}

#[test]
fn contact_is_the_time_of_the_question() {
    let mut setup = Setup::connected();
    setup.session.on_tick(setup.at(2000)).unwrap();
    assert_eq!(setup.contact.last(), setup.start);
    setup.reply(-2, 3, Response::Empty, 2500).unwrap();
    assert_eq!(setup.contact.last(), setup.at(2000));
}

#[test]
fn an_answer_out_of_order_breaks_the_connection() {
    let mut setup = Setup::connected();
    let _first = setup.ask(delete());
    let _second = setup.ask(delete());
    let broken = Broken::OutOfOrder { got: Xid::new(2), expected: Some(Xid::new(1)) };
    assert_eq!(setup.reply(2, 9, Response::Empty, 0), Err(broken));
}

#[test]
fn waiting_calls_fail_in_time() {
    let mut setup = Setup::new(Config::new(Vec::new()));
    let mut call = setup.ask(delete());
    setup.session.on_tick(setup.at(29_999)).unwrap();
    assert!(call.try_recv().is_err());
    setup.session.on_tick(setup.at(30_000)).unwrap();
    assert_eq!(error_of(&mut call), Some(Error::Unavailable));
}

#[test]
fn waiting_calls_fail_with_what_is_in_the_way() {
    let mut setup = Setup::new(Config::new(Vec::new()));
    let obstacle = |address: &str, why| Error::Tls { address: address.to_owned(), why };
    let (mut one, mut other) = (setup.ask(delete()), setup.ask(delete()));
    let unknown = || obstacle("a:1", TlsFailure::UnknownAuthority);
    assert!(setup.session.set_obstacle(Some(unknown())));
    assert!(!setup.session.set_obstacle(Some(obstacle("b:1", TlsFailure::UnknownAuthority))));
    assert!(setup.session.set_obstacle(Some(obstacle("b:1", TlsFailure::WantsCertificate))));
    setup.session.set_obstacle(Some(unknown()));
    let hung_up =
        |address: &str| Some(Error::HungUp { address: address.to_owned(), is_encrypted: false });
    assert!(!setup.session.set_obstacle(hung_up("c:1")), "it says less");
    setup.session.refuse_waiting();
    assert_eq!(error_of(&mut one), Some(unknown()));
    assert_eq!(error_of(&mut other), Some(unknown()));
    let mut late = setup.ask(delete());
    setup.session.on_tick(setup.at(29_999)).unwrap();
    assert!(late.try_recv().is_err());
    setup.session.on_tick(setup.at(30_000)).unwrap();
    assert_eq!(error_of(&mut late), Some(unknown()));
    assert!(setup.session.set_obstacle(None));
    assert!(setup.session.set_obstacle(hung_up("c:1")));
    assert!(!setup.session.set_obstacle(hung_up("d:1")));
}

#[test]
fn options_are_sent_before_everything_until_they_are_answered() {
    let mut config = Config::new(Vec::new());
    config.fast_death_grace = Some(Duration::from_millis(200));
    let mut setup = Setup::new(config);
    let _call = setup.ask(create());
    let options = || Request::SessionOptions(SessionOptionsRequest { fast_death_grace_ms: 200 });
    assert!(setup.connect(0));
    assert_eq!(setup.sent(), [(1, options()), (2, create())]);
    setup.session.on_lost(setup.start);
    assert!(setup.connect(0));
    assert_eq!(setup.sent(), [(1, options())]);
    setup.reply(1, 9, Response::Empty, 0).unwrap();
    setup.session.on_lost(setup.start);
    assert!(setup.connect(0));
    assert_eq!(setup.sent(), []);
}

#[test]
fn credentials_are_shown_first_on_each_connection() {
    let mut config = Config::new(Vec::new());
    config.fast_death_grace = Some(Duration::from_millis(200));
    let (scheme, secret) = ("digest".to_owned(), "user:password".to_owned());
    config.credentials = vec![Credentials { scheme: scheme.clone(), secret }];
    assert!(!format!("{config:?}").contains("password"));
    let mut setup = Setup::new(config);
    let shown = Request::Auth(AuthRequest {
        auth_type: 0,
        scheme,
        auth: Some(Bytes::from_static(b"user:password")),
    });
    let options = Request::SessionOptions(SessionOptionsRequest { fast_death_grace_ms: 200 });
    for _ in 0..2 {
        assert!(setup.connect(0));
        assert_eq!(setup.sent(), [(-4, shown.clone()), (1, options.clone())]);
        setup.session.on_lost(setup.start);
    }
    assert!(setup.connect(0));
    let answer = |error| encode_reply(Xid::AUTH, Zxid::ZERO, error).slice(4..);
    setup.session.on_frame(answer(Ok(&Response::Empty)), setup.start).unwrap();
    let refused = setup.session.on_frame(answer(Err(ErrorCode::AuthFailed)), setup.start);
    assert_eq!(refused, Err(Broken::Credentials(ErrorCode::AuthFailed)));
}

fn subscribe(from_zxid: i64) -> Request {
    let (path, from_zxid) = ("/a".to_owned(), Zxid::new(from_zxid));
    Request::Subscribe(SubscribeRequest { subscription: 1, path, from_zxid })
}

fn subscribed(setup: &mut Setup) -> Subscription {
    let (sink, subscription) = SubscriptionSink::new(Default::default());
    let _answer = setup.call(subscribe(0), Hook::Subscribe(1, sink), 0);
    assert_eq!(setup.sent(), [(1, subscribe(0))]);
    setup.reply(1, 3, Response::Empty, 0).unwrap();
    subscription
}

#[tokio::test]
async fn subscription_goes_on_after_its_last_promise() {
    let mut setup = Setup::connected();
    let mut subscription = subscribed(&mut setup);
    setup.subscription_event(SubscriptionEventKind::SnapshotBegin, 3);
    setup.subscription_event(SubscriptionEventKind::SnapshotEnd, 3);
    setup.subscription_event(SubscriptionEventKind::Changes, 8);
    setup.session.on_lost(setup.start);
    assert!(setup.connect(0));
    assert_eq!(setup.sent(), [(1, subscribe(8))]);
    let frame = encode_reply(Xid::new(1), Zxid::new(9), Err(ErrorCode::Unimplemented));
    setup.session.on_frame(frame.slice(4..), setup.start).unwrap();
    assert_eq!(subscription.next().await, Ok(Update::SnapshotBegin));
    assert_eq!(subscription.next().await, Ok(Update::SnapshotEnd(Zxid::new(3))));
    let changes = Update::Changes { zxid: Zxid::new(8), items: Vec::new() };
    assert_eq!(subscription.next().await, Ok(changes));
    let refused = Error::Refused(ErrorCode::Unimplemented);
    assert_eq!(subscription.next().await, Err(refused));
}

#[test]
fn a_subscription_that_nobody_reads_is_taken_back() {
    let mut setup = Setup::connected();
    drop(subscribed(&mut setup));
    setup.subscription_event(SubscriptionEventKind::SnapshotBegin, 3);
    assert_eq!(setup.sent(), [(2, Request::Unsubscribe(1))]);
}

#[test]
fn calls_have_a_limit() {
    let mut setup = Setup::new(Config::new(Vec::new()));
    let answers: Vec<Answer> = (0..CALLS_MAX - 1).map(|_| setup.ask(delete())).collect();
    assert!(setup.session.has_room());
    let _last = setup.ask(delete());
    assert!(!setup.session.has_room());
    drop(answers);
}
