//! Replication under simulation, a few seeds; `scripts/sim` runs many, and one with every event.

use tests::sim::campaign::World;
use tests::sim::many::Plan;
use tests::sim::replication::run;

#[test]
fn replication_keeps_its_promises_while_everything_breaks() {
    let sum = Plan::quiet(World::Replication, 0..60);
    println!("{}", sum.describe());
    assert!(sum.failures.is_empty(), "{:#?}", sum.failures);
    assert!(sum.operations > 100 * sum.runs, "hardly anything happened");
}

#[test]
fn same_seed_gives_the_same_run() {
    for seed in [3, 1_000_003] {
        let first = run(seed, false);
        assert_eq!(run(seed, false), first);
        assert_ne!(run(seed + 1, false).digest, first.digest);
    }
}
