//! `tidegate consume`: prints records as they arrive.
//!
//! *Called by* `main`. *Calls* `client::Consumer`.
//!
//! With `--exit-at-end` the end of each partition is looked up once, at the start: records that are written meanwhile do
//! not keep the command running. A group remembers what was printed, no more and no less.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::protocol::records::RecordRef;
use client::protocol::{ErrorCode, Offset, PartitionId};
use client::{
    Admin, Begin, ClientError, Consumer, ConsumerOptions, Fetched, Isolation, OffsetAt,
    RebalanceListener, Reset, TopicPartition,
};
use serde_json::{Value, json};

use crate::args::{ConsumeArguments, Format, FromArgument};
use crate::patience::{Patience, TELL_AFTER, tell_if_late};
use crate::settings::Settings;

/// How often a group is told what was printed.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How long a topic may take to come up that was just made: brokers hear of it one after the other.
const TOPIC_PATIENCE: Duration = Duration::from_secs(2);
/// How often an idle consumer looks whether the end is reached.
const LOOK_EVERY: Duration = Duration::from_millis(100);

type Offsets = BTreeMap<TopicPartition, Offset>;

/// Where the group would go on, as of what was printed; commits it when partitions go to others.
#[derive(Clone, Default)]
struct Printed {
    next: Arc<Mutex<Offsets>>,
    /// Whether to say what the group gives and takes.
    is_verbose: bool,
}

impl Printed {
    fn note(&self, partition: &TopicPartition, next: Offset) {
        let mut offsets = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        offsets.insert(partition.clone(), next);
    }

    /// These were not committed: the next commit says them, unless more was printed by now.
    fn put_back(&self, taken: Vec<(TopicPartition, Offset)>) {
        let mut offsets = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, next) in taken {
            offsets.entry(partition).or_insert(next);
        }
    }

    fn take(&self, is_meant: impl Fn(&TopicPartition) -> bool) -> Vec<(TopicPartition, Offset)> {
        let mut offsets = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, left) = std::mem::take(&mut *offsets)
            .into_iter()
            .partition(|(partition, _)| is_meant(partition));
        *offsets = left;
        let taken: Offsets = taken;
        taken.into_iter().collect()
    }

    fn tell(&self, what: &str, partitions: &[TopicPartition]) {
        if self.is_verbose {
            let named = |partition: &TopicPartition| {
                format!(" {}/{}", partition.topic, partition.partition)
            };
            let names: String = partitions.iter().map(named).collect();
            eprintln!("{what}:{names}");
        }
    }
}

impl RebalanceListener for Printed {
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        self.tell("assigned", partitions);
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, Offset)> {
        self.tell("revoked", partitions);
        self.take(|partition| partitions.contains(partition))
    }

    fn lost(&mut self, partitions: &[TopicPartition]) {
        self.tell("lost", partitions);
        self.take(|partition| partitions.contains(partition));
    }
}

/// Prints records until the end, the count, or an interrupt.
pub async fn run(
    settings: &Settings,
    arguments: &ConsumeArguments,
    format: Format,
) -> anyhow::Result<()> {
    let found = tell_if_late("the topic has been looked up", find(settings, arguments)).await;
    let (partitions, ends) = found?;
    let mut consumer = Consumer::new(&settings.bootstrap, &settings.client(), options(arguments));
    let printed = Printed { is_verbose: arguments.verbose, ..Printed::default() };
    if arguments.group.is_some() {
        consumer.subscribe_with(&[&arguments.topic], printed.clone())?;
    } else {
        let begin = match arguments.begin() {
            FromArgument::Beginning => Begin::Earliest,
            FromArgument::End => Begin::Latest,
            FromArgument::Offset(offset) => Begin::At(Offset::new(offset)),
            FromArgument::Time(time) => Begin::Timestamp(time),
        };
        partitions.iter().try_for_each(|partition| consumer.assign(partition, begin))?;
    }
    let result = print_all(&mut consumer, ends.as_ref(), &printed, (arguments, format)).await;
    let offsets = printed.take(|_| true);
    let committed = match arguments.group.is_some() && !offsets.is_empty() {
        true => consumer.commit_offsets(offsets).await,
        false => Ok(()),
    };
    // Also after a commit that failed: a member that goes without a word keeps its share until the group gives it up.
    consumer.close().await?;
    committed?;
    result
}

/// The partitions to read, and where each ends, if that matters.
async fn find(
    settings: &Settings,
    arguments: &ConsumeArguments,
) -> anyhow::Result<(Vec<TopicPartition>, Option<Offsets>)> {
    let mut admin = Admin::new(settings.cluster().await?);
    let partitions = partitions(&mut admin, arguments).await?;
    if !arguments.exit_at_end {
        return Ok((partitions, None));
    }
    let ends = admin.offsets(&partitions, OffsetAt::Latest).await?;
    let ends = ends.into_iter().map(|(p, end)| (p, end.unwrap_or(Offset::ZERO)));
    Ok((partitions, Some(ends.collect())))
}

fn options(arguments: &ConsumeArguments) -> ConsumerOptions {
    let defaults = ConsumerOptions::default();
    let session_timeout = Duration::from_millis(arguments.session_timeout_ms.into());
    ConsumerOptions {
        group_id: arguments.group.clone(),
        instance_id: arguments.instance_id.clone(),
        session_timeout,
        // Two may be late before the group gives the member up.
        heartbeat: defaults.heartbeat.min(session_timeout / 3),
        // What was printed is committed, not what was read.
        auto_commit: None,
        reset: match (arguments.begin(), &arguments.group) {
            (FromArgument::Beginning, _) => Reset::Earliest,
            (FromArgument::Offset(_), None) => Reset::Error,
            _ => Reset::Latest,
        },
        isolation: if arguments.committed_only {
            Isolation::ReadCommitted
        } else {
            Isolation::ReadUncommitted
        },
        ..defaults
    }
}

async fn print_all(
    consumer: &mut Consumer,
    ends: Option<&Offsets>,
    printed: &Printed,
    (arguments, format): (&ConsumeArguments, Format),
) -> anyhow::Result<()> {
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let mut committed_at = Instant::now();
    let mut patience = Patience::default();
    // Whoever stops us that way wants the group to know at once, too.
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    while left > 0 && !is_at_end(consumer, ends) {
        // A dropped poll loses nothing.
        let fetched = tokio::select! {
            fetched = tokio::time::timeout(LOOK_EVERY, consumer.poll()) => match fetched {
                Ok(fetched) => fetched?,
                Err(_) => {
                    patience.tell(&consumer.obstacles(TELL_AFTER));
                    // What was printed last is committed also when nothing comes after it.
                    Vec::new()
                }
            },
            _ = tokio::signal::ctrl_c() => break,
            _ = terminated.recv() => break,
        };
        for fetched in &fetched {
            let end = ends.and_then(|ends| ends.get(&fetched.partition)).copied();
            let next = print(fetched, end, &mut left, (arguments, format))?;
            printed.note(&fetched.partition, next);
        }
        if arguments.group.is_some() && committed_at.elapsed() >= COMMIT_EVERY {
            committed_at = Instant::now();
            let offsets = printed.take(|_| true);
            if let Err(error) = consumer.commit_offsets(offsets.clone()).await {
                eprintln!("offsets not committed: {error}");
                printed.put_back(offsets);
            }
        }
    }
    Ok(())
}

/// Whether everything that this consumer reads was read to its end.
fn is_at_end(consumer: &Consumer, ends: Option<&Offsets>) -> bool {
    let Some(ends) = ends else { return false };
    let assignment = consumer.assignment();
    let is_done = |partition: &TopicPartition| {
        let end = ends.get(partition).copied().unwrap_or(Offset::ZERO);
        consumer.position(partition).is_some_and(|position| position >= end)
    };
    // A group's member that has no share has nothing to read.
    let is_settled = !assignment.is_empty() || consumer.has_share();
    is_settled && assignment.iter().all(is_done)
}

async fn partitions(
    admin: &mut Admin,
    arguments: &ConsumeArguments,
) -> anyhow::Result<Vec<TopicPartition>> {
    let began = Instant::now();
    let topic = loop {
        let described = admin.describe_topic(&arguments.topic).await;
        let is_unknown = |error: &ClientError| {
            error.code() == Some(ErrorCode::UnknownTopicOrPartition)
                && began.elapsed() < TOPIC_PATIENCE
        };
        match described {
            Err(error) if is_unknown(&error) => tokio::time::sleep(LOOK_EVERY).await,
            described => break described?,
        }
    };
    let name: Arc<str> = arguments.topic.as_str().into();
    let all = topic.partitions.iter().map(|partition| partition.id);
    let named = |partition| TopicPartition { topic: name.clone(), partition };
    match arguments.partition.map(PartitionId::new) {
        None => Ok(all.map(named).collect()),
        Some(partition) if all.into_iter().any(|known| known == partition) => {
            Ok(vec![named(partition)])
        }
        Some(partition) => Err(ClientError::NoSuchPartition {
            topic: arguments.topic.clone(),
            partition: partition.get(),
        }
        .into()),
    }
}

/// Prints the records before `end`, at most `left`. Gives the offset after them.
fn print(
    fetched: &Fetched,
    end: Option<Offset>,
    left: &mut u64,
    (arguments, format): (&ConsumeArguments, Format),
) -> io::Result<Offset> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    let mut next = fetched.next.offset;
    for record in fetched.records() {
        if *left == 0 || end.is_some_and(|end| record.offset >= end) {
            next = record.offset;
            break;
        }
        *left = left.saturating_sub(1);
        match (format, &arguments.format) {
            (Format::Json, _) => writeln!(output, "{}", json(&fetched.partition, &record))?,
            (Format::Table, Some(format)) => {
                print_formatted(&mut output, format, &fetched.partition, &record)?;
            }
            (Format::Table, None) => print_line(&mut output, &record, arguments)?,
        }
    }
    output.flush()?;
    Ok(next)
}

fn print_line(
    output: &mut impl Write,
    record: &RecordRef<'_>,
    arguments: &ConsumeArguments,
) -> io::Result<()> {
    if let Some(separator) = &arguments.key_separator {
        output.write_all(record.key.unwrap_or_default())?;
        output.write_all(separator.as_bytes())?;
    }
    output.write_all(record.value.unwrap_or_default())?;
    output.write_all(b"\n")
}

fn print_formatted(
    output: &mut impl Write,
    format: &str,
    partition: &TopicPartition,
    record: &RecordRef<'_>,
) -> io::Result<()> {
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        match (char, char == '%' || char == '\\') {
            (_, false) => write!(output, "{char}")?,
            ('%', _) => match chars.next() {
                Some('t') => write!(output, "{}", partition.topic)?,
                Some('p') => write!(output, "{}", partition.partition)?,
                Some('o') => write!(output, "{}", record.offset)?,
                Some('T') => write!(output, "{}", record.timestamp_ms)?,
                Some('k') => output.write_all(record.key.unwrap_or_default())?,
                Some('v') => output.write_all(record.value.unwrap_or_default())?,
                Some('h') => print_headers(output, record)?,
                Some('%') => write!(output, "%")?,
                Some(other) => write!(output, "%{other}")?,
                None => write!(output, "%")?,
            },
            _ => match chars.next() {
                Some('n') => writeln!(output)?,
                Some('t') => write!(output, "\t")?,
                Some('\\') | None => write!(output, "\\")?,
                Some(other) => write!(output, "\\{other}")?,
            },
        }
    }
    Ok(())
}

fn print_headers(output: &mut impl Write, record: &RecordRef<'_>) -> io::Result<()> {
    for (index, (key, value)) in record.headers().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(output, "{comma}{key}=")?;
        output.write_all(value.unwrap_or_default())?;
    }
    Ok(())
}

fn json(partition: &TopicPartition, record: &RecordRef<'_>) -> Value {
    let headers =
        record.headers().map(|(key, value)| json!({ "key": key, "value": bytes_json(value) }));
    json!({
        "topic": &*partition.topic,
        "partition": partition.partition.get(),
        "offset": record.offset.get(),
        "timestamp": record.timestamp_ms,
        "key": bytes_json(record.key),
        "value": bytes_json(record.value),
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
    fn what_is_put_back_is_taken_again_unless_more_was_printed() {
        let printed = Printed::default();
        let [old, new] = [0, 1].map(|partition| TopicPartition::new("t", partition));
        printed.note(&old, Offset::new(5));
        printed.note(&new, Offset::new(6));
        let taken = printed.take(|_| true);
        printed.note(&new, Offset::new(9));
        printed.put_back(taken);
        assert_eq!(printed.take(|_| true), [(old, Offset::new(5)), (new, Offset::new(9))]);
    }

    #[test]
    fn bytes_that_are_no_text_are_printed_in_hex() {
        assert_eq!(bytes_json(Some(b"a")), json!("a"));
        assert_eq!(bytes_json(Some(&[0xff, 0x00])), json!({ "hex": "ff00" }));
        assert_eq!(bytes_json(None), Value::Null);
    }
}
