//! Other people's clients, unmodified: each makes a topic, produces and reads back.

use anyhow::{Context, Result, ensure};
use e2e::clients::{self, run, skip};
use e2e::running::Running;

const LINES: usize = 1_000;

fn lines(of: &str) -> String {
    (0..LINES).map(|number| format!("{of} {number}\n")).collect()
}

fn same(client: &str, sent: &str, read: &str) -> Result<()> {
    ensure!(
        sent == read,
        "{client} read {} bytes of {} sent:\n{read:.400}",
        read.len(),
        sent.len()
    );
    println!("{client}: {LINES} records written and read back");
    Ok(())
}

#[test]
fn kcat_writes_and_reads() -> Result<()> {
    let Some(mut produce) = clients::kcat() else {
        skip("kcat", "not installed");
        return Ok(());
    };
    let running = Running::start(1, 3, &[])?;
    let sent = lines("kcat");
    // No topic yet: the first metadata request makes it.
    produce.args(["-P", "-t", "kcat", "-b", &running.bootstrap(), "-X", "acks=all"]);
    run(produce, &sent)?;
    let mut consume = clients::kcat().context("kcat went away")?;
    consume.args(["-C", "-t", "kcat", "-o", "beginning", "-e", "-q", "-b", &running.bootstrap()]);
    same("kcat", &sent, &run(consume, "")?)?;
    let mut list = clients::kcat().context("kcat went away")?;
    list.args(["-L", "-J", "-b", &running.bootstrap()]);
    let listed: serde_json::Value = serde_json::from_str(&run(list, "")?)?;
    ensure!(listed["brokers"].as_array().is_some_and(|all| all.len() == 3), "{listed}");
    Ok(())
}

#[test]
fn confluent_kafka_writes_and_reads() -> Result<()> {
    python("confluent_kafka", "confluent.py")
}

#[test]
fn kafka_python_infers_a_release_and_its_operations_work() -> Result<()> {
    python("kafka", "kafka_python.py")
}

fn python(package: &str, script: &str) -> Result<()> {
    let Some(mut command) = clients::python(package) else {
        skip(package, "not installed for Python");
        return Ok(());
    };
    let running = Running::start(1, 3, &[])?;
    command.arg(format!("{}/clients/{script}", env!("CARGO_MANIFEST_DIR")));
    command.arg(running.bootstrap());
    println!("{}", run(command, "")?);
    Ok(())
}

#[test]
fn java_tools_write_and_read() -> Result<()> {
    let (Some(mut topics), Some(mut produce), Some(mut consume)) = (
        clients::kafka_tool("topics"),
        clients::kafka_tool("console-producer"),
        clients::kafka_tool("console-consumer"),
    ) else {
        skip("Java tools", "no Java, or Maven could not fetch their jars");
        return Ok(());
    };
    let running = Running::start(1, 3, &[])?;
    let bootstrap = running.bootstrap();
    topics.args(["--bootstrap-server", &bootstrap, "--create", "--topic", "java"]);
    topics.args(["--partitions", "1", "--replication-factor", "3"]);
    run(topics, "")?;
    let sent = lines("java");
    produce.args(["--bootstrap-server", &bootstrap, "--topic", "java"]);
    produce.args(["--producer-property", "acks=all"]);
    run(produce, &sent)?;
    consume.args(["--bootstrap-server", &bootstrap, "--topic", "java", "--partition", "0"]);
    consume.args(["--offset", "earliest", "--max-messages", &LINES.to_string()]);
    same("Java console tools", &sent, &run(consume, "")?)
}
