use coordinator_protocol::FourLetterWord;

use super::*;
use crate::storage::Packing;

fn parse(text: &str) -> Result<Config, SettingError> {
    let mut values = Values::default();
    values.add_toml(text)?;
    Config::from_values(&values)
}

fn refused(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[test]
fn nothing_set_is_a_server_that_stands_alone_on_loopback() {
    let config = parse("").unwrap();
    assert_eq!(config.client_address, "127.0.0.1:2181".parse().unwrap());
    assert_eq!(config.http_address, None);
    assert!(config.members.is_empty());
    assert_eq!(config.core.members, [ServerId::new(1).unwrap()]);
    assert_eq!(config.core.session_timeout_ms_min, 4_000);
    assert_eq!(config.core.session_timeout_ms_max, 40_000);
}

#[test]
fn ensemble_is_read_from_table_or_dotted_names() {
    let table =
        "id = 2\npeerSecret = 's'\ntickTime = 100\n[server]\n1 = '127.0.0.1:1'\n2 = '127.0.0.1:2'";
    let dotted = "id = 2\npeerSecret = 's'\nserver.1 = '127.0.0.1:1'\nserver.2 = '127.0.0.1:2'";
    for text in [table, dotted] {
        let config = parse(text).unwrap();
        let ids: Vec<u64> = config.members.keys().map(|id| id.get()).collect();
        assert_eq!(ids, [1, 2]);
        assert_eq!(config.core.id.get(), 2);
    }
    assert_eq!(parse(table).unwrap().core.session_timeout_ms_max, 2_000);
}

#[test]
fn unknown_name_is_refused_with_the_nearest_known_one() {
    assert_eq!(refused("clientport = 1"), "clientport is no setting; did you mean clientPort?");
    assert_eq!(
        refused("dataDirectory = 'x'"),
        "dataDirectory is no setting; did you mean dataDir?"
    );
    assert!(refused("qqqqqqqqqqqqqqqq = 1").contains("--help"));
}

#[test]
fn wrong_values_are_refused_by_name() {
    assert_eq!(refused("clientPort = 65536"), "clientPort: \"65536\" is not a port, 0 to 65535");
    assert_eq!(refused("id = 255"), "id: \"255\" is not a server id, 1 to 254");
    assert!(refused("server.1 = 'nowhere'").starts_with("server.1: "));
    assert!(refused("tickTime = [1]").contains("array"));
    assert!(refused("minSessionTimeout = 9\nmaxSessionTimeout = 8").contains("is above"));
    assert!(
        refused("id = 3\npeerSecret = 's'\n[server]\n1 = 'a:1'\n2 = 'b:1'").contains("members")
    );
    assert!(refused("[server]\n1 = '127.0.0.1:1'\n2 = '127.0.0.1:2'").contains("peerSecret"));
}

#[test]
fn requests_may_be_as_large_as_the_log_can_carry() {
    let bytes = |text: &str| parse(text).unwrap().core.request_bytes_max;
    assert_eq!(bytes(""), 0xf_ffff);
    assert_eq!(bytes("jute.maxbuffer = 4194304"), 4 << 20);
    assert_eq!(bytes("[jute]\nmaxbuffer = 33554432"), 32 << 20);
    assert_eq!(bytes("jute.maxbuffer = 1024"), 1_024);
    for wrong in ["33554433", "1023", "0"] {
        let why = refused(&format!("jute.maxbuffer = {wrong}"));
        assert!(why.contains("1024 to 33554432 bytes"), "{why}");
    }
    assert!(refused("jute.maxbuffer = '4M'").starts_with("jute.maxbuffer: "));
}

#[test]
fn answers_may_be_limited_and_are_not_unless_told() {
    let bytes = |text: &str| parse(text).unwrap().core.reply_bytes_max;
    assert_eq!(bytes(""), 0);
    assert_eq!(bytes("maxResponseBytes = 131072"), 131_072);
    assert!(refused("maxResponseBytes = 131071").contains("131072 bytes"));
}

#[test]
fn watches_are_limited_for_a_session_a_client_and_all() {
    let limits = |text: &str| {
        let limits = parse(text).unwrap().core.watch_limits;
        (limits.per_connection, limits.per_client, limits.all)
    };
    assert_eq!(limits(""), (1_000_000, usize::MAX, 4_000_000));
    let text = "maxWatchesPerSession = 1\nmaxWatchesPerClient = 2\nmaxWatches = 3";
    assert_eq!(limits(text), (1, 2, 3));
    assert_eq!(
        limits("maxWatches = 0\nmaxWatchesPerClient = 0"),
        (1_000_000, usize::MAX, usize::MAX)
    );
    for wrong in ["0", "1000001"] {
        assert!(refused(&format!("maxWatchesPerSession = {wrong}")).contains("1 to 1000000"));
    }
}

#[test]
fn sessions_of_a_client_are_limited() {
    let limit = |text: &str| parse(text).unwrap().core.sessions_per_client_max;
    assert_eq!(limit(""), 100_000);
    assert_eq!(limit("maxSessionsPerClient = 0"), 0);
    assert!(refused("maxSessionsPerClient = -1").contains("a number"));
}

#[test]
fn bytes_kept_for_members_that_lag_are_a_setting() {
    assert_eq!(parse("").unwrap().core.log_bytes_kept, 32 << 20);
    assert_eq!(parse("catchUpBytes = 1000").unwrap().core.log_bytes_kept, 1_000);
    assert_eq!(refused("catchUpBytes = -1"), "catchUpBytes: \"-1\" is not a number of bytes");
}

#[test]
fn listener_that_others_can_reach_needs_insecure() {
    for text in ["clientPortAddress = '0.0.0.0'", "[server]\n1 = '0.0.0.0:2888'"] {
        assert!(refused(text).contains("insecure = true"), "{text}");
        assert!(parse(&format!("insecure = true\n{text}")).is_ok());
    }
}

#[test]
fn http_has_an_address_of_its_own() {
    let address = |text: &str| parse(text).unwrap().http_address.map(|found| found.to_string());
    assert_eq!(address("httpPort = 8080").as_deref(), Some("127.0.0.1:8080"));
    let other = "clientPortAddress = '127.0.0.2'\nhttpPort = 8080";
    assert_eq!(address(other).as_deref(), Some("127.0.0.2:8080"));
    let own = format!("{other}\nadmin.serverAddress = '127.0.0.3'");
    assert_eq!(address(&own).as_deref(), Some("127.0.0.3:8080"));
    let meant = "insecure = true\nclientPortAddress = '0.0.0.0'\nhttpPort = 8080";
    assert_eq!(address(meant).as_deref(), Some("0.0.0.0:8080"));
    assert!(refused("admin.serverAddress = '127.0.0.1'").contains("needs httpPort"));
    let reached = refused("httpPort = 8080\nadmin.serverAddress = '0.0.0.0'");
    assert!(reached.starts_with("admin.serverAddress: 0.0.0.0:8080"), "{reached}");
}

#[test]
fn settings_and_files_of_zookeeper_are_told_what_takes_their_place() {
    let why = refused("initLimit = 10");
    assert!(why.contains("electionTimeout") && !why.contains("did you mean"), "{why}");
    assert!(
        refused("superDigest = 'super:x'").contains("DigestAuthenticationProvider.superDigest")
    );
    let file = refused("tickTime=2000\ndataDir=/var/lib/zookeeper\nautopurge.purgeInterval=1\n");
    assert!(file.contains("zoo.cfg") && file.contains("autopurge.purgeInterval: "), "{file}");
    assert!(refused("id = ").contains("TOML"));
}

#[test]
fn flag_wins_over_the_file() {
    let mut values = Values::default();
    values.add_toml("clientPort = 1").unwrap();
    values.add_assignment("clientPort=0").unwrap();
    assert_eq!(Config::from_values(&values).unwrap().client_address.port(), 0);
    assert!(values.add_assignment("clientPort").is_err());
}

#[test]
fn words_are_those_that_are_named() {
    let whitelist = |text: &str| parse(text).unwrap().whitelist;
    let has = |text: &str, word| whitelist(text).has(word);
    assert!(has("", FourLetterWord::Mntr) && !has("", FourLetterWord::Dump));
    let some = "4lw.commands.whitelist = 'dump, wchs'\n";
    assert!(has(some, FourLetterWord::Dump) && has(some, FourLetterWord::Srvr));
    assert!(!has(some, FourLetterWord::Isro) && !has(some, FourLetterWord::Mntr));
    assert!(has(&format!("{some}readonlymode.enabled = true"), FourLetterWord::Isro));
    assert!(has("'4lw.commands.whitelist' = '*'", FourLetterWord::Wchc));
    let wrong = "4lw.commands.whitelist: \"dmup\" is not a four-letter word";
    assert_eq!(refused("4lw.commands.whitelist = 'dmup'"), wrong);
}

#[test]
fn what_is_secret_is_not_shown() {
    let digest = "DigestAuthenticationProvider.superDigest = 'super:classifiedclassifiedclassif='";
    let mut values = Values::default();
    values.add_toml(&format!("peerSecret = 'classified'\ndataDir = 'here'\n{digest}")).unwrap();
    let config = Config::from_values(&values).unwrap();
    assert_eq!(config.peer_secret, "classified");
    let told = config.settings.iter().map(|(name, value)| format!("{name}={value}"));
    let told: Vec<String> = told.collect();
    let names = ["DigestAuthenticationProvider.superDigest=..", "dataDir=here", "peerSecret=.."];
    assert_eq!(told, names);
    for shown in [format!("{values:?}"), format!("{config:?}"), format!("{config:#?}")] {
        assert!(!shown.contains("classified"), "{shown}");
    }
    assert!(format!("{config:?}").contains("here"));
    assert!(format!("{values:?}").contains("dataDir"));
}

/// Files for TLS, in a folder that goes with them.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Files {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write("own.pem", &(key.serialize_pem() + &certificate)).unwrap();
        write("ca.pem", &certificate).unwrap();
        write("users", "bob:secret").unwrap();
        Files { folder }
    }

    /// `name = 'file'`.
    fn setting(&self, name: &str, file: &str) -> String {
        format!("{name} = '{}'\n", self.folder.path().join(file).display())
    }
}

/// Each of `choices` with each text that was there before.
fn each_with(texts: &[String], choices: &[String]) -> Vec<String> {
    texts.iter().flat_map(|text| choices.iter().map(move |one| format!("{text}{one}"))).collect()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn client_port_is_public_where_every_client_shows_a_certificate() {
    let files = Files::new();
    let key = files.setting("ssl.keyStore.location", "own.pem");
    let trust = files.setting("ssl.trustStore.location", "ca.pem");
    let sasl = files.setting("saslUsers", "users") + "sessionRequireClientSASLAuth = true\n";
    let auth = |name: &str| format!("ssl.clientAuth = '{name}'\n");
    let mut all = each_with(&texts(&[""]), &[String::new(), key.clone()]);
    all = each_with(&all, &[String::new(), trust.clone()]);
    all = each_with(&all, &[String::new(), auth("need"), auth("want"), auth("none")]);
    let unified = ["", "client.portUnification = true\n", "client.portUnification = false\n"];
    all = each_with(&all, &texts(&unified));
    all = each_with(&all, &[String::new(), sasl]);
    assert_eq!(all.len(), 96);
    let mut found = (0, 0);
    for text in all {
        let (encrypts, checks) = (text.contains(&key), text.contains(&trust));
        let only_plain = !checks && !text.contains(unified[2]);
        let can_be = if encrypts { checks != text.contains(&auth("none")) } else { only_plain };
        let shown = !text.contains(&auth("none")) && !text.contains(&auth("want"));
        let is_safe = can_be && encrypts && shown && !text.contains(unified[1]);
        assert_eq!(parse(&text).is_ok(), can_be, "{text}: {:?}", parse(&text).err());
        let public = format!("{text}clientPortAddress = '0.0.0.0'\n");
        assert_eq!(parse(&public).is_ok(), is_safe, "{text}");
        if can_be && !is_safe {
            let why = refused(&public);
            let name = match (encrypts, text.contains(unified[1])) {
                (false, _) => "clientPort: ",
                (true, true) => "client.portUnification: ",
                (true, false) => "ssl.clientAuth: ",
            };
            assert!(why.contains("insecure = true") && why.starts_with(name), "{text}: {why}");
        }
        assert_eq!(parse(&format!("insecure = true\n{public}")).is_ok(), can_be, "{text}");
        if is_safe {
            let with_http = format!("{public}httpPort = 1\n");
            let http = parse(&with_http).unwrap().http_address;
            assert_eq!(http, Some("127.0.0.1:1".parse().unwrap()), "{text}");
            let reached = format!("{with_http}admin.serverAddress = '0.0.0.0'\n");
            assert!(refused(&reached).starts_with("admin.serverAddress: "), "{text}");
            let gate = parse(&public).unwrap().gate;
            assert!(gate.tls.is_some() && gate.only_tls);
        }
        found.0 += usize::from(can_be);
        found.1 += usize::from(is_safe);
    }
    // Of 96: with a key store 3 ways with authorities and 1 without, without one 4 of clientAuth that nobody asks, each
    // in the ways of unification that fit, twice for SASL. Public are those with need, said or not, and nobody in the clear.
    assert_eq!(found, (2 * (4 * 3 + 4 * 2), 2 * 2 * 2));
}

#[test]
fn members_are_public_where_they_encrypt() {
    let files = Files::new();
    let key = files.setting("ssl.quorum.keyStore.location", "own.pem");
    let trust = files.setting("ssl.quorum.trustStore.location", "ca.pem");
    let on = "sslQuorum = true\n";
    let mut all =
        each_with(&texts(&["", "sslQuorum = false\n", on]), &[String::new(), key.clone()]);
    all = each_with(&all, &[String::new(), trust.clone()]);
    for text in all {
        let files = [text.contains(&key), text.contains(&trust)];
        let encrypts = text.contains(on);
        let can_be = if encrypts { files == [true; 2] } else { files == [false; 2] };
        let with = |host: &str| format!("{text}peerSecret = 's'\n[server]\n1 = '{host}:2888'");
        assert_eq!(parse(&with("127.0.0.1")).is_ok(), can_be, "{text}");
        let public = with("0.0.0.0");
        assert_eq!(parse(&public).is_ok(), can_be && encrypts, "{text}");
        if can_be && !encrypts {
            assert!(refused(&public).contains("insecure = true"), "{text}");
        }
        if !can_be {
            assert!(refused(&public).starts_with(if encrypts {
                "sslQuorum"
            } else {
                "ssl.quorum"
            }));
        } else {
            assert_eq!(parse(&with("127.0.0.1")).unwrap().peer_tls.is_some(), encrypts);
        }
    }
}

#[test]
fn bytes_of_log_between_snapshots_are_told_as_in_zookeeper() {
    let bytes = |text: &str| parse(text).unwrap().core.snapshot_bytes;
    assert_eq!(bytes(""), 128 << 20);
    assert_eq!(bytes("snapSizeLimitInKb = 1"), 1024);
    for none in ["snapSizeLimitInKb = 0", "snapSizeLimitInKb = -1"] {
        assert_eq!(bytes(none), u64::MAX, "entries alone count");
    }
    assert!(refused("snapSizeLimitInKb = 'much'").contains("KiB"));
}

#[test]
fn snapshots_are_slow_and_not_packed_unless_told() {
    let settings = |text: &str| parse(text).unwrap().snapshots;
    let SnapshotSettings { bytes_per_second, packing } = settings("");
    assert_eq!((bytes_per_second, packing), (32 << 20, Packing::None));
    assert_eq!(settings("snapshotBytesPerSecond = 0").bytes_per_second, 0);
    assert_eq!(settings("snapshot.compression.method = 'zstd'").packing, Packing::Zstd);
    let gz = refused("snapshot.compression.method = 'gz'");
    assert_eq!(gz, "snapshot.compression.method: \"gz\" is not zstd or nothing");
    assert!(refused("snapshotBytesPerSecond = 'slow'").contains("bytes"));
}

#[test]
fn text_that_is_no_toml_is_told_of_without_its_lines() {
    for line in
        ["x = hunter2", "x = \"hunter2", "x = \"a\" hunter2", "x = \"\\qhunter2\"", "x = 7hunter2"]
    {
        let text = format!("# first\n{line}\n");
        let told = refused(&text);
        assert!(told.contains("line 2, column ") && !told.contains("hunter2"), "{told}");
    }
}
