//! What single settings may be, and what they may be together.
//!
//! Called by: parsing, before the core's own rules. Calls: nothing.
//! Invariant: whatever cannot work is refused by the name that was written, with what would do.
//! Does not know: what the settings are for.

use std::collections::BTreeSet;

use coordinator_core::members::{Members, Role};

use super::SettingError;
use super::parse::Values;

/// Settings that are numbers, with the least and the greatest that work.
const RANGES: &[(&str, u64, u64)] = &[
    ("tickTime", 1, i32::MAX as u64),
    ("minSessionTimeout", 1, i32::MAX as u64),
    ("maxSessionTimeout", 1, i32::MAX as u64),
    ("maxCnxns", 1, u32::MAX as u64),
    ("snapCount", 1, u64::MAX),
    ("peerTick", 1, 60_000),
    ("electionTimeout", 1, 3_600_000),
    ("znode.container.checkIntervalMs", 1, u64::MAX),
    // A file for each few lines would push out the older ones at once.
    ("audit.fileBytesMax", 64 << 10, u64::MAX),
];
/// Slower than this no snapshot of a state that grows comes to its end before the next is due, and the log is kept until then.
const SNAPSHOT_BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// A heartbeat takes so many of peerTick, and an election has to take more.
const HEARTBEAT_TICKS: u64 = 2;
/// SHA-1 in Base64.
const DIGEST_LETTERS: usize = 28;
const SUPER_DIGEST: &str = "DigestAuthenticationProvider.superDigest";

/// Looks at the texts.
///
/// # Errors
/// The first that cannot work.
pub fn check(values: &Values) -> Result<(), SettingError> {
    for (name, least, greatest) in RANGES {
        let Some(number) = values.optional::<u64>(name, "a number")? else { continue };
        if !(*least..=*greatest).contains(&number) {
            let range = match *greatest {
                u64::MAX => format!("{least} or more"),
                greatest => format!("{least} to {greatest}"),
            };
            return Err(SettingError(format!("{name}: {number} is not {range}")));
        }
    }
    let (tick, election): (u64, u64) =
        (values.value("peerTick", "a number")?, values.value("electionTimeout", "a number")?);
    if election <= HEARTBEAT_TICKS * tick {
        let least = HEARTBEAT_TICKS * tick + 1;
        return Err(SettingError(format!(
            "electionTimeout: {election} is too short beside peerTick = {tick}, of which a heartbeat takes two: {least} or more"
        )));
    }
    snapshot_pace(values)?;
    digest(values)
}

fn snapshot_pace(values: &Values) -> Result<(), SettingError> {
    let name = "snapshotBytesPerSecond";
    let pace: u64 = values.value(name, "a number of bytes")?;
    if !(1..SNAPSHOT_BYTES_PER_SECOND_MIN).contains(&pace) {
        return Ok(());
    }
    let least = SNAPSHOT_BYTES_PER_SECOND_MIN;
    Err(SettingError(format!(
        "{name}: {pace} bytes a second is too slow for any snapshot to be done in time: {least} or more, or 0 for as fast as the \
         disk takes it"
    )))
}

fn digest(values: &Values) -> Result<(), SettingError> {
    let Some(text) = values.optional::<String>(SUPER_DIGEST, "super:DIGEST")? else {
        return Ok(());
    };
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '/');
    let is_digest = |digest: &str| {
        let letters = digest.strip_suffix('=');
        digest.len() == DIGEST_LETTERS && letters.is_some_and(|all| all.chars().all(is_letter))
    };
    if text.strip_prefix("super:").is_some_and(is_digest) {
        return Ok(());
    }
    // Not shown: it may be the password itself.
    Err(SettingError(format!(
        "{SUPER_DIGEST} is no digest: `super:` and what this prints: printf %s super:PASSWORD | openssl dgst -sha1 -binary | base64"
    )))
}

/// Looks at the limits of sessions, `least` and `greatest`, both in ms.
///
/// # Errors
/// When they exclude each other.
pub fn check_sessions(values: &Values, least: u32, greatest: u32) -> Result<(), SettingError> {
    if greatest >= least && i32::try_from(greatest).is_ok() {
        return Ok(());
    }
    let said = |name: &'static str, factor: u32| {
        let is_set = values.optional::<u64>(name, "a number").is_ok_and(|found| found.is_some());
        if is_set { name.to_owned() } else { format!("{name} ({factor} x tickTime)") }
    };
    let (min, max) = (said("minSessionTimeout", 2), said("maxSessionTimeout", 20));
    if i32::try_from(greatest).is_err() {
        return Err(SettingError(format!("{max}: {greatest} ms is more than {}", i32::MAX)));
    }
    Err(SettingError(format!("{min}: {least} ms is above {max}, {greatest} ms")))
}

/// Looks at the members that `server.N` names.
///
/// # Errors
/// When they cannot be an ensemble.
pub fn check_members(members: &Members) -> Result<(), SettingError> {
    if !members.is_empty() && members.values().all(|member| member.role() == Role::Observer) {
        let why = "nobody would vote";
        return Err(SettingError(format!("server.N: all of them are observers, {why}")));
    }
    let mut seen = BTreeSet::new();
    for (id, member) in members {
        if member.port() == 0 && members.len() > 1 {
            let why = "the others have to know where it is";
            return Err(SettingError(format!("server.{id}: its port is 0, and {why}")));
        }
        if let Some(other) = seen.iter().find(|other| members[*other].collides(member)) {
            let why = format!("{member} and {} are in one place", members[other]);
            return Err(SettingError(format!("server.{id} and server.{other}: {why}")));
        }
        seen.insert(*id);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let mut values = Values::default();
        values.add_toml(text).unwrap();
        let refused = Config::from_values(&values).err().map(|error| error.to_string());
        assert_eq!(refused.as_deref(), expected, "{text}");
    }

    #[test]
    fn numbers_that_cannot_work_are_refused_by_name_and_range() {
        let to = i32::MAX;
        check("tickTime = 0", Some(&format!("tickTime: 0 is not 1 to {to}")));
        check("snapCount = 0", Some("snapCount: 0 is not 1 or more"));
        check("maxCnxns = 0", Some("maxCnxns: 0 is not 1 to 4294967295"));
        check("peerTick = 0", Some("peerTick: 0 is not 1 to 60000"));
        check("electionTimeout = 0", Some("electionTimeout: 0 is not 1 to 3600000"));
        let short = "electionTimeout: 100 is too short beside peerTick = 50, of which a heartbeat takes two: 101 or more";
        check("electionTimeout = 100", Some(short));
        check("electionTimeout = 101", None);
        check("audit.fileBytesMax = 65535", Some("audit.fileBytesMax: 65535 is not 65536 or more"));
        check("audit.fileBytesMax = 65536", None);
        check(
            "minSessionTimeout = 9\nmaxSessionTimeout = 8",
            Some("minSessionTimeout: 9 ms is above maxSessionTimeout, 8 ms"),
        );
        check(
            "minSessionTimeout = 40001",
            Some(
                "minSessionTimeout: 40001 ms is above maxSessionTimeout (20 x tickTime), 40000 ms",
            ),
        );
    }

    #[test]
    fn pace_at_which_no_snapshot_would_be_done_is_refused() {
        for pace in [1, SNAPSHOT_BYTES_PER_SECOND_MIN - 1] {
            let hint = format!(
                "snapshotBytesPerSecond: {pace} bytes a second is too slow for any snapshot to be done in time: 1048576 or more, or 0 for \
                 as fast as the disk takes it"
            );
            check(&format!("snapshotBytesPerSecond = {pace}"), Some(&hint));
        }
        check("snapshotBytesPerSecond = 1048576", None);
        check("snapshotBytesPerSecond = 0", None);
    }

    #[test]
    fn digest_that_is_none_is_refused_and_not_shown() {
        let of = |digest: &str| format!("'{SUPER_DIGEST}' = '{digest}'");
        check(&of("super:D/InIHSb7yEEbrWz8b9l71RjZJU="), None);
        for wrong in
            ["super:secret", "D/InIHSb7yEEbrWz8b9l71RjZJU=", "super:D/InIHSb7yEEbrWz8b9l71RjZJU"]
        {
            let mut values = Values::default();
            values.set(SUPER_DIGEST, wrong);
            let refused = Config::from_values(&values).unwrap_err().to_string();
            assert!(refused.starts_with(SUPER_DIGEST) && refused.contains("openssl"), "{refused}");
            assert!(!refused.contains(wrong), "{refused}");
        }
    }

    #[test]
    fn members_that_cannot_be_an_ensemble_are_refused() {
        let of =
            |second: &str| format!("peerSecret = 'x'\n[server]\n1 = '127.0.0.1:1'\n2 = '{second}'");
        check(&of("127.0.0.1:2"), None);
        let collide = "server.2 and server.1: 127.0.0.1:1:0:participant and 127.0.0.1:1:0:participant are in one place";
        check(&of("127.0.0.1:1"), Some(collide));
        let nowhere = "server.2: its port is 0, and the others have to know where it is";
        check(&of("127.0.0.1:0"), Some(nowhere));
        let observers =
            "peerType = 'observer'\npeerSecret = 'x'\n[server]\n1 = '127.0.0.1:1:observer'";
        check(observers, Some("server.N: all of them are observers, nobody would vote"));
    }
}
