//! Runs targets over their inputs.
//!
//! Called by: the tests, the `fuzz` program. Calls: `mutate`, the targets.
//! Invariant: an input that breaks something is kept in a file before anybody hears of it.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::mutate::{Draw, mutated};
use crate::target::Target;

/// One input may take no longer, at no optimisation and on a busy machine.
const INPUT_TAKES_MAX: Duration = Duration::from_secs(20);

/// What a run came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ran {
    /// Inputs.
    pub inputs: u64,
    /// Those that the decoder took.
    pub taken: u64,
    /// All of them.
    pub took: Duration,
}

/// An input for which something did not hold.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Of which target.
    pub target: &'static str,
    /// The input.
    pub file: PathBuf,
    /// What did not hold.
    pub why: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finding { target, file, why } = self;
        let file = file.display();
        write!(f, "{target}: {why}\n  again: cargo run -p fuzz -- replay {target} {file}")
    }
}

/// Where the inputs are that once broke something.
#[must_use]
pub fn corpus_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// A target's seeds and what is in its folder of the corpus, if it has one.
///
/// # Panics
/// When a file of the corpus cannot be read.
#[must_use]
pub fn corpus_of(target: &Target) -> Vec<Vec<u8>> {
    let mut inputs = (target.seeds)();
    let Ok(found) = fs::read_dir(corpus_folder().join(target.name)) else { return inputs };
    let mut files: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
    files.sort();
    inputs.extend(files.iter().map(|file| fs::read(file).expect("a file of the corpus")));
    inputs
}

/// Runs `target` once; whether the decoder takes the input.
///
/// # Errors
/// A [`Finding`], when something does not hold for `input`.
pub fn replay(target: &Target, input: &[u8]) -> Result<bool, Finding> {
    let began = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let why = match outcome {
        Ok(taken) if began.elapsed() <= INPUT_TAKES_MAX => return Ok(taken),
        Ok(_) => format!("it takes {:?}", began.elapsed()),
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "it panics".to_owned()),
    };
    Err(Finding { target: target.name, file: keep(target, input), why })
}

/// All inputs of the corpus, then `count` changes of them, drawn from `seed`.
///
/// # Errors
/// The first [`Finding`].
pub fn run_blind(target: &Target, seed: u64, count: u64) -> Result<Ran, Finding> {
    let began = Instant::now();
    let corpus = corpus_of(target);
    let mut taken = 0;
    for input in &corpus {
        taken += u64::from(replay(target, input)?);
    }
    let draw = &mut Draw(seed);
    let empty = Vec::new();
    for _ in 0..count {
        let input = corpus.get(draw.below(corpus.len())).unwrap_or(&empty);
        let other = corpus.get(draw.below(corpus.len())).unwrap_or(&empty);
        taken += u64::from(replay(target, &mutated(input, other, draw))?);
    }
    Ok(Ran { inputs: corpus.len() as u64 + count, taken, took: began.elapsed() })
}

/// Writes a target's seeds and corpus into `folder`, a file for each.
///
/// # Errors
/// When that cannot be done.
pub fn write_corpus(target: &Target, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (number, input) in corpus_of(target).iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:04}")), input)?;
    }
    Ok(())
}

fn keep(target: &Target, input: &[u8]) -> PathBuf {
    let sum = crc32fast::hash(input);
    let file =
        std::env::temp_dir().join(format!("fuzz-{}-{sum:08x}-{}", target.name, std::process::id()));
    if let Err(error) = fs::write(&file, input) {
        eprintln!("{}: {error}; the input is {input:02x?}", file.display());
    }
    file
}
