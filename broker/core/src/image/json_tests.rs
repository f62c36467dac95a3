//! Golden JSON: what a Kafka 3.9.2 broker wrote, byte for byte.

use super::*;

#[test]
fn partition_state_is_kafkas() {
    for text in [
        r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1]}"#,
        r#"{"controller_epoch":1,"leader":-1,"version":1,"leader_epoch":1,"isr":[1]}"#,
        r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":3,"isr":[1,2],"leader_recovery_state":1}"#,
    ] {
        let state = PartitionState::decode(text.as_bytes()).expect("valid");
        assert_eq!(String::from_utf8(state.encode()).expect("text"), text);
    }
    let offline = PartitionState::decode(
        br#"{"leader":-1,"isr":[2,1],"version":1,"leader_epoch":7,"controller_epoch":3,"more":{}}"#,
    )
    .expect("any order, unknown fields");
    assert_eq!(
        offline,
        PartitionState {
            leader: None,
            leader_epoch: LeaderEpoch::new(7),
            controller_epoch: ControllerEpoch::new(3),
            isr: vec![BrokerId::new(2), BrokerId::new(1)],
            recovering: false,
        }
    );
}

#[test]
fn topic_is_kafkas() {
    let text = r#"{"partitions":{"0":[1],"1":[1]},"topic_id":"2AoYbHmeRFmrj6Tnl-VdtQ","adding_replicas":{},"removing_replicas":{},"version":3}"#;
    let topic = TopicNode::decode(text.as_bytes()).expect("valid");
    assert_eq!(topic.partitions.len(), 2);
    assert_eq!(String::from_utf8(topic.encode()).expect("text"), text);
    for bad in [
        r#"{"partitions":{"0":[1]},"version":1}"#,
        r#"{"partitions":{"x":[1]},"topic_id":"2AoYbHmeRFmrj6Tnl-VdtQ","version":3}"#,
        r#"{"partitions":{"0":[]},"topic_id":"2AoYbHmeRFmrj6Tnl-VdtQ","version":3}"#,
        r#"{"partitions":{"0":[1]},"topic_id":"short","version":3}"#,
        "",
    ] {
        assert!(TopicNode::decode(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn registration_is_kafkas() {
    let text = r#"{"features":{},"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT"},"endpoints":["PLAINTEXT://127.0.0.1:23092"],"jmx_port":-1,"port":23092,"host":"127.0.0.1","version":5,"timestamp":"1795260286428"}"#;
    let broker = BrokerRegistration::decode(text.as_bytes()).expect("valid");
    assert_eq!(broker.endpoint("PLAINTEXT").expect("listener").port, 23092);
    assert_eq!(String::from_utf8(broker.encode()).expect("text"), text);

    let two = BrokerRegistration {
        endpoints: vec![
            Endpoint {
                listener: "PLAINTEXT".to_owned(),
                protocol: "PLAINTEXT".to_owned(),
                host: "::1".to_owned(),
                port: 9092,
            },
            Endpoint {
                listener: "INTERNAL".to_owned(),
                protocol: "PLAINTEXT".to_owned(),
                host: "localhost".to_owned(),
                port: 9093,
            },
        ],
        rack: Some("r1".to_owned()),
        timestamp_ms: 5,
    };
    assert_eq!(BrokerRegistration::decode(&two.encode()), Ok(two));
}

#[test]
fn controller_epoch_cluster_and_config_are_kafkas() {
    let text =
        r#"{"version":2,"brokerid":1,"timestamp":"1795260286507","kraftControllerEpoch":-1}"#;
    assert_eq!(decode_controller(text.as_bytes()), Ok(BrokerId::new(1)));
    assert_eq!(encode_controller(BrokerId::new(1), 1_795_260_286_507), text.as_bytes());

    assert_eq!(decode_controller_epoch(b"7"), Ok(ControllerEpoch::new(7)));
    assert_eq!(encode_controller_epoch(ControllerEpoch::new(7)), b"7");
    assert!(decode_controller_epoch(b"x").is_err());

    let text = r#"{"version":"1","id":"jKIcxE6gTdSKOMYx0IHnJA"}"#;
    assert_eq!(decode_cluster_id(text.as_bytes()).as_deref(), Ok("jKIcxE6gTdSKOMYx0IHnJA"));
    assert_eq!(encode_cluster_id("jKIcxE6gTdSKOMYx0IHnJA"), text.as_bytes());

    let text = r#"{"version":1,"config":{"retention.ms":"200000"}}"#;
    let config = decode_config(text.as_bytes()).expect("valid");
    assert_eq!(encode_config(&config), text.as_bytes());
}

#[test]
fn identity_round_trips() {
    let identity = Identity {
        incarnation: Incarnation::new(4),
        directories: vec![DirectoryId::new([7; 16])],
        lost: true,
        lost_zxid: Zxid::new(9),
        boot_changed: false,
        boot_changed_zxid: Zxid::new(3),
    };
    let text = r#"{"version":1,"incarnation":4,"directories":["BwcHBwcHBwcHBwcHBwcHBw"],"lost":true,"lost_zxid":9,"boot_changed":false,"boot_changed_zxid":3}"#;
    assert_eq!(String::from_utf8(identity.encode()).expect("text"), text);
    assert_eq!(Identity::decode(text.as_bytes()), Ok(identity));
}
