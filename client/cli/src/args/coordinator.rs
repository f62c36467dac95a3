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
Each address of --coordinator is asked, and each other member where the ensemble knows it to be for clients; one that
does not answer is shown as the leader sees it.

Examples:
  tidegate coordinator list --coordinator a:2181,b:2181,c:2181
  tidegate coordinator list -o json | jq .leader")]
    List,
    /// Add a server to the ensemble, or change what it is. It has to run already.
    #[command(after_help = "\
The new server is started first, with an empty data folder and settings that name those who are there and itself
(server.N for each). It gets the log, and then a vote; when it has not gone on for half a minute, or has not
caught up within an hour, it is out again and nothing has changed. The servers have to be set to reconfigEnabled = true.

Examples:
  tidegate coordinator add 4 --peer d:2888 --client d:2181
  tidegate coordinator add 4 --peer d:2888 --client d:2181 --observer     follows, and never votes
  tidegate coordinator add 4 --peer e:2888 --client e:2181 --move         is found at e from now on, be it there or not")]
    Add {
        /// Its id.
        #[arg(value_parser = clap::value_parser!(u8).range(1..=254))]
        id: u8,
        /// Where other members reach it.
        #[arg(long, value_name = "HOST:PORT[:PORT]")]
        peer: String,
        /// Where clients reach it.
        #[arg(long, value_name = "HOST:PORT")]
        client: String,
        /// It follows and serves, without a vote.
        #[arg(long)]
        observer: bool,
        /// It is a member already, and is at these addresses from now on. They count at once and are not tried.
        #[arg(long = "move")]
        moves: bool,
    },
    /// Take servers out of the ensemble. They serve nobody from then on, and can be stopped.
    #[command(after_help = "\
A leader hands over before it goes. A server that was removed may come back with an empty data folder.

Examples:
  tidegate coordinator remove 4
  tidegate coordinator remove 4 5")]
    Remove {
        /// Their ids.
        #[arg(required = true, value_parser = clap::value_parser!(u8).range(1..=254))]
        ids: Vec<u8>,
    },
    /// Hand leadership to another member, before its machine is stopped, say. Connections stay, and writes wait for
    /// some milliseconds.
    #[command(after_help = "\
Any coordinator may be asked. Allowed is who may write the node /zookeeper/config: the super user of the
setting DigestAuthenticationProvider.superDigest, whomever its access list names, and everybody where
the servers are set to skipACL = \"yes\". Without any of these a restart of the leader moves leadership, too: it
hands over before it stops.

Examples:
  TIDEGATE_COORDINATOR_AUTH=digest:super:PASSWORD tidegate coordinator transfer --to 2
  tidegate coordinator transfer              to the member that is most advanced")]
    Transfer {
        /// The member that is to lead [default: the most suitable].
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(1..=254))]
        to: Option<i32>,
    },
    #[command(flatten)]
    OfServer(ServerCommand),
}

/// What is done on a coordinator's own machine, by the program `coordinator`. What these take stands there, and is not repeated here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum ServerCommand {
    /// Read a stopped coordinator's data folder whole, and tell what is in it and what is damaged.
    #[command(after_help = TOLD_THERE)]
    Check,
    /// Say what can be done about damage in a stopped coordinator's data folder; with a flag, do it.
    #[command(after_help = TOLD_THERE)]
    Repair,
    /// Have the running coordinator of this machine take a snapshot now, which is a backup.
    #[command(after_help = TOLD_THERE)]
    Snapshot,
    /// Make a coordinator's data folder from a snapshot.
    #[command(after_help = TOLD_THERE)]
    Restore,
    /// Make a coordinator's data folder from the files of a ZooKeeper server.
    #[command(after_help = TOLD_THERE)]
    ImportZookeeper,
}

const TOLD_THERE: &str = "\
The program `coordinator` does it, which has to lie beside `tidegate` or in PATH:
`tidegate coordinator COMMAND --help` shows what it takes, such as --config FILE with the coordinator's settings.
It asks no ensemble: flags that name one are refused, the TIDEGATE_ variables of the environment, TIDEGATE_CONFIG
among them, and tidegate.toml do not count.";

impl ServerCommand {
    /// As it is called on the command line, by both programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Repair => "repair",
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
            Self::ImportZookeeper => "import-zookeeper",
        }
    }
}

/// The names of all commands that the other program does.
pub fn server_commands() -> Vec<String> {
    let all = ServerCommand::augment_subcommands(clap::Command::new("all"));
    all.get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

fn scheme_and_secret(text: &str) -> Result<(String, String), String> {
    let (scheme, secret) = text.split_once(':').ok_or("expected SCHEME:CREDENTIALS")?;
    Ok((scheme.to_owned(), secret.to_owned()))
}
