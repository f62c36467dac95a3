//! `tidegate cluster watch`: prints notifications as they arrive.
//!
//! *Called by* `main`. *Calls* `coordinator-client`'s subscription, `view`.
//!
//! The latency compares this machine's clock with that of the coordinator that stamped the write: across machines it is
//! only as good as their clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use coordinator_client::{Client, Error};
use serde_json::json;

use super::view::{Notice, NoticeKind, View};
use crate::args::{Format, WatchArguments};
use crate::output::{print_json_line, printable};
use crate::settings::Settings;

const BROKERS: &str = "/brokers";

/// Prints notices until the count or an interrupt.
pub async fn watch(
    settings: &Settings,
    arguments: &WatchArguments,
    format: Format,
) -> anyhow::Result<()> {
    let mut view = View::default();
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        let mut config = settings.session(settings.coordinators.clone());
        config.root.clone_from(&settings.root);
        let client = Client::open(config);
        // Dropped at an interrupt: nothing is owed to anybody, the session ends with `close`.
        let followed = tokio::select! {
            followed = follow(&client, &mut view, &mut left, format) => followed,
            _ = tokio::signal::ctrl_c() => {
                left = 0;
                Ok(())
            }
        };
        client.close().await;
        match followed.as_ref().map_err(|error| error.downcast_ref::<Error>()) {
            Err(Some(Error::SessionExpired | Error::Overrun)) => {
                eprintln!("the session was lost, watching anew");
            }
            Ok(()) | Err(_) => followed?,
        }
    }
    Ok(())
}

async fn follow(
    client: &Client,
    view: &mut View,
    left: &mut u64,
    format: Format,
) -> anyhow::Result<()> {
    let mut subscription = client.subscribe(BROKERS).await?;
    while *left > 0 {
        let update = subscription.next().await?;
        for notice in view.apply(update, now_ms()) {
            show(&notice, format)?;
            if notice.kind != NoticeKind::Watching {
                *left = left.saturating_sub(1);
            }
        }
    }
    Ok(())
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn show(notice: &Notice, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return Ok(print_json_line(&json!({
            "time_ms": now_ms(),
            "event": notice.kind.name(),
            "subject": notice.subject,
            "detail": notice.detail,
            "latency_ms": notice.latency_ms,
            "zxid": format!("{:#x}", notice.zxid.get()),
        }))?);
    }
    let latency = notice.latency_ms.map_or("-".to_owned(), |latency| format!("{latency} ms"));
    let (seconds, millis) = (now_ms() / 1000, now_ms() % 1000);
    let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let line = format!(
        "{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z  {latency:>8}  {:<12}  {:<20}  {}",
        notice.kind.name(),
        notice.subject,
        notice.detail
    );
    use std::io::Write;
    Ok(writeln!(std::io::stdout(), "{}", printable(&line))?)
}
