//! How a broker becomes a member (safety.md B1-B4).
//!
//! - [`plan`](mod@plan): who it is: what a start writes about itself, and whether it may.
//! - [`registrant`]: the registration, from what the ensemble holds to a broker epoch.

pub mod plan;
pub mod registrant;

pub use plan::{DirectoryRecord, Held, Plan, SecondBroker, plan};
pub use registrant::{Next, Refusal, Registrant};
