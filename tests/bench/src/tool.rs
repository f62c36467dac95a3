//! librdkafka's own load tool, `rdkafka_performance`, built by `scripts/bench` from the source that the
//! crate rdkafka-sys brings.
//!
//! Called by: `throughput`, `latency`. One client for all servers: what differs is the server.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

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

/// Runs it to its end and gives the records per second that it printed last.
///
/// # Errors
/// When it fails or prints no rate; its output is in the error.
pub fn rate(arguments: &[String]) -> Result<f64> {
    let output = Command::new(path()?).args(arguments).stdin(Stdio::null()).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    ensure!(output.status.success(), "load tool {arguments:?} failed:\n{}", tail(&text));
    match last_rate(&text) {
        Some(rate) => Ok(rate),
        None => bail!("load tool {arguments:?} printed no rate:\n{}", tail(&text)),
    }
}

/// Starts it in the background, its output in `log`.
///
/// # Errors
/// When it cannot be started.
pub fn spawn(arguments: &[String], log: &std::path::Path) -> Result<Child> {
    let output = std::fs::File::create(log)?;
    Ok(Command::new(path()?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?)
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
    use super::last_rate;

    #[test]
    fn last_printed_rate_counts() {
        let text = "% 5 messages in 1ms: 12 msgs/s and 1.00 MB/s\n% 9 ... (at 345678 msgs/s, 2)";
        assert_eq!(last_rate(text), Some(345_678.0));
        assert_eq!(last_rate("no rate"), None);
    }
}
