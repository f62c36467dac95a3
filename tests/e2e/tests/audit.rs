//! What kazoo does, and is not let do, in the audit log.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::clients::{self, run, skip};
use e2e::running::programs;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn audit_log_tells_of_kazoos_changes_and_denials() -> Result<()> {
    let Some(mut kazoo) = clients::python("kazoo") else {
        skip("kazoo", "not installed for Python");
        return Ok(());
    };
    let home = std::env::temp_dir().join(format!("tidegate-audit-{}", std::process::id()));
    let mut command = Command::new(programs()?.join("coordinator"));
    command.args(["--set", "clientPort=0", "--set", "audit.enable=true", "--set"]);
    command.arg(format!("dataDir={}", home.display()));
    let mut server = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut line = String::new();
    BufReader::new(server.stdout.take().context("no standard output")?).read_line(&mut line)?;
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("client="));
    let address = address.with_context(|| format!("it said {line:?}"))?;
    kazoo.arg(format!("{}/clients/kazoo_audit.py", env!("CARGO_MANIFEST_DIR"))).arg(address);
    let outcome = run(kazoo, "");
    kill_process(Pid::from_child(&server), Signal::TERM)?;
    ensure!(server.wait()?.success(), "it did not stop well");
    let text = fs::read_to_string(home.join("audit.log"))?;
    fs::remove_dir_all(&home)?;
    outcome?;
    let told = |line: &str| {
        let skipped = |pair: &&str| !pair.starts_with("session=") && !pair.starts_with("ip=");
        let pairs = line.split_once("Logger: ").map_or("", |(_, pairs)| pairs);
        pairs.split('\t').filter(skipped).collect::<Vec<_>>().join(" ")
    };
    let bob = "user=127.0.0.1,bob operation=";
    let eve = "user=127.0.0.1 operation=";
    let expected = [
        "user=coordinator operation=serverStart result=success".to_owned(),
        format!("{bob}create znode=/mine znode_type=persistent result=success"),
        format!("{bob}create znode=/here znode_type=ephemeral result=success"),
        format!(
            "{bob}create znode=/list-0000000002 znode_type=persistent_sequential result=success"
        ),
        format!("{bob}setAcl znode=/mine acl=digest:bob:cdrwa result=success"),
        format!("{bob}create znode=/short znode_type=persistent result=success"),
        format!("{bob}delete znode=/short result=success"),
        format!("{bob}multiOperation result=failure"),
        format!("{eve}getData znode=/mine result=failure"),
        format!("{eve}setData znode=/mine result=failure"),
        "operation=ephemeralZNodeDeletionOnSessionCloseOrExpire znode=/here result=success"
            .to_owned(),
        "user=coordinator operation=serverStop result=invoked".to_owned(),
    ];
    let found: Vec<String> = text.lines().map(told).collect();
    ensure!(found == expected, "{found:#?}");
    Ok(())
}
