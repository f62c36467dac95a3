//! `tidegate -o json`: why something was not done is one JSON object on standard output.

use anyhow::{Context, Result, ensure};
use e2e::running::{Running, tidegate};
use serde_json::Value;

/// What a command that fails says; it has to be one object on one line.
fn refused(bootstrap: &str, coordinators: &str, arguments: &[&str]) -> Result<Value> {
    let output =
        tidegate(bootstrap, coordinators)?.args(arguments).args(["-o", "json"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(1), "{arguments:?} ended with {}: {text}", output.status);
    ensure!(text.lines().count() == 1, "{arguments:?}: {text}");
    let told: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let error = told["error"].as_str().with_context(|| format!("no error in {text}"))?;
    ensure!(told.get("hint").is_some(), "{text}");
    let also = String::from_utf8(output.stderr)?;
    ensure!(also.contains(error), "{also} has it in words, too: {error}");
    Ok(told)
}

#[test]
fn what_is_not_done_is_told_as_one_object() -> Result<()> {
    let settings = [("offsets.topic.replication.factor", "1")];
    let running = Running::start(1, 1, &settings)?;
    let (bootstrap, coordinators) = (running.bootstrap(), running.coordinators());
    for arguments in [
        &["topic", "describe", "nowhere"][..],
        &["topic", "delete", "nowhere"],
        &["topic", "create", "a/b"],
        &["group", "delete", "nobody"],
        &["coordinator", "add", "4", "--peer", "nowhere", "--client", "d:1"],
    ] {
        refused(&bootstrap, &coordinators, arguments)?;
    }
    // Nobody is at that port: what is known nevertheless stands in the same object.
    let told = refused(&bootstrap, "127.0.0.1:1", &["coordinator", "list"])?;
    ensure!(told["failures"][0]["address"] == "127.0.0.1:1", "{told}");
    ensure!(told["hint"].is_string(), "{told}");
    let told = refused(&bootstrap, "127.0.0.1:1", &["cluster", "status"])?;
    ensure!(told["brokers"].as_array().is_some_and(|all| all.len() == 1), "{told}");
    Ok(())
}
