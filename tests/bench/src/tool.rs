//! librdkafka's own load tool, `rdkafka_performance`, built by `scripts/bench` from the source that the
//! crate rdkafka-sys brings.
//!
//! Called by: `throughput`. One client for all servers: what differs is the server.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Finds the tool.
///
/// # Errors
/// When `scripts/bench` did not build it.
pub fn path() -> Result<PathBuf> {
    let path = std::env::var_os("TIDEGATE_LOAD_TOOL").map(PathBuf::from);
    path.filter(|path| path.exists()).context(
        "librdkafka's load tool is not there: start the benchmark by scripts/bench, which builds it",
    )
}

/// Runs it to its end, its output in `folder`, and gives the records per second that it printed last.
///
/// # Errors
/// When it fails, prints no rate, or is not done within `limit`, after which it is ended; its output is in the error.
pub fn rate(arguments: &[String], folder: &Path, limit: Duration) -> Result<f64> {
    let log = folder.join("load-tool.log");
    let mut child = spawn(arguments, &log)?;
    let ended = wait(&mut child, limit);
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    let success = ended.with_context(|| format!("load tool {arguments:?}:\n{}", tail(&text)))?;
    // After back-pressure it may miscount what it produced, and end with an error although all is delivered.
    let wanted = arguments.iter().skip_while(|word| *word != "-c").nth(1);
    let is_delivered = wanted.is_some_and(|wanted| delivered(&text) == wanted.parse().ok());
    ensure!(success || is_delivered, "load tool {arguments:?} failed:\n{}", tail(&text));
    match last_rate(&text) {
        Some(rate) => Ok(rate),
        None => bail!("load tool {arguments:?} printed no rate:\n{}", tail(&text)),
    }
}

/// Starts it in the background, its output in `log`.
///
/// # Errors
/// When it cannot be started.
pub fn spawn(arguments: &[String], log: &Path) -> Result<Child> {
    let output = std::fs::File::create(log)?;
    Ok(Command::new(path()?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?)
}

/// Waits for its end and says whether it did what it was to do.
///
/// # Errors
/// When it is not done within `limit`; it is ended then.
pub fn wait(child: &mut Child, limit: Duration) -> Result<bool> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if began.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("not done within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How many records it says were delivered, if none failed.
fn delivered(text: &str) -> Option<u64> {
    let line = text.lines().rfind(|line| line.contains(" delivered ("))?;
    let (before, after) = line.split_once(" delivered (")?;
    let count = before.rsplit(' ').next()?.parse().ok()?;
    after.contains(" 0 failed)").then_some(count)
}

fn last_rate(text: &str) -> Option<f64> {
    let before = text.rmatch_indices(" msgs/s").next()?.0;
    text[..before].rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(800);
    text.get(from..).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_printed_rate_counts() {
        let text = "% 5 messages in 1ms: 12 msgs/s and 1.00 MB/s\n% 9 ... (at 345678 msgs/s, 2)";
        assert_eq!(last_rate(text), Some(345_678.0));
        assert_eq!(last_rate("no rate"), None);
    }

    #[test]
    fn what_was_delivered_is_read_unless_some_failed() {
        let line = |failed| {
            format!(
                "% 1840 backpressures\n% 9999999 messages produced (1000000000 bytes), 10000000 delivered \
                 (offset 9999999, {failed} failed) in 71040ms: 140765 msgs/s"
            )
        };
        assert_eq!(delivered(&line(0)), Some(10_000_000));
        assert_eq!(delivered(&line(1)), None);
        assert_eq!(delivered(&line(10)), None);
        assert_eq!(delivered("% Sending 10000000 messages"), None);
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert!(wait(&mut child, Duration::from_millis(20)).is_err());
        assert!(child.try_wait().unwrap().is_some(), "it still runs");
        let mut child = Command::new("false").spawn().unwrap();
        assert!(!wait(&mut child, Duration::from_secs(60)).unwrap());
    }
}
