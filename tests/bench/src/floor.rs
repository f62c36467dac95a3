//! The floor: a bare loop that receives the same bytes, checks their CRC-32C and writes them to a file.
//!
//! Called by: `plan`. No broker can spend less than this; how near one comes is what counts.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use rustix::time::{ClockId, clock_gettime};

use crate::report::{Better, Table};

/// Bytes of one batch, as large as librdkafka makes them by default.
const BATCH_BYTES: usize = 1_000_000;
const BATCHES: usize = 1_000;
/// What a record costs in a batch beside its value: lengths, deltas, no key, no headers.
const RECORD_OVERHEAD_BYTES: usize = 10;

/// Measures it for records of 100 B and 1 KiB.
///
/// # Errors
/// When the loopback or the disk fails.
pub fn measure(data: &Path) -> Result<Table> {
    let note = "One connection over loopback, batches of 1 MB, one thread, not synced: what has to be done \
                for each byte by whoever receives, checks and stores it. CPU of the receiver alone.";
    let mut table = Table::new("The floor: a bare loop", note);
    let path = data.join(format!("tidegate-bench-floor-{}", std::process::id()));
    let ran = run(&path);
    std::fs::remove_file(&path)?;
    let (seconds, cpu_s) = ran?;
    for size in [100, 1024] {
        let records = (BATCHES * BATCH_BYTES / (size + RECORD_OVERHEAD_BYTES)) as f64;
        let rate = format!("{size} B, records/s");
        table.put(&rate, Better::Higher, "bare loop", records / seconds);
        let cpu = format!("{size} B, CPU s per million");
        table.put(&cpu, Better::Lower, "bare loop", cpu_s * 1e6 / records);
    }
    Ok(table)
}

/// Seconds on the wall and on the processor.
fn run(path: &Path) -> Result<(f64, f64)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || -> Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let batch: Vec<u8> = (0..BATCH_BYTES).map(|at| (at * 31 % 251) as u8).collect();
        let sum = crc32c::crc32c(&batch);
        for _ in 0..BATCHES {
            stream.write_all(&sum.to_be_bytes())?;
            stream.write_all(&batch)?;
        }
        Ok(())
    });
    let (mut stream, _) = listener.accept()?;
    let mut file = File::create(path)?;
    let mut buffer = vec![0; BATCH_BYTES];
    let (began, cpu) = (Instant::now(), thread_cpu_s());
    for _ in 0..BATCHES {
        let mut sum = [0; 4];
        stream.read_exact(&mut sum)?;
        stream.read_exact(&mut buffer)?;
        ensure!(crc32c::crc32c(&buffer) == u32::from_be_bytes(sum), "a batch was damaged");
        file.write_all(&buffer)?;
    }
    let spent = (began.elapsed().as_secs_f64(), thread_cpu_s() - cpu);
    sender.join().map_err(|_| anyhow!("the sender panicked"))??;
    Ok(spent)
}

fn thread_cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
