//! Finds the clients of other people that the tests run: kcat, Python packages, kafkajs,
//! Java tools.
//!
//! Called by: the end-to-end tests. `scripts/test` installs what it can below `TIDEGATE_CLIENTS`
//! (default `target/clients`). What is missing is skipped with a line that says why.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

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
/// When it cannot be started or fails; its output is in the error.
pub fn run(mut command: Command, input: &str) -> Result<String> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let mut pipe = child.stdin.take().context("no standard input")?;
    let written = pipe.write_all(input.as_bytes());
    drop(pipe);
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown} failed ({}):\n{text}{errors}", output.status);
    written.with_context(|| format!("{shown} did not read its input:\n{errors}"))?;
    Ok(text)
}
