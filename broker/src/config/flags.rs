//! The command line.
//!
//! Called by: `main`. Invariant: flags win over the file, and a later flag over an earlier one.

use std::path::PathBuf;

use clap::Parser;

use super::table::SETTINGS;
use super::values::{SettingError, Values};

/// Text above the flags in `--help`.
const ABOUT: &str = "Kafka-compatible broker.

Without flags it is a whole cluster of one: clients on 127.0.0.1:9092, a coordinator inside the
process, data in ./tidegate-data. It prints its addresses in one line when it serves.

  broker                                        one broker, nothing else needed
  broker --id 2 --listen 127.0.0.1:9093 --data d2 --coordinator 127.0.0.1:2181
                                                second broker of a cluster
  broker --config broker.toml --set log.retention.ms=3600000
  broker --settings                             every setting with its default

A configuration file is TOML with Kafka's names: `log.retention.ms = 3600000`, or the same as
nested tables. An unknown name is an error.";

/// The broker's flags.
#[derive(Debug, Parser)]
#[command(name = "broker", version, about = ABOUT, long_about = None)]
pub struct Flags {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Number of this broker, unique in the cluster (broker.id)
    #[arg(long, value_name = "N")]
    pub id: Option<i32>,
    /// Address for clients; port 0 lets the system choose (listeners)
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Address for other brokers; same host and a free port if not given (listeners)
    #[arg(long, value_name = "HOST:PORT")]
    pub internal: Option<String>,
    /// Address of /live and /ready (http.address)
    #[arg(long, value_name = "HOST:PORT")]
    pub http: Option<String>,
    /// Folder of all data (data.dir)
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Coordinator servers host:port,...[/chroot] (zookeeper.connect)
    #[arg(long, value_name = "SERVERS")]
    pub coordinator: Option<String>,
    /// Allow addresses that other machines can reach
    #[arg(long)]
    pub insecure: bool,
    /// Any setting, by its name; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// How much to log to standard error: error, warn, info, debug, trace, or a filter by module
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: String,
    /// Print every setting with its default and meaning, and end
    #[arg(long)]
    pub settings: bool,
}

impl Flags {
    /// Lays the flags over `values`.
    ///
    /// # Errors
    /// An unknown name or an invalid value.
    pub fn apply(&self, values: &mut Values) -> Result<(), SettingError> {
        if let Some(id) = self.id {
            values.set("broker.id", &id.to_string())?;
        }
        if let Some(public) = &self.listen {
            let host = public.rsplit_once(':').map_or(public.as_str(), |(host, _)| host);
            let internal = self.internal.clone().unwrap_or_else(|| format!("{host}:0"));
            values.set("listeners", &format!("PLAINTEXT://{public},INTERNAL://{internal}"))?;
        } else if let Some(internal) = &self.internal {
            let kept: Vec<&str> = values
                .list("listeners")
                .into_iter()
                .filter(|l| !l.starts_with("INTERNAL"))
                .collect();
            let listeners = format!("{},INTERNAL://{internal}", kept.join(","));
            values.set("listeners", &listeners)?;
        }
        if let Some(http) = &self.http {
            values.set("http.address", http)?;
        }
        if let Some(data) = &self.data {
            let Some(data) = data.to_str() else {
                return Err(SettingError::invalid("data.dir", "is not valid UTF-8"));
            };
            values.set("data.dir", data)?;
        }
        if let Some(coordinator) = &self.coordinator {
            values.set("zookeeper.connect", coordinator)?;
        }
        if self.insecure {
            values.set("insecure", "true")?;
        }
        for pair in &self.set {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(SettingError::invalid("--set", format!("\"{pair}\" is not key=value")));
            };
            values.set(name.trim(), value)?;
        }
        Ok(())
    }
}

/// Every setting, as `--settings` prints it: valid TOML.
pub fn describe_settings() -> String {
    let mut text = String::new();
    for setting in SETTINGS {
        let numeric =
            setting.default.parse::<f64>().is_ok() || matches!(setting.default, "true" | "false");
        let quote = if numeric { "" } else { "\"" };
        text +=
            &format!("# {}\n{} = {quote}{}{quote}\n", setting.doc, setting.name, setting.default);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        let mut values = Values::from_toml("broker.id = 3\nnum.partitions = 4").expect("valid");
        let flags = Flags::parse_from([
            "broker",
            "--id",
            "5",
            "--listen",
            "127.0.0.1:0",
            "--set",
            "num.partitions=6",
        ]);
        flags.apply(&mut values).expect("valid");
        assert_eq!(values.number("broker.id"), Some(5));
        assert_eq!(values.number("num.partitions"), Some(6));
        assert_eq!(values.list("listeners"), ["PLAINTEXT://127.0.0.1:0", "INTERNAL://127.0.0.1:0"]);
        let typo = Flags::parse_from(["broker", "--set", "num.partitons=6"]);
        assert!(
            typo.apply(&mut values).expect_err("unknown").to_string().contains("num.partitions")
        );
    }

    #[test]
    fn printed_settings_can_be_read_back() {
        let values = Values::from_toml(&describe_settings()).expect("valid TOML with known names");
        assert_eq!(values.number("broker.id"), Some(1));
    }
}
