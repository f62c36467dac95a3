//! This broker in its cluster: the coordinator session, the registration, the metadata, the controller.
//!
//! [`prepare`] gives a [`Handle`], which everything else asks, and a [`Membership`], which is started
//! once the logs are recovered (safety.md B4). Nothing else in the broker speaks with the coordinator.
//!
//! - `membership`: one session after the other: layout, registration, following, office.
//! - `layout`: the znodes that have to be there. `registration`: the one multi of a start.
//! - `feed`: the subscription into images.
//! - `office`: the controller's loop; `broker_core::controller` decides.
//! - `asking`: what deciding code asks of the ensemble. `writes`: the controller's multis. `describe`: what it asks other brokers.
//! - `handle`: what others ask of the cluster. `forward`: to the controller, wherever it is.
//! - `alters`: what this broker's leaders ask. `local`: its partitions, as seen from here.
//! - `requests`: wire messages into the controller's, and back. `peers`: connections to brokers.
//! - `producer_ids`: blocks of them.

mod alters;
mod asking;
mod describe;
mod feed;
mod forward;
mod handle;
mod layout;
mod local;
mod membership;
mod office;
mod peers;
mod producer_ids;
pub(crate) mod random;
mod registration;
mod requests;
mod watermarks;
mod writes;

pub use feed::{IMAGES_WAITING_MAX, Updated};
pub use handle::Handle;
pub use local::Local;
pub use membership::{Member, Membership, Running, StartError, prepare};
pub use registration::RegistrationError;
pub use watermarks::Watermarks;

#[cfg(test)]
mod tests;
