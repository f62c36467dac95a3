//! Clients: their sockets, from the first byte to the last.

mod connection;
mod four_letter;
mod gate;
mod listener;
mod newcomers;
mod outbox;
mod places;
mod seldom;
mod socket;

pub use four_letter::{average, gauges, mode_name, status};
pub use gate::Gate;
pub use listener::ClientListener;
pub use newcomers::{Newcomers, Ticket};
pub use outbox::{Outbox, WriteEnd};
pub use places::Limits;
pub use seldom::Seldom;
pub use socket::Socket;
