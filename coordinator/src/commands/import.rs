//! `coordinator import-zookeeper`: what it is told, and what it tells.
//!
//! Called by: `commands`. Calls: `coordinator::import`.
//! Invariant: a dry run writes nothing.
//! Does not know: ZooKeeper's files.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use coordinator::config::Config;
use coordinator::import::{self, Imported, Report, Request};
use coordinator_disk::RealDisk;

use super::{OutputFormat, owner, print};

/// Makes this member's data folder from the files of a ZooKeeper server (3.5 to 3.9).
///
/// Stop ZooKeeper's clients, then its servers, and run this once for each member of the new ensemble, with that member's own
/// settings and the SAME copy of the files of ONE ZooKeeper server: take one that was up to the end, and copy its folder to all
/// machines. The folders of two servers are never quite the same, as one has changes that the other missed; members that began
/// with different states refuse one another. The checksum that is printed has to be the same on all. Then start the members. All znodes keep their data, access lists, versions and
/// zxids. All sessions are ended, and their ephemerals go with them: clients open new ones.
#[derive(Args)]
pub struct ImportFlags {
    /// ZooKeeper's dataDir.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// ZooKeeper's dataLogDir, where that is another folder.
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Reads and checks everything, the folder too that it would go to, tells what would be imported, writes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Goes on where transactions are missing in the middle.
    #[arg(long)]
    allow_gaps: bool,
    /// Takes a snapshot where no log is beside it: what came after it is lost, and of what changed while ZooKeeper wrote it,
    /// some is in it and some is not.
    #[arg(long)]
    without_log: bool,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value = "text")]
    pub(super) output: OutputFormat,
}

/// What is said of a snapshot alone.
const ALONE: &str = "there was no log: changes after the snapshot are missing, and those made while it was written are in it in part";

/// Whether the log was missing, and is not only empty.
fn is_alone(report: &Report) -> bool {
    report.snapshot.is_some() && report.logs == 0 && report.zxid > 0
}

/// Imports, and prints the report.
pub fn run(flags: &ImportFlags, config: &Config) -> anyhow::Result<()> {
    let request = Request {
        data_dir: flags.from.clone(),
        log_dir: flags.log_dir.clone(),
        allow_gaps: flags.allow_gaps,
        without_log: flags.without_log,
    };
    let imported = import::read(&RealDisk, &request, &mut progress())?;
    let (disk, folder) = (Arc::new(RealDisk), config.data_dir.as_path());
    match flags.dry_run {
        true => imported.check_target(disk, folder, owner(config))?,
        false => imported.write(disk, folder, owner(config))?,
    }
    let into = (!flags.dry_run).then_some(config.data_dir.as_path());
    let text = match flags.output {
        OutputFormat::Text => text(&imported, into, config.members.len()),
        OutputFormat::Json => json(&imported, into),
    };
    Ok(print(&text)?)
}

/// Says on a terminal which file is read.
fn progress() -> impl FnMut(&Path, usize, usize) {
    let is_seen = std::io::stderr().is_terminal();
    move |path, at, count| {
        if is_seen {
            eprintln!("reading {} ({at} of {count})", path.display());
        }
    }
}

fn text(imported: &Imported, into: Option<&Path>, members: usize) -> String {
    let report = &imported.report;
    let snapshot = report.snapshot.as_ref().map_or("none".into(), |path| path.to_string_lossy());
    let mut lines = vec![
        format!("snapshot       {snapshot}"),
        format!("log files      {}", report.logs),
        format!("transactions   {} after the snapshot", report.transactions),
        format!("last zxid      {:#x}", report.zxid),
        format!("znodes         {} with {} bytes of data", report.znodes, report.data_bytes),
        format!("ended          {} sessions, {} ephemerals", report.sessions, report.ephemerals),
        format!("checksum       {}", imported.beginning()),
    ];
    lines.extend(report.skipped.iter().map(|why| format!("not readable   {why}")));
    let gap = |(before, after): &(i64, i64)| {
        format!("missing        transactions between {before:#x} and {after:#x}")
    };
    lines.extend(report.gaps.iter().map(gap));
    if report.torn_bytes > 0 {
        let bytes = report.torn_bytes;
        lines.push(format!("cut off        {bytes} bytes of transactions that were never whole"));
    }
    if is_alone(report) {
        lines.push(format!("warning        {ALONE}"));
    }
    lines.push(match into {
        None => "dry run        nothing was written".to_owned(),
        Some(folder) => format!("written to     {}", folder.display()),
    });
    if into.is_some() && members > 1 {
        let others = members - 1;
        lines.push(format!(
            "next           the same for the other {others} members, from a copy of these very files and not from their own \
             servers': all need the checksum above"
        ));
    }
    lines.join("\n")
}

fn json(imported: &Imported, into: Option<&Path>) -> String {
    let report = &imported.report;
    let hexadecimal = |zxid: i64| format!("{zxid:#x}");
    let gaps: Vec<_> =
        report.gaps.iter().map(|(from, to)| [hexadecimal(*from), hexadecimal(*to)]).collect();
    serde_json::json!({
        "snapshot": report.snapshot,
        "not_readable": report.skipped,
        "log_files": report.logs,
        "transactions": report.transactions,
        "torn_bytes": report.torn_bytes,
        "last_zxid": hexadecimal(report.zxid),
        "znodes": report.znodes,
        "data_bytes": report.data_bytes,
        "sessions_ended": report.sessions,
        "ephemerals_ended": report.ephemerals,
        "checksum": imported.beginning().to_string(),
        "gaps": gaps,
        "warning": is_alone(report).then_some(ALONE),
        "written_to": into,
    })
    .to_string()
}
