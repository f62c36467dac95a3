//! What a target is.
//!
//! Called by: `run`, both programs. Calls: nothing.

/// A decoder, and what must hold of it.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, also of its folder in the corpus.
    pub name: &'static str,
    /// What it reads, for people.
    pub what: &'static str,
    /// Whether the decoder takes the input. Panics where something does not hold.
    pub run: fn(&[u8]) -> bool,
    /// Inputs that the decoder takes, at least one of them.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
