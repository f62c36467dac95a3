//! Sockets: listeners, and connections that carry Kafka frames.
//!
//! `listener` accepts, `connection` pipelines requests and keeps answers in request order,
//! `receive` cuts frames out of recycled buffers, `send` writes headers and file ranges, `peer` is
//! an outgoing connection, `budget` bounds what all connections hold, `service` is the seam to
//! whoever answers. Nothing here knows what the body of a frame means.

pub mod budget;
pub mod connection;
pub mod listener;
pub mod peer;
pub mod receive;
pub mod send;
pub mod service;

#[cfg(test)]
mod tests;
