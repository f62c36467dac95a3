//! Words that show lists.
//!
//! Called by: `text`, on a thread that may be slow. Calls: nothing.
//! Invariant: as `text`.
//! Does not know: the core.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use coordinator_core::server::{LastAnswer, Listed};
use coordinator_protocol::{FourLetterWord, OpCode, SessionId};

use super::server;
use crate::admin::known::{Connected, Known};
use crate::audit::date;

/// The answer to a word that shows a list.
pub fn of(word: FourLetterWord, known: &Known) -> String {
    match word {
        FourLetterWord::Stat => server(known, Some(&connections(known, true))),
        FourLetterWord::Cons => format!("{}\n", connections(known, false)),
        FourLetterWord::Dump => dump(known),
        FourLetterWord::Wchc => format!("{}\n", watches(known)),
        _ => format!("{}\n", watches_by_path(known)),
    }
}

/// Says where a list was cut, if it was.
fn end<T>(text: &mut String, list: &Listed<T>) {
    let shown = list.items.len();
    if shown < list.total {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "... cut here: {shown} of {} are shown", list.total);
    }
}

fn connections(known: &Known, is_brief: bool) -> String {
    let mut text = String::new();
    let Some(list) = &known.lists.connections else { return text };
    for one in &list.items {
        connection(&mut text, one, is_brief);
    }
    end(&mut text, list);
    text
}

fn connection(text: &mut String, one: &Connected, is_brief: bool) {
    let (info, traffic) = (&one.info, &one.info.traffic);
    let counted = &traffic.counted;
    let _ = write!(
        text,
        " /{}[{:x}](queued={},recved={},sent={}",
        remote(one),
        one.interest(),
        info.outstanding,
        counted.received,
        counted.sent
    );
    if let Some(session) = info.session.filter(|_| !is_brief) {
        let _ = write!(
            text,
            ",sid=0x{:x},lop={},est={},to={}",
            session.get(),
            operation(traffic.last.as_ref()),
            info.established_wall_ms,
            info.timeout_ms
        );
        if let Some(xid) = traffic.last_xid {
            let _ = write!(text, ",lcxid=0x{:x}", xid.get());
        }
        let latency = &counted.latency;
        let average = latency.sum.checked_div(latency.count).unwrap_or(0);
        let (zxid, at, took) = traffic
            .last
            .map_or((-1, 0, 0), |last| (last.zxid.get(), last.at.get(), last.latency_ms));
        let _ = write!(
            text,
            ",lzxid=0x{zxid:x},lresp={at},llat={took},minlat={},avglat={average},maxlat={}",
            latency.min, latency.max
        );
    }
    text.push_str(")\n");
}

/// Where the client is; Java's word for nowhere.
pub fn remote(one: &Connected) -> String {
    one.remote.map_or_else(|| "null".to_owned(), |remote| remote.to_string())
}

/// ZooKeeper's name for the last operation.
pub fn operation(last: Option<&LastAnswer>) -> &'static str {
    let Some(last) = last else { return "NA" };
    match last.op {
        OpCode::CreateSession => "SESS",
        OpCode::CloseSession => "CLOS",
        OpCode::Ping => "PING",
        OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => "CREA",
        OpCode::Delete | OpCode::DeleteContainer => "DELE",
        OpCode::SetData => "SETD",
        OpCode::SetAcl => "SETA",
        OpCode::Check => "CHEC",
        OpCode::Multi => "MULT",
        OpCode::MultiRead => "MLTR",
        OpCode::Reconfig => "RECO",
        OpCode::Sync => "SYNC",
        OpCode::Exists => "EXIS",
        OpCode::GetData => "GETD",
        OpCode::GetAcl => "GETA",
        OpCode::GetChildren | OpCode::GetChildren2 => "GETC",
        OpCode::GetAllChildrenNumber => "GETACN",
        OpCode::GetEphemerals => "GETE",
        OpCode::SetWatches => "SETW",
        OpCode::SetWatches2 => "STW2",
        OpCode::AddWatch => "ADDW",
        OpCode::CheckWatches => "CHKW",
        OpCode::RemoveWatches => "REMW",
        OpCode::WhoAmI => "HOMI",
        // Ours, and those that ZooKeeper gives no name.
        _ => "NA",
    }
}

fn dump(known: &Known) -> String {
    let mut text = "SessionTracker dump:\n".to_owned();
    if let Some(list) = &known.lists.sessions {
        if known.status.office_ms.is_some() {
            let expiring = list.items.iter().filter_map(|session| {
                let line = format!("\t0x{:x}\n", session.id.get());
                Some((session.expires_wall_ms?, line))
            });
            sets(&mut text, "Session", expiring);
        } else {
            let _ = writeln!(text, "Global Sessions({}):", list.total);
            for session in &list.items {
                let _ = writeln!(text, "0x{:x}\t{}ms", session.id.get(), session.timeout_ms);
            }
        }
        end(&mut text, list);
    }
    text.push_str("ephemeral nodes dump:\n");
    if let Some(list) = &known.lists.ephemerals {
        let owners: BTreeSet<SessionId> = list.items.iter().map(|(owner, _)| *owner).collect();
        let _ = writeln!(text, "Sessions with Ephemerals ({}):", owners.len());
        grouped(&mut text, &list.items, |owner| format!("0x{:x}:", owner.get()));
        end(&mut text, list);
    }
    text.push_str("Connections dump:\n");
    if let Some(list) = &known.lists.connections {
        let expiring = list.items.iter().map(|one| {
            let session = one.info.session.map_or(0, SessionId::get);
            (one.info.expires_wall_ms, format!("\tip: /{} sessionId: 0x{session:x}\n", remote(one)))
        });
        sets(&mut text, "Connections", expiring);
        end(&mut text, list);
    }
    text
}

/// Lines by the second at which what they name ends.
fn sets(text: &mut String, what: &str, expiring: impl Iterator<Item = (i64, String)>) {
    let mut by_second: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    let mut count = 0;
    for (wall_ms, line) in expiring {
        count += 1;
        // Rounded up: by then it has ended.
        by_second.entry(wall_ms.saturating_add(999).div_euclid(1_000)).or_default().push(line);
    }
    let _ = writeln!(text, "{what} Sets ({})/({count}):", by_second.len());
    for (second, lines) in by_second {
        let _ = writeln!(text, "{} expire at {}:", lines.len(), java_date(second));
        text.extend(lines);
    }
}

/// As Java writes a date, at Greenwich.
fn java_date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let name = |names: &[&'static str], at: i64| {
        usize::try_from(at).ok().and_then(|at| names.get(at).copied()).unwrap_or("?")
    };
    let (hours, minutes, seconds) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!(
        "{} {} {day:02} {hours:02}:{minutes:02}:{seconds:02} UTC {year}",
        name(&DAYS, days.rem_euclid(7)),
        name(&MONTHS, month - 1)
    )
}

fn watches(known: &Known) -> String {
    let mut text = String::new();
    if let Some(list) = &known.lists.watches {
        grouped(&mut text, &list.items, |session| format!("0x{:x}", session.get()));
        end(&mut text, list);
    }
    text
}

fn watches_by_path(known: &Known) -> String {
    let mut text = String::new();
    if let Some(list) = &known.lists.watches_by_path {
        let hex = |session: &SessionId| format!("0x{:x}", session.get());
        let pairs = list.items.iter().map(|(path, session)| (path, hex(session)));
        grouped(&mut text, &pairs.collect::<Vec<_>>(), |path| path.to_string());
        end(&mut text, list);
    }
    text
}

/// A line for each first of the pairs, and an indented one for each second. Those of the same first stand together.
fn grouped<A: PartialEq, B: std::fmt::Display>(
    text: &mut String,
    pairs: &[(A, B)],
    head: impl Fn(&A) -> String,
) {
    for group in pairs.chunk_by(|one, next| one.0 == next.0) {
        let Some((first, _)) = group.first() else { continue };
        let _ = writeln!(text, "{}", head(first));
        for (_, second) in group {
            let _ = writeln!(text, "\t{second}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_javas() {
        assert_eq!(java_date(1_795_383_854), "Sun Nov 22 21:44:14 UTC 2026");
        assert_eq!(java_date(0), "Thu Jan 01 00:00:00 UTC 1970");
    }
}
