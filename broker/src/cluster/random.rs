//! Random bytes for the ids of directories, topics, clusters and members of groups.
//!
//! Called by: `directories`, `layout`, `requests`, the JoinGroup handler. Calls: the operating system.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// 16 bytes that nobody has had.
///
/// # Errors
/// The system has none.
pub(crate) fn bytes() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    let count = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if count == bytes.len() {
        return Ok(bytes);
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "too few random bytes"))
}
