//! SASL: how a client proves a password without sending it.
//!
//! Called by `request`. Calls `digest_md5`. Invariant: an identity is added only after a right
//! response to this connection's own nonce; after a wrong one the connection ends. It does not know
//! what identities may do.

use std::collections::BTreeMap;

use bytes::Bytes;
use coordinator_protocol::{ErrorCode, OpCode, Response};
use sha1::{Digest, Sha1};

use super::identity::with_identities;
use super::step::Server;
use crate::ConnectionId;
use crate::digest_md5::{self, Secret};
use crate::tree::{Identity, SUPER_SCHEME};

/// Who may prove what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SaslConfig {
    /// By name.
    pub users: BTreeMap<String, Secret>,
    /// Who of them stands above all access lists.
    pub super_user: Option<String>,
    /// Whether nothing else is answered to those who have not proved anything.
    pub required: bool,
}

/// The nonce of a connection: nobody else can guess what was drawn for it.
pub(super) fn nonce(entropy: &[u8; 24]) -> String {
    let mut hash = Sha1::new();
    hash.update(b"sasl nonce");
    hash.update(entropy);
    digest_md5::hex(&hash.finalize())
}

impl Server {
    /// Answers one token: an empty one by the challenge, any other by what it proves.
    pub(super) fn exchange(
        &mut self,
        id: ConnectionId,
        token: Option<Bytes>,
    ) -> Result<Response, ErrorCode> {
        let sasl = &self.config.sasl;
        let connection = self.connections.get_mut(id).ok_or(ErrorCode::AuthFailed)?;
        if sasl.users.is_empty() {
            // As ZooKeeper answers when it was told of no users.
            return Ok(Response::Token(None));
        }
        let token = token.unwrap_or_default();
        let text = if token.is_empty() {
            digest_md5::challenge(&connection.nonce)
        } else {
            let proved = digest_md5::verify(&sasl.users, &connection.nonce, &token);
            let (user, text) = proved.map_err(|_| ErrorCode::AuthFailed)?;
            let mut shown = Vec::new();
            if sasl.super_user.as_ref() == Some(&user) {
                shown.push(Identity { scheme: SUPER_SCHEME.into(), id: String::new() });
            }
            shown.push(Identity { scheme: "sasl".into(), id: user });
            connection.identities = with_identities(&connection.identities, shown)?;
            text
        };
        Ok(Response::Token(Some(Bytes::from(text))))
    }

    /// Whether `op` is refused because the client has not proved who it is.
    pub(super) fn must_prove_first(&self, id: ConnectionId, op: OpCode) -> bool {
        let allowed =
            matches!(op, OpCode::Sasl | OpCode::Auth | OpCode::Ping | OpCode::CloseSession);
        let proved = |id| {
            let connection = self.connections.get(id);
            connection.is_some_and(|found| found.identities.iter().any(|who| who.scheme == "sasl"))
        };
        self.config.sasl.required && !allowed && !proved(id)
    }
}
