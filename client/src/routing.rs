//! Follows brokers and leaders by the coordinator's subscription, so that a client hears of a failover when it happens.
//!
//! *Called by* the drivers of `producer` and `consumer`. *Calls* `coordinator-client`.
//!
//! Invariant: routes come in the order in which the cluster changed; after a gap all that holds now comes anew. What the
//! coordinator does not say, or as long as it cannot be reached, the client finds out from brokers as with any cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use client_core::{Leader, Route, TopicPartition};
use client_protocol::{BrokerId, LeaderEpoch};
use coordinator_client::protocol::{Item, ItemKind};
use coordinator_client::{Client, Config, Update};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::options::ClientOptions;

const BROKERS: &str = "/brokers";

/// Routes that wait for the driver; it takes them in microseconds, so this bounds a burst, not a rate.
const ROUTES_WAITING_MAX: usize = 4096;

/// How long to wait before a lost subscription is made anew.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A stream of routes; ends with the value.
#[derive(Debug)]
pub(crate) struct Routes {
    receiver: mpsc::Receiver<Route>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Routes {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Routes {
    /// Subscribes, if the options name coordinators; otherwise nothing ever comes.
    pub(crate) fn follow(options: &ClientOptions) -> Self {
        let (sender, receiver) = mpsc::channel(ROUTES_WAITING_MAX);
        if options.coordinators.is_empty() {
            return Self { receiver, task: None };
        }
        let config = Config {
            root: options.coordinator_root.clone(),
            tls: options.coordinator_tls.clone(),
            ..Config::new(options.coordinators.clone())
        };
        let task = tokio::spawn(async move {
            while !sender.is_closed() {
                let client = Client::open(config.clone());
                let ended = relay(&client, &sender).await;
                tracing::debug!(error = %ended, "the coordinator's subscription ended");
                client.close().await;
                tokio::time::sleep(RETRY_AFTER).await;
            }
        });
        Self { receiver, task: Some(task) }
    }

    /// The next route; never, when nobody is followed. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Route {
        match self.receiver.recv().await {
            Some(route) => route,
            None => std::future::pending().await,
        }
    }
}

/// Hands on routes until the subscription ends; says why it did.
async fn relay(client: &Client, sender: &mpsc::Sender<Route>) -> coordinator_client::Error {
    let mut subscription = match client.subscribe(BROKERS).await {
        Ok(subscription) => subscription,
        Err(error) => return error,
    };
    let mut view = View::default();
    loop {
        let update = match subscription.next().await {
            Ok(update) => update,
            Err(error) => return error,
        };
        for route in view.apply(update) {
            if sender.send(route).await.is_err() {
                return coordinator_client::Error::Closed;
            }
        }
    }
}

/// Turns updates into routes.
#[derive(Debug, Default)]
struct View {
    brokers: BTreeSet<BrokerId>,
    /// Those of the snapshot that is coming in.
    snapshot: Option<BTreeSet<BrokerId>>,
}

#[derive(Deserialize)]
struct Registration {
    #[serde(default)]
    endpoints: Vec<String>,
}

#[derive(Deserialize)]
struct State {
    leader: i32,
    leader_epoch: i32,
}

impl View {
    fn apply(&mut self, update: Update) -> Vec<Route> {
        match update {
            Update::SnapshotBegin => {
                self.snapshot = Some(BTreeSet::new());
                Vec::new()
            }
            Update::SnapshotChunk(items) | Update::Changes { items, .. } => {
                items.iter().filter_map(|item| self.take(item)).collect()
            }
            Update::SnapshotEnd(_) => {
                let Some(present) = self.snapshot.take() else { return Vec::new() };
                let gone = self.brokers.difference(&present).copied().map(Route::BrokerDown);
                let routes = gone.collect();
                self.brokers = present;
                routes
            }
            Update::CompleteUpTo(_) => Vec::new(),
        }
    }

    fn take(&mut self, item: &Item) -> Option<Route> {
        let is_gone = item.kind == ItemKind::Deleted;
        let data = item.data.as_deref().unwrap_or_default();
        let mut parts = item.path.trim_start_matches('/').split('/');
        let parts: [Option<&str>; 7] = std::array::from_fn(|_| parts.next());
        match parts {
            [Some("brokers"), Some("ids"), Some(id), None, ..] => {
                let broker = BrokerId::new(id.parse().ok()?);
                if is_gone {
                    self.brokers.remove(&broker);
                    return Some(Route::BrokerDown(broker));
                }
                self.snapshot.as_mut().unwrap_or(&mut self.brokers).insert(broker);
                let registration: Registration = serde_json::from_slice(data).ok()?;
                let address = public_address(&registration.endpoints)?;
                Some(Route::BrokerUp { broker, address })
            }
            [
                Some("brokers"),
                Some("topics"),
                Some(topic),
                Some("partitions"),
                Some(partition),
                Some("state"),
                None,
            ] if !is_gone => {
                let partition = TopicPartition::new(topic, partition.parse().ok()?);
                let state: State = serde_json::from_slice(data).ok()?;
                let leader = Leader {
                    broker: (state.leader >= 0).then(|| BrokerId::new(state.leader)),
                    epoch: Some(LeaderEpoch::new(state.leader_epoch)),
                };
                Some(Route::Leader { partition, leader })
            }
            _ => None,
        }
    }
}

/// The address for clients among `NAME://host:port`.
fn public_address(endpoints: &[String]) -> Option<String> {
    let split = |endpoint: &String| {
        let (name, address) = endpoint.split_once("://")?;
        (name != "INTERNAL").then(|| address.to_owned())
    };
    endpoints.iter().find_map(split)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use coordinator_client::protocol::{Stat, Zxid};

    fn item(kind: ItemKind, path: &str, data: &str) -> Item {
        let data = Some(Bytes::copy_from_slice(data.as_bytes()));
        Item { kind, path: path.to_owned(), data, stat: Stat::default() }
    }

    const REGISTRATION: &str = r#"{"endpoints":["INTERNAL://a:2","PLAINTEXT://a:1"]}"#;

    fn up(id: i32) -> Route {
        Route::BrokerUp { broker: BrokerId::new(id), address: "a:1".to_owned() }
    }

    #[test]
    fn brokers_and_leaders_become_routes() {
        let mut view = View::default();
        view.apply(Update::SnapshotBegin);
        let state = r#"{"leader":1,"leader_epoch":4,"isr":[1]}"#;
        let items = vec![
            item(ItemKind::Present, "/brokers", ""),
            item(ItemKind::Present, "/brokers/ids/1", REGISTRATION),
            item(ItemKind::Present, "/brokers/topics/t/partitions/3/state", state),
            item(ItemKind::Present, "/brokers/topics/t/partitions/x/state", state),
        ];
        let leader = Leader { broker: Some(BrokerId::new(1)), epoch: Some(LeaderEpoch::new(4)) };
        let partition = TopicPartition::new("t", 3);
        let expected = [up(1), Route::Leader { partition: partition.clone(), leader }];
        assert_eq!(view.apply(Update::SnapshotChunk(items)), expected);
        assert_eq!(view.apply(Update::SnapshotEnd(Zxid::new(5))), []);
        let items = vec![item(ItemKind::Deleted, "/brokers/ids/1", "")];
        let down = [Route::BrokerDown(BrokerId::new(1))];
        assert_eq!(view.apply(Update::Changes { zxid: Zxid::new(6), items }), down);
        let state = r#"{"leader":-1,"leader_epoch":5,"isr":[1]}"#;
        let path = "/brokers/topics/t/partitions/3/state";
        let items = vec![item(ItemKind::DataChanged, path, state)];
        let leader = Leader { broker: None, epoch: Some(LeaderEpoch::new(5)) };
        let expected = [Route::Leader { partition, leader }];
        assert_eq!(view.apply(Update::Changes { zxid: Zxid::new(7), items }), expected);
    }

    #[test]
    fn a_later_snapshot_tells_of_brokers_that_went_meanwhile() {
        let mut view = View::default();
        for (ids, gone) in [(vec![1, 2], vec![]), (vec![2], vec![1])] {
            view.apply(Update::SnapshotBegin);
            let items = ids
                .iter()
                .map(|id| item(ItemKind::Present, &format!("/brokers/ids/{id}"), REGISTRATION));
            view.apply(Update::SnapshotChunk(items.collect()));
            let gone: Vec<_> =
                gone.iter().map(|id| Route::BrokerDown(BrokerId::new(*id))).collect();
            assert_eq!(view.apply(Update::SnapshotEnd(Zxid::new(5))), gone);
        }
    }
}
