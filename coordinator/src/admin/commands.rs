//! Which commands there are, by ZooKeeper's names, and what each asks for.
//!
//! Called by: `http`. Calls: `desk`, the writer.
//! Invariant: every answer has `command` with the first name, and `error`, null or a reason. What changes something also
//! takes POST; what takes disk and time takes nothing else.
//! Does not know: sockets, who may ask.

use std::sync::Arc;

use serde_json::{Value, json};

use super::desk::Desk;
use super::json::{self, Fields, Gathered};
use super::known::Wanted;
use super::sizes::Sizes;
use crate::core_loop::Reset;

/// Commands are below it; by itself it lists them.
pub const COMMANDS_PATH: &str = "/commands";

const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";
const TOO_MANY: &str = "too many lists are asked for at once";
const NO_LEADER: &str = "server is not initialized";

type Writer = fn(&Gathered<'_>) -> Fields;
/// Tells of the data folder, too.
type MeasuringWriter = fn(&Gathered<'_>, &Sizes) -> Fields;

/// What a command does.
#[derive(Clone, Copy)]
enum Kind {
    /// Tells what is known of a server that serves.
    Serving(Wanted, Writer),
    /// The same with what is in the data folder, which is read only for these.
    Measured(Wanted, MeasuringWriter),
    /// Tells it of any.
    Any(Wanted, Writer),
    Environment,
    Leader,
    Reset(Reset),
    Snapshot,
    /// Says why there is nothing.
    Absent(&'static str),
}

/// By their names, the first one first.
const COMMANDS: &[(&[&str], Kind)] = &[
    (&["configuration", "conf", "config"], Kind::Serving(Wanted::Summary, json::configuration)),
    (&["connection_stat_reset", "crst"], Kind::Reset(Reset::Connections)),
    (&["connections", "cons"], Kind::Serving(Wanted::Connections, json::connections)),
    (&["dirs"], Kind::Measured(Wanted::Summary, json::dirs)),
    (&["dump"], Kind::Serving(Wanted::Sessions, json::dump)),
    (&["environment", "env", "envi"], Kind::Environment),
    (
        &["get_trace_mask", "gtmk"],
        Kind::Absent("there is no trace mask here: --log says what is logged"),
    ),
    (&["hash"], Kind::Absent("no digests of the tree are kept")),
    (
        &["initial_configuration", "icfg"],
        Kind::Serving(Wanted::Summary, json::initial_configuration),
    ),
    (&["is_read_only", "isro"], Kind::Serving(Wanted::Summary, json::is_read_only)),
    (&["last_snapshot", "lsnp"], Kind::Measured(Wanted::Summary, json::last_snapshot)),
    (&["leader", "lead"], Kind::Leader),
    (&["monitor", "mntr"], Kind::Serving(Wanted::Summary, json::monitor)),
    (
        &["observer_connection_stat_reset", "orst"],
        Kind::Absent("nothing is counted of observers' links"),
    ),
    (&["observers", "obsr"], Kind::Serving(Wanted::Summary, json::observers)),
    (
        &["restore", "rest"],
        Kind::Absent(
            "a backup is restored while the servers are stopped: coordinator restore --from FILE",
        ),
    ),
    (&["ruok"], Kind::Serving(Wanted::Summary, |_| Fields::new())),
    (&["server_stats", "srvr"], Kind::Measured(Wanted::Summary, json::server_stats)),
    (
        &["set_trace_mask", "stmk"],
        Kind::Absent("there is no trace mask here: --log says what is logged"),
    ),
    (&["snapshot", "snap"], Kind::Snapshot),
    (&["stat_reset", "srst"], Kind::Reset(Reset::Server)),
    (&["stats", "stat"], Kind::Measured(Wanted::Connections, json::stats)),
    (
        &["system_properties", "sysp"],
        Kind::Absent("there are no Java properties: see environment and initial_configuration"),
    ),
    (&["voting_view"], Kind::Serving(Wanted::Summary, json::voting_view)),
    (&["watch_summary", "wchs"], Kind::Serving(Wanted::Summary, json::watch_summary)),
    (&["watches", "wchc"], Kind::Serving(Wanted::Watches, json::watches)),
    (&["watches_by_path", "wchp"], Kind::Serving(Wanted::WatchesByPath, json::watches_by_path)),
    (&["zabstate"], Kind::Any(Wanted::Summary, json::zabstate)),
];

/// A command that was asked for.
pub struct Question {
    name: String,
    kind: Option<Kind>,
    is_post: bool,
}

/// What is sent back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of HTTP.
    pub status: &'static str,
    /// Of the body.
    pub content_type: &'static str,
    /// Further lines of the head.
    pub headers: String,
    /// All of it.
    pub body: String,
}

impl Answer {
    fn json(status: &'static str, name: &str, fields: Fields, error: Option<&str>) -> Answer {
        let mut all = fields;
        all.insert("command".to_owned(), name.into());
        all.insert("error".to_owned(), error.map_or(Value::Null, Value::from));
        let body = format!("{:#}\n", Value::Object(all));
        Answer { status, content_type: "application/json", headers: String::new(), body }
    }
}

const OK: &str = "200 OK";

impl Question {
    /// The command at this path, which begins with [`COMMANDS_PATH`]; `None` for the list of all.
    pub fn new(path: &str, is_post: bool) -> Option<Question> {
        let name = path.strip_prefix(COMMANDS_PATH)?.trim_start_matches('/');
        if name.is_empty() {
            return None;
        }
        let found = COMMANDS.iter().find(|(names, _)| names.contains(&name));
        let first = found.and_then(|(names, _)| names.first().copied()).unwrap_or(name);
        Some(Question { name: first.to_owned(), kind: found.map(|(_, kind)| *kind), is_post })
    }

    /// Whether its answer is a list.
    pub fn is_list(&self) -> bool {
        match self.kind {
            Some(Kind::Serving(wanted, _) | Kind::Any(wanted, _) | Kind::Measured(wanted, _)) => {
                wanted != Wanted::Summary
            }
            _ => false,
        }
    }

    /// Whether it takes the time of a snapshot.
    pub fn is_slow(&self) -> bool {
        matches!(self.kind, Some(Kind::Snapshot))
    }

    /// The answer to one who may not ask.
    pub fn refuse(&self, status: &'static str, reason: &str) -> Answer {
        Answer::json(status, &self.name, Fields::new(), Some(reason))
    }

    /// The answer when there is no place for a list.
    pub fn put_off(&self) -> Answer {
        self.refuse("503 Service Unavailable", TOO_MANY)
    }
}

/// Links to all commands, as ZooKeeper lists them.
pub fn list() -> Answer {
    let links = COMMANDS.iter().filter_map(|(names, _)| {
        let name = names.first()?;
        Some(format!("<a href=\"{COMMANDS_PATH}/{name}\">{name}</a>\n<br/>\n"))
    });
    Answer { status: OK, content_type: "text/html", headers: String::new(), body: links.collect() }
}

/// Asks, and writes the answer.
pub async fn answer(question: &Question, desk: &Arc<Desk>) -> Answer {
    let name = question.name.as_str();
    let said = |fields: Fields, error: Option<&str>| Answer::json(OK, name, fields, error);
    let Some(kind) = question.kind else {
        let reason = format!("Unknown command: {name}");
        return said(Fields::new(), Some(&reason));
    };
    match (kind, question.is_post) {
        (Kind::Reset(_) | Kind::Snapshot, true) | (_, false) => {}
        (_, true) => return question.refuse("405 Method Not Allowed", "GET tells this"),
    }
    match kind {
        Kind::Absent(reason) => said(Fields::new(), Some(reason)),
        Kind::Environment => said(json::environment(), None),
        Kind::Snapshot if !question.is_post => {
            question.refuse("405 Method Not Allowed", "a snapshot takes POST")
        }
        Kind::Snapshot => snapshot(name, desk).await,
        Kind::Reset(which) => {
            let known = desk.ask(Wanted::Summary).await;
            let serves = known.is_some_and(|known| known.serving_as().is_some());
            match serves && desk.reset(which).await {
                true => said(Fields::new(), None),
                false => said(Fields::new(), Some(NOT_SERVING)),
            }
        }
        Kind::Leader => tell(question, desk, Wanted::Summary, json::leader).await,
        Kind::Serving(wanted, writer) | Kind::Any(wanted, writer) => {
            tell(question, desk, wanted, writer).await
        }
        Kind::Measured(wanted, writer) => {
            let sizes = desk.sizes().await;
            tell(question, desk, wanted, move |gathered| writer(gathered, &sizes)).await
        }
    }
}

async fn tell(
    question: &Question,
    desk: &Arc<Desk>,
    wanted: Wanted,
    writer: impl FnOnce(&Gathered<'_>) -> Fields + Send + 'static,
) -> Answer {
    let name = question.name.as_str();
    let refused = |reason: &str| Answer::json(OK, name, Fields::new(), Some(reason));
    let Some(known) = desk.ask(wanted).await else { return refused(NOT_SERVING) };
    if !matches!(question.kind, Some(Kind::Any(..))) && known.serving_as().is_none() {
        return refused(NOT_SERVING);
    }
    if matches!(question.kind, Some(Kind::Leader)) && !known.is_of_ensemble() {
        return refused(NO_LEADER);
    }
    let (desk, name) = (Arc::clone(desk), name.to_owned());
    let write = move || {
        let gathered = Gathered { known: &known, desk: &desk };
        Answer::json(OK, &name, writer(&gathered), None)
    };
    if wanted == Wanted::Summary {
        return write();
    }
    // Thousands of entries are not written on the thread that serves everybody.
    tokio::task::spawn_blocking(write).await.unwrap_or_else(|_| question.put_off())
}

async fn snapshot(name: &str, desk: &Desk) -> Answer {
    match desk.take_snapshot().await {
        Ok(taken) => {
            let zxid = format!("{:#x}", taken.zxid.get());
            let headers = format!("last_zxid: {zxid}\r\nsnapshot_size: {}\r\n", taken.bytes);
            let file = std::path::absolute(&taken.file).unwrap_or(taken.file);
            let fields = json!({
                "file": file.display().to_string(), "snapshot_size": taken.bytes, "last_zxid": zxid,
            });
            let fields = fields.as_object().cloned().unwrap_or_default();
            Answer { headers, ..Answer::json(OK, name, fields, None) }
        }
        Err(reason) => Answer::json("503 Service Unavailable", name, Fields::new(), Some(&reason)),
    }
}

#[cfg(test)]
mod tests;
