//! The `broker` binary: flags, logging, signals.

use std::process::ExitCode;

use anyhow::Context as _;
use broker::config::Config;
use broker::config::flags::{Flags, describe_settings};
use broker::config::values::Values;
use broker::server::Server;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.settings {
        print!("{}", describe_settings());
        return ExitCode::SUCCESS;
    }
    let filter = EnvFilter::try_from_env("BROKER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
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
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let id = config.broker_id;
    let server = Server::start(config).await?;
    let addresses = server.addresses();
    let http = addresses.http.map(|http| format!(" HTTP={http}")).unwrap_or_default();
    println!(
        "serving id={id} PLAINTEXT={} INTERNAL={}{http}",
        addresses.public, addresses.internal
    );
    let failed = tokio::select! {
        // All arms are cancel-safe: what loses the race is not needed any more.
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        reason = server.failed() => Some(reason),
    };
    info!("stopping");
    server.stop().await;
    match failed {
        None => Ok(()),
        Some(reason) => Err(anyhow::anyhow!("a log directory has failed: {reason}")),
    }
}
