//! The settings file of each node of a cluster.
//!
//! Called by: `Cluster::start`. Knows the names of settings, and nothing of processes.

use std::fmt::Write;
use std::path::Path;

use super::Node;

/// What every peer link of a cluster under test proves to know.
const PEER_SECRET: &str = "a cluster under test";

/// A coordinator's file, with every member of the ensemble.
pub fn coordinator<'a>(
    node: &Node,
    ensemble: impl Iterator<Item = &'a Node>,
    home: &Path,
) -> String {
    let mut text = format!(
        "id = {}\ndataDir = \"{}\"\nclientPortAddress = \"{}\"\nclientPort = {}\nhttpPort = {}\nclusterId = \"test\"\npeerSecret = \"{PEER_SECRET}\"\ninsecure = {}\n\n[server]\n",
        node.id,
        home.join("data").display(),
        node.place.host,
        node.port,
        node.http_port,
        is_reachable(node)
    );
    for member in ensemble {
        let _ = writeln!(text, "{} = \"{}:{}\"", member.id, member.place.host, member.peer_port);
    }
    text
}

/// Whether more than loopback leads to it: the servers want to be told that this is meant.
fn is_reachable(node: &Node) -> bool {
    !node.place.host.is_loopback()
}

/// A broker's file, with `more` settings after those that wire it up.
pub fn broker(node: &Node, coordinators: &str, home: &Path, more: &[(String, String)]) -> String {
    let host = node.place.host;
    let mut settings = vec![
        ("broker.id".to_string(), node.id.to_string()),
        ("log.dirs".to_string(), home.join("data").display().to_string()),
        (
            "listeners".to_string(),
            format!("PLAINTEXT://{host}:{},INTERNAL://{host}:{}", node.port, node.peer_port),
        ),
        ("http.address".to_string(), format!("{host}:{}", node.http_port)),
        ("zookeeper.connect".to_string(), coordinators.to_string()),
    ];
    if is_reachable(node) {
        settings.push(("insecure".to_string(), "true".to_string()));
    }
    settings.extend(more.iter().cloned());
    let mut text = String::new();
    for (key, value) in settings {
        let _ = writeln!(text, "\"{key}\" = \"{value}\"");
    }
    text
}
