//! The folder below which a client lives: put before each path that is sent, taken from each that comes.
//!
//! Called by: `client`, `watch`, `subscription`. It is wholly the client's affair; servers know
//! nothing of it.

use std::sync::Arc;

/// Empty, or `/path`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Root(Option<Arc<str>>);

impl Root {
    pub(crate) fn new(root: &str) -> Self {
        let root = root.trim_end_matches('/');
        Self((!root.is_empty()).then(|| root.into()))
    }

    /// Empty, or `/path`.
    pub(crate) fn path(&self) -> &str {
        self.0.as_deref().unwrap_or("")
    }

    /// Where `path` is for the server.
    pub(crate) fn join(&self, path: &str) -> String {
        match &self.0 {
            Some(root) if path == "/" => root.to_string(),
            Some(root) => format!("{root}{path}"),
            None => path.to_owned(),
        }
    }

    /// Turns what the server says into what the client says.
    pub(crate) fn strip(&self, path: &mut String) {
        let Some(rest) = self.0.as_deref().and_then(|root| path.strip_prefix(root)) else { return };
        *path = if rest.is_empty() { "/".to_owned() } else { rest.to_owned() };
    }
}
