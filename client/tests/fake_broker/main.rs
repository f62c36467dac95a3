//! The client against a broker of the test's own making, over real sockets.

mod connection;
mod fake;
mod groups;
mod records;
