//! Four-letter words and commands, of a process of its own.

mod http;

use std::net::SocketAddr;

use coordinator_protocol::{
    CreateMode, ErrorCode, FourLetterWord, PathWatch, Request, SetWatchesRequest,
};

use crate::client::Client;
use crate::commands::Served;
use crate::{create, say};

/// A server that answers these words.
fn served(folder: &tempfile::TempDir, whitelist: &str) -> Served {
    let whitelist = format!("4lw.commands.whitelist={whitelist}");
    Served::start_with(&folder.path().join("data"), &[whitelist])
}

fn word(address: SocketAddr, word: FourLetterWord) -> String {
    say(address, word.name().as_bytes())
}

/// A client that owns two ephemerals and watches two paths.
fn busy(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    for path in ["/e1", "/e2"] {
        assert_eq!(client.ask(&create(path, CreateMode::Ephemeral)).0, ErrorCode::Ok);
    }
    for path in ["/e1", "/none"] {
        client.ask(&Request::Exists(PathWatch { path: path.into(), watch: true }));
    }
    client
}

#[test]
fn word_that_is_not_in_the_list_is_named_and_not_answered() {
    let folder = tempfile::tempdir().unwrap();
    let usual = Served::start(&folder.path().join("usual"));
    let some = served(&folder, "conf, wchs");
    for one in FourLetterWord::ALL {
        let refusal =
            format!("{} is not executed because it is not in the whitelist.\n", one.name());
        let is_usual = ["ruok", "envi", "srvr", "stat", "mntr", "isro"].contains(&one.name());
        assert_eq!(word(usual.client, one) != refusal, is_usual, "{one:?}");
        let is_one = ["conf", "wchs", "srvr"].contains(&one.name());
        assert_eq!(word(some.client, one) != refusal, is_one, "{one:?}");
    }
}

#[test]
fn every_word_is_answered_where_all_are_let() {
    let folder = tempfile::tempdir().unwrap();
    let server = served(&folder, "*");
    let client = busy(server.client);
    let session = format!("0x{:x}", client.session().get());
    let ask = |one| word(server.client, one);
    let data = folder.path().join("data").display().to_string();
    let port = server.client.port();
    for (one, parts) in [
        (
            FourLetterWord::Conf,
            vec![format!("clientPort={port}\n"), format!("dataLogDir={data}/log\n")],
        ),
        (FourLetterWord::Conf, vec!["secureClientPort=-1\n".into(), "serverId=1\n".into()]),
        (
            FourLetterWord::Cons,
            vec![format!(",sid={session},lop=EXIS,est="), "(queued=0,recved=5,".into()],
        ),
        (FourLetterWord::Cons, vec![",to=30000,lcxid=0x4,lzxid=0x100000003,".into()]),
        (FourLetterWord::Dirs, vec!["datadir_size: 0\nlogdir_size: ".into()]),
        (FourLetterWord::Dump, vec![format!("Session Sets (1)/(1):\n1 expire at ")]),
        (FourLetterWord::Dump, vec![format!("Ephemerals (1):\n{session}:\n\t/e1\n\t/e2\n")]),
        (FourLetterWord::Dump, vec![format!(" sessionId: {session}\n")]),
        (
            FourLetterWord::Envi,
            vec!["Environment:\nzookeeper.version=3.9.5-".into(), "\nos.name=Linux\n".into()],
        ),
        (FourLetterWord::Gtmk, vec!["gtmk has no meaning here".into()]),
        (FourLetterWord::Hash, vec!["hash is not known".into()]),
        (FourLetterWord::Isro, vec!["rw".into()]),
        (
            FourLetterWord::Mntr,
            vec!["zk_ephemerals_count\t2\n".into(), "zk_watch_count\t2\n".into()],
        ),
        (
            FourLetterWord::Mntr,
            vec!["zk_packets_received\t5\n".into(), "zk_max_file_descriptor_count\t".into()],
        ),
        (FourLetterWord::Ruok, vec!["imok".into()]),
        (FourLetterWord::Srvr, vec!["Received: 5\nSent: 5\nConnections: 1\n".into()]),
        (
            FourLetterWord::Stat,
            vec!["Clients:\n /127.0.0.1:".into(), "[1](queued=0,recved=5,sent=5)\n\n".into()],
        ),
        (FourLetterWord::Stmk, vec!["stmk has no meaning here".into()]),
        (FourLetterWord::Wchc, vec![format!("{session}\n\t/e1\n\t/none\n\n")]),
        (FourLetterWord::Wchp, vec![format!("/e1\n\t{session}\n/none\n\t{session}\n\n")]),
        (FourLetterWord::Wchs, vec!["1 connections watching 2 paths\nTotal watches:2\n".into()]),
    ] {
        let answer = ask(one);
        for part in parts {
            assert!(answer.contains(&part), "{part} in {answer}");
        }
    }
    assert!(say(server.client, b"stmk\0\0\0\0\0\0\0\x12").starts_with("stmk has no meaning"));
    assert_eq!(ask(FourLetterWord::Crst), "Connection stats reset.\n");
    assert!(ask(FourLetterWord::Cons).contains("(queued=0,recved=0,sent=0,sid="));
    assert!(ask(FourLetterWord::Srvr).contains("Received: 5\n"), "the server's stay");
    assert_eq!(ask(FourLetterWord::Srst), "Server stats reset.\n");
    assert!(ask(FourLetterWord::Srvr).contains("Latency min/avg/max: 0/0.0/0\nReceived: 0\n"));
    assert!(ask(FourLetterWord::Mntr).contains("zk_packets_received\t0\n"));
}

#[test]
fn lists_have_an_end_and_say_where() {
    let folder = tempfile::tempdir().unwrap();
    let server = served(&folder, "*");
    let watch = |paths: Vec<String>| {
        let watches = SetWatchesRequest { exist_watches: paths, ..SetWatchesRequest::default() };
        let mut client = Client::connect(server.client);
        assert_eq!(client.ask(&Request::SetWatches2(watches)).0, ErrorCode::Ok);
        client
    };
    // So many entries.
    let many = watch((0..10_001).map(|number| format!("/{number:05}")).collect());
    for one in [FourLetterWord::Wchc, FourLetterWord::Wchp] {
        let answer = word(server.client, one);
        assert!(answer.ends_with("\n... cut here: 10000 of 10001 are shown\n\n"));
        assert!(answer.contains("\t/09999\n") || answer.contains("/09999\n\t0x"));
        assert!(!answer.contains("/10000\n"));
    }
    drop(many);
    // So many bytes: a few hundred long paths more.
    let _long = watch((0..1_100).map(|number| format!("/{number:01000}")).collect());
    let answer = word(server.client, FourLetterWord::Wchc);
    assert!(answer.len() < 2 << 20, "{}", answer.len());
    assert!(answer.contains("... cut here: "), "{}", answer.len());
}

#[test]
fn many_clients_are_listed_to_many_who_ask_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = served(&folder, "*");
    let clients: Vec<Client> = (0..50).map(|_| Client::connect(server.client)).collect();
    std::thread::scope(|scope| {
        let answers: Vec<_> = (0..40)
            .map(|number| {
                let one = [FourLetterWord::Stat, FourLetterWord::Cons][number % 2];
                scope.spawn(move || (one, word(server.client, one)))
            })
            .collect();
        for answer in answers {
            let (one, answer) = answer.join().unwrap();
            let listed = answer.lines().filter(|line| line.starts_with(" /127.0.0.1:")).count();
            assert!(listed == 50 || answer.contains("too many lists"), "{answer}");
            assert!(one != FourLetterWord::Stat || answer.contains("Mode: standalone\n"));
        }
    });
    drop(clients);
}
