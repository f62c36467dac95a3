//! What can be said about certificates.
//!
//! *Called by* `args`. Decides nothing.

use std::path::PathBuf;

use clap::Subcommand;
use clap::builder::RangedI64ValueParser;

/// A hundred years.
const DAYS_MAX: i64 = 36_500;

fn days() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=DAYS_MAX)
}

/// What to make.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make the authority: ca.pem, which everybody is to trust, and ca-key.pem, which signs and is to be kept.
    #[command(after_help = "\
Example: three coordinators on three hosts, encrypted.
  tidegate certs init
  tidegate certs sign one --host one.example.org
  tidegate certs sign two --host two.example.org
  tidegate certs sign three --host three.example.org
and the settings of the first, with certs/ca.pem and certs/one.pem copied beside them, where it is started; in those of
the others id and the name of the second file differ:
  id = 1
  clientPortAddress = \"0.0.0.0\"
  peerSecret = \"only members know this\"
  sslQuorum = true
  ssl.quorum.keyStore.location = \"one.pem\"
  ssl.quorum.trustStore.location = \"ca.pem\"
  ssl.keyStore.location = \"one.pem\"
  ssl.trustStore.location = \"ca.pem\"
  [server]
  1 = \"one.example.org:2888\"
  2 = \"two.example.org:2888\"
  3 = \"three.example.org:2888\"

Certificates of clients are made by `certs sign NAME --client`, without which they are good for coordinators on localhost:
  tidegate certs sign broker --client
and in a broker's settings:
  zookeeper.ssl.client.enable = true
  zookeeper.ssl.truststore.location = \"ca.pem\"
  zookeeper.ssl.keystore.location = \"broker.pem\"
and for this command: --tls-ca ca.pem --tls-cert operator.pem.

It is safer still to have an authority of their own for clients, in another --dir: its ca.pem is what the coordinators'
ssl.trustStore.location names, and nothing that it signs is good between coordinators.

A certificate cannot be taken back before its --days are over, but by a new authority. Coordinators read their files at
their start.

For Java's clients (tidegate certs sign client --client):
  openssl pkcs12 -export -in client.pem -out client.p12
  keytool -importcert -file ca.pem -keystore trust.p12")]
    Init {
        /// How long it is good from now on. Most programs, though not all, take nothing that it has signed after that.
        #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = days())]
        days: u32,
        /// Where; made if it is not there.
        #[arg(long, value_name = "FOLDER", default_value = "certs")]
        dir: PathBuf,
    },
    /// Make NAME.pem: the key and certificate of a server or a client, signed by the authority.
    Sign {
        /// Its name, which is the identity x509:CN=NAME in access lists.
        name: String,
        /// A host name or address that it serves at; may be repeated. Without any: localhost and 127.0.0.1.
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// For a client, which serves nowhere: nobody takes it for a coordinator.
        #[arg(long, conflicts_with = "hosts")]
        client: bool,
        /// How long it is good from now on. Some programs refuse a server's that is good for longer than 825.
        #[arg(long, value_name = "DAYS", default_value_t = 825, value_parser = days())]
        days: u32,
        /// Where the authority is.
        #[arg(long, value_name = "FOLDER", default_value = "certs")]
        dir: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_of_settings_is_whole() {
        let mut all = CertsCommand::augment_subcommands(clap::Command::new("certs"));
        let help = all.find_subcommand_mut("init").unwrap().render_long_help().to_string();
        let at = |line: &str| help.find(line).unwrap_or_else(|| panic!("{line}: {help}"));
        // In TOML all that follows a table's name is in the table.
        let table = at("\n  [server]\n");
        for name in
            ["id", "clientPortAddress", "peerSecret", "sslQuorum", "ssl.trustStore.location"]
        {
            assert!(at(&format!("\n  {name} = ")) < table, "{name}");
        }
        assert!(table < at("\n  3 = \"three.example.org:2888\""));
    }
}
