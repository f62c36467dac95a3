//! ZooKeeper's own clients against the ensemble: kazoo's basics and recipes, zkCli.

use anyhow::{Context, Result, ensure};
use e2e::clients::{self, run, skip};
use e2e::running::Running;

#[test]
fn kazoo_basics_and_recipes_work_on_three_servers() -> Result<()> {
    let Some(mut command) = clients::python("kazoo") else {
        skip("kazoo", "not installed for Python");
        return Ok(());
    };
    let running = Running::start(3, 1, &[])?;
    command.arg(format!("{}/clients/kazoo_basics.py", env!("CARGO_MANIFEST_DIR")));
    command.arg(running.coordinators());
    println!("{}", run(command, "")?);
    Ok(())
}

#[test]
fn zkcli_lists_the_brokers() -> Result<()> {
    let Some(mut command) = clients::zookeeper_cli() else {
        skip("zkCli", "no Java, or Maven could not fetch its jars");
        return Ok(());
    };
    let running = Running::start(3, 3, &[])?;
    command.args(["-server", &running.coordinators(), "ls", "/brokers/ids"]);
    let printed = run(command, "")?;
    let listed = printed.lines().find(|line| line.starts_with('[')).context("no list")?;
    ensure!(listed == "[1, 2, 3]", "zkCli printed:\n{printed}");
    Ok(())
}
