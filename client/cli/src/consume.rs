//! `tidegate consume`: prints records as they arrive.
//!
//! *Called by* `main`. *Calls* `client::Consumer`.
//!
//! With `--exit-at-end` the end of each partition is looked up once, at the start: records that are written meanwhile do
//! not keep the command running.

use std::collections::BTreeMap;
use std::io::{self, Write};

use client::protocol::records::Record;
use client::protocol::{Offset, PartitionId};
use client::{Cluster, Consumer, ConsumerOptions, Fetched, Position};
use serde_json::{Value, json};

use crate::args::{ConsumeArguments, Format, FromArgument};
use crate::settings::Settings;

/// Prints records until the end, the count, or an interrupt.
pub async fn run(
    settings: &Settings,
    arguments: &ConsumeArguments,
    format: Format,
) -> anyhow::Result<()> {
    let mut cluster = settings.cluster().await?;
    let partitions = partitions(&mut cluster, arguments).await?;
    let mut consumer = Consumer::new(cluster, ConsumerOptions::default());
    let mut ends = BTreeMap::new();
    for partition in partitions {
        if arguments.exit_at_end {
            ends.insert(partition, consumer.end_offset(&arguments.topic, partition).await?);
        }
        let position = match arguments.from {
            FromArgument::Beginning => Position::Earliest,
            FromArgument::End => Position::Latest,
            FromArgument::Offset(offset) => Position::At(Offset::new(offset)),
            FromArgument::Time(time) => Position::Timestamp(time),
        };
        let begin = consumer.assign(&arguments.topic, partition, position).await?;
        if ends.get(&partition).is_some_and(|end| begin >= *end) {
            consumer.unassign(&arguments.topic, partition);
        }
    }
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 && !consumer.is_idle() {
        // A dropped poll loses nothing, and after an interrupt there is no next one.
        let fetched = tokio::select! {
            fetched = consumer.poll() => fetched?,
            _ = tokio::signal::ctrl_c() => break,
        };
        for fetched in &fetched {
            let end = ends.get(&fetched.partition).copied();
            print(fetched, end, &mut left, (arguments, format))?;
            if end.is_some_and(|end| fetched.position >= end) {
                consumer.unassign(&arguments.topic, fetched.partition);
            }
        }
    }
    Ok(())
}

async fn partitions(
    cluster: &mut Cluster,
    arguments: &ConsumeArguments,
) -> anyhow::Result<Vec<PartitionId>> {
    let topic = cluster.refresh_topic(&arguments.topic).await?;
    let all: Vec<_> = topic.partitions.iter().map(|partition| partition.id).collect();
    match arguments.partition.map(PartitionId::new) {
        None => Ok(all),
        Some(partition) if all.contains(&partition) => Ok(vec![partition]),
        Some(partition) => Err(client::ClientError::NoSuchPartition {
            topic: arguments.topic.clone(),
            partition: partition.get(),
        }
        .into()),
    }
}

/// Prints the records before `end`, at most `left`.
fn print(
    fetched: &Fetched,
    end: Option<Offset>,
    left: &mut u64,
    (arguments, format): (&ConsumeArguments, Format),
) -> io::Result<()> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    for (offset, record) in &fetched.records {
        if *left == 0 || end.is_some_and(|end| *offset >= end) {
            break;
        }
        *left = left.saturating_sub(1);
        match format {
            Format::Table => print_line(&mut output, record, arguments)?,
            Format::Json => {
                let value = json(fetched, *offset, record);
                writeln!(output, "{value}")?;
            }
        }
    }
    output.flush()
}

fn print_line(
    output: &mut impl Write,
    record: &Record,
    arguments: &ConsumeArguments,
) -> io::Result<()> {
    if let Some(separator) = &arguments.key_separator {
        output.write_all(record.key.as_deref().unwrap_or_default())?;
        output.write_all(separator.as_bytes())?;
    }
    output.write_all(record.value.as_deref().unwrap_or_default())?;
    output.write_all(b"\n")
}

fn json(fetched: &Fetched, offset: Offset, record: &Record) -> Value {
    let headers = record
        .headers
        .iter()
        .map(|header| json!({ "key": header.key, "value": bytes_json(header.value.as_deref()) }));
    json!({
        "topic": fetched.topic,
        "partition": fetched.partition.get(),
        "offset": offset.get(),
        "timestamp": record.timestamp_ms,
        "key": bytes_json(record.key.as_deref()),
        "value": bytes_json(record.value.as_deref()),
        "headers": headers.collect::<Vec<_>>(),
    })
}

/// Text as a string, other bytes as `{"hex": ...}`, nothing as null.
fn bytes_json(bytes: Option<&[u8]>) -> Value {
    match bytes.map(std::str::from_utf8) {
        None => Value::Null,
        Some(Ok(text)) => json!(text),
        Some(Err(_)) => {
            let bytes = bytes.unwrap_or_default();
            json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_become_hex() {
        assert_eq!(bytes_json(None), Value::Null);
        assert_eq!(bytes_json(Some(b"text")), json!("text"));
        assert_eq!(bytes_json(Some(&[0xff, 0x00])), json!({ "hex": "ff00" }));
    }
}
