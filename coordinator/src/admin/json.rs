//! The writer for commands: the fields of each answer but `command` and `error`.
//!
//! Called by: `commands`. Calls: nothing.
//! Invariant: field names are those of ZooKeeper's AdminServer, numbers are numbers; a list that is not whole says so in the
//! field `cut`. What is not known here is left out.
//! Does not know: HTTP, names of commands.

use std::collections::BTreeMap;

use coordinator_core::members::{Member, Role};
use coordinator_core::server::{Listed, Sizes as Bytes};
use coordinator_protocol::SessionId;
use serde_json::{Map, Value, json};

use super::desk::Desk;
use super::environment;
use super::facts::shown;
use super::known::{Connected, Known};
use super::monitor;
use super::sizes::Sizes;
use super::text::{operation, remote};

/// Fields of an answer.
pub type Fields = Map<String, Value>;

/// What an answer is made of.
pub struct Gathered<'a> {
    /// What the core knows.
    pub known: &'a Known,
    /// What does not change.
    pub desk: &'a Desk,
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Fields {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Says where a list was cut, if it was.
fn end<T>(fields: &mut Fields, list: &Listed<T>) {
    let shown = list.items.len();
    if shown < list.total {
        let cut = format!("{shown} of {} are shown", list.total);
        fields.insert("cut".to_owned(), cut.into());
    }
}

pub fn configuration(of: &Gathered<'_>) -> Fields {
    let facts = &of.desk.facts;
    fields([
        ("client_port", facts.client_port().into()),
        ("secure_client_port", facts.secure_client_port().into()),
        ("data_dir", shown(&facts.snapshots).into()),
        ("data_log_dir", shown(&facts.log).into()),
        ("tick_time", facts.tick_time_ms.into()),
        ("max_client_cnxns", facts.per_address_max.unwrap_or(0).into()),
        ("min_session_timeout", facts.session_timeout_ms_min.into()),
        ("max_session_timeout", facts.session_timeout_ms_max.into()),
        ("server_id", facts.id.get().into()),
        ("client_port_listen_backlog", (-1).into()),
    ])
}

pub fn initial_configuration(of: &Gathered<'_>) -> Fields {
    let settings = &of.desk.facts.settings;
    let text: String = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    fields([("initial_configuration", text.into())])
}

pub fn connections(of: &Gathered<'_>) -> Fields {
    connection_lists(of, false)
}

fn connection_lists(of: &Gathered<'_>, is_brief: bool) -> Fields {
    let Some(list) = &of.known.lists.connections else { return Fields::new() };
    let with = |is_encrypted: bool| -> Value {
        let found = list.items.iter().filter(|one| one.is_encrypted == is_encrypted);
        found.map(|one| connection(one, is_brief)).collect()
    };
    let mut all = fields([("connections", with(false)), ("secure_connections", with(true))]);
    end(&mut all, list);
    all
}

fn connection(one: &Connected, is_brief: bool) -> Value {
    let (info, traffic) = (&one.info, &one.info.traffic);
    let counted = &traffic.counted;
    let mut all = fields([
        ("remote_socket_address", remote(one).into()),
        ("interest_ops", one.interest().into()),
        ("outstanding_requests", info.outstanding.into()),
        ("packets_received", counted.received.into()),
        ("packets_sent", counted.sent.into()),
    ]);
    if is_brief {
        return all.into();
    }
    let latency = &counted.latency;
    let last = traffic.last;
    all.extend(fields([
        ("session_id", info.session.map_or(0, SessionId::get).into()),
        ("last_operation", operation(last.as_ref()).into()),
        ("established", info.established_wall_ms.into()),
        ("session_timeout", info.timeout_ms.into()),
        ("last_cxid", traffic.last_xid.map_or(-1, |xid| xid.get()).into()),
        ("last_zxid", last.map_or(-1, |last| last.zxid.get()).into()),
        ("last_response_time", last.map_or(0, |last| last.at.get()).into()),
        ("last_latency", last.map_or(0, |last| last.latency_ms).into()),
        ("min_latency", latency.min.into()),
        ("avg_latency", latency.sum.checked_div(latency.count).unwrap_or(0).into()),
        ("max_latency", latency.max.into()),
    ]));
    all.into()
}

pub fn dirs(_: &Gathered<'_>, sizes: &Sizes) -> Fields {
    fields([("datadir_size", sizes.snapshots.into()), ("logdir_size", sizes.log.into())])
}

pub fn dump(of: &Gathered<'_>) -> Fields {
    let lists = &of.known.lists;
    let mut all = Fields::new();
    let mut expiring: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    if let Some(list) = &lists.sessions {
        for session in &list.items {
            if let Some(at) = session.expires_wall_ms {
                expiring.entry(at).or_default().push(session.id.get());
            }
        }
        end(&mut all, list);
    }
    if let Some(list) = &lists.ephemerals {
        end(&mut all, list);
        let paths = by_first(list.items.iter().map(|(owner, path)| (owner.get(), &**path)));
        all.insert("session_id_to_ephemeral_paths".to_owned(), paths);
    }
    let expiring: Fields =
        expiring.into_iter().map(|(at, ids)| (at.to_string(), ids.into())).collect();
    all.insert("expiry_time_to_session_ids".to_owned(), expiring.into());
    all
}

/// An object of lists: those of the same first stand together.
fn by_first<A: ToString, B: Into<Value>>(pairs: impl Iterator<Item = (A, B)>) -> Value {
    let mut all = Fields::new();
    for (first, second) in pairs {
        let list = all.entry(first.to_string()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(second.into());
        }
    }
    all.into()
}

/// Of the machine and the process.
pub fn environment() -> Fields {
    environment::list().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

pub fn is_read_only(of: &Gathered<'_>) -> Fields {
    fields([("read_only", of.known.status.read_only.into())])
}

pub fn last_snapshot(of: &Gathered<'_>, sizes: &Sizes) -> Fields {
    let zxid = of.known.status.snapshot_zxid.map_or(-1, |zxid| zxid.get());
    let at = sizes.snapshot_at.map_or(Value::from(-1), Value::from);
    fields([("zxid", format!("{zxid:x}").into()), ("timestamp", at)])
}

/// Of one of several; what a server that stands alone says is `NO_LEADER`.
pub fn leader(of: &Gathered<'_>) -> Fields {
    let known = of.known;
    let leader = known.status.leader;
    let member = leader.and_then(|leader| known.ensemble.servers.get(&leader));
    fields([
        ("is_leader", known.leads().into()),
        ("leader_id", leader.map_or(Value::from(-1), |leader| leader.get().into())),
        ("leader_ip", member.map_or("", Member::host).into()),
    ])
}

pub fn monitor(of: &Gathered<'_>) -> Fields {
    let value = |value: monitor::Value| match value {
        monitor::Value::Text(text) => text.into(),
        monitor::Value::Whole(number) => number.into(),
        monitor::Value::Size(number) => number.into(),
        monitor::Value::Fraction(number) => number.into(),
    };
    let list = monitor::list(of.known, of.desk);
    list.into_iter().map(|(name, found)| (name, value(found))).collect()
}

pub fn observers(of: &Gathered<'_>) -> Fields {
    let known = of.known;
    let view = &known.ensemble;
    let learns = |role: Role| role == Role::Observer;
    let all = view.servers.iter().filter(|(id, one)| learns(one.role()) && view.up.contains(id));
    let shown = all
        .map(|(id, one)| json!({ "sid": id.get(), "remote_socket_address": one.peer_address() }));
    let shown: Vec<Value> = if known.leads() { shown.collect() } else { Vec::new() };
    fields([
        ("synced_observers", known.measures.synced_observers.into()),
        ("observers", shown.into()),
    ])
}

pub fn server_stats(of: &Gathered<'_>, sizes: &Sizes) -> Fields {
    let (known, status) = (of.known, &of.known.status);
    let traffic = status.since_reset;
    let (counts, _) = of.desk.sync_times.read();
    let answers = buffer(status.answer_sizes);
    let stats = json!({
        "packets_sent": traffic.sent,
        "packets_received": traffic.received,
        // ZooKeeper's threshold is a second by default, and so is the last bound.
        "fsync_threshold_exceed_count": counts.last().copied().unwrap_or(0),
        "client_response_stats": answers,
        "provider_null": false,
        "data_dir_size": sizes.snapshots,
        "log_dir_size": sizes.log,
        "last_processed_zxid": status.zxid.get(),
        "outstanding_requests": status.outstanding,
        "server_state": known.serving_as(),
        "avg_latency": known.average_latency(),
        "max_latency": traffic.latency.max,
        "min_latency": traffic.latency.min,
        "num_alive_client_connections": status.connections,
        "uptime": of.desk.facts.uptime_ms(),
    });
    let mut all = fields([
        ("version", environment::version().into()),
        ("read_only", status.read_only.into()),
        ("server_stats", stats),
        ("client_response", answers),
        ("node_count", status.nodes.into()),
    ]);
    if known.leads() {
        all.insert("proposal_stats".to_owned(), buffer(status.proposal_sizes));
    }
    all
}

fn buffer(bytes: Bytes) -> Value {
    let (last, min, max) = monitor::sizes(bytes);
    json!({ "last_buffer_size": last, "min_buffer_size": min, "max_buffer_size": max })
}

pub fn stats(of: &Gathered<'_>, sizes: &Sizes) -> Fields {
    let mut all = server_stats(of, sizes);
    all.extend(connection_lists(of, true));
    all
}

pub fn voting_view(of: &Gathered<'_>) -> Fields {
    let servers = &of.known.ensemble.servers;
    let votes = servers.iter().filter(|(_, one)| one.role() == Role::Participant);
    let shown: Fields = votes
        .map(|(id, one)| {
            let shown = json!({
                "server_addresses": [one.peer_address()],
                "election_addresses": one.election_address().into_iter().collect::<Vec<_>>(),
                "client_address": one.client_address().unwrap_or(""),
                "learner_type": "participant",
            });
            (id.get().to_string(), shown)
        })
        .collect();
    fields([("current_config", shown.into())])
}

pub fn watches(of: &Gathered<'_>) -> Fields {
    let Some(list) = &of.known.lists.watches else { return Fields::new() };
    let pairs = list.items.iter().map(|(session, path)| (session.get(), &**path));
    let mut all = fields([("session_id_to_watched_paths", by_first(pairs))]);
    end(&mut all, list);
    all
}

pub fn watches_by_path(of: &Gathered<'_>) -> Fields {
    let Some(list) = &of.known.lists.watches_by_path else { return Fields::new() };
    let pairs = list.items.iter().map(|(path, session)| (path, session.get()));
    let mut all = fields([("path_to_session_ids", by_first(pairs))]);
    end(&mut all, list);
    all
}

pub fn watch_summary(of: &Gathered<'_>) -> Fields {
    let watches = of.known.watches;
    fields([
        ("num_connections", watches.connections.into()),
        ("num_paths", watches.paths.into()),
        ("num_total_watches", watches.watches.into()),
    ])
}

pub fn zabstate(of: &Gathered<'_>) -> Fields {
    let (known, status) = (of.known, &of.known.status);
    if !known.is_of_ensemble() {
        return fields([("voting", false.into()), ("zabstate", "".into())]);
    }
    let own = known.ensemble.servers.get(&status.id);
    let zxid = status.zxid.get();
    let place = |address: Option<String>, port: Option<u16>| {
        let hosts: Vec<&str> =
            own.filter(|_| address.is_some()).map(Member::host).into_iter().collect();
        json!({
            "empty": address.is_none(),
            "all_addresses": address.iter().collect::<Vec<_>>(),
            "all_ports": port.into_iter().collect::<Vec<_>>(),
            "all_host_strings": hosts,
            "one": address,
        })
    };
    fields([
        ("myid", status.id.get().into()),
        ("is_leader", known.leads().into()),
        ("quorum_address", place(own.map(Member::peer_address), own.map(Member::port))),
        (
            "election_address",
            place(own.and_then(Member::election_address), own.and_then(Member::election_port)),
        ),
        ("client_address", own.and_then(Member::client_address).unwrap_or("").into()),
        ("voting", own.is_some_and(|own| own.role() == Role::Participant).into()),
        ("last_zxid", format!("0x{zxid:x}").into()),
        ("zab_epoch", (zxid >> 32).into()),
        ("zab_counter", (zxid & 0xffff_ffff).into()),
        ("zabstate", known.phase().into()),
    ])
}
