//! ZooKeeper's path rules.
//!
//! Called by: `transaction`, `watch`, `subscription`. Calls: nothing.
//! Invariant: a path that passes `validate_path` is `/`, or components that are each not empty
//! and preceded by one `/`. It does not know which nodes exist.

use coordinator_protocol::ErrorCode;

/// How deep the tree may get. Bounds the work of walking from a node to the root.
pub const PATH_COMPONENTS_MAX: usize = 256;

/// Whether a node may have this path.
///
/// # Errors
/// `BadArguments` when the path does not begin with `/`, ends with `/` (except the root), has an
/// empty, `.` or `..` component, a character that ZooKeeper forbids, or too many components.
pub fn validate_path(path: &str) -> Result<(), ErrorCode> {
    if path == "/" {
        return Ok(());
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Err(ErrorCode::BadArguments);
    };
    for (index, component) in rest.split('/').enumerate() {
        let named = !matches!(component, "" | "." | "..");
        if !named || index >= PATH_COMPONENTS_MAX || component.chars().any(is_forbidden) {
            return Err(ErrorCode::BadArguments);
        }
    }
    Ok(())
}

/// The path one level up: `/` for `/a`, and nothing for `/`.
#[must_use]
pub fn parent(path: &str) -> Option<&str> {
    match path.rfind('/') {
        Some(0) if path.len() > 1 => Some("/"),
        Some(0) | None => None,
        Some(slash) => path.get(..slash),
    }
}

/// All paths above `path`, nearest first, ending with `/`.
pub fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(path), |above| parent(above))
}

/// Characters are UTF-16 code units to ZooKeeper, so that those beyond the basic plane, which are
/// pairs of surrogates there, are forbidden too.
fn is_forbidden(character: char) -> bool {
    matches!(character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zookeepers_paths_are_valid() {
        let valid = ["/", "/a", "/a/b", "/a.b/..c", "/.../x", "/a b", "/\u{e9}", "/\u{fa00}"];
        for path in valid {
            assert_eq!(validate_path(path), Ok(()), "{path:?}");
        }
        let invalid = [
            "",
            "a",
            "a/b",
            "/a/",
            "//",
            "//a",
            "/a//b",
            "/.",
            "/..",
            "/./a",
            "/a/../b",
            "/a/.",
            "/a\0",
            "/a\u{1}",
            "/a\u{1f}",
            "/a\u{7f}",
            "/a\u{9f}",
            "/a\u{e000}",
            "/a\u{f8ff}",
            "/a\u{fff0}",
            "/a\u{ffff}",
            "/a\u{1f600}",
        ];
        for path in invalid {
            assert_eq!(validate_path(path), Err(ErrorCode::BadArguments), "{path:?}");
        }
    }

    #[test]
    fn path_may_be_as_deep_as_the_limit_and_no_deeper() {
        assert_eq!(validate_path(&"/a".repeat(PATH_COMPONENTS_MAX)), Ok(()));
        let deeper = "/a".repeat(PATH_COMPONENTS_MAX + 1);
        assert_eq!(validate_path(&deeper), Err(ErrorCode::BadArguments));
    }

    #[test]
    fn ancestors_end_with_the_root() {
        assert_eq!(ancestors("/a/b/c").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        assert_eq!(ancestors("/a").collect::<Vec<_>>(), ["/"]);
        assert_eq!(ancestors("/").count(), 0);
        assert_eq!(ancestors("").count(), 0);
    }
}
