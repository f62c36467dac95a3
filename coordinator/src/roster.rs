//! The servers of the ensemble, as the log has them and as the settings do.
//!
//! Called by: the core's task. Calls: those who hold links.
//! Invariant: links follow the log, once it says anything; that the settings say something else is told once.
//! Does not know: how members change.

use std::collections::{BTreeMap, BTreeSet};

use coordinator_core::ServerId;
use coordinator_core::members::Members;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::peers::Others;

/// Tells links of new members.
pub struct Roster {
    /// This server.
    own_id: ServerId,
    /// The others, with `host:port`.
    others: watch::Sender<BTreeMap<ServerId, String>>,
    /// Whether this server was last told to serve.
    serves: bool,
    /// Whether it has links to others, as its settings are.
    has_links: bool,
    /// Whom the settings name, this server too; nobody once that was compared with the log.
    named: BTreeMap<ServerId, String>,
    /// What the log said last, if it says anything.
    logged: BTreeMap<ServerId, String>,
}

impl Roster {
    /// Of a server whose settings name these, itself too; with where links hear of the others.
    pub fn new(
        own_id: ServerId,
        named: BTreeMap<ServerId, String>,
        has_links: bool,
    ) -> (Roster, Others) {
        let mut others = named.clone();
        others.remove(&own_id);
        let (others, heard) = watch::channel(others);
        let logged = BTreeMap::new();
        (Roster { own_id, others, serves: true, has_links, named, logged }, heard)
    }

    /// The servers of the ensemble are these now.
    pub fn take(&mut self, servers: &Members, serves: bool) {
        if serves != self.serves {
            self.serves = serves;
            match serves {
                true => info!("this server is a member of the ensemble"),
                false => warn!("this server is no member of the ensemble: it serves nobody"),
            }
        }
        self.logged = servers.iter().map(|(id, member)| (*id, member.peer_address())).collect();
        let mut others = self.logged.clone();
        others.remove(&self.own_id);
        if !others.is_empty() && !self.has_links {
            error!(
                "the log has other members than this server alone, and it has no links to them: give it `server.{}`, and the \
                 others' `peerSecret`, in its settings",
                self.own_id.get()
            );
        }
        self.others.send_if_modified(|known| {
            let differs = *known != others;
            if differs {
                info!(members = ?servers.keys().map(|id| id.get()).collect::<Vec<_>>(), "the servers of the ensemble");
                *known = others;
            }
            differs
        });
    }

    /// Says once in what the settings differ from the log, when what the log says is of now.
    pub fn compare(&mut self) {
        let named = std::mem::take(&mut self.named);
        if named.is_empty() || self.logged.is_empty() {
            return;
        }
        let found = differences(&named, &self.logged);
        if !found.is_empty() {
            warn!(
                differences = found.join("; "),
                "the settings name other servers than the log, whose servers and addresses count: mend the `server.` lines, or \
                 have the ensemble changed (`reconfig`)"
            );
        }
    }
}

/// In words, server by server.
fn differences(
    named: &BTreeMap<ServerId, String>,
    logged: &BTreeMap<ServerId, String>,
) -> Vec<String> {
    let all: BTreeSet<ServerId> = named.keys().chain(logged.keys()).copied().collect();
    let differs = |id: &ServerId| match (named.get(id), logged.get(id)) {
        (Some(named), Some(logged)) if named == logged => None,
        (Some(named), Some(logged)) => {
            Some(format!("server.{id} is at {named} by the settings, at {logged} by the log"))
        }
        (Some(named), None) => Some(format!("server.{id} at {named} is in the settings only")),
        (None, Some(logged)) => Some(format!("server.{id} at {logged} is in the log only")),
        (None, None) => None,
    };
    all.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_settings_and_log_do_not_agree_on_is_named() {
        let servers = |servers: &[(u64, &str)]| -> BTreeMap<ServerId, String> {
            let of = |(id, address): &(u64, &str)| (ServerId::new(*id).unwrap(), (*address).into());
            servers.iter().map(of).collect()
        };
        let named = servers(&[(1, "a:1"), (2, "b:1"), (3, "c:1")]);
        assert_eq!(differences(&named, &named), [""; 0]);
        let logged = servers(&[(1, "a:1"), (3, "z:1"), (4, "d:1")]);
        assert_eq!(
            differences(&named, &logged),
            [
                "server.2 at b:1 is in the settings only",
                "server.3 is at c:1 by the settings, at z:1 by the log",
                "server.4 at d:1 is in the log only",
            ]
        );
    }
}
