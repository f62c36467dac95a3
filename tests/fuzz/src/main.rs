//! Runs targets without looking at what they reach: the list, a file once more, blind changes.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use fuzz::{Target, all, named, replay, run_blind};

/// Feeds decoders what nobody would send. `scripts/fuzz` does the same for longer, and guided by what is reached.
#[derive(Parser)]
enum Command {
    /// Names the targets.
    List,
    /// Runs a target over files once more: what fails, fails.
    Replay {
        /// Its name.
        target: String,
        /// Inputs.
        files: Vec<PathBuf>,
    },
    /// Runs targets over their corpus and random changes of it.
    Blind {
        /// Their names; all without.
        targets: Vec<String>,
        /// Changed inputs for each.
        #[arg(long, default_value_t = 100_000)]
        inputs: u64,
        /// Draws others.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::List => {
            for target in all() {
                println!("{:28} {}", target.name, target.what);
            }
            Ok(())
        }
        Command::Replay { target, files } => {
            let target = find(&target)?;
            for file in files {
                let input = std::fs::read(&file).with_context(|| file.display().to_string())?;
                let outcome = replay(&target, &input);
                let taken = outcome.map_err(|finding| anyhow::anyhow!("{finding}"))?;
                let what = if taken { "taken" } else { "refused" };
                println!("{}: {} holds, {what}", file.display(), target.name);
            }
            Ok(())
        }
        Command::Blind { targets, inputs, seed } => blind(&targets, inputs, seed),
    }
}

fn blind(names: &[String], inputs: u64, seed: u64) -> Result<()> {
    let targets: Vec<Target> = match names {
        [] => all(),
        names => names.iter().map(|name| find(name)).collect::<Result<_>>()?,
    };
    let mut findings = 0;
    for target in targets {
        match run_blind(&target, seed, inputs) {
            Ok(ran) => {
                let rate = ran.inputs as f64 / ran.took.as_secs_f64().max(0.001);
                println!(
                    "{:28} {:9} inputs, {:9} taken, {rate:9.0}/s",
                    target.name, ran.inputs, ran.taken
                );
            }
            Err(finding) => {
                findings += 1;
                println!("{finding}");
            }
        }
    }
    if findings > 0 {
        bail!("{findings} of the targets do not hold");
    }
    Ok(())
}

fn find(name: &str) -> Result<Target> {
    named(name).with_context(|| format!("no target is called {name}; `fuzz list` names all"))
}
