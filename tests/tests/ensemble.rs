//! The coordinator ensemble under simulation, a few seeds; `scripts/sim` runs many, and one with every event.

use tests::sim::campaign::World;
use tests::sim::ensemble::{Profile, run};
use tests::sim::many::Plan;

fn run_all(world: World, seeds: u64) {
    let sum = Plan::quiet(world, 0..seeds);
    println!("{}", sum.describe());
    assert!(sum.failures.is_empty(), "{:#?}", sum.failures);
    assert!(sum.operations > 500 * sum.runs, "hardly anything happened");
}

#[test]
fn ensemble_keeps_its_promises_while_everything_breaks() {
    run_all(World::Ensemble, 40);
}

#[test]
fn ensemble_expires_sessions_on_time() {
    run_all(World::Calm, 10);
}

#[test]
fn same_seed_gives_the_same_run() {
    for seed in [3, 1_000_003] {
        let first = run(seed, Profile::Chaos, false);
        assert_eq!(run(seed, Profile::Chaos, false), first);
        assert_ne!(run(seed + 1, Profile::Chaos, false).digest, first.digest);
    }
}
