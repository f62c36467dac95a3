//! From a real ZooKeeper server's files to an ensemble.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::clients::{self, run, skip};
use e2e::running::{Running, programs};
use e2e::zookeeper::ZooKeeper;
use rustix::process::Signal;
use tests::cluster::Kind;

#[test]
fn ensemble_goes_on_with_what_a_zookeeper_server_left() -> Result<()> {
    let java = clients::zookeeper_server(&["-Dzookeeper.snapCount=100"]);
    let (Some(java), Some(_)) = (java, clients::python("kazoo")) else {
        skip("import from ZooKeeper", "no Java, no kazoo, or Maven could not fetch ZooKeeper");
        return Ok(());
    };
    let mut running = Running::start(3, 0, &[])?;
    let home = running.dir().join("zookeeper");
    fs::create_dir_all(&home)?;
    let listing = home.join("listing.json");
    let kazoo = |action: &str, server: &str| -> Result<String> {
        let mut python = clients::python("kazoo").context("kazoo was here")?;
        let script = format!("{}/clients/kazoo_import.py", env!("CARGO_MANIFEST_DIR"));
        python.arg(script).arg(action).arg(server).arg(&listing);
        run(python, "")
    };
    let zookeeper = ZooKeeper::start(java, &home, "")?;
    kazoo("fill", zookeeper.address())?;
    // As by kill -9.
    drop(zookeeper);

    let members: Vec<_> =
        running.cluster.of_kind(Kind::Coordinator).map(|node| node.name.clone()).collect();
    let mut reports = Vec::new();
    for name in &members {
        running.signal(name, Signal::KILL)?;
    }
    for name in &members {
        fs::remove_dir_all(running.dir().join(name).join("data"))?;
        let mut import = Command::new(programs()?.join("coordinator"));
        import.arg("--config").arg(running.dir().join(name).join("settings.toml"));
        import.args(["import-zookeeper", "-o", "json", "--from"]).arg(home.join("data"));
        reports.push(serde_json::from_str::<serde_json::Value>(&run(import, "")?)?);
    }
    for report in &reports {
        ensure!(report["snapshot"].is_string(), "no snapshot was taken: {report}");
        ensure!(report["transactions"].as_u64() > Some(0), "no log was read: {report}");
        ensure!(report["checksum"] == reports[0]["checksum"], "members differ: {report}");
        ensure!(report["znodes"] == reports[0]["znodes"], "members differ: {report}");
        ensure!(report["ephemerals_ended"] == 1, "one ephemeral was alive: {report}");
    }
    for name in &members {
        running.cluster.start(name)?;
    }
    for name in &members {
        running.cluster.wait_ready(name)?;
    }
    for node in running.cluster.of_kind(Kind::Coordinator).take(1) {
        print!("{}", kazoo("compare", &node.address())?);
    }
    Ok(())
}
