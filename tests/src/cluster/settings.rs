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
        "id = {}\ndataDir = \"{}\"\nclientPortAddress = \"127.0.0.1\"\nclientPort = {}\nhttpPort = {}\nclusterId = \"test\"\npeerSecret = \"{PEER_SECRET}\"\n\n[server]\n",
        node.id,
        home.join("data").display(),
        node.port,
        node.http_port
    );
    for member in ensemble {
        let _ = writeln!(text, "{} = \"127.0.0.1:{}\"", member.id, member.peer_port);
    }
    text
}

/// A broker's file, with `more` settings after those that wire it up.
pub fn broker(node: &Node, coordinators: &str, home: &Path, more: &[(String, String)]) -> String {
    let mut settings = vec![
        ("broker.id".to_string(), node.id.to_string()),
        ("log.dirs".to_string(), home.join("data").display().to_string()),
        (
            "listeners".to_string(),
            format!("PLAINTEXT://127.0.0.1:{},INTERNAL://127.0.0.1:{}", node.port, node.peer_port),
        ),
        ("http.address".to_string(), format!("127.0.0.1:{}", node.http_port)),
        ("zookeeper.connect".to_string(), coordinators.to_string()),
    ];
    settings.extend(more.iter().cloned());
    let mut text = String::new();
    for (key, value) in settings {
        let _ = writeln!(text, "\"{key}\" = \"{value}\"");
    }
    text
}
