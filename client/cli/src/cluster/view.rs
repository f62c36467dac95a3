//! Turns the subscription's updates into notices: brokers that came or went, leaders that changed.
//!
//! *Called by* `watch`. *Calls* nothing; the time is an argument.
//!
//! Invariant: the view is the subtree as of the last complete update. A snapshot after the first one (the coordinator
//! had no history for us) is compared with the view, so that no change is lost, only its order within the gap.

use std::collections::BTreeMap;

use coordinator_client::Update;
use coordinator_client::protocol::{Item, ItemKind, Zxid};
use serde::Deserialize;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// The first snapshot is complete.
    Watching,
    /// A broker registered.
    BrokerUp,
    /// A broker registered anew: it restarted, or its session was lost.
    BrokerBack,
    /// A broker's session ended.
    BrokerDown,
    /// A partition has another leader, or the same under a new epoch.
    Leader,
    /// A partition lost its leader.
    Leaderless,
}

impl NoticeKind {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Watching => "watching",
            Self::BrokerUp => "broker up",
            Self::BrokerBack => "broker back",
            Self::BrokerDown => "broker down",
            Self::Leader => "leader",
            Self::Leaderless => "leaderless",
        }
    }
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub kind: NoticeKind,
    /// To whom: `broker 1`, `orders/0`.
    pub subject: String,
    /// More of it.
    pub detail: String,
    /// From the write's own time, as the coordinator stamped it, to when we had it; `None` where nothing is stamped.
    pub latency_ms: Option<i64>,
    /// The write.
    pub zxid: Zxid,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Registration {
    czxid: Zxid,
    ctime_ms: i64,
    address: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    leader: i32,
    leader_epoch: i32,
    isr: Vec<i32>,
    mtime_ms: i64,
}

/// The subtree, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Subtree {
    brokers: BTreeMap<i32, Registration>,
    partitions: BTreeMap<(String, i32), State>,
}

/// Follows one subscription, or several one after the other.
#[derive(Debug, Default)]
pub struct View {
    current: Option<Subtree>,
    incoming: Subtree,
}

impl View {
    /// Takes an update that arrived at `now_ms` (milliseconds since 1970 UTC).
    pub fn apply(&mut self, update: Update, now_ms: i64) -> Vec<Notice> {
        match update {
            Update::SnapshotBegin => {
                self.incoming = Subtree::default();
                Vec::new()
            }
            Update::SnapshotChunk(items) => {
                for item in items {
                    self.incoming.take(&item);
                }
                Vec::new()
            }
            Update::SnapshotEnd(zxid) => {
                let after = std::mem::take(&mut self.incoming);
                let notices = match &self.current {
                    None => vec![watching(&after, zxid)],
                    Some(before) => compare(before, &after, zxid, now_ms),
                };
                self.current = Some(after);
                notices
            }
            Update::Changes { zxid, items } => {
                let before = self.current.clone().unwrap_or_default();
                let after = self.current.get_or_insert_default();
                for item in &items {
                    after.take(item);
                }
                compare(&before, after, zxid, now_ms)
            }
            Update::CompleteUpTo(_) => Vec::new(),
        }
    }
}

#[derive(Deserialize)]
struct RegistrationJson {
    #[serde(default)]
    endpoints: Vec<String>,
}

#[derive(Deserialize)]
struct StateJson {
    leader: i32,
    leader_epoch: i32,
    #[serde(default)]
    isr: Vec<i32>,
}

impl Subtree {
    fn take(&mut self, item: &Item) {
        let gone = item.kind == ItemKind::Deleted;
        let data = item.data.as_deref().unwrap_or_default();
        let parts: Vec<_> = item.path.trim_start_matches('/').split('/').collect();
        match parts.as_slice() {
            ["brokers", "ids", id] => {
                let Ok(id) = id.parse() else { return };
                self.brokers.remove(&id);
                if !gone {
                    // A registration begins empty in Kafka's way of writing it; it is one all the same.
                    let json = serde_json::from_slice::<RegistrationJson>(data).ok();
                    self.brokers.insert(
                        id,
                        Registration {
                            czxid: item.stat.czxid,
                            ctime_ms: item.stat.ctime_ms,
                            address: json.map(|json| json.endpoints.join(" ")).unwrap_or_default(),
                        },
                    );
                }
            }
            ["brokers", "topics", topic, "partitions", partition, "state"] => {
                let Ok(partition) = partition.parse() else { return };
                let key = ((*topic).to_owned(), partition);
                self.partitions.remove(&key);
                if !gone && let Ok(json) = serde_json::from_slice::<StateJson>(data) {
                    let state = State {
                        leader: json.leader,
                        leader_epoch: json.leader_epoch,
                        isr: json.isr,
                        mtime_ms: item.stat.mtime_ms,
                    };
                    self.partitions.insert(key, state);
                }
            }
            _ => {}
        }
    }
}

fn watching(subtree: &Subtree, zxid: Zxid) -> Notice {
    let brokers: Vec<_> = subtree.brokers.keys().map(i32::to_string).collect();
    let partitions = subtree.partitions.len();
    Notice {
        kind: NoticeKind::Watching,
        subject: format!("{} brokers", brokers.len()),
        detail: format!("brokers [{}], {partitions} partitions", brokers.join(",")),
        latency_ms: None,
        zxid,
    }
}

fn compare(before: &Subtree, after: &Subtree, zxid: Zxid, now_ms: i64) -> Vec<Notice> {
    let mut notices = Vec::new();
    for id in before.brokers.keys().filter(|id| !after.brokers.contains_key(*id)) {
        notices.push(Notice {
            kind: NoticeKind::BrokerDown,
            subject: format!("broker {id}"),
            detail: "its session ended".to_owned(),
            latency_ms: None,
            zxid,
        });
    }
    for (id, registration) in &after.brokers {
        let known = before.brokers.get(id);
        if known.is_some_and(|known| known.czxid == registration.czxid) {
            continue;
        }
        notices.push(Notice {
            kind: if known.is_some() { NoticeKind::BrokerBack } else { NoticeKind::BrokerUp },
            subject: format!("broker {id}"),
            detail: registration.address.clone(),
            latency_ms: now_ms.checked_sub(registration.ctime_ms),
            zxid,
        });
    }
    for ((topic, partition), state) in &after.partitions {
        let known = before.partitions.get(&(topic.clone(), *partition));
        if known.is_some_and(|k| (k.leader, k.leader_epoch) == (state.leader, state.leader_epoch)) {
            continue;
        }
        let from = known.map_or("new".to_owned(), |known| known.leader.to_string());
        let isr: Vec<_> = state.isr.iter().map(i32::to_string).collect();
        notices.push(Notice {
            kind: if state.leader < 0 { NoticeKind::Leaderless } else { NoticeKind::Leader },
            subject: format!("{topic}/{partition}"),
            detail: format!(
                "{from} -> {}, epoch {}, in sync [{}]",
                state.leader,
                state.leader_epoch,
                isr.join(",")
            ),
            latency_ms: now_ms.checked_sub(state.mtime_ms),
            zxid,
        });
    }
    notices
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use coordinator_client::protocol::Stat;

    fn item(kind: ItemKind, path: &str, data: &str, czxid: i64, time_ms: i64) -> Item {
        let stat = Stat {
            czxid: Zxid::new(czxid),
            ctime_ms: time_ms,
            mtime_ms: time_ms,
            ..Stat::default()
        };
        Item {
            kind,
            path: path.to_owned(),
            data: Some(Bytes::copy_from_slice(data.as_bytes())),
            stat,
        }
    }

    const STATE: &str = "/brokers/topics/orders/partitions/0/state";

    fn state(leader: i32, epoch: i32) -> String {
        format!(
            r#"{{"version":1,"leader":{leader},"leader_epoch":{epoch},"controller_epoch":1,"isr":[2]}}"#
        )
    }

    fn view() -> View {
        let mut view = View::default();
        assert_eq!(view.apply(Update::SnapshotBegin, 0), []);
        let registration = r#"{"version":5,"endpoints":["PLAINTEXT://a:1"]}"#;
        let chunk = vec![
            item(ItemKind::Present, "/brokers/ids/1", registration, 5, 50),
            item(ItemKind::Present, STATE, &state(1, 3), 6, 60),
        ];
        assert_eq!(view.apply(Update::SnapshotChunk(chunk), 0), []);
        let notices = view.apply(Update::SnapshotEnd(Zxid::new(9)), 0);
        assert_eq!(notices.len(), 1);
        assert_eq!(notices[0].detail, "brokers [1], 1 partitions");
        view
    }

    fn kinds(notices: &[Notice]) -> Vec<(NoticeKind, &str, Option<i64>)> {
        notices.iter().map(|n| (n.kind, n.subject.as_str(), n.latency_ms)).collect()
    }

    #[test]
    fn failed_brokers_and_new_leaders_are_told_with_their_latency() {
        let mut view = view();
        let items = vec![item(ItemKind::Deleted, "/brokers/ids/1", "", 5, 50)];
        let notices = view.apply(Update::Changes { zxid: Zxid::new(10), items }, 1_000);
        assert_eq!(kinds(&notices), [(NoticeKind::BrokerDown, "broker 1", None)]);
        let items = vec![item(ItemKind::DataChanged, STATE, &state(2, 4), 6, 1_010)];
        let notices = view.apply(Update::Changes { zxid: Zxid::new(11), items }, 1_013);
        assert_eq!(kinds(&notices), [(NoticeKind::Leader, "orders/0", Some(3))]);
        assert_eq!(notices[0].detail, "1 -> 2, epoch 4, in sync [2]");
        let items = vec![item(ItemKind::DataChanged, STATE, &state(-1, 5), 6, 1_020)];
        let notices = view.apply(Update::Changes { zxid: Zxid::new(12), items }, 1_020);
        assert_eq!(kinds(&notices), [(NoticeKind::Leaderless, "orders/0", Some(0))]);
        let items = vec![item(ItemKind::Created, "/brokers/ids/7", "", 13, 2_000)];
        let notices = view.apply(Update::Changes { zxid: Zxid::new(13), items }, 2_001);
        assert_eq!(kinds(&notices), [(NoticeKind::BrokerUp, "broker 7", Some(1))]);
    }

    #[test]
    fn a_registration_replaced_in_one_write_is_one_notice() {
        let mut view = view();
        let items = vec![
            item(ItemKind::Deleted, "/brokers/ids/1", "", 5, 50),
            item(ItemKind::Created, "/brokers/ids/1", "{}", 10, 100),
        ];
        let notices = view.apply(Update::Changes { zxid: Zxid::new(10), items }, 104);
        assert_eq!(kinds(&notices), [(NoticeKind::BrokerBack, "broker 1", Some(4))]);
    }

    #[test]
    fn isr_changes_and_other_znodes_are_not_told() {
        let mut view = view();
        let items = vec![
            item(ItemKind::DataChanged, STATE, &state(1, 3), 6, 70),
            item(ItemKind::Created, "/brokers/topics/orders/partitions/x/state", "{", 8, 80),
            item(ItemKind::Created, "/brokers/seqid", "", 9, 90),
        ];
        assert_eq!(view.apply(Update::Changes { zxid: Zxid::new(10), items }, 100), []);
    }

    #[test]
    fn a_later_snapshot_tells_what_was_missed() {
        let mut view = view();
        view.apply(Update::SnapshotBegin, 0);
        let chunk = vec![
            item(ItemKind::Present, "/brokers/ids/2", "{}", 20, 200),
            item(ItemKind::Present, STATE, &state(2, 4), 6, 210),
        ];
        view.apply(Update::SnapshotChunk(chunk), 0);
        let notices = view.apply(Update::SnapshotEnd(Zxid::new(30)), 300);
        let expected = [
            (NoticeKind::BrokerDown, "broker 1", None),
            (NoticeKind::BrokerUp, "broker 2", Some(100)),
            (NoticeKind::Leader, "orders/0", Some(90)),
        ];
        assert_eq!(kinds(&notices), expected);
    }
}
