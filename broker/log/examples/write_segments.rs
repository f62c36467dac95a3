//! Writes a log to a folder, for looking at its files with other tools.
//!
//! Usage: `write_segments FOLDER [BATCHES]`. The folder gets one partition's log, closed in order,
//! with several segments, two leader epochs and an idempotent producer.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use broker_log::{Admission, BatchMeta, Log, LogConfig, LogContext, Marks, OpenOptions};
use client_protocol::records::{BatchBuilder, Producer, Record, assign_offsets};
use client_protocol::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use coordinator_disk::{Disk, RealDisk};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: write_segments FOLDER [BATCHES]")?);
    let batches: i32 = arguments.next().map_or(Ok(400), |text| text.parse())?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    disk.create_dir(&folder)?;
    let marks = Arc::new(Marks::open(Arc::clone(&disk), &folder, b"example")?);
    let context = LogContext { disk, marks, directory: folder.join("orders-0") };
    let config = LogConfig { segment_bytes: 64 << 10, ..LogConfig::default() };
    let options = OpenOptions { config, ..OpenOptions::default() };
    let (mut log, _) = Log::open(context, &options)?;
    let mut base_sequence = 0;
    for number in 0..batches {
        let records = 1 + number % 7;
        let producer = (number % 3 != 0).then_some(Producer {
            id: ProducerId::new(4000),
            epoch: ProducerEpoch::new(1),
            base_sequence,
            is_transactional: false,
        });
        if producer.is_some() {
            base_sequence += records;
        }
        append(&mut log, number, records, producer)?;
    }
    log.close()?;
    Ok(())
}

fn append(
    log: &mut Log,
    number: i32,
    records: i32,
    producer: Option<Producer>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = BatchBuilder::new(1 << 20);
    for record in 0..records {
        let record = Record {
            // Not always rising, as producers' clocks are.
            timestamp_ms: 1_700_000_000_000 + i64::from(number) * 10 - i64::from(number % 5) * 17,
            key: Some(format!("key {record}").into()),
            value: Some(vec![b'v'; 20 + usize::try_from(number)? % 90].into()),
            headers: Vec::new(),
        };
        assert!(builder.push(&record), "a small record fits");
    }
    let mut batch = builder.build(producer).ok_or("an empty batch")?.to_vec();
    let epoch = LeaderEpoch::new(number / 150);
    assign_offsets(&mut batch, Offset::ZERO, epoch)?;
    let mut meta = BatchMeta::parse(&batch).ok_or("no batch")?;
    match log.admit_client(&mut meta, epoch.get(), 0)? {
        Admission::Assigned { base_offset } => {
            assign_offsets(&mut batch, Offset::new(base_offset), epoch)?;
            log.write(&[IoSlice::new(&batch)])?;
            Ok(())
        }
        other => Err(format!("{other:?}").into()),
    }
}
