//! The `broker` binary: flags, logging, signals.

use std::process::ExitCode;

use anyhow::Context as _;
use broker::config::Config;
use broker::config::flags::{Flags, describe_settings};
use broker::config::values::Values;
use broker::server::{BoundAddresses, Server};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.settings {
        print!("{}", describe_settings());
        return ExitCode::SUCCESS;
    }
    let filter = match EnvFilter::try_new(&flags.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("--log {}: {error}", flags.log);
            return ExitCode::FAILURE;
        }
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    let config = read_config(flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.listeners.threads)
        .thread_name("net")
        .enable_all()
        .build()?;
    runtime.block_on(serve(config))
}

fn read_config(flags: &Flags) -> anyhow::Result<Config> {
    let mut values = match &flags.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Values::from_toml(&text).with_context(|| format!("in {}", path.display()))?
        }
        None => Values::default(),
    };
    flags.apply(&mut values)?;
    Ok(Config::from_values(&values)?)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut asked_to_stop = std::pin::pin!(async {
        tokio::select! {
            // Cancel-safe: a signal that loses the race is not needed any more.
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let id = config.broker_id;
    let server = tokio::select! {
        started = Server::start(config) => started?,
        // A start that is given up leaves nothing that the next start cannot recover.
        () = &mut asked_to_stop => return Ok(()),
    };
    let BoundAddresses { public, internal, http } = server.addresses();
    let http = http.map_or_else(|| "-".to_owned(), |http| http.to_string());
    println!("broker listening id={id} client={public} internal={internal} http={http}");
    let failed = tokio::select! {
        // Cancel-safe: neither takes anything.
        () = &mut asked_to_stop => None,
        reason = server.failed() => Some(reason),
    };
    info!("stopping");
    server.stop().await;
    match failed {
        None => Ok(()),
        Some(reason) => Err(anyhow::anyhow!(reason)),
    }
}

/// Every connection and every segment is a descriptor: take as many as the system allows.
fn raise_descriptor_limit() {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, ..limits };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!("the limit of open files stays at {:?}: {error}", limits.current);
    }
}
