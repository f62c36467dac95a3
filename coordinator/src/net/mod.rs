//! Clients: their sockets, from the first byte to the last.

mod connection;
mod gate;
mod large_frames;
mod listener;
mod newcomers;
mod outbox;
mod places;
mod seldom;
mod socket;
mod too_large;
mod whitelist;

pub use gate::Gate;
pub use listener::{ClientListener, RequestLimits};
pub use newcomers::{Newcomers, Ticket};
pub use outbox::{Outbox, WriteEnd};
pub use places::{Limits, Place, Places};
pub use seldom::Seldom;
pub use socket::{Scratch, Socket};
pub use too_large::TooLarge;
pub use whitelist::Whitelist;
