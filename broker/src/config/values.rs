//! Settings as text: what was set, checked against the table, over what the table gives.
//!
//! Called by: `config` (typed structs), DescribeConfigs. Invariant: every name that is set stands in
//! the table and its text is valid for its kind. Does not know what a setting is for.

use std::collections::BTreeMap;

use super::table::{self, Kind, SETTINGS, Setting};

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingError {
    /// Not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// A name that the table does not have.
    #[error("unknown setting {name}{}", nearest.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default())]
    Unknown {
        /// As it was given.
        name: String,
        /// The known name that is most like it.
        nearest: Option<&'static str>,
    },
    /// The value does not fit.
    #[error("{name}: {why}")]
    Invalid {
        /// The setting.
        name: String,
        /// What is wrong with its value.
        why: String,
    },
}

impl SettingError {
    /// An invalid value of `name`.
    pub fn invalid(name: &str, why: impl Into<String>) -> Self {
        Self::Invalid { name: name.to_owned(), why: why.into() }
    }
}

/// Values that the table allows for topics' sake, and that a broker must not take for all of them.
const REFUSED: [(&str, &str, &str); 1] = [(
    // Brokers and controller have to agree on it for each topic; only the topic tells all.
    "durability",
    "memory",
    "is a topic's choice: create the topic with the configuration durability=memory",
)];

/// The settings that were given, as text.
#[derive(Clone, Debug, Default)]
pub struct Values {
    set: BTreeMap<&'static str, String>,
}

impl Values {
    /// Reads TOML; nested tables flatten to dotted names.
    ///
    /// # Errors
    /// [`SettingError`]: the first thing that is wrong.
    pub fn from_toml(text: &str) -> Result<Self, SettingError> {
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| SettingError::Syntax(told_of_toml(text, &error)))?;
        let mut values = Self::default();
        for (name, value) in &table {
            values.flatten(name, value)?;
        }
        Ok(values)
    }

    /// Sets `name`, over what was set before.
    ///
    /// # Errors
    /// Unknown name or invalid value.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), SettingError> {
        let Some(setting) = table::find(name) else {
            let nearest = table::nearest(name, SETTINGS.iter().map(|setting| setting.name));
            return Err(SettingError::Unknown { name: name.to_owned(), nearest });
        };
        if !(text.is_empty() && setting.default.is_empty()) {
            setting.kind.check(text).map_err(|why| SettingError::invalid(name, why))?;
        }
        if let Some((_, _, why)) = REFUSED.iter().find(|(n, t, _)| (*n, *t) == (name, text.trim()))
        {
            return Err(SettingError::invalid(name, *why));
        }
        self.set.insert(setting.name, text.trim().to_owned());
        Ok(())
    }

    /// What was given for `name`.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.set.get(name).map(String::as_str)
    }

    /// The text in force: given, else the default. Panics when the table has no such name.
    pub fn text(&self, name: &str) -> &str {
        self.given(name).unwrap_or_else(|| known(name).default)
    }

    /// The number in force; `None` when it is empty.
    pub fn number(&self, name: &str) -> Option<i64> {
        let text = self.text(name);
        (!text.is_empty()).then(|| text.parse().expect("checked when it was set"))
    }

    /// The number in force of a setting that is never empty and not negative.
    pub fn count(&self, name: &str) -> usize {
        let number = self.number(name).expect("has a default");
        usize::try_from(number).expect("its kind has a minimum")
    }

    /// The truth in force.
    pub fn flag(&self, name: &str) -> bool {
        assert_eq!(known(name).kind, Kind::Boolean, "{name} is no flag");
        self.text(name) == "true"
    }

    /// The items of a list.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.text(name).split(',').map(str::trim).filter(|item| !item.is_empty()).collect()
    }

    fn flatten(&mut self, name: &str, value: &toml::Value) -> Result<(), SettingError> {
        match value {
            toml::Value::Table(table) => {
                for (inner, value) in table {
                    self.flatten(&format!("{name}.{inner}"), value)?;
                }
                Ok(())
            }
            toml::Value::Array(items) => {
                let items: Result<Vec<_>, _> =
                    items.iter().map(|item| scalar(name, item)).collect();
                self.set(name, &items?.join(","))
            }
            scalar_value => self.set(name, &scalar(name, scalar_value)?),
        }
    }
}

fn scalar(name: &str, value: &toml::Value) -> Result<String, SettingError> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(flag) => Ok(flag.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
            Err(SettingError::invalid(name, "takes a text, a number or a truth"))
        }
    }
}

fn known(name: &str) -> &'static Setting {
    table::find(name).unwrap_or_else(|| panic!("the table has no setting {name}"))
}

/// What is wrong with a text that is no TOML, and where: without the line itself, which may hold a secret.
fn told_of_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let Some(before) = before else { return error.message().to_owned() };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_tables_flatten_to_dotted_names() {
        let text = "broker.id = 7\n[log]\nsegment.bytes = 4096\ndirs = [\"a\", \"b\"]\n[log.retention]\nms = -1\n";
        let values = Values::from_toml(text).expect("valid");
        assert_eq!(values.number("broker.id"), Some(7));
        assert_eq!(values.count("log.segment.bytes"), 4096);
        assert_eq!(values.list("log.dirs"), ["a", "b"]);
        assert_eq!(values.number("log.retention.ms"), Some(-1));
        assert_eq!(values.given("num.partitions"), None);
        assert_eq!(values.number("num.partitions"), Some(1));
    }

    #[test]
    fn text_that_is_no_toml_is_told_of_without_its_lines() {
        for line in [
            "x = hunter2",
            "x = \"hunter2",
            "x = \"a\" hunter2",
            "x = \"\\qhunter2\"",
            "x = 7hunter2",
        ] {
            let text = format!("# first\n{line}\n");
            let told = Values::from_toml(&text).expect_err("no TOML").to_string();
            assert!(told.contains("line 2, column ") && !told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn unknown_name_is_an_error_with_the_nearest_known_one() {
        let error = Values::from_toml("[log]\nretension.ms = 5").expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "unknown setting log.retension.ms (did you mean log.retention.ms?)"
        );
    }

    #[test]
    fn invalid_value_names_its_setting() {
        for (text, message) in [
            ("broker.id = \"x\"", "broker.id: \"x\" is not a number"),
            ("num.partitions = 0", "num.partitions: 0 is not within 1..=2147483647"),
            ("durability = \"ram\"", "durability: \"ram\" is not one of [\"disk\", \"memory\"]"),
            (
                "durability = \"memory\"",
                "durability: is a topic's choice: create the topic with the configuration durability=memory",
            ),
            ("insecure = 1", "insecure: \"1\" is not one of [\"true\", \"false\"]"),
        ] {
            assert_eq!(Values::from_toml(text).expect_err("invalid").to_string(), message);
        }
    }
}
