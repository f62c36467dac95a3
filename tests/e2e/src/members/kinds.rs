//! Every client that joins groups: how it is started as a member, and how it says what it was given and read.
//!
//! Called by: `members`. What a client cannot do is said here, with the reason.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Event;
use crate::{clients, running};

/// How a group shares out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// All give back everything in a rebalance.
    Eager,
    /// What does not move stays.
    Cooperative,
}

/// What a member is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct Joining<'a> {
    /// Addresses of the brokers.
    pub bootstrap: &'a str,
    /// Addresses of the coordinators, for the native client.
    pub coordinators: &'a str,
    /// The group.
    pub group: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// How long the group waits for it when it is silent.
    pub session_ms: u32,
    /// The name of a static member.
    pub instance: Option<&'a str>,
    /// How to share out.
    pub strategy: Strategy,
}

/// One kind of client.
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// A word for it in the names of groups.
    pub short: &'static str,
    /// How its dynamic members share out.
    pub strategy: Strategy,
    /// How its static members do.
    pub static_strategy: Strategy,
    /// Why it has no static members, if so.
    pub no_static: Option<&'static str>,
    /// Why it does not rebalance cooperatively, if so.
    pub no_cooperative: Option<&'static str>,
    /// Why a record that a stopped member committed may never have been printed, if so.
    pub may_swallow: Option<&'static str>,
    /// Why a member that is told to stop may never do so, if so.
    pub may_hang: Option<&'static str>,
    /// Whether it tells of its share on standard error.
    pub(super) is_told_on_stderr: bool,
    /// Understands a line of its output.
    pub(super) parse: fn(&str) -> Option<Event>,
    start: Start,
}

#[derive(Clone, Copy)]
enum Start {
    /// A script below `clients/members` with the Python package that it needs.
    Python(&'static str, &'static str),
    /// Likewise with a package of Node.
    Node(&'static str, &'static str),
    Kcat,
    Java(Java),
    Native,
}

#[derive(Clone, Copy)]
enum Java {
    V3,
    V4,
}

/// All of them. Where a library has both ways of sharing out, both are tried, if only with static members.
pub const KINDS: [Kind; 9] = [
    Kind {
        name: "confluent-kafka",
        short: "confluent",
        start: Start::Python("confluent_kafka", "confluent_member.py"),
        ..SCRIPT
    },
    Kind {
        name: "confluent-kafka (range)",
        short: "confluent-range",
        strategy: Strategy::Eager,
        no_cooperative: Some("the line above is the same client with its cooperative assignor"),
        start: Start::Python("confluent_kafka", "confluent_member.py"),
        ..SCRIPT
    },
    Kind {
        name: "kafka-python",
        short: "kafka-python",
        start: Start::Python("kafka", "kafka_python_member.py"),
        ..SCRIPT
    },
    Kind {
        name: "aiokafka",
        short: "aiokafka",
        strategy: Strategy::Eager,
        no_cooperative: Some("has no cooperative assignor"),
        start: Start::Python("aiokafka", "aiokafka_member.py"),
        ..SCRIPT
    },
    Kind {
        name: "kafkajs",
        short: "kafkajs",
        strategy: Strategy::Eager,
        no_static: Some("has no setting for an instance's id"),
        no_cooperative: Some("its protocol is eager: a rebalance ends every member's share"),
        // Its runner stops its fetchers while they are being made anew, because a broker came or went: the new ones
        // find the runner stopped and ask it again without ever waiting, so that nothing else of the process runs.
        may_hang: Some("fetchers made while it stops go round for ever (kafkajs 2.2.4)"),
        start: Start::Node("kafkajs", "kafkajs_member.js"),
        ..SCRIPT
    },
    Kind {
        name: "kcat -G",
        short: "kcat",
        strategy: Strategy::Eager,
        no_cooperative: Some("left to confluent-kafka, which is the same library"),
        may_swallow: Some(
            "prints nothing after a signal, but commits the record that it has in hand",
        ),
        is_told_on_stderr: true,
        parse: kcat_event,
        start: Start::Kcat,
        ..SCRIPT
    },
    Kind {
        name: "Java 3.9 console consumer",
        short: "java3",
        parse: java_event,
        start: Start::Java(Java::V3),
        ..SCRIPT
    },
    Kind {
        name: "Java 4 console consumer",
        short: "java4",
        strategy: Strategy::Eager,
        no_cooperative: Some("left to 3.9's: the same protocol, here with the default assignors"),
        parse: java_event,
        start: Start::Java(Java::V4),
        ..SCRIPT
    },
    Kind {
        name: "tidegate consume",
        short: "native",
        static_strategy: Strategy::Cooperative,
        is_told_on_stderr: true,
        parse: native_event,
        start: Start::Native,
        ..SCRIPT
    },
];

/// What most have in common.
const SCRIPT: Kind = Kind {
    name: "",
    short: "",
    strategy: Strategy::Cooperative,
    static_strategy: Strategy::Eager,
    no_static: None,
    no_cooperative: None,
    may_swallow: None,
    may_hang: None,
    is_told_on_stderr: false,
    parse: script_event,
    start: Start::Native,
};

impl Kind {
    /// Why it cannot be run here, if so.
    pub fn missing(&self) -> Option<&'static str> {
        let (found, reason) = match self.start {
            Start::Python(package, _) => (clients::python(package), "not installed"),
            Start::Node(package, _) => (clients::node(package), "not installed"),
            Start::Kcat => (clients::kcat(), "not installed"),
            Start::Java(Java::V3) => (console_consumer("kafka"), "no Java, or no jars of it"),
            Start::Java(Java::V4) => (console_consumer("kafka4"), "no Java, or no jars of it"),
            Start::Native => return None,
        };
        found.is_none().then_some(reason)
    }

    /// The command that joins; what it says besides of itself may go to `log`.
    pub(super) fn command(
        &self,
        joining: &Joining<'_>,
        (folder, log): (&Path, &Path),
    ) -> Result<Command> {
        match self.start {
            Start::Python(_, script) => {
                Ok(scripted(Command::new(clients::python_program()), script, joining))
            }
            Start::Node(package, script) => {
                Ok(scripted(clients::node(package).context(package)?, script, joining))
            }
            Start::Kcat => Ok(kcat(joining)),
            Start::Java(version) => java(version, joining, (folder, log)),
            Start::Native => native(joining),
        }
    }
}

fn scripted(mut command: Command, script: &str, joining: &Joining<'_>) -> Command {
    let strategy = match joining.strategy {
        Strategy::Eager => "eager",
        Strategy::Cooperative => "cooperative",
    };
    command.arg(format!("{}/clients/members/{script}", env!("CARGO_MANIFEST_DIR")));
    command.args([joining.bootstrap, joining.group, joining.topic]);
    command.args([joining.session_ms.to_string().as_str(), strategy]).args(joining.instance);
    command
}

/// `+ 0 1`, `- 0 1`, `r PARTITION OFFSET`.
fn script_event(line: &str) -> Option<Event> {
    let mut words = line.split_whitespace();
    let what = words.next()?;
    let numbers: Vec<i64> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let partitions = || numbers.iter().filter_map(|at| i32::try_from(*at).ok()).collect();
    match (what, numbers.as_slice()) {
        ("+", _) => Some(Event::Given(partitions())),
        ("-", _) => Some(Event::Gone(partitions())),
        ("r", [partition, offset]) => Some(Event::Read(i32::try_from(*partition).ok()?, *offset)),
        _ => None,
    }
}

fn kcat(joining: &Joining<'_>) -> Command {
    // Whole lines at a time: two writers share the pipe, and a killed process has said all that it did.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "-eL", "kcat", "-b", joining.bootstrap, "-f", "r %p %o\\n"]);
    let mut settings = vec![
        "auto.offset.reset=earliest".to_owned(),
        format!("session.timeout.ms={}", joining.session_ms),
        "heartbeat.interval.ms=500".to_owned(),
        "auto.commit.interval.ms=200".to_owned(),
        "topic.metadata.refresh.interval.ms=1000".to_owned(),
    ];
    settings.extend(joining.instance.map(|id| format!("group.instance.id={id}")));
    settings.iter().for_each(|setting| {
        command.args(["-X", setting]);
    });
    command.args(["-G", joining.group, joining.topic]);
    command
}

/// `% Group g rebalanced (memberid m): assigned: topic [0], topic [1]`, or `revoked:`.
fn kcat_event(line: &str) -> Option<Event> {
    let Some(told) = line.strip_prefix("% Group ") else { return script_event(line) };
    let partitions = |list: &str| {
        let numbers = list.split('[').skip(1).filter_map(|rest| rest.split(']').next());
        numbers.filter_map(|number| number.parse().ok()).collect()
    };
    let (_, told) = told.split_once("): ")?;
    match told.split_once(':')? {
        ("assigned", list) => Some(Event::Given(partitions(list))),
        ("revoked", list) => Some(Event::Gone(partitions(list))),
        _ => None,
    }
}

fn console_consumer(jars: &str) -> Option<Command> {
    clients::kafka_tool_of(jars, "console-consumer", &[])
}

/// The console consumer tells of its share in its log, which goes to its standard output here; all else that it logs goes to
/// a file.
fn java(version: Java, joining: &Joining<'_>, (folder, log): (&Path, &Path)) -> Result<Command> {
    const INVOKER: &str =
        "org.apache.kafka.clients.consumer.internals.ConsumerRebalanceListenerInvoker";
    let log = format!("{}.java", log.display());
    let (jars, property, config, logging) = match version {
        Java::V3 => (
            "kafka",
            "-Dlog4j.configuration=file:",
            ("--consumer-property", "--property"),
            format!(
                "log4j.rootLogger=WARN, file\nlog4j.appender.file=org.apache.log4j.FileAppender\n\
                 log4j.appender.file.File={log}\nlog4j.appender.file.layout=org.apache.log4j.PatternLayout\n\
                 log4j.appender.file.layout.ConversionPattern=%d %p %m%n\n\
                 log4j.logger.{INVOKER}=INFO, out\nlog4j.additivity.{INVOKER}=false\n\
                 log4j.appender.out=org.apache.log4j.ConsoleAppender\nlog4j.appender.out.target=System.out\n\
                 log4j.appender.out.layout=org.apache.log4j.PatternLayout\n\
                 log4j.appender.out.layout.ConversionPattern=%m%n\n"
            ),
        ),
        Java::V4 => (
            "kafka4",
            "-Dlog4j2.configurationFile=",
            ("--command-property", "--formatter-property"),
            format!(
                "rootLogger.level=WARN\nrootLogger.appenderRef.file.ref=file\n\
                 appender.file.type=File\nappender.file.name=file\nappender.file.fileName={log}\n\
                 appender.file.layout.type=PatternLayout\nappender.file.layout.pattern=%d %p %m%n\n\
                 appender.out.type=Console\nappender.out.name=out\nappender.out.target=SYSTEM_OUT\n\
                 appender.out.layout.type=PatternLayout\nappender.out.layout.pattern=%m%n\n\
                 logger.share.name={INVOKER}\nlogger.share.level=INFO\nlogger.share.additivity=false\n\
                 logger.share.appenderRef.out.ref=out\n"
            ),
        ),
    };
    // Each member logs to a file of its own.
    let file = folder.join(format!("{jars}-{}.properties", unique()));
    std::fs::write(&file, logging)?;
    let quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];
    let told = format!("{property}{}", file.display());
    let mut command =
        clients::kafka_tool_of(jars, "console-consumer", &[quick[0], quick[1], &told])
            .context("Java went away")?;
    command.args(["--bootstrap-server", joining.bootstrap, "--topic", joining.topic]);
    command.args(["--group", joining.group]);
    let mut settings = vec![
        "auto.offset.reset=earliest".to_owned(),
        format!("session.timeout.ms={}", joining.session_ms),
        "heartbeat.interval.ms=500".to_owned(),
        "auto.commit.interval.ms=200".to_owned(),
        "metadata.max.age.ms=1000".to_owned(),
    ];
    if joining.strategy == Strategy::Cooperative {
        let name = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
        settings.push(format!("partition.assignment.strategy={name}"));
    }
    settings.extend(joining.instance.map(|id| format!("group.instance.id={id}")));
    for setting in &settings {
        command.args([config.0, setting]);
    }
    for setting in ["print.partition=true", "print.offset=true", "print.value=false"] {
        command.args([config.1, setting]);
    }
    Ok(command)
}

fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// `Partition:0<tab>Offset:5`, and of its log `... Adding newly assigned partitions: t-0, t-1` and the like.
fn java_event(line: &str) -> Option<Event> {
    if let Some(read) = line.strip_prefix("Partition:") {
        let (partition, offset) = read.split_once('\t')?;
        let offset = offset.strip_prefix("Offset:")?.split('\t').next()?;
        return Some(Event::Read(partition.parse().ok()?, offset.trim().parse().ok()?));
    }
    let partitions = |list: &str| {
        let names = list.trim_matches(|c: char| c == '[' || c == ']' || c == ' ').split(", ");
        names.filter_map(|name| name.rsplit_once('-')?.1.parse().ok()).collect()
    };
    let after = |said: &str| line.split_once(said).map(|(_, list)| partitions(list));
    after("Adding newly assigned partitions:")
        .map(Event::Given)
        .or_else(|| after("Revoke previously assigned partitions").map(Event::Gone))
        .or_else(|| after("Lost previously assigned partitions").map(Event::Gone))
}

fn native(joining: &Joining<'_>) -> Result<Command> {
    let mut command = running::tidegate(joining.bootstrap, joining.coordinators)?;
    command.args(["consume", joining.topic, "--group", joining.group, "--from-beginning"]);
    command.args(["--verbose", "--format", "r %p %o\\n"]);
    command.args(["--session-timeout-ms", &joining.session_ms.to_string()]);
    if let Some(id) = joining.instance {
        command.args(["--instance-id", id]);
    }
    Ok(command)
}

/// `assigned: topic/0 topic/1`, `revoked:`, `lost:`.
fn native_event(line: &str) -> Option<Event> {
    let partitions = |list: &str| {
        let names = list.split_whitespace();
        names.filter_map(|name| name.rsplit_once('/')?.1.parse().ok()).collect()
    };
    match line.split_once(':') {
        Some(("assigned", list)) => Some(Event::Given(partitions(list))),
        Some(("revoked" | "lost", list)) => Some(Event::Gone(partitions(list))),
        _ => script_event(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_understood() {
        let check = |parse: fn(&str) -> Option<Event>, line: &str, expected| {
            assert_eq!(parse(line), expected, "{line}");
        };
        check(script_event, "+ 0 2", Some(Event::Given(vec![0, 2])));
        check(script_event, "-", Some(Event::Gone(vec![])));
        check(script_event, "r 1 77", Some(Event::Read(1, 77)));
        check(script_event, "r 1", None);
        check(script_event, "not committed: r 1 1", None);
        let given = "% Group g rebalanced (memberid rdkafka-1): assigned: t [0], t [3]";
        check(kcat_event, given, Some(Event::Given(vec![0, 3])));
        let gone = "% Group g rebalanced (memberid rdkafka-1): revoked: t [3]";
        check(kcat_event, gone, Some(Event::Gone(vec![3])));
        check(kcat_event, "% Reached end of topic t [0] at offset 3", None);
        check(kcat_event, "r 0 3", Some(Event::Read(0, 3)));
        check(java_event, "Partition:2\tOffset:5", Some(Event::Read(2, 5)));
        let given = "[Consumer clientId=c, groupId=g-1] Adding newly assigned partitions: t-0, t-1";
        check(java_event, given, Some(Event::Given(vec![0, 1])));
        let gone = "[Consumer clientId=c, groupId=g] Revoke previously assigned partitions t-1";
        check(java_event, gone, Some(Event::Gone(vec![1])));
        check(java_event, "Processed a total of 5 messages", None);
        check(native_event, "assigned: t/0 t/1", Some(Event::Given(vec![0, 1])));
        check(native_event, "lost: t/0", Some(Event::Gone(vec![0])));
        check(native_event, "r 0 1", Some(Event::Read(0, 1)));
    }
}
