//! The bookkeeping of one session: what was asked, what waits, what is watched. No socket, no clock.
//!
//! Called by: `driver`, with bytes, calls and the time. Calls: `call`, `watches`, `subscriptions`.

mod call;
mod servers;
mod state;
mod subscriptions;
mod watches;

pub(crate) use call::{Call, Hook, Reply};
pub(crate) use servers::Servers;
pub use state::SessionState;
pub(crate) use state::{Broken, Session};
pub(crate) use watches::OneShot;
