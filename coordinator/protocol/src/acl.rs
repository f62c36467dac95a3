//! Access lists.
//!
//! Called by: the records of `request` and `response`.
//! It does not know who may do what: it only carries it.

use crate::jute::record;
use serde::{Deserialize, Serialize};

record! {
    /// One entry of an access list: what one identity may do.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    pub struct Acl {
        /// A sum of [`Permissions`]' bits.
        pub permissions: i32,
        /// How the identity is proved: `world`, `auth`, `digest`, `ip`, `x509`, `sasl`, `super`.
        pub scheme: String,
        /// The identity, in its scheme's spelling.
        pub id: String,
    }
}

/// The bits of [`Acl::permissions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions;

impl Permissions {
    /// Read the data and the children.
    pub const READ: i32 = 1;
    /// Write the data.
    pub const WRITE: i32 = 2;
    /// Create children.
    pub const CREATE: i32 = 4;
    /// Delete children.
    pub const DELETE: i32 = 8;
    /// Change the access list.
    pub const ADMIN: i32 = 16;
    /// All of them.
    pub const ALL: i32 = 31;
}

impl Acl {
    /// Everything for everyone: what most znodes carry.
    #[must_use]
    pub fn open() -> Vec<Acl> {
        let (scheme, id) = ("world".to_owned(), "anyone".to_owned());
        vec![Acl { permissions: Permissions::ALL, scheme, id }]
    }
}
