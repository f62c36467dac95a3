//! `tidegate produce`: lines in, records out.
//!
//! *Called by* `main`. *Calls* `client::Producer`.
//!
//! Exit code 0 means that every record was acknowledged as asked. After the first one that was not, no more are sent.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use client::protocol::PartitionId;
use client::protocol::records::{Record, RecordHeader};
use client::{Acks, ClientError, Delivery, Producer, ProducerOptions};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::args::{AcksArgument, Format, ProduceArguments, ProducerArguments};
use crate::output::print_json;
use crate::patience::{tell_if_late, watch};
use crate::settings::Settings;

/// Lines read ahead of the sending.
const LINES_WAITING_MAX: usize = 10_000;
/// Records whose end is not looked at yet.
const DELIVERIES_MAX: usize = 200_000;
/// The longest line, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Default)]
struct Totals {
    written: u64,
    failed: u64,
    first_error: Option<anyhow::Error>,
}

impl Totals {
    fn add(&mut self, outcome: Result<client::Written, ClientError>) {
        match outcome {
            Ok(_) => self.written = self.written.saturating_add(1),
            Err(error) => {
                self.failed = self.failed.saturating_add(1);
                self.first_error.get_or_insert_with(|| error.into());
            }
        }
    }
}

/// What the flags say of a producer.
pub fn options(arguments: &ProducerArguments) -> ProducerOptions {
    ProducerOptions {
        acks: match arguments.acks {
            AcksArgument::All => Acks::All,
            AcksArgument::Leader => Acks::Leader,
            AcksArgument::None => Acks::None,
        },
        compression: arguments.compression.into(),
        linger: Duration::from_millis(arguments.linger_ms),
        batch_bytes_max: arguments.batch_bytes,
        ..ProducerOptions::default()
    }
}

/// Sends all lines.
pub async fn run(
    settings: &Settings,
    arguments: &ProduceArguments,
    format: Format,
) -> anyhow::Result<()> {
    let options = options(&arguments.producer);
    // A cluster that cannot be reached, or has no such topic, is told before any line is read.
    settings.cluster().await?;
    let producer = Producer::new(&settings.bootstrap, &settings.client(), options);
    let looked_up = producer.partitions(&arguments.topic);
    tell_if_late("the topic has been looked up", looked_up).await?;
    let mut totals = Totals::default();
    let refused = tokio::select! {
        refused = send_all(&producer, arguments, &mut totals) => refused,
        never = watch(&producer) => match never {},
    };
    producer.close().await;
    if let Some(error) = refused {
        totals.failed = totals.failed.saturating_add(1);
        totals.first_error.get_or_insert(error);
    }
    report(totals, format)
}

/// Sends line after line, and waits until each has come to its end. Gives why the rest was not taken.
async fn send_all(
    producer: &Producer,
    arguments: &ProduceArguments,
    totals: &mut Totals,
) -> Option<anyhow::Error> {
    let mut lines = read_lines(arguments.file.clone());
    let mut deliveries: VecDeque<Delivery> = VecDeque::new();
    let mut refused = None;
    while totals.failed == 0
        && let Some(line) = lines.recv().await
    {
        let (partition, record) = match line.and_then(|line| record(&line, arguments)) {
            Ok(taken) => taken,
            // What was taken before is delivered all the same.
            Err(error) => {
                refused = Some(error);
                break;
            }
        };
        let sent = match partition.or(arguments.partition) {
            Some(partition) => {
                producer.send_to(&arguments.topic, PartitionId::new(partition), record).await
            }
            None => producer.send(&arguments.topic, record).await,
        };
        match sent {
            Ok(delivery) => deliveries.push_back(delivery),
            Err(error) => {
                refused = Some(anyhow::Error::from(*error.error));
                break;
            }
        }
        while deliveries
            .front()
            .is_some_and(|first| deliveries.len() >= DELIVERIES_MAX || first.outcome().is_some())
        {
            if let Some(first) = deliveries.pop_front() {
                totals.add(first.wait().await);
            }
        }
    }
    producer.flush().await;
    for delivery in deliveries {
        totals.add(delivery.wait().await);
    }
    refused
}

fn report(totals: Totals, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Table => eprintln!("{} records written", totals.written),
        Format::Json => print_json(&json!({ "written": totals.written, "failed": totals.failed }))?,
    }
    match totals.first_error {
        Some(error) => Err(error.context(format!("{} records not written", totals.failed))),
        None => Ok(()),
    }
}

/// The record of a line, and the partition that the line names.
fn record(line: &[u8], arguments: &ProduceArguments) -> anyhow::Result<(Option<i32>, Record)> {
    let (partition, mut record) = if arguments.json {
        json_record(line).with_context(|| {
            format!("in the line {:?}", String::from_utf8_lossy(line.get(..200).unwrap_or(line)))
        })?
    } else {
        (None, plain_record(line, arguments.key_separator.as_deref())?)
    };
    record.headers.extend(arguments.headers.iter().map(|(key, value)| RecordHeader {
        key: key.clone(),
        value: Some(Bytes::from(value.clone())),
    }));
    if let Some(timestamp) = arguments.timestamp {
        record.timestamp_ms = timestamp;
    }
    Ok((partition, record))
}

fn plain_record(line: &[u8], separator: Option<&str>) -> anyhow::Result<Record> {
    let (key, value) = match separator {
        None => (None, line),
        Some(separator) => {
            let (key, value) = split_once(line, separator.as_bytes()).with_context(|| {
                let shown = String::from_utf8_lossy(line);
                format!("no {separator:?} in the line {shown:?}")
            })?;
            (Some(Bytes::copy_from_slice(key)), value)
        }
    };
    Ok(Record { key, value: Some(Bytes::copy_from_slice(value)), ..Record::default() })
}

fn json_record(line: &[u8]) -> anyhow::Result<(Option<i32>, Record)> {
    let document: Value = serde_json::from_slice(line)?;
    let fields = document.as_object().context("expected an object")?;
    let mut record = Record::default();
    let mut partition = None;
    for (name, value) in fields {
        match name.as_str() {
            "key" => record.key = bytes_of(value)?,
            "value" => record.value = bytes_of(value)?,
            "headers" => record.headers = headers_of(value)?,
            "timestamp" => record.timestamp_ms = value.as_i64().context("timestamp")?,
            "partition" => {
                let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
                partition = Some(number.context("partition")?);
            }
            // As consume prints them; they say where the record was, not where it goes.
            "topic" | "offset" => {}
            other => anyhow::bail!("unknown field {other:?}"),
        }
    }
    Ok((partition, record))
}

/// The inverse of what consume prints: text, `{"hex": ...}` or null; other values as their JSON.
fn bytes_of(value: &Value) -> anyhow::Result<Option<Bytes>> {
    let hex = value.as_object().filter(|fields| fields.len() == 1).and_then(|f| f.get("hex"));
    Ok(match (value, hex.and_then(Value::as_str)) {
        (_, Some(hex)) => {
            let digits = hex.as_bytes().chunks(2).map(|pair| {
                let pair = std::str::from_utf8(pair).ok()?;
                u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2)
            });
            Some(digits.collect::<Option<Vec<u8>>>().context("hex digits come in pairs")?.into())
        }
        (Value::Null, _) => None,
        (Value::String(text), _) => Some(Bytes::from(text.clone())),
        (other, _) => Some(Bytes::from(other.to_string())),
    })
}

/// A list of `{"key", "value"}`, as consume prints them, or an object.
fn headers_of(value: &Value) -> anyhow::Result<Vec<RecordHeader>> {
    let header = |key: &str, value: &Value| {
        Ok(RecordHeader { key: key.to_owned(), value: bytes_of(value)? })
    };
    match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| header(key, value)).collect(),
        Value::Array(list) => list
            .iter()
            .map(|one| {
                let key = one.get("key").and_then(Value::as_str).context("a header has a key")?;
                header(key, one.get("value").unwrap_or(&Value::Null))
            })
            .collect(),
        _ => anyhow::bail!("headers are an object or a list"),
    }
}

fn split_once<'a>(line: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    if separator.is_empty() {
        return None;
    }
    let at = line.windows(separator.len()).position(|window| window == separator)?;
    let (key, rest) = line.split_at(at);
    Some((key, rest.get(separator.len()..)?))
}

/// Reads lines on a thread of their own, because reading a terminal or pipe blocks.
fn read_lines(file: Option<PathBuf>) -> mpsc::Receiver<anyhow::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(LINES_WAITING_MAX);
    // Not joined: it may sit in a read of the terminal for ever, and the process ends without it.
    std::thread::spawn(move || {
        let opened: anyhow::Result<Box<dyn Read>> = match file {
            None => Ok(Box::new(std::io::stdin())),
            Some(path) => std::fs::File::open(&path)
                .map(|file| -> Box<dyn Read> { Box::new(file) })
                .with_context(|| format!("cannot open {}", path.display())),
        };
        let mut reader = match opened {
            Ok(reader) => BufReader::with_capacity(256 << 10, reader),
            Err(error) => {
                // Nobody to tell any more: the command has ended.
                let _ended = sender.blocking_send(Err(error));
                return;
            }
        };
        while let Some(line) = next_line(&mut reader).transpose() {
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// The next line without its end; `None` at the end of the input.
fn next_line(reader: &mut impl BufRead) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if u64::try_from(read).unwrap_or(u64::MAX) == LINE_BYTES_MAX {
        anyhow::bail!("a line is longer than {LINE_BYTES_MAX} bytes");
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_their_ends_only() {
        let mut input = &b"one\r\n\ntwo \nlast"[..];
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input).unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(lines, ["one", "", "two ", "last"]);
    }

    #[test]
    fn keys_end_at_the_first_separator() {
        assert_eq!(split_once(b"a::b::c", b"::"), Some((&b"a"[..], &b"b::c"[..])));
        assert_eq!(split_once(b"::b", b"::"), Some((&b""[..], &b"b"[..])));
        assert_eq!(split_once(b"a:b", b"::"), None);
    }

    #[test]
    fn objects_become_records() {
        let line = br#"{"key":"k","value":{"hex":"00ff"},"headers":[{"key":"h","value":null}],"timestamp":7,"partition":2,"offset":9}"#;
        let (partition, record) = json_record(line).unwrap();
        assert_eq!(partition, Some(2));
        assert_eq!(record.timestamp_ms, 7);
        assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
        assert_eq!(record.value.as_deref(), Some(&[0x00, 0xff][..]));
        assert_eq!(record.headers, [RecordHeader { key: "h".to_owned(), value: None }]);
        let (_, record) = json_record(br#"{"value":{"a":1},"headers":{"x":"1","y":"2"}}"#).unwrap();
        assert_eq!(record.value.as_deref(), Some(&br#"{"a":1}"#[..]));
        assert_eq!(record.headers.len(), 2);
        for bad in ["1", "{", r#"{"vlaue":"x"}"#, r#"{"value":{"hex":"0"}}"#, r#"{"headers":1}"#] {
            assert!(json_record(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
