//! `tidegate produce`: lines in, records out.
//!
//! *Called by* `main`. *Calls* `client::Producer`.
//!
//! Lines are sent together while more are waiting to be read, and at once when none are, so that a file goes fast and a
//! typed line goes now. Exit code 0 means that every record was acknowledged as asked.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::Bytes;
use client::protocol::PartitionId;
use client::protocol::records::{Record, RecordHeader};
use client::{Acks, BatchOutcome, ClientError, Producer, ProducerOptions};
use serde_json::json;
use tokio::sync::mpsc;

use crate::args::{AcksArgument, Format, ProduceArguments};
use crate::output::print_json;
use crate::settings::Settings;

/// Lines read ahead of the sending.
const LINES_WAITING_MAX: usize = 10_000;
/// Lines in one call of the producer.
const LINES_SENT_MAX: usize = 5_000;
/// Bytes of lines in one call of the producer, passed by the last line at most.
const BYTES_SENT_MAX: usize = 4 << 20;
/// The longest line, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Default)]
struct Totals {
    written: usize,
    failed: usize,
    first_error: Option<ClientError>,
}

/// Sends all lines.
pub async fn run(
    settings: &Settings,
    arguments: &ProduceArguments,
    format: Format,
) -> anyhow::Result<()> {
    let acks = match arguments.acks {
        AcksArgument::All => Acks::All,
        AcksArgument::Leader => Acks::Leader,
        AcksArgument::None => Acks::None,
    };
    let options = ProducerOptions { acks, ..ProducerOptions::default() };
    let mut producer = Producer::new(settings.cluster().await?, options);
    let mut lines = read_lines(arguments.file.clone());
    let mut totals = Totals::default();
    let mut waiting = Vec::new();
    while lines.recv_many(&mut waiting, LINES_SENT_MAX).await > 0 {
        let mut records = Vec::new();
        let mut bytes = 0usize;
        for line in waiting.drain(..) {
            let line = line?;
            bytes = bytes.saturating_add(line.len());
            records.push(record(&line, arguments)?);
            if bytes >= BYTES_SENT_MAX {
                totals.add(send(&mut producer, arguments, &records).await?);
                records.clear();
                bytes = 0;
            }
        }
        totals.add(send(&mut producer, arguments, &records).await?);
        if totals.failed > 0 {
            break;
        }
    }
    report(totals, format)
}

impl Totals {
    fn add(&mut self, outcomes: Vec<BatchOutcome>) {
        for outcome in outcomes {
            match outcome.result {
                Ok(_) => self.written = self.written.saturating_add(outcome.records),
                Err(error) => {
                    self.failed = self.failed.saturating_add(outcome.records);
                    self.first_error.get_or_insert(error);
                }
            }
        }
    }
}

fn report(totals: Totals, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Table => eprintln!("{} records written", totals.written),
        Format::Json => print_json(&json!({ "written": totals.written, "failed": totals.failed }))?,
    }
    match totals.first_error {
        Some(error) => {
            Err(anyhow::Error::from(error)
                .context(format!("{} records not written", totals.failed)))
        }
        None => Ok(()),
    }
}

async fn send(
    producer: &mut Producer,
    arguments: &ProduceArguments,
    records: &[Record],
) -> Result<Vec<BatchOutcome>, ClientError> {
    match arguments.partition {
        _ if records.is_empty() => Ok(Vec::new()),
        Some(partition) => {
            producer.send_to(&arguments.topic, PartitionId::new(partition), records).await
        }
        None => producer.send(&arguments.topic, records).await,
    }
}

fn record(line: &[u8], arguments: &ProduceArguments) -> anyhow::Result<Record> {
    let (key, value) = match &arguments.key_separator {
        None => (None, line),
        Some(separator) => {
            let (key, value) = split_once(line, separator.as_bytes()).with_context(|| {
                let shown = String::from_utf8_lossy(line);
                format!("no {separator:?} in the line {shown:?}")
            })?;
            (Some(Bytes::copy_from_slice(key)), value)
        }
    };
    let headers = arguments.headers.iter().map(|(key, value)| RecordHeader {
        key: key.clone(),
        value: Some(Bytes::from(value.clone())),
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Record {
        timestamp_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        key,
        value: Some(Bytes::copy_from_slice(value)),
        headers: headers.collect(),
    })
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
}
