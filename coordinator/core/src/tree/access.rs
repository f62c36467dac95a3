//! Who may do what to a node: access lists as ZooKeeper knows them.
//!
//! Called by: `transaction` (writes), the server (reads, notifications). Calls: nothing.
//! Invariant: what an access list forbids, nobody but the super user does; a list that a node carries
//! names schemes that are known, and no `auth`, which stands for the writer's own identities.
//! It does not know how an identity was proved.

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::sync::Arc;

use coordinator_protocol::{Acl, ErrorCode, Permissions};
use serde::{Deserialize, Serialize};

/// Who proved it with the super user's password; stands above all access lists.
pub const SUPER_SCHEME: &str = "super";
/// Entries of one node's list; a longer one is refused.
pub const ACL_ENTRIES_MAX: usize = 1_000;
/// Bytes of their schemes and ids; likewise. A request names `auth` often in few bytes, and each stands
/// for everything that its writer has shown.
pub const ACL_BYTES_MAX: usize = 64 << 10;

/// What a connection has shown to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// As in [`Acl::scheme`]: `digest`, `ip`, `super`, `sasl`, `x509`.
    pub scheme: String,
    /// As in [`Acl::id`].
    pub id: String,
}

/// Everything that a connection has shown to be; shared by its writes.
pub type Identities = Arc<[Identity]>;

/// Whether one of `identities` has one of `permissions` by `acl`. A list with no entry forbids nothing,
/// as in ZooKeeper.
#[must_use]
pub fn is_allowed(acl: &[Acl], permissions: i32, identities: &[Identity]) -> bool {
    let holds = |entry: &Acl| {
        entry.permissions & permissions != 0
            && (is_anyone(entry) || identities.iter().any(|identity| meets(identity, entry)))
    };
    acl.is_empty()
        || acl.iter().any(holds)
        || identities.iter().any(|who| who.scheme == SUPER_SCHEME)
}

/// The list that a node is given for the one that its writer asked for: without repetitions, and with
/// the writer's own identities in the place of `auth`.
///
/// # Errors
/// `InvalidAcl`: no entry, a scheme that is not known, an id that its scheme does not have, or `auth`
/// from someone who has not shown who they are; more than `ACL_ENTRIES_MAX` different entries, or than
/// `ACL_BYTES_MAX` bytes of them.
pub fn resolve(acl: &[Acl], identities: &[Identity]) -> Result<Vec<Acl>, ErrorCode> {
    let mut resolved = Vec::new();
    let mut seen = BTreeSet::new();
    let mut bytes = 0usize;
    let mut add = |entry: Acl| {
        if seen.contains(&entry) {
            return Ok(());
        }
        bytes = bytes.saturating_add(entry.scheme.len()).saturating_add(entry.id.len());
        if seen.len() >= ACL_ENTRIES_MAX || bytes > ACL_BYTES_MAX {
            return Err(ErrorCode::InvalidAcl);
        }
        seen.insert(entry.clone());
        resolved.push(entry);
        Ok(())
    };
    for entry in acl {
        if entry.scheme == "auth" {
            let mut own = identities.iter().filter(|identity| is_proof(identity)).peekable();
            own.peek().ok_or(ErrorCode::InvalidAcl)?;
            for Identity { scheme, id } in own.cloned() {
                add(Acl { permissions: entry.permissions, scheme, id })?;
            }
        } else if is_valid(entry) {
            add(entry.clone())?;
        } else {
            return Err(ErrorCode::InvalidAcl);
        }
    }
    if resolved.is_empty() { Err(ErrorCode::InvalidAcl) } else { Ok(resolved) }
}

/// The list as someone sees it who may not change it: what could be guessed from a password's digest
/// is not theirs.
#[must_use]
pub fn masked(acl: &[Acl]) -> Vec<Acl> {
    let mask = |entry: &Acl| match entry.id.split_once(':') {
        Some((user, _)) if entry.scheme == "digest" => {
            Acl { id: format!("{user}:x"), ..entry.clone() }
        }
        _ => entry.clone(),
    };
    acl.iter().map(mask).collect()
}

/// Whether one of `identities` may see the node.
#[must_use]
pub fn may_read(acl: &[Acl], identities: &[Identity]) -> bool {
    is_allowed(acl, Permissions::READ, identities)
}

fn is_anyone(entry: &Acl) -> bool {
    entry.scheme == "world" && entry.id == "anyone"
}

fn meets(identity: &Identity, entry: &Acl) -> bool {
    identity.scheme == entry.scheme
        && match entry.scheme.as_str() {
            "ip" => is_in_network(&identity.id, &entry.id),
            _ => identity.id == entry.id,
        }
}

/// An address is where someone comes from, not who they are.
fn is_proof(identity: &Identity) -> bool {
    !matches!(identity.scheme.as_str(), "ip" | SUPER_SCHEME)
}

fn is_valid(entry: &Acl) -> bool {
    match entry.scheme.as_str() {
        "world" => entry.id == "anyone",
        "digest" => entry.id.split(':').count() == 2,
        "ip" => network(&entry.id).is_some(),
        "sasl" | "x509" => !entry.id.is_empty(),
        _ => false,
    }
}

/// Whether `address` lies in `address/bits`.
fn is_in_network(address: &str, text: &str) -> bool {
    let Some((network, bits)) = network(text) else { return false };
    let Some(address) = octets(address) else { return false };
    address.len() == network.len()
        && (0..bits).all(|bit| {
            let mask = 0x80u8 >> (bit % 8);
            address.get(bit / 8).map(|byte| byte & mask)
                == network.get(bit / 8).map(|byte| byte & mask)
        })
}

/// The network's address and how many of its bits count.
fn network(text: &str) -> Option<(Vec<u8>, usize)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<usize>().ok()?)),
        None => (text, None),
    };
    let octets = octets(address)?;
    let all = octets.len().saturating_mul(8);
    let bits = bits.unwrap_or(all);
    (bits <= all).then_some((octets, bits))
}

fn octets(address: &str) -> Option<Vec<u8>> {
    Some(match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(permissions: i32, scheme: &str, id: &str) -> Acl {
        Acl { permissions, scheme: scheme.into(), id: id.into() }
    }

    fn identity(scheme: &str, id: &str) -> Identity {
        Identity { scheme: scheme.into(), id: id.into() }
    }

    #[test]
    fn list_allows_what_it_says_to_whom_it_says() {
        let list = [acl(Permissions::READ, "world", "anyone"), acl(31, "digest", "u:h")];
        let check = |permissions, identities: &[Identity], expected| {
            assert_eq!(is_allowed(&list, permissions, identities), expected, "{identities:?}");
        };
        check(Permissions::READ, &[], true);
        check(Permissions::WRITE, &[], false);
        check(Permissions::WRITE, &[identity("digest", "u:h")], true);
        check(Permissions::WRITE, &[identity("sasl", "u:h")], false);
        check(Permissions::WRITE, &[identity("digest", "u:x")], false);
        check(Permissions::WRITE, &[identity("ip", "1.1.1.1"), identity("super", "")], true);
        check(Permissions::WRITE | Permissions::READ, &[], true);
        assert!(is_allowed(&[], Permissions::ADMIN, &[]));
    }

    #[test]
    fn address_is_compared_by_the_networks_bits() {
        let check = |address: &str, network: &str, expected| {
            let list = [acl(31, "ip", network)];
            let found = is_allowed(&list, 1, &[identity("ip", address)]);
            assert_eq!(found, expected, "{address} in {network}");
        };
        check("10.1.2.3", "10.1.2.3", true);
        check("10.1.2.3", "10.1.2.4", false);
        check("10.1.2.3", "10.1.2.4/24", true);
        check("10.1.2.3", "10.1.0.0/15", true);
        check("10.1.2.3", "10.2.0.0/15", false);
        check("10.1.2.3", "0.0.0.0/0", true);
        check("::1", "0.0.0.0/0", false);
        check("2001:db8::1", "2001:db8::/32", true);
        check("nonsense", "0.0.0.0/0", false);
    }

    #[test]
    fn auth_stands_for_what_the_writer_has_shown() {
        let who = [identity("ip", "1.1.1.1"), identity("digest", "u:h"), identity("super", "")];
        let asked = [acl(5, "auth", ""), acl(5, "digest", "u:h"), acl(1, "world", "anyone")];
        let expected = vec![acl(5, "digest", "u:h"), acl(1, "world", "anyone")];
        assert_eq!(resolve(&asked, &who), Ok(expected));
        assert_eq!(resolve(&asked, &who[..1]), Err(ErrorCode::InvalidAcl));
    }

    #[test]
    fn list_has_as_many_entries_and_bytes_as_the_limits() {
        let long = |number: usize, bytes: usize| {
            let id = format!("{number}:");
            identity("digest", &format!("{id}{}", "x".repeat(bytes - "digest".len() - id.len())))
        };
        let asked = |count: usize| -> Vec<Acl> {
            (0..count).map(|n| acl(i32::try_from(n).unwrap(), "auth", "")).collect()
        };
        let who = [long(0, 16), long(1, 16)];
        let resolved = resolve(&asked(ACL_ENTRIES_MAX / 2), &who);
        assert_eq!(resolved.map(|list| list.len()), Ok(ACL_ENTRIES_MAX));
        let repeated = [asked(ACL_ENTRIES_MAX / 2), asked(ACL_ENTRIES_MAX / 2)].concat();
        assert!(resolve(&repeated, &who).is_ok(), "repetitions take no room");
        assert_eq!(resolve(&asked(ACL_ENTRIES_MAX / 2 + 1), &who), Err(ErrorCode::InvalidAcl));
        let who: Vec<Identity> = (0..16).map(|number| long(number, 1 << 10)).collect();
        assert!(resolve(&asked(ACL_BYTES_MAX >> 14), &who).is_ok());
        let one_more = [asked(ACL_BYTES_MAX >> 14), vec![acl(1, "ip", "::1")]].concat();
        assert_eq!(resolve(&one_more, &who), Err(ErrorCode::InvalidAcl));
        let written: Vec<Acl> = (0..=ACL_ENTRIES_MAX)
            .map(|n| acl(i32::try_from(n).unwrap(), "world", "anyone"))
            .collect();
        assert!(resolve(&written[1..], &[]).is_ok());
        assert_eq!(resolve(&written, &[]), Err(ErrorCode::InvalidAcl));
    }

    #[test]
    fn lists_that_nobody_could_meet_are_refused() {
        for (scheme, id) in [
            ("world", "everyone"),
            ("digest", "user"),
            ("digest", "a:b:c"),
            ("ip", "10.0.0"),
            ("ip", "10.0.0.0/33"),
            ("ip", "10.0.0.0/x"),
            ("sasl", ""),
            ("super", "anyone"),
            ("none", "x"),
            ("", ""),
        ] {
            let refused = resolve(&[acl(31, scheme, id)], &[identity("super", "")]);
            assert_eq!(refused, Err(ErrorCode::InvalidAcl), "{scheme}:{id}");
        }
        assert_eq!(resolve(&[], &[]), Err(ErrorCode::InvalidAcl));
    }

    #[test]
    fn digests_are_masked() {
        let list = [acl(31, "digest", "user:secret"), acl(1, "ip", "::1")];
        assert_eq!(masked(&list), [acl(31, "digest", "user:x"), acl(1, "ip", "::1")]);
    }
}
