//! Every setting's name, default and meaning, in one table.
//!
//! Called by: parsing, and `--help`, which prints the table.
//! Invariant: a name that is not here is an error. Where ZooKeeper has the setting, the name is ZooKeeper's.

use std::fmt::Write;

/// One setting.
pub struct Setting {
    /// As written in the file.
    pub name: &'static str,
    /// Used when it is not set; empty for none.
    pub default: &'static str,
    about: &'static str,
}

/// A member of the ensemble is a setting of its own: `server.<id>`.
pub const MEMBER_PREFIX: &str = "server.";

const fn setting(name: &'static str, default: &'static str, about: &'static str) -> Setting {
    Setting { name, default, about }
}

/// All settings but the members.
pub const SETTINGS: &[Setting] = &[
    setting("id", "1", "this server's id in the ensemble, 1 to 254 (ZooKeeper's myid)"),
    setting(
        "clusterId",
        "tidegate",
        "name of the ensemble; files and links of another are refused",
    ),
    setting("dataDir", "coordinator-data", "folder of log and snapshots, created when absent"),
    setting("clientPort", "2181", "port for clients; 0 takes any free one"),
    setting("clientPortAddress", "127.0.0.1", "address for clients"),
    setting(
        "httpPort",
        "",
        "port for /live, /ready, /metrics, and from this machine /commands and `coordinator snapshot`, on \
         admin.serverAddress; none without",
    ),
    setting(
        "admin.serverAddress",
        "",
        "address for these; without: clientPortAddress where that is this machine's only or insecure = true, else 127.0.0.1",
    ),
    setting("tickTime", "2000", "milliseconds from which the session limits are derived"),
    setting("minSessionTimeout", "", "least session time-out in ms; without: 2 x tickTime"),
    setting("maxSessionTimeout", "", "greatest session time-out in ms; without: 20 x tickTime"),
    setting("maxCnxns", "10000", "clients that may be connected at once"),
    setting(
        "maxClientCnxns",
        "0",
        "of those from one address; 0 for as many as there is room for (ZooKeeper: 60)",
    ),
    setting(
        "4lw.commands.whitelist",
        "ruok,envi,srvr,stat,mntr,isro",
        "four-letter words that are answered at clientPort, between commas, * for all (ZooKeeper: srvr, which \
         always is); lists that stat, cons, dump, wchc and wchp show have at most 10000 entries",
    ),
    setting(
        "jute.maxbuffer",
        "1048575",
        "bytes of the largest request, 1024 to 33554432, the same at all members (they tell of others); its client is closed otherwise. What sets \
         watches again may have 64 MiB, and answers are not limited by it: clients have a jute.maxbuffer of their own",
    ),
    setting(
        "maxResponseBytes",
        "0",
        "bytes of the largest answer to a read, 131072 or more; a larger one is answered by -127 instead, for clients whose \
         jute.maxbuffer it is above (Java's take fewer than 1048575 unless told). 0 for any",
    ),
    setting(
        "maxWatchesPerSession",
        "1000000",
        "paths that one session may watch, 1 to 1000000; what would watch more is refused with -125",
    ),
    setting(
        "maxWatchesPerClient",
        "0",
        "paths that all sessions may watch here that come with one certificate, or without any from one address; clients that \
         come from elsewhere may set theirs again up to twice as many. 0 for any",
    ),
    setting(
        "maxWatches",
        "4000000",
        "paths that all sessions of this server may watch, each for itself; twice as many when another server's clients come with \
         theirs. 0 for any",
    ),
    setting(
        "maxSessionsPerClient",
        "100000",
        "sessions that live and were made at this server with one certificate, or without any from one address; who wants more is \
         closed. 0 for any",
    ),
    setting("snapCount", "100000", "a snapshot is taken after so many log entries"),
    setting(
        "snapSizeLimitInKb",
        "131072",
        "or after so many KiB of log, if the last one was not larger: what a start reads back; 0 for any (ZooKeeper: 4 GiB)",
    ),
    setting(
        "snapshotBytesPerSecond",
        "33554432",
        "so fast at most snapshots are written, beside the log, 1048576 or more; 0 for as fast as the disk takes them",
    ),
    setting(
        "snapshot.compression.method",
        "",
        "zstd packs snapshots (ZooKeeper: gz, snappy); any server reads both kinds, builds before neither",
    ),
    setting(
        "diskFreeBytesMin",
        "67108864",
        "bytes to be free on dataDir's disk, beside those for a snapshot: with fewer clients can read and delete only, \
         other writes get -125 until there is half as much more; 0 for never",
    ),
    setting(
        "audit.enable",
        "false",
        "true writes who changed what, and who was not let, to a file, as ZooKeeper does",
    ),
    setting("audit.file", "", "that file; without: audit.log in dataDir"),
    setting(
        "audit.fileBytesMax",
        "10485760",
        "bytes in it, 64 KiB or more, after which it becomes FILE.1",
    ),
    setting("audit.filesMax", "11", "files of the audit log that are kept, 1 to 1000"),
    setting("peerSecret", "", "what members prove to know; needed with more than one member"),
    setting(
        "electionTimeout",
        "1000",
        "ms of a silent leader before an election; a closed socket needs none",
    ),
    setting(
        "peerTick",
        "50",
        "ms between two looks at the clock by consensus; heartbeats take two",
    ),
    setting("catchUpEntries", "10000", "log entries kept behind a snapshot for members that lag"),
    setting(
        "catchUpBytes",
        "33554432",
        "bytes that these may have, in memory; a member that lags by more gets a snapshot and closes its clients",
    ),
    setting(
        "znode.container.checkIntervalMs",
        "60000",
        "ms between two looks for containers and TTL nodes that may go",
    ),
    setting(
        "DigestAuthenticationProvider.superDigest",
        "",
        "digest of the super user's credentials, `super:` and what `printf %s super:PASSWORD | openssl dgst -sha1 -binary | base64` \
         prints; nobody is without",
    ),
    setting("skipACL", "no", "yes lets everybody do what access lists forbid, as the super user"),
    setting(
        "saslUsers",
        "",
        "file of users for SASL DIGEST-MD5, name:password lines; no SASL without",
    ),
    setting("superUser", "", "which of them stands above all access lists; nobody without"),
    setting(
        "sessionRequireClientSASLAuth",
        "false",
        "true answers only those who have proved a password by SASL",
    ),
    setting(
        "readonlymode.enabled",
        "false",
        "true serves reads without a quorum, 2 s after it is lost, to clients whose handshake asks for that",
    ),
    setting(
        "linearizableReads",
        "false",
        "true has each read ask a quorum first, as if a sync stood before it; costs a round trip",
    ),
    setting(
        "ssl.keyStore.location",
        "",
        "PEM file of the key and certificates shown to clients; no TLS on clientPort without",
    ),
    setting(
        "ssl.trustStore.location",
        "",
        "PEM file of the authorities that have signed the certificates of clients",
    ),
    setting("ssl.clientAuth", "need", "need, want or none: certificates of clients that use TLS"),
    setting(
        "client.portUnification",
        "",
        "true serves clients without TLS, and so without certificates, beside those with; false refuses them, as \
         does a key store without this setting",
    ),
    setting(
        "sslQuorum",
        "false",
        "true encrypts the links between members, both show certificates",
    ),
    setting(
        "ssl.quorum.keyStore.location",
        "",
        "PEM file of the key and certificates of this member, for its host in server.N",
    ),
    setting("ssl.quorum.trustStore.location", "", "PEM file of the authorities of members"),
    setting(
        "client.certReload",
        "true",
        "true reads the files of ssl.keyStore and ssl.trustStore again when they change, for connections that begin then; what cannot \
         be used changes nothing (ZooKeeper: false)",
    ),
    setting(
        "sslQuorumReloadCertFiles",
        "true",
        "the same for those of ssl.quorum (ZooKeeper: false)",
    ),
    setting(
        "reconfigEnabled",
        "false",
        "true lets who may write /zookeeper/config change the members; server.N of the first leader are the first ones",
    ),
    setting("peerType", "participant", "observer for a server that server.N calls one"),
    setting("insecure", "false", "true allows listeners that are not on a loopback address"),
];

/// Values that nobody is shown.
const SECRET: [&str; 2] = ["peerSecret", "DigestAuthenticationProvider.superDigest"];

/// Whether nobody is shown the value of this setting.
pub fn is_secret(name: &str) -> bool {
    SECRET.contains(&name)
}

/// The setting of this name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The known name that `name` was probably meant to be.
pub fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    let distance = |setting: &Setting| edit_distance(&lower, &setting.name.to_lowercase());
    let best = SETTINGS.iter().min_by_key(|setting| distance(setting))?;
    (distance(best) <= name.len().max(best.name.len()) / 2).then_some(best.name)
}

/// The table, for people.
pub fn help() -> String {
    let mut text = String::from(
        "Settings (in the file given by --config, or by --set NAME=VALUE, which wins):\n\n",
    );
    for Setting { name, default, about } in SETTINGS {
        let default = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        let _ = writeln!(text, "  {name:<30} {about}{default}");
    }
    text.push_str(
        "  server.N           host:port[:port][:participant|observer][;[host:]clientPort] of member N, itself included;
                     the first port is for links between members, the second, ZooKeeper's for elections, is not
                     used; without any, the server stands alone. A server that is to join names those who are
                     there and itself

An ensemble of three on one machine, first member:

  id = 1
  dataDir = \"data-1\"
  clientPort = 2181
  peerSecret = \"only members know this\"
  [server]
  1 = \"127.0.0.1:2888\"
  2 = \"127.0.0.1:2889\"
  3 = \"127.0.0.1:2890\"

ZooKeeper's clients connect to clientPort; `echo srvr | nc 127.0.0.1 2181` shows the state.
SIGTERM hands leadership over and stops; nothing is lost by kill -9.",
    );
    text
}

/// Levenshtein's distance between two short names.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, from) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, to) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}
