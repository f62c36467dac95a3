//! Clients: their sockets, from the first byte to the last.

mod connection;
mod four_letter;
mod gate;
mod listener;
mod outbox;
mod socket;

pub use four_letter::{average, gauges, mode_name, status};
pub use gate::Gate;
pub use listener::ClientListener;
pub use outbox::{Outbox, WriteEnd};
pub use socket::Socket;
