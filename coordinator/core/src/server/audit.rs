//! Who changed what, and who was not let: records for an audit log.
//!
//! Called by `apply` (decided writes, ends of sessions), `request` and `pipeline` (what is refused before that). Asks
//! `room`: while this server's disk has little, records are counted and no more, since they would take what is kept free
//! for the log. Invariant: a record is of a bounded size, whatever a client sends; of the whole ensemble one server records a write: the one whose connection asked for it, gone or
//! not meanwhile; one that was in the log when this process began is not recorded again. Data, passwords and digests are
//! in no record. It does not know files, or the form in which a record is shown.

use coordinator_protocol::{Acl, CreateMode, ErrorCode, OpCode, Permissions, Request, SessionId};

use super::effect::Effect;
use super::identity::to_info;
use super::limits::AUDIT_TEXT_BYTES_MAX;
use super::step::Server;
use crate::ConnectionId;
use crate::state::{AppliedCommand, Command, MultiOutcome, OpResult, Outcome, TreeOp, WriteOp};
use crate::tree::{CONFIG_PATH, ChangeKind, Identity, SUPER_SCHEME};

/// One thing that was done, or not. Fields that are `None` have no meaning for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// When, by this server's clock.
    pub wall_ms: i64,
    /// Whose session.
    pub session: SessionId,
    /// All that the client had shown to be, joined by commas.
    pub user: Option<String>,
    /// The client's address.
    pub ip: Option<String>,
    /// ZooKeeper's name for it.
    pub operation: &'static str,
    /// The path.
    pub znode: Option<String>,
    /// Of a created node.
    pub znode_type: Option<&'static str>,
    /// Of a new access list.
    pub acl: Option<String>,
    /// Whether it was done.
    pub is_done: bool,
}

impl AuditRecord {
    /// Bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = [&self.user, &self.ip, &self.znode, &self.acl];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        texts.saturating_add(size_of::<Self>())
    }
}

/// Whose doing a record tells of.
struct Actor<'a> {
    session: SessionId,
    identities: &'a [Identity],
}

/// What a record tells.
#[derive(Default)]
struct Deed {
    operation: &'static str,
    znode: Option<String>,
    znode_type: Option<&'static str>,
    acl: Option<String>,
    is_done: bool,
}

impl Server {
    /// Records what came of a command, if it is this server's to record.
    pub(super) fn audit_applied(&mut self, command: &Command, applied: &AppliedCommand) {
        if !self.config.audit || self.is_replaying() {
            return;
        }
        match (command, &applied.outcome) {
            (Command::Write { session, identities, op, .. }, Outcome::Written { result, .. }) => {
                if matches!(op, WriteOp::CloseSession) {
                    return self.audit_end(*session, applied);
                }
                let origin = self.state.session(*session).map(|found| found.origin.server);
                if origin == Some(self.config.id) {
                    let actor = Actor { session: *session, identities };
                    self.audit_write(&actor, op, Some(result));
                }
            }
            // A change of the members ends with another command than it began with.
            (Command::AdvanceMembers { .. }, Outcome::Written { session, result, .. }) => {
                let origin = self.state.session(*session).map(|found| found.origin.server);
                if origin == Some(self.config.id) {
                    let id = self.connections.of_session(*session);
                    let held = id.and_then(|id| self.connections.get(id));
                    let identities = held.map(|held| held.identities.clone());
                    let identities = identities.unwrap_or_else(|| [].into());
                    let actor = Actor { session: *session, identities: &identities };
                    self.audit_reconfig(&actor, result.is_ok());
                }
            }
            (_, Outcome::Expired(ended)) => self.audit_end(ended.session, applied),
            _ => {}
        }
    }

    /// Records a write that did not come into the log.
    pub(super) fn audit_refused(&mut self, id: ConnectionId, op: &WriteOp) {
        if !self.config.audit {
            return;
        }
        let Some(connection) = self.connections.get(id) else { return };
        let Some(session) = connection.session().map(|session| session.id) else { return };
        let identities = connection.identities.clone();
        self.audit_write(&Actor { session, identities: &identities }, op, None);
    }

    /// What a record needs of a read that may be denied.
    pub(super) fn audited_path(&self, request: &Request) -> Option<String> {
        self.config.audit.then(|| read_path(request).map(bounded)).flatten()
    }

    /// Records an answer that says that the client may not.
    pub(super) fn audit_denial(&mut self, id: ConnectionId, op: OpCode, znode: Option<String>) {
        let Some(operation) = denied_operation(op).filter(|_| self.config.audit) else { return };
        let Some(connection) = self.connections.get(id) else { return };
        let Some(session) = connection.session().map(|session| session.id) else { return };
        let identities = connection.identities.clone();
        let actor = Actor { session, identities: &identities };
        self.record(&actor, Deed { operation, znode, ..Deed::default() });
    }

    /// What the log held when this process began was recorded by the one before, or was asked for by clients of that
    /// one, who never heard of it. What came in place of it is of a later term.
    pub(super) fn is_replaying(&self) -> bool {
        let (index, term) = self.found_log;
        self.state.applied_index() < index && self.state.applied_term() <= term
    }

    fn audit_write(
        &mut self,
        actor: &Actor<'_>,
        op: &WriteOp,
        result: Option<&Result<OpResult, ErrorCode>>,
    ) {
        match (op, result) {
            (WriteOp::Tree(op), result) => {
                let done = result.and_then(|result| result.as_ref().ok());
                self.audit_tree_op(actor, op, done);
            }
            (WriteOp::Multi(ops), Some(Ok(OpResult::Multi(MultiOutcome::Done(results))))) => {
                for (op, result) in ops.iter().zip(results) {
                    self.audit_tree_op(actor, op, Some(result));
                }
            }
            (WriteOp::Multi(_), _) => {
                self.record(actor, Deed { operation: "multiOperation", ..Deed::default() });
            }
            (WriteOp::Reconfig(_), result) => {
                self.audit_reconfig(actor, result.is_some_and(Result::is_ok));
            }
            (WriteOp::CloseSession | WriteOp::SessionOptions { .. }, _) => {}
        }
    }

    fn audit_reconfig(&mut self, actor: &Actor<'_>, is_done: bool) {
        let znode = Some(CONFIG_PATH.to_owned());
        self.record(actor, Deed { operation: "reconfig", znode, is_done, ..Deed::default() });
    }

    fn audit_tree_op(&mut self, actor: &Actor<'_>, op: &TreeOp, done: Option<&OpResult>) {
        let mut deed = Deed { is_done: done.is_some(), ..Deed::default() };
        let path = match op {
            TreeOp::Create(create) | TreeOp::Create2(create) => {
                deed.operation = "create";
                deed.znode_type = type_name(create.flags);
                &create.path
            }
            TreeOp::CreateTtl(create) => {
                deed.operation = "create";
                deed.znode_type = type_name(create.flags);
                &create.path
            }
            TreeOp::Delete(delete) => {
                deed.operation = "delete";
                &delete.path
            }
            TreeOp::SetData(set) => {
                deed.operation = "setData";
                &set.path
            }
            TreeOp::SetAcl(set) => {
                deed.operation = "setAcl";
                deed.acl = Some(acl_text(&set.acl));
                &set.path
            }
            TreeOp::Check(_) => return,
        };
        // A sequential node has another name than was asked for.
        let made = match done {
            Some(OpResult::Created { path } | OpResult::Created2 { path, .. }) => path,
            _ => path.as_str(),
        };
        deed.znode = Some(bounded(made));
        self.record(actor, deed);
    }

    /// The ephemerals that went with a session, told by the leader: the client may have no server any more.
    fn audit_end(&mut self, session: SessionId, applied: &AppliedCommand) {
        if !self.consensus.is_leader() {
            return;
        }
        let gone = applied.changes.iter().filter(|change| change.kind == ChangeKind::Deleted);
        for change in gone {
            let deed = Deed {
                operation: "ephemeralZNodeDeletionOnSessionCloseOrExpire",
                znode: Some(bounded(&change.path)),
                is_done: true,
                ..Deed::default()
            };
            self.record(&Actor { session, identities: &[] }, deed);
        }
    }

    fn record(&mut self, actor: &Actor<'_>, deed: Deed) {
        if self.room.is_low() {
            self.counters.audit_left_out = self.counters.audit_left_out.saturating_add(1);
            return;
        }
        let Deed { operation, znode, znode_type, acl, is_done } = deed;
        let address = actor.identities.iter().find(|identity| identity.scheme == "ip");
        let users = actor.identities.iter().map(|identity| match identity.scheme.as_str() {
            SUPER_SCHEME => SUPER_SCHEME.to_owned(),
            _ => to_info(identity).user,
        });
        let users: Vec<String> = users.collect();
        let record = AuditRecord {
            wall_ms: self.now.wall_ms,
            session: actor.session,
            user: (!users.is_empty()).then(|| bounded(&users.join(","))),
            ip: address.map(|identity| identity.id.clone()),
            operation,
            znode,
            znode_type,
            acl,
            is_done,
        };
        self.effects.push(Effect::Audit { record: Box::new(record) });
    }
}

/// As ZooKeeper's `CreateMode` in small letters; `None` for what is none.
fn type_name(flags: i32) -> Option<&'static str> {
    Some(match CreateMode::from_code(flags)? {
        CreateMode::Persistent => "persistent",
        CreateMode::Ephemeral => "ephemeral",
        CreateMode::PersistentSequential => "persistent_sequential",
        CreateMode::EphemeralSequential => "ephemeral_sequential",
        CreateMode::Container => "container",
        CreateMode::PersistentTtl => "persistent_with_ttl",
        CreateMode::PersistentSequentialTtl => "persistent_sequential_with_ttl",
    })
}

/// As much of a text as a record holds, with three dots where more would follow.
pub(super) fn bounded(text: &str) -> String {
    const MORE: &str = "...";
    if text.len() <= AUDIT_TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=AUDIT_TEXT_BYTES_MAX - MORE.len()).rev().find(|end| text.is_char_boundary(*end));
    let kept = text.get(..end.unwrap_or(0)).unwrap_or_default();
    format!("{kept}{MORE}")
}

/// `scheme:id:permissions`, joined by commas; of a digest the user only.
fn acl_text(list: &[Acl]) -> String {
    let entry = |acl: &Acl| {
        let identity = Identity { scheme: acl.scheme.clone(), id: acl.id.clone() };
        let letters = [
            (Permissions::CREATE, 'c'),
            (Permissions::DELETE, 'd'),
            (Permissions::READ, 'r'),
            (Permissions::WRITE, 'w'),
            (Permissions::ADMIN, 'a'),
        ];
        let may = letters.iter().filter(|(bit, _)| acl.permissions & bit != 0);
        let may: String = may.map(|(_, letter)| *letter).collect();
        format!("{}:{}:{may}", acl.scheme, to_info(&identity).user)
    };
    let mut text = String::new();
    for acl in list {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&entry(acl));
        if text.len() > AUDIT_TEXT_BYTES_MAX {
            break;
        }
    }
    bounded(&text)
}

fn read_path(request: &Request) -> Option<&str> {
    match request {
        Request::Exists(read)
        | Request::GetData(read)
        | Request::GetChildren(read)
        | Request::GetChildren2(read) => Some(&read.path),
        Request::GetAcl(path) => Some(path),
        Request::GetChildrenPage(page) => Some(&page.path),
        _ => None,
    }
}

/// Writes are recorded where they are decided.
fn denied_operation(op: OpCode) -> Option<&'static str> {
    Some(match op {
        OpCode::Exists => "exists",
        OpCode::GetData => "getData",
        OpCode::GetAcl => "getAcl",
        OpCode::GetChildren | OpCode::GetChildren2 | OpCode::GetChildrenPage => "getChildren",
        OpCode::Auth => "auth",
        OpCode::Sasl => "sasl",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_beyond_the_limit_is_cut_between_characters() {
        let longest = "a".repeat(AUDIT_TEXT_BYTES_MAX);
        assert_eq!(bounded(&longest), longest);
        let cut = bounded(&format!("{longest}a"));
        assert_eq!(cut, format!("{}...", "a".repeat(AUDIT_TEXT_BYTES_MAX - 3)));
        for before in 0..4 {
            let cut = bounded(&format!("{}{}", "a".repeat(before), "\u{1F980}".repeat(2_000)));
            assert!((AUDIT_TEXT_BYTES_MAX - 3..=AUDIT_TEXT_BYTES_MAX).contains(&cut.len()));
            assert!(cut.ends_with("\u{1F980}..."), "{before}");
        }
    }
}
