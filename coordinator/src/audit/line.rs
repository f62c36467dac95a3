//! A record as ZooKeeper's audit log shows it.
//!
//! Called by: `log`. Calls: nothing.
//! Invariant: names, their order, tabs between pairs and the head of the line are ZooKeeper's, because programs read them; what a
//! client chose cannot begin a pair or a line.
//! Does not know: files.

use std::fmt::Write;

use coordinator_core::server::AuditRecord;

/// Of the server itself.
pub fn of_server(wall_ms: i64, operation: &str, result: &str) -> String {
    format!("{}user=coordinator\toperation={operation}\tresult={result}\n", head(wall_ms))
}

/// Of a client's doing, or of a session's end.
pub fn of(record: &AuditRecord) -> String {
    let mut line = head(record.wall_ms);
    let session = format!("{:#x}", record.session.get());
    let pairs = [
        ("session", Some(session.as_str())),
        ("user", record.user.as_deref()),
        ("ip", record.ip.as_deref()),
        ("operation", Some(record.operation)),
        ("znode", record.znode.as_deref()),
        ("znode_type", record.znode_type),
        ("acl", record.acl.as_deref()),
    ];
    for (name, value) in pairs {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = write!(line, "{name}={}\t", value.replace(|one: char| one.is_control(), ""));
        }
    }
    line.push_str(if record.is_done { "result=success\n" } else { "result=failure\n" });
    line
}

/// As ZooKeeper's logging is set up for it. The time is that of Greenwich.
fn head(wall_ms: i64) -> String {
    let (days, ms) = (wall_ms.div_euclid(86_400_000), wall_ms.rem_euclid(86_400_000));
    let (year, month, day) = date(days);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02},{:03} INFO audit.Slf4jAuditLogger: ",
        ms % 1_000
    )
}

/// Year, month and day of so many days after 1970-01-01. Years are counted from March on, so that a leap day is the last.
pub fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use coordinator_protocol::SessionId;

    use super::*;

    #[test]
    fn line_is_zookeepers() {
        let record = AuditRecord {
            wall_ms: 1_709_210_096_007,
            session: SessionId::new(0x0193_4473_0000),
            user: Some("192.168.1.2,zkcli@HADOOP.COM".into()),
            ip: Some("192.168.1.2".into()),
            operation: "create",
            znode: Some("/a\tresult=success\n".into()),
            znode_type: Some("persistent"),
            acl: None,
            is_done: false,
        };
        assert_eq!(
            of(&record),
            "2024-02-29 12:34:56,007 INFO audit.Slf4jAuditLogger: session=0x19344730000\tuser=192.168.1.2,zkcli@HADOOP.COM\t\
             ip=192.168.1.2\toperation=create\tznode=/aresult=success\tznode_type=persistent\tresult=failure\n"
        );
        assert!(of_server(0, "serverStop", "invoked").starts_with("1970-01-01 00:00:00,000 INFO"));
    }

    #[test]
    fn date_follows_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_453, (2025, 12, 31)),
            (20_454, (2026, 1, 1)),
            (-1, (1969, 12, 31)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }
}
