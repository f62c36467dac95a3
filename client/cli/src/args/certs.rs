//! What can be said about certificates.
//!
//! *Called by* `args`. Decides nothing.

use std::path::PathBuf;

use clap::Subcommand;

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
and in the settings of the first:
  sslQuorum = true
  ssl.quorum.keyStore.location = \"one.pem\"
  ssl.quorum.trustStore.location = \"ca.pem\"
  ssl.keyStore.location = \"one.pem\"
  ssl.trustStore.location = \"ca.pem\"

For Java's clients:
  openssl pkcs12 -export -in client.pem -out client.p12
  keytool -importcert -file ca.pem -keystore trust.p12")]
    Init {
        /// Where; made if it is not there.
        #[arg(long, value_name = "FOLDER", default_value = "certs")]
        dir: PathBuf,
    },
    /// Make NAME.pem: the key and certificate of a server or a client, signed by the authority.
    Sign {
        /// Its name, which is the identity x509:CN=NAME in access lists.
        name: String,
        /// A host name or address that it serves at; may be repeated. localhost is always among them.
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// Where the authority is.
        #[arg(long, value_name = "FOLDER", default_value = "certs")]
        dir: PathBuf,
    },
}
