//! ListGroups, DescribeGroups, DeleteGroups: what tools see and do.
//!
//! *Called by* the shard. *Calls* `group`, `turn`. Invariant: a group with members is never deleted.

use client_protocol::ErrorCode;
use client_protocol::messages::ListGroupsRequest;
use client_protocol::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use client_protocol::messages::list_groups::ListedGroup;

use super::message::{Response, Ticket};
use super::offsets::tombstone;
use super::record::GroupRecord;
use super::state::{Group, Phase};
use super::turn::{Turn, error_of_write};
use super::writes::Then;

/// The only type of group here.
const CLASSIC: &str = "classic";

/// The line of a list, if the filters let it through.
pub(super) fn list(group: &Group, filter: &ListGroupsRequest) -> Option<ListedGroup> {
    let lets = |wanted: &[String], name: &str| {
        wanted.is_empty() || wanted.iter().any(|one| one.eq_ignore_ascii_case(name))
    };
    let state = group.state_name();
    let wanted = lets(&filter.states_filter, state) && lets(&filter.types_filter, CLASSIC);
    wanted.then(|| ListedGroup {
        group_id: group.id.clone(),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        group_state: state.to_owned(),
        group_type: CLASSIC.to_owned(),
    })
}

/// One group and its members; one that is not known is dead.
pub(super) fn describe(id: &str, group: Option<&Group>) -> DescribedGroup {
    let Some(group) = group else {
        let (group_id, group_state) = (id.to_owned(), "Dead".to_owned());
        return DescribedGroup { group_id, group_state, ..Default::default() };
    };
    // Between generations members have neither a protocol nor work.
    let protocol = group.protocol.as_deref().filter(|_| group.phase == Phase::Stable);
    let members = group.members.values().map(|member| DescribedGroupMember {
        member_id: member.id.clone(),
        group_instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        member_metadata: protocol.map(|name| member.metadata(name)).unwrap_or_default(),
        member_assignment: protocol.map(|_| member.assignment.clone()).unwrap_or_default(),
    });
    DescribedGroup {
        group_id: id.to_owned(),
        group_state: group.state_name().to_owned(),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        protocol_data: protocol.unwrap_or_default().to_owned(),
        members: members.collect(),
        ..Default::default()
    }
}

/// Forgets the group; answers once the log has.
pub(super) fn delete(group: &mut Group, ticket: Ticket, turn: &mut Turn<'_>) {
    let busy = group.phase != Phase::Empty || group.commits > 0 || !group.pending.is_empty();
    let deleted = match busy {
        true => Err(ErrorCode::NonEmptyGroup),
        false => forget(group, Vec::new(), Some(ticket), turn),
    };
    if let Err(error) = deleted {
        turn.respond(ticket, Response::Delete(error));
    }
}

/// Sends tombstones for all that the log has of an empty group, beside those in `records`.
pub(super) fn forget(
    group: &mut Group,
    mut records: Vec<GroupRecord>,
    ticket: Option<Ticket>,
    turn: &mut Turn<'_>,
) -> Result<(), ErrorCode> {
    let offsets = group.offsets.iter().map(|(topic, p, _)| tombstone(&group.id, topic, p));
    records.extend(offsets);
    records.push(GroupRecord::Group { group: group.id.clone(), value: None });
    turn.write_split(&group.id, records, Then::Delete { ticket }).map_err(error_of_write)?;
    group.deleting = true;
    Ok(())
}
