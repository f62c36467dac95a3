//! What the system and the runtime know of this process.
//!
//! Called by: `collect`. Calls: `/proc/self`, the runtime. Invariant: what cannot be read is 0, never an error.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// How busy the runtime's threads had been at the last scrape.
#[derive(Debug, Default)]
pub(super) struct Busy {
    last: Mutex<Option<(Instant, Duration)>>,
}

impl Busy {
    /// Share of their time since the last scrape in which the threads that serve sockets and requests did nothing, 0 to 1.
    fn idle(&self) -> f64 {
        let metrics = tokio::runtime::Handle::current().metrics();
        let workers = metrics.num_workers();
        let busy = (0..workers).map(|worker| metrics.worker_total_busy_duration(worker)).sum();
        let now = Instant::now();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace((now, busy));
        let Some((since, busy_before)) = last else { return 1.0 };
        let passed = now.duration_since(since).as_secs_f64() * workers as f64;
        if passed <= 0.0 {
            return 1.0;
        }
        (1.0 - busy.saturating_sub(busy_before).as_secs_f64() / passed).clamp(0.0, 1.0)
    }
}

/// Memory, processor time, files, the disk, and how much is left of the runtime's threads.
pub(super) fn encode(busy: &Busy, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let page_bytes = rustix::param::page_size() as u64;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let number = |text: &str, at: usize| {
        text.split_whitespace().nth(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
    };
    let resident = number(&read("/proc/self/statm"), 1) * page_bytes;
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    let io = read("/proc/self/io");
    let moved = |name: &str| {
        let value = io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
    };
    let disk = "kafka_server_kafkaserver_linux_disk";
    let (disk_read, disk_write) = (format!("{disk}_read_bytes"), format!("{disk}_write_bytes"));
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory", resident),
        ("process_open_fds", "Open file descriptors", files),
        (&*disk_read, "Bytes read from disks", moved("read_bytes")),
        (&*disk_write, "Bytes written to disks", moved("write_bytes")),
    ] {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)?;
    }
    // The same threads serve sockets and requests here.
    let idle = busy.idle();
    for name in [
        "kafka_network_socketserver_networkprocessoravgidle_percent",
        "kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent",
    ] {
        let help = "Share of the time since the last scrape that the serving threads had left";
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(idle).encode(metric)?;
    }
    let stat = read("/proc/self/stat");
    // After the name, which may hold anything, utime and stime are fields 12 and 13.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = number(rest, 11) + number(rest, 12);
    let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    let help = "User and system time";
    let metric =
        encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
    ConstCounter::new(seconds).encode(metric)
}
