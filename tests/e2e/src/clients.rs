//! Finds the clients of other people that the tests run: kcat, Python packages, kafkajs,
//! Java tools.
//!
//! Called by: the end-to-end tests. `scripts/test` installs what it can below `TIDEGATE_CLIENTS`
//! (default `target/clients`). What is missing is skipped with a line that says why.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ::tests::cluster::HANG_GUARD;
use anyhow::{Context, Result, bail, ensure};

/// A client that runs for so long hangs: those that wait for something give up earlier by themselves.
const RUN_GUARD: Duration = HANG_GUARD.saturating_mul(5);

/// Main classes of the Java tools, by the usual name without `kafka-` and `.sh`.
const JAVA_TOOLS: [(&str, &str); 5] = [
    ("topics", "org.apache.kafka.tools.TopicCommand"),
    ("console-producer", "kafka.tools.ConsoleProducer"),
    ("console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("consumer-groups", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("dump-log", "kafka.tools.DumpLogSegments"),
];

/// Where `scripts/clients` installs: `TIDEGATE_CLIENTS`, or `target/clients`.
pub fn folder() -> PathBuf {
    std::env::var_os("TIDEGATE_CLIENTS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/clients"),
        PathBuf::from,
    )
}

/// Says that something was not tested, and why, on a line of its own.
pub fn skip(what: &str, why: &str) {
    // Past the test runner's capture: a skip has to be seen in a passing run too.
    let _ = writeln!(std::io::stderr(), "SKIP {what}: {why}");
}

/// kcat, if the machine has it.
pub fn kcat() -> Option<Command> {
    let found = Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.ok().filter(std::process::ExitStatus::success).map(|_| Command::new("kcat"))
}

/// Python below the clients' folder, with whatever is installed there.
pub fn python_program() -> PathBuf {
    folder().join("venv/bin/python")
}

/// Python with `package`, if installed below the clients' folder.
pub fn python(package: &str) -> Option<Command> {
    let program = python_program();
    let check = format!("import {package}");
    let found = Command::new(&program).args(["-c", &check]).stderr(Stdio::null()).status();
    found.ok().filter(std::process::ExitStatus::success).map(|_| Command::new(program))
}

/// Node with `package`, if installed below the clients' folder.
pub fn node(package: &str) -> Option<Command> {
    let modules = folder().join("node/node_modules");
    modules.join(package).exists().then(|| {
        let mut command = Command::new("node");
        command.env("NODE_PATH", modules);
        command
    })
}

/// One of Kafka's Java tools, if Java and its jars are there.
pub fn kafka_tool(name: &str) -> Option<Command> {
    kafka_tool_of("kafka", name, &[])
}

/// The same of the jars in a folder of that name (`kafka` is 3.9, `kafka4` is 4), with options of Java.
pub fn kafka_tool_of(jars: &str, name: &str, properties: &[&str]) -> Option<Command> {
    let class = JAVA_TOOLS.iter().find(|(tool, _)| *tool == name)?.1;
    java_with(jars, properties, class)
}

/// zkCli, if Java and its jars are there.
pub fn zookeeper_cli() -> Option<Command> {
    java("zookeeper", "org.apache.zookeeper.ZooKeeperMain")
}

/// zkCli with Java's `properties`, likewise.
pub fn zookeeper_cli_with(properties: &[&str]) -> Option<Command> {
    java_with("zookeeper", properties, "org.apache.zookeeper.ZooKeeperMain")
}

/// A ZooKeeper server with Java's `properties`, if Java and its jars are there; wants its settings' file.
pub fn zookeeper_server(properties: &[&str]) -> Option<Command> {
    java_with("zookeeper", properties, "org.apache.zookeeper.server.ZooKeeperServerMain")
}

fn java(jars: &str, class: &str) -> Option<Command> {
    java_with(jars, &[], class)
}

fn java_with(jars: &str, properties: &[&str], class: &str) -> Option<Command> {
    let jars = folder().join(jars);
    if !jars.join(".complete").exists() {
        return None;
    }
    let mut command = Command::new("java");
    let logging = folder().join("log4j.properties");
    let logback = folder().join("logback.xml");
    command.arg(format!("-Dlog4j.configuration=file:{}", logging.display()));
    command.arg(format!("-Dlogback.configurationFile={}", logback.display()));
    command.args(properties);
    command.args(["-Xmx256M", "-cp"]).arg(format!("{}/*", jars.display())).arg(class);
    Some(command)
}

/// Runs a client to its end with `input` on its standard input and gives what it printed.
///
/// # Errors
/// When it cannot be started, fails or hangs; its output is in the error.
pub fn run(mut command: Command, input: &str) -> Result<String> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let mut pipe = child.stdin.take().context("no standard input")?;
    let input = input.as_bytes().to_vec();
    let (tell, written) = mpsc::channel();
    // It ends with the process, which may never read.
    std::thread::spawn(move || tell.send(pipe.write_all(&input)));
    let output = wait(child).with_context(|| format!("{shown} does not end"))?;
    let written = written.recv_timeout(HANG_GUARD)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown} failed ({}):\n{text}{errors}", output.status);
    written.with_context(|| format!("{shown} did not read its input:\n{errors}"))?;
    Ok(text)
}

/// Waits for the end of a client and gives what it printed to pipes; kills it when it hangs.
///
/// # Errors
/// When it hangs; what it has printed is in the error.
pub fn wait(child: Child) -> Result<Output> {
    wait_at_most(RUN_GUARD, child)
}

fn wait_at_most(limit: Duration, mut child: Child) -> Result<Output> {
    let (stdout, stderr) = (gather(child.stdout.take()), gather(child.stderr.take()));
    let ended = poll(limit, &mut child)?;
    if ended.is_none() {
        child.kill()?;
        child.wait()?;
    }
    // Who inherited a pipe may keep it open.
    let (stdout, stderr) = (stdout.recv_timeout(HANG_GUARD), stderr.recv_timeout(HANG_GUARD));
    let Some(status) = ended else {
        let (stdout, stderr) = (stdout.unwrap_or_default(), stderr.unwrap_or_default());
        let (text, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        bail!("killed after {limit:?}; it had printed:\n{text}{errors}");
    };
    let no_end = "it has ended and its output has not";
    Ok(Output { status, stdout: stdout.context(no_end)?, stderr: stderr.context(no_end)? })
}

/// How it ended, if it did in time.
fn poll(limit: Duration, child: &mut Child) -> Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        let ended = child.try_wait()?;
        if ended.is_some() || begun.elapsed() > limit {
            return Ok(ended);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All that comes out of a pipe, once it ends; nothing if there is none.
fn gather(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (tell, all) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is of use too.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        tell.send(bytes)
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_that_hangs_is_killed_and_its_words_are_told() {
        let mut client = Command::new("sh");
        client.args(["-c", "echo said; echo complained >&2; exec sleep 1000"]);
        let client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let error = wait_at_most(Duration::from_secs(2), client).unwrap_err().to_string();
        assert!(error.contains("said\ncomplained\n"), "{error}");
    }

    #[test]
    fn client_may_answer_more_than_a_pipe_holds_before_it_has_read_all() {
        let input = "line\n".repeat(200_000);
        assert_eq!(run(Command::new("cat"), &input).unwrap(), input);
    }
}
