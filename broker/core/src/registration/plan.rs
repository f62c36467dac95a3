//! Who a broker is: what a start writes about itself, and whether it may (safety.md B1-B4).
//!
//! *Called by* `registrant`. Invariants: only the same directories may replace a live registration; a start that
//! does not continue the former one on every directory says so, and that stays written until memberships granted later make it moot.

use std::collections::BTreeMap;

use crate::ids::{DirectoryId, Incarnation, Zxid};
use crate::image::{Identity, StoredIdentity};

/// What a log directory remembers of incarnations, in a synced file of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DirectoryRecord {
    /// The last incarnation that is known to have registered.
    pub confirmed: Incarnation,
    /// The one that was about to; equal to `confirmed` when its registration is known to have gone through.
    pub intended: Incarnation,
}

/// What a start has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The locked directories with their records; a new one has none.
    pub directories: BTreeMap<DirectoryId, Option<DirectoryRecord>>,
    /// The machine was started since, and the directories were not closed cleanly (B4).
    pub boot_changed: bool,
}

/// What to write before and with the registration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// To be recorded in every directory, synced, before the registration; after it `confirmed` becomes `intended`.
    pub record: DirectoryRecord,
    /// The identity node's new content.
    pub identity: Identity,
    /// The identity node's version that is replaced; none: it is created.
    pub expected_version: Option<i32>,
}

/// Another broker with this number is registered: its directories are not ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecondBroker {
    /// The directories of the registered one.
    pub registered: Vec<DirectoryId>,
}

/// Decides what this start is. `is_registered`: `/brokers/ids/N` is there.
///
/// # Errors
/// [`SecondBroker`]: a live registration belongs to other directories. Not to be tried again without a human.
pub fn plan(
    stored: Option<&StoredIdentity>,
    held: &Held,
    is_registered: bool,
) -> Result<Plan, SecondBroker> {
    let directories: Vec<_> = held.directories.keys().copied().collect();
    let Some(stored) = stored else {
        let record = DirectoryRecord {
            confirmed: Incarnation::default(),
            intended: Incarnation::default().next(),
        };
        let identity = Identity {
            incarnation: record.intended,
            directories,
            // Whoever knows this number from before knows nothing of what it holds now.
            lost: true,
            lost_zxid: Zxid::default(),
            boot_changed: held.boot_changed,
            boot_changed_zxid: Zxid::default(),
        };
        return Ok(Plan { record, identity, expected_version: None });
    };
    let known = &stored.identity;
    let same = known.directories.len() == directories.len()
        && known.directories.iter().all(|id| held.directories.contains_key(id));
    if is_registered && !same {
        return Err(SecondBroker { registered: known.directories.clone() });
    }
    let continues = known.directories.iter().all(|id| {
        let record = held.directories.get(id).copied().flatten();
        record.is_some_and(|r| known.incarnation == r.confirmed || known.incarnation == r.intended)
    });
    // A loss is told by the registration alone: until that has gone through the directories must not look as if they
    // continued what they have lost, or whoever tries again, or starts again, would tell of none.
    let confirmed = if continues { known.incarnation } else { Incarnation::default() };
    let record = DirectoryRecord { confirmed, intended: known.incarnation.next() };
    let identity = Identity {
        incarnation: record.intended,
        directories,
        lost: !continues,
        lost_zxid: if known.lost { stored.mzxid } else { known.lost_zxid },
        boot_changed: held.boot_changed,
        boot_changed_zxid: if known.boot_changed { stored.mzxid } else { known.boot_changed_zxid },
    };
    Ok(Plan { record, identity, expected_version: Some(stored.version) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(n: u8) -> DirectoryId {
        DirectoryId::new([n; 16])
    }

    fn record(confirmed: u64, intended: u64) -> DirectoryRecord {
        DirectoryRecord {
            confirmed: Incarnation::new(confirmed),
            intended: Incarnation::new(intended),
        }
    }

    fn held(directories: &[(u8, Option<DirectoryRecord>)]) -> Held {
        let directories = directories.iter().map(|&(n, record)| (directory(n), record)).collect();
        Held { directories, boot_changed: false }
    }

    fn stored(incarnation: u64, directories: &[u8]) -> StoredIdentity {
        StoredIdentity {
            identity: Identity {
                incarnation: Incarnation::new(incarnation),
                directories: directories.iter().map(|&n| directory(n)).collect(),
                lost: false,
                lost_zxid: Zxid::new(3),
                boot_changed: false,
                boot_changed_zxid: Zxid::new(2),
            },
            version: 9,
            mzxid: Zxid::new(50),
        }
    }

    #[test]
    fn a_continued_start_raises_the_incarnation() {
        for known in [record(6, 7), record(7, 8)] {
            let plan =
                plan(Some(&stored(7, &[1])), &held(&[(1, Some(known))]), false).expect("may");
            assert_eq!(plan.record, record(7, 8));
            assert_eq!(plan.expected_version, Some(9));
            assert_eq!(plan.identity.incarnation, Incarnation::new(8));
            assert!(!plan.identity.lost);
            assert_eq!(plan.identity.lost_zxid, Zxid::new(3));
        }
    }

    #[test]
    fn wiped_restored_or_missing_directories_are_lost() {
        let lost =
            |held: &Held| plan(Some(&stored(7, &[1, 2])), held, false).expect("may").identity.lost;
        let good = Some(record(7, 7));
        assert!(!lost(&held(&[(1, good), (2, good)])));
        assert!(!lost(&held(&[(1, good), (2, good), (3, None)])), "one more directory");
        assert!(lost(&held(&[(1, good), (2, None)])), "wiped under the old id");
        assert!(lost(&held(&[(1, good), (3, None)])), "wiped under a new id");
        assert!(lost(&held(&[(1, good)])), "missing");
        assert!(lost(&held(&[(1, good), (2, Some(record(5, 6)))])), "from a backup");
    }

    #[test]
    fn a_loss_is_told_until_a_registration_has_gone_through() {
        let mut node = stored(7, &[1]);
        let mut known = Some(record(5, 6));
        for _ in 0..3 {
            let plan = plan(Some(&node), &held(&[(1, known)]), false).expect("may");
            assert!(plan.identity.lost, "{known:?}");
            known = Some(plan.record);
        }
        // It went through, and the answer was lost.
        node.identity.incarnation = known.expect("recorded").intended;
        node.identity.lost = true;
        let plan = plan(Some(&node), &held(&[(1, known)]), false).expect("may");
        assert!(!plan.identity.lost);
        assert_eq!(plan.identity.lost_zxid, Zxid::new(50));
    }

    #[test]
    fn a_loss_keeps_its_place_in_time() {
        let mut node = stored(7, &[1]);
        node.identity.lost = true;
        node.identity.boot_changed = true;
        let plan = plan(Some(&node), &held(&[(1, Some(record(7, 7)))]), false).expect("may");
        assert!(!plan.identity.lost);
        assert_eq!(plan.identity.lost_zxid, Zxid::new(50));
        assert_eq!(plan.identity.boot_changed_zxid, Zxid::new(50));
    }

    #[test]
    fn other_directories_may_not_replace_a_live_registration() {
        let mut held = held(&[(2, None)]);
        let refused = plan(Some(&stored(7, &[1])), &held, true);
        assert_eq!(refused, Err(SecondBroker { registered: vec![directory(1)] }));
        held.directories = [(directory(1), Some(record(7, 7)))].into();
        assert!(plan(Some(&stored(7, &[1])), &held, true).is_ok());
    }

    #[test]
    fn a_number_without_identity_holds_nothing() {
        let plan = plan(None, &held(&[(1, None)]), false).expect("may");
        assert_eq!(plan.expected_version, None);
        assert!(plan.identity.lost);
        assert_eq!(plan.record, record(0, 1));
    }
}
