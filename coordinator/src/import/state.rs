//! ZooKeeper's tree as a member's first state.
//!
//! Called by: `import`. Calls: the core's records.
//! Invariant: every znode keeps its data, its list and its numbers, so that clients see the same Stat; all sessions
//! were ended by the zxid after the last one, and their ephemerals went with them.
//! Does not know: files.

use std::sync::Arc;

use bytes::Bytes;
use coordinator_core::state::FrozenState;
use coordinator_core::tree::{NodeNumbers, NodeRecord, PATH_COMPONENTS_MAX};
use coordinator_protocol::SessionId;

use super::znodes::{Znode, Znodes};
use super::{ImportError, Report, zxid};

/// Where a running ensemble tells its members: the new one tells its own.
const CONFIG_PATH: &str = "/zookeeper/config";
/// So much of a path that is refused is told.
const SHOWN_MAX: usize = 200;

/// Ends the sessions, counts, converts.
pub fn freeze(mut znodes: Znodes, report: &mut Report) -> Result<FrozenState, ImportError> {
    // A snapshot is written while changes go on: without the log it can hold later ones than its name says.
    let newest = znodes.nodes.values().map(|node| node.stat.mzxid.max(node.stat.pzxid)).max();
    let mut last = znodes.last_zxid.max(newest.unwrap_or(0));
    if !znodes.sessions.is_empty() || znodes.nodes.values().any(|node| node.stat.is_ephemeral()) {
        last = last.saturating_add(1);
    }
    (report.sessions, report.ephemerals) = znodes.close_sessions(last);
    add_system_nodes(&mut znodes);
    report.znodes = znodes.nodes.len() as u64;
    let sizes = znodes.nodes.values().map(|node| node.data.as_ref().map_or(0, Bytes::len) as u64);
    report.data_bytes = sizes.sum();
    let written = znodes.nodes.values().map(|node| node.stat.mtime_ms).max();
    let wall_ms = znodes.wall_ms.max(written.unwrap_or(0));
    refuse_deep(&znodes)?;
    let records = znodes.nodes.into_iter().map(|(path, node)| record(&path, node)).collect();
    FrozenState::imported(zxid(last), wall_ms, records)
        .map_err(|error| ImportError::Contradiction(format!("zxid {last:#x}: {error}")))
}

/// ZooKeeper's trees may be of any depth.
fn refuse_deep(znodes: &Znodes) -> Result<(), ImportError> {
    let is_deep = |path: &&String| path.matches('/').count() > PATH_COMPONENTS_MAX;
    match znodes.nodes.keys().find(is_deep) {
        None => Ok(()),
        Some(path) => Err(ImportError::TooDeep { path: path.chars().take(SHOWN_MAX).collect() }),
    }
}

/// What a member has from the start and old servers did not.
fn add_system_nodes(znodes: &mut Znodes) {
    for node in coordinator_core::tree::Tree::new().subtree("/") {
        let path = node.path();
        let is_config = path == CONFIG_PATH;
        if znodes.nodes.contains_key(path) && !is_config {
            continue;
        }
        let former = znodes.nodes.get(path).map(|node| node.stat).unwrap_or_default();
        let stat = super::znodes::StoredStat { aversion: node.stat().aversion, ..former };
        let (data, acl) = (node.data(), node.acl().clone());
        znodes.insert(path.to_string(), Znode { data, acl, stat });
    }
}

fn record(path: &str, node: Znode) -> NodeRecord {
    let Znode { data, acl, stat } = node;
    let numbers = NodeNumbers {
        czxid: zxid(stat.czxid),
        mzxid: zxid(stat.mzxid),
        // Nodes that servers before 3.5 made may have none.
        pzxid: zxid(stat.pzxid.max(stat.czxid)),
        ctime_ms: stat.ctime_ms,
        mtime_ms: stat.mtime_ms,
        version: stat.version,
        cversion: stat.cversion,
        aversion: stat.aversion,
        ephemeral_owner: SessionId::new(stat.ephemeral_owner),
    };
    NodeRecord::new(Arc::from(path), data, acl, numbers)
}
