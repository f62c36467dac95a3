//! What can be said of coordinators.
//!
//! *Called by* `args`. Decides nothing.

use clap::{Args, Subcommand};

/// Who asks, and what.
#[derive(Args, Debug)]
pub struct CoordinatorArguments {
    /// Who you are, as SCHEME:CREDENTIALS, such as digest:super:PASSWORD. Others see a command line; the environment they
    /// do not.
    #[arg(long, global = true, env = "TIDEGATE_COORDINATOR_AUTH", value_name = "SCHEME:CREDENTIALS",
        hide_env_values = true, value_parser = scheme_and_secret)]
    pub auth: Option<(String, String)>,
    /// What to do.
    #[command(subcommand)]
    pub command: CoordinatorCommand,
}

/// What to do with coordinators.
#[derive(Debug, Subcommand)]
pub enum CoordinatorCommand {
    /// Show the members of the ensemble, who leads, and how far each has applied.
    #[command(after_help = "\
Each address of --coordinator is asked; members that none of these is are shown as the leader sees them.

Examples:
  tidegate coordinator list --coordinator a:2181,b:2181,c:2181
  tidegate coordinator list -o json | jq .leader")]
    List,
    /// Hand leadership to another member, before its machine is stopped, say. Connections stay, and writes wait for
    /// some milliseconds.
    #[command(after_help = "\
Any coordinator may be asked. Allowed is who may write the node /zookeeper/config: the super user of the
setting DigestAuthenticationProvider.superDigest, whomever its access list names, and everybody where
the servers are set to skipACL = \"yes\".

Examples:
  TIDEGATE_COORDINATOR_AUTH=digest:super:PASSWORD tidegate coordinator transfer --to 2
  tidegate coordinator transfer              to the member that is most advanced")]
    Transfer {
        /// The member that is to lead [default: the most suitable].
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(1..=254))]
        to: Option<i32>,
    },
}

fn scheme_and_secret(text: &str) -> Result<(String, String), String> {
    let (scheme, secret) = text.split_once(':').ok_or("expected SCHEME:CREDENTIALS")?;
    Ok((scheme.to_owned(), secret.to_owned()))
}
