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

/// Each of these failed once, for a reason that was mended; what was the product's has a test of its crate besides. When draws are added they
/// become other runs, as good as any.
const FAILED_ONCE: [u64; 55] = [
    8, 24, 666, 689, 835, 876, 1139, 1459, 2084, 3_000_008, 3_000_022, 3_000_343, 3_000_621,
    3_001_423, 3_001_520, 4_001_060, 4_001_121, 4_001_472, 4_001_609, 4_003_172, 5_001_400,
    5_002_450, 5_003_120, 5_005_022, 5_005_369, 5_005_713, 5_005_716, 5_006_460, 5_006_502,
    5_006_667, 6_000_408, 8_000_019, 8_003_410, 8_003_952, 8_005_723, 10_003_881, 12_000_582,
    12_001_292, 12_010_990, 12_011_169, 12_011_478, 14_000_007, 15_000_133, 15_003_660, 16_000_369,
    16_004_071, 16_009_571, 16_012_611, 17_005_464, 18_009_006, 19_002_272, 25_006_258, 28_009_764,
    29_002_672, 29_005_513,
];

#[test]
fn seeds_that_failed_once_do_not_again() {
    for seed in FAILED_ONCE {
        let sum = Plan::quiet(World::Replication, seed..seed + 1);
        assert!(sum.failures.is_empty(), "{:#?}", sum.failures);
    }
}
