//! The `tidegate` command.
//!
//! *Called by* people and scripts. *Calls* `client` (brokers) and `coordinator-client` (the ensemble).
//!
//! Data goes to standard output, everything else to standard error; with `-o json` all commands but those that move records also
//! tell why something was not done as a JSON object on standard output, with `error`, `hint` and what is known nevertheless.
//! Exit code 0: done; 1: not done, with the reason and a hint; 2: the command line was wrong.

mod args;
mod bench;
mod certs;
mod cluster;
mod consume;
mod coordinator;
mod group;
mod handover;
mod hint;
mod membership;
mod output;
mod patience;
mod produce;
mod settings;
mod topic;
mod whereabouts;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, ClusterCommand, Command, Format};
use handover::Handover;
use patience::tell_if_late;
use settings::Settings;
use whereabouts::explained;

const ASKING: &str = "the cluster has been asked";

fn main() -> ExitCode {
    let line: Vec<OsString> = std::env::args_os().collect();
    if let Some(handover) = Handover::asked(&line) {
        let done = handover.run().map_err(anyhow::Error::from);
        return done.unwrap_or_else(|error| fail(&error, handover.format == Format::Json));
    }
    let arguments = Arguments::parse_from(line);
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("TIDEGATE_LOG"))
        .with_writer(std::io::stderr)
        .init();
    let says_json = arguments.output == Format::Json && arguments.command.tells_errors_as_json();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output went away (`tidegate consume t | head`): that is how it says "enough".
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error, says_json),
    }
}

/// Tells why it was not done.
fn fail(error: &anyhow::Error, says_json: bool) -> ExitCode {
    if says_json {
        // On one line, because of commands that print one object a line. Standard error has it as well.
        let _ = output::print_json_line(&output::error_json(error, hint::of(error)));
    }
    eprintln!("error: {}", output::explain(error));
    if let Some(hint) = hint::of(error) {
        eprintln!("hint: {hint}");
    }
    ExitCode::FAILURE
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if let Command::Certs { command } = &arguments.command {
        // Needs no cluster.
        return certs::run(command, arguments.output);
    }
    let settings = Settings::resolve(&arguments.connection)?;
    // A client's own task works beside the command's.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let format = arguments.output;
        match arguments.command {
            Command::Topic { command } => {
                tell_if_late(ASKING, topic::run(&settings, command, format)).await
            }
            Command::Produce(produce) => produce::run(&settings, &produce, format).await,
            Command::Consume(consume) => consume::run(&settings, &consume, format).await,
            Command::Group { command } => {
                tell_if_late(ASKING, group::run(&settings, command, format)).await
            }
            Command::Bench { command } => bench::run(&settings, command, format).await,
            Command::Cluster { command: ClusterCommand::Status } => {
                tell_if_late(ASKING, cluster::status(&settings, format)).await
            }
            Command::Coordinator(asked) => {
                let work = coordinator::run(&settings, asked, format);
                let done = tell_if_late("the coordinators have been asked", work).await;
                explained(&settings, done).await
            }
            Command::Certs { command } => certs::run(&command, format),
            Command::Cluster { command: ClusterCommand::Watch(watch) } => {
                explained(&settings, cluster::watch(&settings, &watch, format).await).await
            }
        }
    })
}
