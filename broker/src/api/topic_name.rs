//! Which names a topic may have.
//!
//! Called by: every API that takes a name. Invariant: a valid name is a valid file name and a valid
//! znode name.

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 249;
/// Topics that brokers keep for themselves.
const INTERNAL: [&str; 2] = ["__consumer_offsets", "__transaction_state"];

/// Checks a name.
///
/// # Errors
/// What is wrong, in words for the client.
pub(super) fn check(name: &str) -> Result<(), String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match name {
        "" => Err("the topic name is empty".to_owned()),
        "." | ".." => Err("the topic name cannot be \".\" or \"..\"".to_owned()),
        _ if name.len() > NAME_BYTES_MAX => {
            Err(format!("the topic name has {} bytes, at most {NAME_BYTES_MAX} may be", name.len()))
        }
        _ if !name.bytes().all(valid) => {
            Err("the topic name has other characters than a-z, A-Z, 0-9, '.', '_' and '-'"
                .to_owned())
        }
        _ => Ok(()),
    }
}

/// Whether brokers keep the topic for themselves.
pub(super) fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_their_limits() {
        assert!(check(&"a".repeat(NAME_BYTES_MAX)).is_ok());
        assert!(check(&"a".repeat(NAME_BYTES_MAX + 1)).is_err());
        for name in ["", ".", "..", "/", "a b", "a\0b", "\u{e9}", "a/b", "a:b"] {
            assert!(check(name).is_err(), "{name:?}");
        }
        for name in ["a", "...", "a.b_c-D9", "__consumer_offsets"] {
            assert!(check(name).is_ok(), "{name:?}");
        }
    }
}
