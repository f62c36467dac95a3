//! Four-letter words: what an operator types into a plain connection instead of a handshake.
//!
//! Called by: the server's sockets, with the first four bytes of a connection.
//! It does not know the answers.

/// A four-letter word. Its ASCII, read as a length, is far above every frame's limit: so the first
/// four bytes of a connection are never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FourLetterWord {
    /// The configuration.
    Conf,
    /// The connections.
    Cons,
    /// Resets the connections' statistics.
    Crst,
    /// The sizes of logs and snapshots.
    Dirs,
    /// Sessions and their ephemerals.
    Dump,
    /// The environment; clients read the version out of it.
    Envi,
    /// The trace mask.
    Gtmk,
    /// A hash history of the tree.
    Hash,
    /// Whether the server is read-only.
    Isro,
    /// Measures for monitoring.
    Mntr,
    /// Whether the process runs; nothing about a quorum.
    Ruok,
    /// Resets the server's statistics.
    Srst,
    /// The server's state.
    Srvr,
    /// The server's state with its connections.
    Stat,
    /// Sets the trace mask; an 8-byte number follows.
    Stmk,
    /// Watches by connection.
    Wchc,
    /// Watches by path.
    Wchp,
    /// How many watches there are.
    Wchs,
}

impl FourLetterWord {
    /// All of them, in alphabetical order.
    pub const ALL: [FourLetterWord; 18] = [
        Self::Conf,
        Self::Cons,
        Self::Crst,
        Self::Dirs,
        Self::Dump,
        Self::Envi,
        Self::Gtmk,
        Self::Hash,
        Self::Isro,
        Self::Mntr,
        Self::Ruok,
        Self::Srst,
        Self::Srvr,
        Self::Stat,
        Self::Stmk,
        Self::Wchc,
        Self::Wchp,
        Self::Wchs,
    ];

    /// The word that a connection starts with, if it starts with one.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 4]) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.name().as_bytes() == bytes)
    }

    /// The word itself.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conf => "conf",
            Self::Cons => "cons",
            Self::Crst => "crst",
            Self::Dirs => "dirs",
            Self::Dump => "dump",
            Self::Envi => "envi",
            Self::Gtmk => "gtmk",
            Self::Hash => "hash",
            Self::Isro => "isro",
            Self::Mntr => "mntr",
            Self::Ruok => "ruok",
            Self::Srst => "srst",
            Self::Srvr => "srvr",
            Self::Stat => "stat",
            Self::Stmk => "stmk",
            Self::Wchc => "wchc",
            Self::Wchp => "wchp",
            Self::Wchs => "wchs",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_and_is_no_frame_length() {
        for word in FourLetterWord::ALL {
            let bytes: [u8; 4] = word.name().as_bytes().try_into().unwrap();
            assert_eq!(FourLetterWord::from_bytes(bytes), Some(word));
            assert!(u32::from_be_bytes(bytes) as usize > crate::FRAME_BYTES_MAX);
        }
        assert_eq!(FourLetterWord::from_bytes([0, 0, 0, 44]), None);
    }
}
