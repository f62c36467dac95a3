//! One target, for LLVM's fuzzer, whose main function this has. `scripts/fuzz` builds and runs it.
//!
//! TIDEGATE_FUZZ names the target, or is `list`; into the folder TIDEGATE_FUZZ_SEEDS go its seeds and corpus first.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use fuzz::{Target, all, named, write_corpus};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("TIDEGATE_FUZZ").unwrap_or_default();
    named(&name).unwrap_or_else(|| panic!("TIDEGATE_FUZZ names no target: {name:?}"))
});

fn begin() {
    if std::env::var("TIDEGATE_FUZZ").is_ok_and(|name| name == "list") {
        all().iter().for_each(|target| println!("{}", target.name));
        std::process::exit(0);
    }
    if let Some(folder) = std::env::var_os("TIDEGATE_FUZZ_SEEDS") {
        write_corpus(&TARGET, &PathBuf::from(folder)).expect("a folder for the seeds");
    }
}

libfuzzer_sys::fuzz_target!(init: begin(), |input: &[u8]| {
    (TARGET.run)(input);
});
