//! Clients: their sockets, from the first byte to the last.

mod connection;
mod four_letter;
mod listener;
mod outbox;

pub use four_letter::{gauges, mode_name, status};
pub use listener::ClientListener;
pub use outbox::{Outbox, WriteEnd};
