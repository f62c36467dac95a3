//! What the figures were taken on: processor, kernel, and what the disk does by itself.
//!
//! Called by: `plan`. Calls: the file system of the servers' data.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::report::{median, shown};

const SYNCS: usize = 200;
const SYNC_BYTES: usize = 4096;
const STREAM_BYTES: usize = 256 << 20;

/// Lines for the head of the report.
///
/// # Errors
/// When the disk cannot be written.
pub fn describe(data: &Path) -> Result<Vec<String>> {
    let (sync_p50_ms, sync_p99_ms) = sync_times(data)?;
    let stream = stream_bytes_per_s(data)?;
    Ok(vec![
        format!("date: {}; commit: {}", today(), commit()),
        format!("processor: {}, {} cores, {} GiB", processor(), cores(), memory_gib()),
        format!("kernel: {}", read("/proc/sys/kernel/osrelease").trim()),
        format!(
            "disk of the data: fdatasync of an appended 4 KiB p50 {sync_p50_ms:.2} ms, p99 \
             {sync_p99_ms:.2} ms; {}B/s written and synced in one stream",
            shown(stream)
        ),
    ])
}

fn sync_times(data: &Path) -> Result<(f64, f64)> {
    let path = data.join(format!("bench-sync-{}", std::process::id()));
    let mut file = File::create(&path)?;
    let page = [7; SYNC_BYTES];
    let mut taken = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        taken.push(began.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(&path)?;
    taken.sort_by(f64::total_cmp);
    let p99 = taken[SYNCS * 99 / 100];
    Ok((median(taken).unwrap_or_default(), p99))
}

fn stream_bytes_per_s(data: &Path) -> Result<f64> {
    let path = data.join(format!("bench-stream-{}", std::process::id()));
    let mut file = File::create(&path)?;
    let block = vec![7; 1 << 20];
    let began = Instant::now();
    for _ in 0..STREAM_BYTES / block.len() {
        file.write_all(&block)?;
    }
    file.sync_data()?;
    let rate = STREAM_BYTES as f64 / began.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(rate)
}

/// The commit of the working folder, with a word where files differ from it.
fn commit() -> String {
    let asked = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let text = asked.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let text = text.map(|text| String::from_utf8_lossy(&text).trim().to_string());
    text.unwrap_or_else(|| "unknown".to_string())
}

fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':'))
        .map_or_else(|| "unknown".to_string(), |(_, name)| name.trim().to_string())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn memory_gib() -> u64 {
    let text = read("/proc/meminfo");
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default().div_ceil(1 << 20)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Today in UTC, as YYYY-MM-DD.
fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    date(since / 86_400)
}

/// The civil date of a number of days after 1970-01-01: years counted from March, so that the leap day
/// is a year's last.
fn date(days: u64) -> String {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{:02}", day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_around_leap_days() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (19_723, "2024-01-01"),
        ] {
            assert_eq!(date(days), expected);
        }
    }
}
