//! Both writers, of one made-up server.

use std::sync::Arc;

use coordinator_core::members::Member;
use coordinator_core::server::{
    ConnectionInfo, ConnectionTraffic, LastAnswer, Latency, Listed, Mode, SessionInfo, Sizes,
    Traffic, WatchSummary,
};
use coordinator_core::{ConnectionId, Millis, ServerId};
use coordinator_protocol::{FourLetterWord, OpCode, SessionId, Xid, Zxid};
use tokio::sync::mpsc;

use super::*;
use crate::config::Config;
use crate::metrics::tests::{measures, status};

const ONE: SessionId = SessionId::new(0x100_0000);
const TWO: SessionId = SessionId::new(0x200_0000);

fn listed<T>(items: Vec<T>) -> Listed<T> {
    Listed { total: items.len(), items }
}

fn connected(number: u64, session: Option<SessionId>) -> Connected {
    let latency = Latency { min: 0, max: 47, sum: 96, count: 6 };
    let last = LastAnswer {
        op: OpCode::GetData,
        zxid: Zxid::new(7),
        at: Millis::new(26_287),
        latency_ms: 1,
    };
    let answered = ConnectionTraffic {
        counted: Traffic { received: 6, sent: 5, latency },
        last: Some(last),
        last_xid: Some(Xid::new(10)),
    };
    let info = ConnectionInfo {
        connection: ConnectionId::new(number),
        session,
        timeout_ms: 10_000,
        established_wall_ms: 1_795_383_843_750,
        expires_wall_ms: 1_795_383_853_001,
        outstanding: 2,
        reading: true,
        backlogged: number == 2,
        traffic: if session.is_some() { answered } else { ConnectionTraffic::default() },
    };
    let remote = format!("127.0.0.{number}:40250").parse().ok();
    Connected { info, remote, is_encrypted: number == 2 }
}

/// A leader of three with something of everything.
pub fn known() -> Known {
    let mut status = status(Mode::Leader);
    status.id = ServerId::new(2).unwrap();
    status.since_reset = Traffic {
        received: 21,
        sent: 20,
        latency: Latency { min: 0, max: 47, sum: 112, count: 11 },
    };
    status.proposal_sizes = Sizes { last_min_max: Some((36, 30, 88)) };
    status.office_ms = Some(3_676);
    status.zxid = Zxid::new(0x1_0000_000e);
    let mut ensemble = coordinator_core::server::EnsembleView::default();
    for (id, text) in [(1, "a:1:2;a:3"), (2, "b:1:2;b:3"), (3, "c:1;c:3"), (4, "d:1:2:observer")] {
        ensemble.servers.insert(ServerId::new(id).unwrap(), Member::parse(text).unwrap());
        if id > 2 {
            ensemble.up.insert(ServerId::new(id).unwrap());
        }
    }
    let session = |id, at| SessionInfo { id, timeout_ms: 10_000, expires_wall_ms: Some(at) };
    let lists = Lists {
        connections: Some(listed(vec![connected(1, Some(ONE)), connected(2, None)])),
        sessions: Some(listed(vec![
            session(ONE, 1_795_383_854_000),
            session(TWO, 1_795_383_855_001),
        ])),
        ephemerals: Some(listed(vec![
            (ONE, "/e1".into()),
            (ONE, "/e2".into()),
            (TWO, "/e3".into()),
        ])),
        watches: Some(listed(vec![(ONE, "/p".into()), (TWO, "/none".into()), (TWO, "/p".into())])),
        watches_by_path: Some(listed(vec![
            ("/none".into(), TWO),
            ("/p".into(), ONE),
            ("/p".into(), TWO),
        ])),
    };
    let watches = WatchSummary { connections: 2, paths: 2, watches: 3 };
    Known { status, measures: measures(), ensemble, watches, lists }
}

pub fn desk() -> Arc<Desk> {
    let config = Config::standalone("/nowhere".into(), "127.0.0.1:2181".parse().unwrap());
    let facts = Facts::new(&config, config.client_address);
    let (inputs, _) = mpsc::channel(1);
    Arc::new(Desk::new(inputs, facts, Arc::default(), config.whitelist))
}

fn shown(word: FourLetterWord) -> String {
    text::lists::of(word, &known())
}

#[test]
fn connections_are_shown_in_zookeepers_form() {
    assert_eq!(
        shown(FourLetterWord::Cons),
        " /127.0.0.1:40250[1](queued=2,recved=6,sent=5,sid=0x1000000,lop=GETD,est=1795383843750,to=10000,lcxid=0xa,\
         lzxid=0x7,lresp=26287,llat=1,minlat=0,avglat=16,maxlat=47)\n \
         /127.0.0.2:40250[5](queued=2,recved=0,sent=0)\n\n"
    );
}

#[test]
fn stat_has_the_clients_within() {
    let version = environment::version();
    assert_eq!(
        shown(FourLetterWord::Stat),
        format!(
            "Zookeeper version: {version}\nClients:\n /127.0.0.1:40250[1](queued=2,recved=6,sent=5)\n \
             /127.0.0.2:40250[5](queued=2,recved=0,sent=0)\n\nLatency min/avg/max: 0/10.1818/47\nReceived: 21\nSent: 20\n\
             Connections: 3\nOutstanding: 0\nZxid: 0x10000000e\nMode: leader\nNode count: 5\n\
             Proposal sizes last/min/max: 36/30/88\n"
        )
    );
}

#[test]
fn sessions_stand_by_when_they_end_and_on_followers_by_their_time_outs() {
    assert_eq!(
        shown(FourLetterWord::Dump),
        "SessionTracker dump:\nSession Sets (2)/(2):\n1 expire at Sun Nov 22 21:44:14 UTC 2026:\n\t0x1000000\n\
         1 expire at Sun Nov 22 21:44:16 UTC 2026:\n\t0x2000000\n\
         ephemeral nodes dump:\nSessions with Ephemerals (2):\n0x1000000:\n\t/e1\n\t/e2\n0x2000000:\n\t/e3\n\
         Connections dump:\nConnections Sets (1)/(2):\n2 expire at Sun Nov 22 21:44:14 UTC 2026:\n\
         \tip: /127.0.0.1:40250 sessionId: 0x1000000\n\tip: /127.0.0.2:40250 sessionId: 0x0\n"
    );
    let mut followed = known();
    followed.status.office_ms = None;
    let text = text::lists::of(FourLetterWord::Dump, &followed);
    let expected = "SessionTracker dump:\nGlobal Sessions(2):\n0x1000000\t10000ms\n0x2000000\t10000ms\nephemeral";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn watches_are_shown_by_session_and_by_path() {
    assert_eq!(shown(FourLetterWord::Wchc), "0x1000000\n\t/p\n0x2000000\n\t/none\n\t/p\n\n");
    assert_eq!(shown(FourLetterWord::Wchp), "/none\n\t0x2000000\n/p\n\t0x1000000\n\t0x2000000\n\n");
}

#[test]
fn list_that_is_not_whole_says_so_in_its_last_line() {
    let mut cut = known();
    cut.lists.connections.as_mut().unwrap().total = 12_000;
    cut.lists.watches.as_mut().unwrap().total = 5;
    let text = text::lists::of(FourLetterWord::Cons, &cut);
    assert!(text.ends_with(")\n... cut here: 2 of 12000 are shown\n\n"), "{text}");
    let text = text::lists::of(FourLetterWord::Wchc, &cut);
    assert!(text.ends_with("\t/p\n... cut here: 3 of 5 are shown\n\n"), "{text}");
    assert!(text::lists::of(FourLetterWord::Stat, &cut).contains("are shown\n\nLatency"));
}

#[test]
fn measures_have_zookeepers_names() {
    let list = monitor::list(&known(), &desk());
    let found = |name: &str| {
        let found = list.iter().find(|(one, _)| one == name);
        found.map(|(_, value)| value.clone()).unwrap_or_else(|| panic!("no {name}"))
    };
    let whole = monitor::Value::Whole;
    let text = |text: &str| monitor::Value::Text(text.to_owned());
    for (name, expected) in [
        ("server_state", text("leader")),
        ("peer_state", text("leading - broadcast")),
        ("znode_count", whole(5)),
        ("ephemerals_count", whole(1)),
        ("packets_received", whole(21)),
        ("max_latency", whole(47)),
        ("avg_latency", monitor::Value::Fraction(10.1818)),
        ("quorum_size", whole(3)),
        ("learners", whole(2)),
        ("followers", whole(1)),
        ("synced_followers", whole(1)),
        ("synced_observers", whole(2)),
        ("leader_uptime", whole(3_676)),
        ("min_proposal_size", monitor::Value::Size(30)),
        ("last_client_response_size", monitor::Value::Size(-1)),
        ("cnt_readlatency", whole(3)),
        ("avg_readlatency", monitor::Value::Fraction(7.0)),
    ] {
        assert_eq!(found(name), expected, "{name}");
    }
    let names: std::collections::BTreeSet<_> = list.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), list.len(), "a name stands twice: {list:?}");
    let alone = Known { ensemble: Default::default(), status: status(Mode::Standalone), ..known() };
    let list = monitor::list(&alone, &desk());
    assert!(!list.iter().any(|(name, _)| ["peer_state", "learners"].contains(&name.as_str())));
}
