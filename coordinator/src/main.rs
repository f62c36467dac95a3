//! The `coordinator` binary: settings in, one server, signals.
//!
//! Prints one line to standard output when it listens:
//! `coordinator listening client=127.0.0.1:2181 peer=127.0.0.1:2888 http=127.0.0.1:8080` (`-` for none); its log goes
//! to standard error.

mod commands;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use coordinator::config::{Config, Values, help};
use coordinator::{Addresses, Server};
use coordinator_disk::RealDisk;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;

use commands::Command;

/// One member of a coordinator ensemble that ZooKeeper's clients can talk to.
///
/// Without any argument it stands alone on 127.0.0.1:2181 and keeps its data in ./coordinator-data.
#[derive(Parser)]
#[command(name = "coordinator", version, after_help = help())]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    /// File of settings, TOML. Without it and --set all have their defaults: no variable of the environment counts.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting; may be repeated.
    #[arg(long, global = true, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// How much to log to standard error: error, warn, info, debug or trace.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info")]
    log: Level,
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("coordinator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt().with_max_level(flags.log).with_writer(std::io::stderr).init();
    let config = config(flags)?;
    if let Some(command) = &flags.command {
        return command.run(&config);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        let server = Server::bind(config, Arc::new(RealDisk)).await?;
        announce(server.addresses()?)?;
        server.run(stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn config(flags: &Flags) -> anyhow::Result<Config> {
    let mut values = Values::default();
    if let Some(path) = &flags.config {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        values.add_toml(&text).with_context(|| format!("in {}", path.display()))?;
    }
    for assignment in &flags.set {
        values.add_assignment(assignment)?;
    }
    Config::from_values(&values).context("settings")
}

/// Tells programs that started us, and people, where to connect.
fn announce(addresses: Addresses) -> std::io::Result<()> {
    let text = |address: Option<std::net::SocketAddr>| {
        address.map_or_else(|| "-".to_owned(), |address| address.to_string())
    };
    let Addresses { client, peer, http } = addresses;
    let mut out = std::io::stdout().lock();
    writeln!(out, "coordinator listening client={client} peer={} http={}", text(peer), text(http))?;
    out.flush()
}

/// Done at the first SIGTERM or SIGINT.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
