//! Which four-letter words are answered.
//!
//! Called by: the settings, connections. Calls: nothing.
//! Invariant: as in ZooKeeper `srvr` always is one, because its scripts ask for that, and `isro` where servers may serve
//! without a quorum, because its clients do.
//! Does not know: the answers.

use coordinator_protocol::FourLetterWord;

/// Stands for all words.
const ALL: &str = "*";

/// Those words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whitelist(Vec<FourLetterWord>);

impl Whitelist {
    /// Reads names between commas, up to a `*`, which stands for all.
    ///
    /// # Errors
    /// The name that is no word.
    pub fn parse(text: &str, serves_read_only: bool) -> Result<Whitelist, String> {
        let mut words = vec![FourLetterWord::Srvr];
        if serves_read_only {
            words.push(FourLetterWord::Isro);
        }
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == ALL {
                return Ok(Whitelist(FourLetterWord::ALL.to_vec()));
            }
            let known = FourLetterWord::ALL.into_iter().find(|word| word.name() == name);
            words.push(known.ok_or_else(|| name.to_owned())?);
        }
        Ok(Whitelist(words))
    }

    /// Whether this word is answered.
    pub fn has(&self, word: FourLetterWord) -> bool {
        self.0.contains(&word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, serves_read_only: bool) -> Vec<&'static str> {
        let list = Whitelist::parse(text, serves_read_only).unwrap();
        let words = FourLetterWord::ALL.into_iter().filter(|word| list.has(*word));
        words.map(FourLetterWord::name).collect()
    }

    #[test]
    fn list_is_read_as_zookeeper_reads_it() {
        assert_eq!(names("", false), ["srvr"]);
        assert_eq!(names("", true), ["isro", "srvr"]);
        assert_eq!(names(" mntr,, conf ,", false), ["conf", "mntr", "srvr"]);
        assert_eq!(names("*", false).len(), 18);
        assert_eq!(names("ruok, *, nonsense", false).len(), 18, "nothing behind it is read");
        assert_eq!(Whitelist::parse("ruok,Stat", false), Err("Stat".to_owned()));
    }
}
