//! The audit log of a whole server.

use coordinator::config::{Config, Values};
use coordinator::embedded::Embedded;
use coordinator_protocol::{CreateMode, ErrorCode, Request};

use crate::client::Client;
use crate::create;

#[test]
fn changes_are_in_the_file_and_it_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let start = || {
        let mut values = Values::default();
        values.set("dataDir", &data.display().to_string());
        values.set("clientPort", "0");
        values.set("audit.enable", "true");
        Embedded::start_with(Config::from_values(&values).unwrap()).unwrap()
    };
    let server = start();
    let mut client = Client::connect(server.client_address());
    assert_eq!(client.ask(&create("/a", CreateMode::Ephemeral)).0, ErrorCode::Ok);
    assert_eq!(client.ask(&create("/a", CreateMode::Persistent)).0, ErrorCode::NodeExists);
    let session = format!("session={:#x}", client.session().get());
    assert_eq!(client.ask(&Request::CloseSession).0, ErrorCode::Ok);
    server.stop().unwrap();
    start().stop().unwrap();
    let text = std::fs::read_to_string(data.join("audit.log")).unwrap();
    let found: Vec<&str> =
        text.lines().map(|line| line.split_once("Logger: ").unwrap().1).collect();
    let who = format!("{session}\tuser=127.0.0.1\tip=127.0.0.1");
    let gone = "operation=ephemeralZNodeDeletionOnSessionCloseOrExpire";
    let expected = [
        "user=coordinator\toperation=serverStart\tresult=success".to_owned(),
        format!("{who}\toperation=create\tznode=/a\tznode_type=ephemeral\tresult=success"),
        format!("{who}\toperation=create\tznode=/a\tznode_type=persistent\tresult=failure"),
        format!("{session}\t{gone}\tznode=/a\tresult=success"),
        "user=coordinator\toperation=serverStop\tresult=invoked".to_owned(),
        "user=coordinator\toperation=serverStart\tresult=success".to_owned(),
        "user=coordinator\toperation=serverStop\tresult=invoked".to_owned(),
    ];
    assert_eq!(found, expected);
}
