//! The short form: every target over its seeds, its corpus and changes of both, always the same ones.

use std::collections::BTreeSet;

use crate::budget::{Budget, within};
use crate::run::{corpus_folder, replay, run_blind};
use crate::target::Target;
use crate::targets::all;

/// Changed inputs for each target.
const CHANGED: u64 = 1_500;
const SEED: u64 = 20;

/// One test, because what is allocated is counted for the whole process.
#[test]
fn whatever_the_bytes_every_target_holds() {
    every_target_has_a_name_of_its_own_and_seeds();
    budget_is_kept_to();
    findings_are_told_and_kept();
    let mut findings = Vec::new();
    for target in all() {
        match run_blind(&target, SEED, CHANGED) {
            Ok(ran) => println!(
                "{:28} {:6} inputs, {:6} taken, in {:.2?}",
                target.name, ran.inputs, ran.taken, ran.took
            ),
            Err(finding) => findings.push(finding.to_string()),
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

fn budget_is_kept_to() {
    const NONE: Budget = Budget { fixed: 1_000, per_byte: 10 };
    assert_eq!(within(0, NONE, || vec![0_u8; 1_000].len()), 1_000);
    let too_much = || within(10, NONE, || vec![0_u8; 100_000].len());
    assert!(std::panic::catch_unwind(too_much).is_err());
}

fn findings_are_told_and_kept() {
    fn picky(input: &[u8]) -> bool {
        assert!(!input.contains(&7), "a seven");
        true
    }
    let target = Target { name: "picky", what: "", run: picky, seeds: || vec![vec![1, 2, 3]] };
    assert!(replay(&target, &[1]).is_ok());
    let finding = run_blind(&target, 1, 100_000).expect_err("a seven is drawn");
    let kept = std::fs::read(&finding.file).expect("kept");
    assert!(finding.why == "a seven" && kept.contains(&7), "{finding}");
    std::fs::remove_file(&finding.file).expect("removed");
}

fn every_target_has_a_name_of_its_own_and_seeds() {
    let names: BTreeSet<&str> = all().iter().map(|target| target.name).collect();
    assert_eq!(names.len(), all().len());
    for target in all() {
        let mut seeds = (target.seeds)().into_iter();
        let takes_one = seeds.any(|seed| replay(&target, &seed).is_ok_and(|taken| taken));
        assert!(takes_one, "{target:?} refuses all its seeds");
    }
    for entry in std::fs::read_dir(corpus_folder()).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().expect("a name");
        assert!(name == "README.md" || names.contains(&*name), "{name} is no target's");
    }
}
