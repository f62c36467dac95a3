//! Users who prove their password by SASL, off a file of their own, so that settings can be shown to people.
//!
//! Called by: parsing. Calls: the file system, the core's `digest_md5`.
//! Invariant: passwords are forgotten as soon as the file was read.
//! Does not know: connections.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use coordinator_core::digest_md5::Secret;
use coordinator_core::server::SaslConfig;

use super::SettingError;
use super::parse::Values;

const FILE: &str = "saslUsers";
const SUPER_USER: &str = "superUser";
const REQUIRED: &str = "sessionRequireClientSASLAuth";

/// The file of users may be no longer.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The three settings that are about SASL.
pub fn config(values: &Values) -> Result<SaslConfig, SettingError> {
    let file: Option<String> = values.optional(FILE, "a file")?;
    let users = match file {
        Some(path) => {
            let text = read(&path)
                .map_err(|reason| SettingError(format!("{FILE}: cannot read {path}: {reason}")))?;
            users(&text).map_err(|reason| SettingError(format!("{FILE}: {path}: {reason}")))?
        }
        None => BTreeMap::new(),
    };
    let super_user: Option<String> = values.optional(SUPER_USER, "a user's name")?;
    let required: bool = values.value(REQUIRED, "true or false")?;
    if let Some(name) = super_user.as_ref().filter(|name| !users.contains_key(*name)) {
        return Err(SettingError(format!("{SUPER_USER}: {name} is not in the file of {FILE}")));
    }
    if required && users.is_empty() {
        let why = "without users nobody could do anything";
        return Err(SettingError(format!("{REQUIRED} needs {FILE}: {why}")));
    }
    Ok(SaslConfig { users, super_user, required })
}

fn read(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let outcome = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    outcome.map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// The names of the users in a file of them, `None` where it is none. All that tests of another crate need to know of it.
#[must_use]
pub fn user_names(text: &str) -> Option<Vec<String>> {
    Some(users(text).ok()?.into_keys().collect())
}

/// Lines of `name:password`; empty ones and those that begin with # do not count.
fn users(text: &str) -> Result<BTreeMap<String, Secret>, String> {
    let mut users = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let number = at + 1;
        let parts = line
            .split_once(':')
            .filter(|(name, password)| !name.trim().is_empty() && !password.is_empty());
        let (name, password) =
            parts.ok_or_else(|| format!("line {number} is not name:password"))?;
        let name = name.trim();
        if users.insert(name.to_owned(), Secret::new(name, password)).is_some() {
            return Err(format!("line {number}: {name} comes twice"));
        }
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_lines_of_name_and_password() {
        let found = users("# people\nbob:secret\n\nalice:with:colon \n").expect("a file of users");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["alice", "bob"]);
        assert_eq!(found["alice"], Secret::new("alice", "with:colon "));
        assert_eq!(users("bob").err().as_deref(), Some("line 1 is not name:password"));
        assert_eq!(users("\nbob:").err().as_deref(), Some("line 2 is not name:password"));
        assert_eq!(users("bob:1\nbob:2").err().as_deref(), Some("line 2: bob comes twice"));
    }

    #[test]
    fn file_is_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users").display().to_string();
        let written = |bytes: u64| {
            // Without blocks of its own: it is only as long.
            File::create(&path).unwrap().set_len(bytes).unwrap();
            read(&path).map(|text| text.len() as u64)
        };
        assert_eq!(written(FILE_BYTES_MAX), Ok(FILE_BYTES_MAX));
        assert!(written(FILE_BYTES_MAX + 1).unwrap_err().contains("more than 16777216 bytes"));
    }

    #[test]
    fn settings_that_would_lock_everybody_out_are_refused() {
        let check = |settings: &[(&str, &str)], expected: &str| {
            let mut values = Values::default();
            for (name, value) in settings {
                values.set(name, value);
            }
            let error = config(&values).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&[(REQUIRED, "true")], "needs saslUsers");
        check(&[(SUPER_USER, "bob")], "bob is not in the file");
        check(&[(FILE, "/no/such file")], "cannot read /no/such file");
        assert_eq!(config(&Values::default()), Ok(SaslConfig::default()));
    }
}
