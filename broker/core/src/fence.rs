//! When a broker without coordinator contact stops serving (safety.md B6).
//!
//! *Called by* the shell before it handles a batch of requests, and by its coordinator session. Invariant: a broker that heard nothing for one
//! session time-out serves nothing, also when it was the broker itself that slept. Safety never rests on this.

use crate::ids::Millis;

/// Watches how long ago the coordinator was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SelfFence {
    session_timeout_ms: u64,
    last_contact: Option<Millis>,
    /// A bug put in on purpose.
    #[cfg(planted)]
    planted: Option<crate::planted::Planted>,
}

impl SelfFence {
    /// Fenced until the first contact. `session_timeout_ms`: as negotiated.
    #[must_use]
    pub const fn new(session_timeout_ms: u64) -> Self {
        Self {
            session_timeout_ms,
            last_contact: None,
            #[cfg(planted)]
            planted: None,
        }
    }

    /// The same, with a bug.
    #[cfg(planted)]
    #[must_use]
    pub fn planted_with(self, planted: Option<crate::planted::Planted>) -> Self {
        Self { planted, ..self }
    }

    /// The coordinator answered something that was sent at `sent`: the time of sending counts, because the answer may have waited in a
    /// buffer while this process slept.
    pub fn contact(&mut self, sent: Millis) {
        self.last_contact = Some(self.last_contact.map_or(sent, |last| last.max(sent)));
    }

    /// The session is known to be over.
    pub fn session_lost(&mut self) {
        self.last_contact = None;
    }

    /// Whether requests may be handled now. Ask before buffered requests, not after.
    #[must_use]
    pub fn may_serve(&self, now: Millis) -> bool {
        let goes_on = planted!(self.planted, ServeWithoutContact);
        self.last_contact.is_some_and(|last| goes_on || now.since(last) < self.session_timeout_ms)
    }

    /// When serving ends without another contact.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        self.last_contact.map(|last| last.plus(self.session_timeout_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_through_an_outage_shorter_than_the_timeout() {
        let mut fence = SelfFence::new(6_000);
        assert!(!fence.may_serve(Millis::new(0)));
        fence.contact(Millis::new(1_000));
        assert!(fence.may_serve(Millis::new(6_999)));
        assert!(!fence.may_serve(Millis::new(7_000)));
        assert_eq!(fence.deadline(), Some(Millis::new(7_000)));
    }

    #[test]
    fn an_answer_from_before_the_pause_does_not_unfence() {
        let mut fence = SelfFence::new(6_000);
        fence.contact(Millis::new(1_000));
        // Slept until 60 s; the answer to a ping sent at 2 s waited in the socket.
        fence.contact(Millis::new(2_000));
        assert!(!fence.may_serve(Millis::new(60_000)));
        fence.contact(Millis::new(60_001));
        assert!(fence.may_serve(Millis::new(60_002)));
    }

    #[test]
    fn a_lost_session_fences_at_once() {
        let mut fence = SelfFence::new(6_000);
        fence.contact(Millis::new(1_000));
        fence.session_lost();
        assert!(!fence.may_serve(Millis::new(1_001)));
    }
}
