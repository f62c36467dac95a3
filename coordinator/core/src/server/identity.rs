//! Who a connection has shown to be.
//!
//! Called by `request` (auth), `sasl` and `handshake`. Calls nothing. Invariant: identities are only added,
//! each was proved to this server, and there are at most `IDENTITIES_MAX` of them. It does not know
//! what they may do.

use std::sync::Arc;

use coordinator_protocol::{AuthRequest, ClientInfo, ErrorCode, Response};
use sha1::{Digest, Sha1};

use super::limits::{IDENTITIES_MAX, IDENTITY_BYTES_MAX};
use super::step::Server;
use crate::ConnectionId;
use crate::tree::{Identities, Identity, SUPER_SCHEME};

/// What a client is at first: the address that it comes from, and the subject of its certificate. One that is longer
/// than identities may be counts as none. A server that skips access lists takes everybody for the super user: lists are
/// looked at where a write is applied, on every member alike, and what this one skips must be known there.
pub(super) fn of_socket(address: &str, certificate: Option<String>, skip_acl: bool) -> Identities {
    let identity = |scheme: &str, id: String| Identity { scheme: scheme.to_owned(), id };
    let subject = certificate.filter(|subject| subject.len() <= IDENTITY_BYTES_MAX);
    let shown = subject.map(|subject| identity("x509", subject));
    let above = skip_acl.then(|| identity(SUPER_SCHEME, String::new()));
    std::iter::once(identity("ip", address.to_owned())).chain(shown).chain(above).collect()
}

/// Who is counted for what a connection takes: the subject of its certificate, or where it comes from. What is proved later
/// does not count: anybody may have many names.
pub(super) fn client(shown: &Identities) -> Arc<str> {
    let of = |scheme: &str| shown.iter().find(|one| one.scheme == scheme);
    of("x509").or_else(|| of("ip")).map_or_else(|| Arc::from(""), |one| one.id.as_str().into())
}

/// As whoAmI tells it: of a digest only the user.
pub(super) fn to_info(identity: &Identity) -> ClientInfo {
    let user = match identity.scheme.as_str() {
        "digest" => identity.id.split(':').next().unwrap_or_default().to_owned(),
        _ => identity.id.clone(),
    };
    ClientInfo { scheme: identity.scheme.clone(), user }
}

/// ZooKeeper's digest of `user:password`: `user:` and the Base64 of its SHA-1.
fn digest(credentials: &str) -> String {
    let user = credentials.split(':').next().unwrap_or_default();
    format!("{user}:{}", base64(&Sha1::digest(credentials.as_bytes())))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |six: u32| char::from(LETTERS.get(six as usize & 63).copied().unwrap_or(b'='));
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let all = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        text.push(letter(all >> 18));
        text.push(letter(all >> 12));
        text.push(if group.len() > 1 { letter(all >> 6) } else { '=' });
        text.push(if group.len() > 2 { letter(all) } else { '=' });
    }
    text
}

/// `identities` and those that were `shown` now, each once.
pub(super) fn with_identities(
    identities: &Identities,
    shown: Vec<Identity>,
) -> Result<Identities, ErrorCode> {
    let mut all = identities.to_vec();
    for identity in shown {
        if !all.contains(&identity) {
            all.push(identity);
        }
    }
    if all.len() > IDENTITIES_MAX { Err(ErrorCode::AuthFailed) } else { Ok(all.into()) }
}

impl Server {
    /// Credentials of a scheme that is not known, or too long, are refused, and the connection ends,
    /// as in ZooKeeper. A digest proves only that someone knows a password: nobody can be refused.
    pub(super) fn authenticate(
        &mut self,
        id: ConnectionId,
        auth: AuthRequest,
    ) -> Result<Response, ErrorCode> {
        let connection = self.connections.get_mut(id).ok_or(ErrorCode::AuthFailed)?;
        if auth.scheme == "ip" {
            // It has that one already, whatever it says.
            return Ok(Response::Empty);
        }
        let credentials = auth.auth.unwrap_or_default();
        if auth.scheme != "digest" || credentials.len() > IDENTITY_BYTES_MAX {
            return Err(ErrorCode::AuthFailed);
        }
        let text = String::from_utf8(credentials.to_vec()).map_err(|_| ErrorCode::AuthFailed)?;
        let id = digest(&text);
        let mut shown = Vec::new();
        if self.config.super_digest.as_deref() == Some(&*id) {
            shown.push(Identity { scheme: SUPER_SCHEME.into(), id: String::new() });
        }
        shown.push(Identity { scheme: "digest".into(), id });
        connection.identities = with_identities(&connection.identities, shown)?;
        Ok(Response::Empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From ZooKeeper's documentation and kazoo's `make_digest_acl`.
    #[test]
    fn digest_is_zookeepers() {
        assert_eq!(digest("super:test"), "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
        assert_eq!(digest("user:pass"), "user:smGaoVKd/cQkjm7b88GyorAUz20=");
        assert_eq!(base64(b""), "");
        assert_eq!(base64(b"f"), "Zg==");
        assert_eq!(base64(b"fo"), "Zm8=");
        assert_eq!(base64(b"foo"), "Zm9v");
    }
}
