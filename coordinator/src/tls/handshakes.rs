//! The costly part of handshakes, off the thread that everything else runs on.
//!
//! Called by: `session`. Calls: rustls, on threads that may block.
//! Invariant: at most so many handshakes are worked on at once as leave the system a processor; the others wait in
//! the order in which they came. A step that was begun keeps its place until it is done, whether or not somebody still
//! waits for it.
//! Does not know: sockets.

use std::io;
use std::num::NonZero;
use std::sync::Arc;

use rustls::{Connection, IoState};
use tokio::sync::Semaphore;

/// Handshakes that are worked on at once, on the largest machine.
const AT_ONCE_MAX: usize = 4;

/// Who keeps whom waiting in a handshake.
pub trait Attendance: Sync {
    /// Told `true` when the other side has done its part for now and waits for this server, `false` when it has to
    /// speak again.
    fn attend(&self, on: bool);
}

/// For those whose time nobody counts.
impl Attendance for () {
    fn attend(&self, _: bool) {}
}

/// Where handshakes are worked on.
pub struct Handshakes(pub(super) Arc<Semaphore>);

impl Handshakes {
    /// One processor less than there are, but one.
    pub fn new() -> Handshakes {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Handshakes::with_places((processors - 1).clamp(1, AT_ONCE_MAX))
    }

    pub(super) fn with_places(places: usize) -> Handshakes {
        Handshakes(Arc::new(Semaphore::new(places)))
    }

    /// Looks at what `session` has received: keys are exchanged, and signatures made and checked.
    ///
    /// # Errors
    /// Outside for want of a thread, inside when the other side breaks the rules.
    pub(super) async fn process(
        &self,
        mut session: Connection,
        attendance: &dyn Attendance,
    ) -> io::Result<(Connection, Result<IoState, rustls::Error>)> {
        let _attended = Attended::begin(attendance);
        let place = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
        let step = tokio::task::spawn_blocking(move || {
            let processed = session.process_new_packets();
            drop(place);
            (session, processed)
        });
        step.await.map_err(io::Error::other)
    }
}

/// Tells the end too, when nobody waits any more.
struct Attended<'a>(&'a dyn Attendance);

impl Attended<'_> {
    fn begin(attendance: &dyn Attendance) -> Attended<'_> {
        attendance.attend(true);
        Attended(attendance)
    }
}

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        self.0.attend(false);
    }
}
