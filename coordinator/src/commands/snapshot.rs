//! `coordinator snapshot`.
//!
//! Called by: `commands`. Calls: the running server's HTTP.
//! Invariant: what it names is on the disk.
//! Does not know: files' formats.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use coordinator::config::Config;

use super::{OutputFormat, print};

/// A server answers such a request in a line.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// As long as the server lets it take, and a little.
const PATIENCE: Duration = Duration::from_secs(610);

/// Asks the running server for a snapshot of its state as of now, waits for it and names its file.
///
/// The file is a backup once it is copied elsewhere: see `restore`. It has to be copied before two further snapshots
/// are taken. Works on the server's own machine only, over httpPort of its settings.
#[derive(Args)]
pub struct SnapshotFlags {
    /// Where the server's HTTP is, if not where the settings say.
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value = "text")]
    pub(super) output: OutputFormat,
}

pub fn run(flags: &SnapshotFlags, config: &Config) -> anyhow::Result<()> {
    let address = match &flags.http {
        Some(text) => Some(resolved(text)?),
        None => config.http_address.map(reachable),
    };
    let Some(address) = address.filter(|address| address.port() > 0) else {
        bail!(
            "httpPort is not set: the server can be asked only where it has one (or name it: --http HOST:PORT)"
        );
    };
    let body = ask(address).with_context(|| format!("asking the server at {address}"))?;
    if matches!(flags.output, OutputFormat::Json) {
        return Ok(print(&body)?);
    }
    let taken: serde_json::Value = serde_json::from_str(&body).context("the server's answer")?;
    let text =
        |name: &str| taken.get(name).and_then(|value| value.as_str()).unwrap_or("?").to_owned();
    let number = |name: &str| taken.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let lines = [
        format!("snapshot       {}", text("file")),
        format!("bytes          {}", number("bytes")),
        format!("last zxid      {}", text("zxid")),
        format!("log index      {}", number("log_index")),
    ];
    Ok(print(&lines.join("\n"))?)
}

/// The first address that `HOST:PORT` stands for.
fn resolved(text: &str) -> anyhow::Result<SocketAddr> {
    let mut found = text.to_socket_addrs().with_context(|| format!("--http {text}"))?;
    found.next().map(reachable).with_context(|| format!("--http {text} has no address"))
}

/// Who listens everywhere listens here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The body of a good answer.
fn ask(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "POST /snapshot HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("it hung up") };
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => bail!("{}: {}", status.trim_start_matches("HTTP/1.1 "), body.trim()),
    }
}
