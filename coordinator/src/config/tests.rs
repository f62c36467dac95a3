use super::*;

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
    assert!(refused("minSessionTimeout = 9\nmaxSessionTimeout = 8").contains("out of range"));
    assert!(
        refused("id = 3\npeerSecret = 's'\n[server]\n1 = 'a:1'\n2 = 'b:1'").contains("members")
    );
    assert!(refused("[server]\n1 = '127.0.0.1:1'\n2 = '127.0.0.1:2'").contains("peerSecret"));
}

#[test]
fn listener_that_others_can_reach_needs_insecure() {
    for text in ["clientPortAddress = '0.0.0.0'", "[server]\n1 = '0.0.0.0:2888'"] {
        assert!(refused(text).contains("insecure = true"), "{text}");
        assert!(parse(&format!("insecure = true\n{text}")).is_ok());
    }
}

#[test]
fn flag_wins_over_the_file() {
    let mut values = Values::default();
    values.add_toml("clientPort = 1").unwrap();
    values.add_assignment("clientPort=0").unwrap();
    assert_eq!(Config::from_values(&values).unwrap().client_address.port(), 0);
    assert!(values.add_assignment("clientPort").is_err());
}
