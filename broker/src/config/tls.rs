//! How coordinators are spoken to encrypted.
//!
//! Called by: `config`. Calls: `coordinator_client`, which reads the files. Invariant: whoever names a file gets what it is for,
//! or an error.

use coordinator_client::{Tls, TlsFiles};

use super::values::{SettingError, Values};

const ENABLE: &str = "zookeeper.ssl.client.enable";
const TRUST_STORE: &str = "zookeeper.ssl.truststore.location";
const KEY_STORE: &str = "zookeeper.ssl.keystore.location";

/// Reads the settings, and the files that they name; `has_coordinators`: there are some beyond this process.
///
/// # Errors
/// A file that would not be used, is missing or does not hold what it should.
pub fn coordinator_tls(
    values: &Values,
    has_coordinators: bool,
) -> Result<Option<Tls>, SettingError> {
    let file = |name| Some(values.text(name)).filter(|path| !path.is_empty());
    let (trust_store, key_store) = (file(TRUST_STORE), file(KEY_STORE));
    if !values.flag(ENABLE) {
        return match trust_store.map(|_| TRUST_STORE).or(key_store.map(|_| KEY_STORE)) {
            Some(name) => {
                let why = format!("needs {ENABLE} = true: nothing would be encrypted");
                Err(SettingError::invalid(name, why))
            }
            None => Ok(None),
        };
    }
    if !has_coordinators {
        return Err(SettingError::invalid(
            ENABLE,
            "needs zookeeper.connect: the coordinator inside this process is not reached by others",
        ));
    }
    let Some(trust_store) = trust_store else {
        let why = format!("needs {TRUST_STORE}, which says what coordinators are trusted");
        return Err(SettingError::invalid(ENABLE, why));
    };
    let files = TlsFiles {
        authorities: trust_store.into(),
        certificate: key_store.map(Into::into),
        key: None,
    };
    let read = Tls::read(&files).map_err(|error| {
        let name = if error.path == files.authorities { TRUST_STORE } else { KEY_STORE };
        SettingError::invalid(name, error.to_string())
    });
    read.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(toml: &str, has_coordinators: bool) -> String {
        let values = Values::from_toml(toml).expect("valid");
        coordinator_tls(&values, has_coordinators).expect_err("refused").to_string()
    }

    #[test]
    fn files_and_the_word_for_them_need_each_other() {
        let none = coordinator_tls(&Values::default(), true).expect("nothing was said");
        assert!(none.is_none());
        for name in [TRUST_STORE, KEY_STORE] {
            let text = refused(&format!("{name} = \"a.pem\""), true);
            assert!(text.starts_with(name) && text.contains(ENABLE), "{text}");
        }
        let text = refused(&format!("{ENABLE} = true"), true);
        assert!(text.contains(TRUST_STORE), "{text}");
        let both = format!("{ENABLE} = true\n{TRUST_STORE} = \"/nowhere/ca.pem\"");
        let text = refused(&both, true);
        assert!(text.starts_with(TRUST_STORE) && text.contains("/nowhere/ca.pem"), "{text}");
        assert!(refused(&both, false).contains("zookeeper.connect"));
    }
}
