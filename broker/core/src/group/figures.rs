//! What groups look like in figures.
//!
//! *Called by* the shard. Invariant: only what is committed is counted; a group that is on its way out is not.

use super::state::Group;

/// One group at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupFigures {
    /// Its id.
    pub group: String,
    /// Members at present.
    pub members: usize,
    /// Topic, partition, and the offset at which the group reads on; ordered.
    pub offsets: Vec<(String, i32, i64)>,
}

pub(super) fn of(group: &Group) -> Option<GroupFigures> {
    let offsets = group.offsets.iter();
    let offsets =
        offsets.map(|(topic, partition, value)| (topic.to_owned(), partition, value.offset));
    (!group.deleting).then(|| GroupFigures {
        group: group.id.clone(),
        members: group.members.len(),
        offsets: offsets.collect(),
    })
}
