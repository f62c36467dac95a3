//! What ZooKeeper's settings that are none here are replaced by.
//!
//! Called by: parsing. Calls: nothing.
//! Invariant: a name that is a setting here is not in the table.

use super::names::find;

/// By name, or by its beginning where that ends in a dot; whatever the case of its letters.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "superDigest",
        "DigestAuthenticationProvider.superDigest is its name here, as that of ZooKeeper's system property",
    ),
    ("dataLogDir", "it is not needed: log and snapshots are in dataDir, and one sync serves all"),
    ("secureClientPort", "clientPort itself takes TLS once ssl.keyStore.location is set"),
    (
        "secureClientPortAddress",
        "clientPortAddress is that of TLS too, once ssl.keyStore.location is set",
    ),
    ("server", "members are server.N = \"HOST:PORT\", or lines N = \"HOST:PORT\" below [server]"),
    ("myid", "id is its name here, and it stands in this file"),
    ("serverId", "id is its name here"),
    (
        "initLimit",
        "it is not needed: a member that lags has the time that it takes; electionTimeout is for silent leaders",
    ),
    (
        "syncLimit",
        "it is not needed: electionTimeout, in ms, says when a silent leader is given up",
    ),
    ("connectToLearnerMasterLimit", "it is not needed: electionTimeout is for silent leaders"),
    ("cnxTimeout", "it is not needed: electionTimeout is for silent leaders"),
    (
        "autopurge.",
        "it is not needed: old snapshots and logs go by themselves (snapCount, snapSizeLimitInKb)",
    ),
    ("quorumListenOnAllIPs", "it is not needed: a member listens at the host of its own server.N"),
    ("admin.enableServer", "httpPort, which is none unless it is set, turns it on"),
    ("admin.serverPort", "httpPort is its name here"),
    (
        "admin.",
        "httpPort and admin.serverAddress are all that HTTP is told; the commands are below /commands",
    ),
    ("metricsProvider.", "httpPort turns /metrics on, in Prometheus' form"),
    ("electionAlg", "it is not needed: there is one way to elect"),
    ("electionPortBindRetry", "it is not needed: there is one port for links between members"),
    ("leaderServes", "it is not needed: leaders serve clients"),
    ("standaloneEnabled", "it is not needed: without server.N a server stands alone"),
    (
        "dynamicConfigFile",
        "members that join and leave are in the log (reconfigEnabled); server.N are the first ones",
    ),
    ("skipReconfigACL", "skipACL = \"yes\" is for all access lists"),
    ("globalOutstandingLimit", "it is not needed: what waits is bounded"),
    ("preAllocSize", "it is not needed: the log takes its room ahead by itself"),
    ("forceSync", "it is not needed: nothing is acknowledged before it is synced"),
    ("fsync.", "it is not needed: /metrics has a histogram of syncs"),
    ("snapshot.trust.empty", "it is not needed: a missing snapshot is found out"),
    ("serverCnxnFactory", "it is not needed: there is one kind, which takes TLS too"),
    ("portUnification", "links between members are all encrypted or none (sslQuorum)"),
    ("ssl.quorum.hostnameVerification", "it is not needed: names are always checked"),
    (
        "ssl.quorum.",
        "of these, ssl.quorum.keyStore.location and ssl.quorum.trustStore.location are there: PEM files, without passwords",
    ),
    (
        "ssl.",
        "of these, ssl.keyStore.location, ssl.trustStore.location and ssl.clientAuth are there: PEM files, without passwords",
    ),
    ("authProvider.", "saslUsers turns SASL on; digest, ip and certificates need no setting"),
    ("requireClientAuthScheme", "sessionRequireClientSASLAuth is what there is"),
    ("quorum.auth.", "peerSecret is what members prove to know, and sslQuorum encrypts"),
    ("quorum.", "peerSecret is what members prove to know, and sslQuorum encrypts"),
    ("localSessionsEnabled", "there are no local sessions"),
    ("localSessionsUpgradingEnabled", "there are no local sessions"),
    ("group.", "there are no hierarchical quorums"),
    ("weight.", "there are no hierarchical quorums"),
    ("syncEnabled", "it is not needed: observers write logs and snapshots"),
    ("extendedTypesEnabled", "it is not needed: TTL nodes are there"),
    ("watchManagerName", "it is not needed: maxWatches and its like limit them"),
    ("maxResponseCacheSize", "it is not needed: nothing is cached but the tree itself"),
    ("maxGetChildrenResponseCacheSize", "it is not needed: nothing is cached but the tree itself"),
    ("clientPortListenBacklog", "it is not needed"),
    ("kerberos.", "there is no Kerberos; saslUsers is for DIGEST-MD5"),
];

/// Names that a zoo.cfg has at least one of.
const TYPICAL: [&str; 5] = ["dataDir", "clientPort", "tickTime", "initLimit", "server."];

/// What is said of a name that is no setting here, if it is one of ZooKeeper's.
pub fn instead_of(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix("zookeeper.").unwrap_or(name).to_ascii_lowercase();
    let fits = |known: &str| {
        let known = known.to_ascii_lowercase();
        name == known || (known.ends_with('.') && name.starts_with(&known))
    };
    ELSEWHERE.iter().find(|(known, _)| fits(known)).map(|(_, instead)| *instead)
}

/// What is said of a text that is no TOML, if it looks like ZooKeeper's file: lines NAME=VALUE, without quotes.
pub fn told_of_file(text: &str) -> Option<String> {
    let lines = text.lines().map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let pairs: Option<Vec<_>> = lines.iter().map(|line| line.split_once('=')).collect();
    let pairs: Vec<_> =
        pairs?.into_iter().map(|(name, value)| (name.trim(), value.trim())).collect();
    let is_typical = |(name, _): &(&str, &str)| {
        TYPICAL
            .iter()
            .any(|known| name == known || (known.ends_with('.') && name.starts_with(known)))
    };
    let is_bare = |(_, value): &(&str, &str)| !value.starts_with(['"', '\'', '[', '{']);
    if !pairs.iter().any(is_typical) || !pairs.iter().all(is_bare) {
        return None;
    }
    let mut told = String::from(
        "this looks like a zoo.cfg: here the file is TOML, texts stand in quotes (dataDir = \"/data\", server.1 = \"HOST:2888\"), the \
         number in ZooKeeper's file myid is id = N, and several members need a peerSecret",
    );
    // Of names that are settings here nothing has to change, though others that begin alike are told of.
    for (name, _) in pairs.iter().filter(|(name, _)| find(name).is_none()) {
        if let Some(instead) = instead_of(name) {
            told.push_str(&format!("\n  {name}: {instead}"));
        }
    }
    Some(told)
}

#[cfg(test)]
mod tests {
    use super::super::names::MEMBER_PREFIX;
    use super::*;

    #[test]
    fn names_of_zookeeper_are_told_what_takes_their_place() {
        for (name, expected) in [
            ("superDigest", "DigestAuthenticationProvider.superDigest"),
            ("zookeeper.superDigest", "DigestAuthenticationProvider.superDigest"),
            ("datalogdir", "not needed"),
            ("secureClientPort", "ssl.keyStore.location"),
            ("autopurge.purgeInterval", "by themselves"),
            ("admin.enableServer", "httpPort"),
            ("admin.idleTimeout", "admin.serverAddress"),
            ("server", "[server]"),
        ] {
            let told = instead_of(name).unwrap_or_else(|| panic!("{name}"));
            assert!(told.contains(expected), "{name}: {told}");
        }
        assert_eq!(instead_of("clientport"), None);
        let known = |name: &&str| find(name).is_some() || *name == MEMBER_PREFIX;
        let names = ELSEWHERE.iter().map(|(name, _)| *name);
        assert_eq!(names.filter(known).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn file_of_zookeeper_is_known_by_its_lines() {
        let text = "# the ensemble\ntickTime=2000\n\ndataDir=/var/lib/zookeeper\nsyncLimit = 5\nserver.1=a:2888:3888\n";
        let told = told_of_file(text).unwrap();
        assert!(told.contains("zoo.cfg") && told.contains("\n  syncLimit: "), "{told}");
        let text = "dataDir=/data\nssl.keyStore.location=/key.pem\nssl.keyStore.password=x\n";
        let told = told_of_file(text).unwrap();
        assert!(told.contains("\n  ssl.keyStore.password: "), "{told}");
        assert!(!told.contains("\n  ssl.keyStore.location: "), "{told}");
        for other in
            ["", "tickTime", "dataDir = \"/data\"\nclientPort = x", "a=b", "[server]\n1 = x"]
        {
            assert_eq!(told_of_file(other), None, "{other}");
        }
    }
}
