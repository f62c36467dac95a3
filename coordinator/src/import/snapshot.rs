//! ZooKeeper's snapshots.
//!
//! Called by: `import`. Calls: `stream`, `unpack`.
//! Invariant: what it returns was read to the end, and the checksum over all of it fits.
//! Does not know: logs.
//!
//! ```text
//! | "ZKSN" | version: 4 | database: 8 |
//! | count: 4 | session: 8, time-out: 4 | ...
//! | count: 4 | number: 8, access list | ...
//! | path | data | number of the list: 8 | czxid mzxid ctime mtime version cversion aversion owner pzxid | ... | "/" |
//! | Adler-32: 8 | "/" |   and since 3.6 a digest with a checksum of its own, which is left alone
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use coordinator_disk::Disk;
use coordinator_protocol::Acl;

use super::ImportError;
use super::folder::SourceFile;
use super::stream::{self, Stream};
use super::unpack::unpack;
use super::znodes::{StoredStat, Znode, Znodes, parent};

const MAGIC: i32 = i32::from_be_bytes(*b"ZKSN");
const VERSION: i32 = 2;
/// What stands for the list that lets everybody do everything.
const OPEN_ACL: i64 = -1;
/// The end of the znodes; the root itself has no name.
const END: &str = "/";

/// Reads the file whole.
pub fn read(disk: &dyn Disk, file: &SourceFile) -> Result<Znodes, ImportError> {
    let bytes = stream::open(disk, &file.path)?;
    let mut stream = Stream::new(&file.path, unpack(file.packing, Box::new(bytes)));
    if stream.int()? != MAGIC || stream.int()? != VERSION {
        return Err(stream.damaged("not a snapshot of ZooKeeper's"));
    }
    stream.long()?;
    let mut znodes = Znodes::empty();
    read_sessions(&mut stream, &mut znodes)?;
    let acls = read_acls(&mut stream, &mut znodes)?;
    read_znodes(&mut stream, &acls, &mut znodes)?;
    let checksum = stream.checksum();
    if stream.long()? != i64::from(checksum) {
        return Err(stream.damaged("the snapshot's checksum does not fit"));
    }
    znodes.last_zxid = file.zxid;
    Ok(znodes)
}

fn read_sessions(stream: &mut Stream<'_>, znodes: &mut Znodes) -> Result<(), ImportError> {
    for _ in 0..stream.int()? {
        let session = stream.long()?;
        let _timeout_ms = stream.int()?;
        znodes.sessions.insert(session);
    }
    Ok(())
}

fn read_acls(
    stream: &mut Stream<'_>,
    znodes: &mut Znodes,
) -> Result<BTreeMap<i64, Arc<[Acl]>>, ImportError> {
    let mut acls = BTreeMap::from([(OPEN_ACL, znodes.share(Acl::open()))]);
    for _ in 0..stream.int()? {
        let number = stream.long()?;
        let mut acl = Vec::new();
        for _ in 0..stream.int()? {
            let permissions = stream.int()?;
            acl.push(Acl { permissions, scheme: stream.text()?, id: stream.text()? });
        }
        acls.insert(number, znodes.share(acl));
    }
    Ok(acls)
}

fn read_znodes(
    stream: &mut Stream<'_>,
    acls: &BTreeMap<i64, Arc<[Acl]>>,
    znodes: &mut Znodes,
) -> Result<(), ImportError> {
    loop {
        let path = stream.text()?;
        if path == END {
            break;
        }
        let data = stream.buffer()?;
        let number = stream.long()?;
        let acl = acls.get(&number).cloned();
        let acl = acl.ok_or_else(|| stream.damaged(format!("no access list {number}")))?;
        let stat = read_stat(stream)?;
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let has_parent = parent(&path).is_none_or(|above| znodes.nodes.contains_key(above));
        if !path.starts_with('/') || !has_parent {
            return Err(stream.damaged(format!("znode {path:?} has no parent")));
        }
        znodes.insert(path, Znode { data, acl, stat });
    }
    if znodes.nodes.contains_key("/") { Ok(()) } else { Err(stream.damaged("no root")) }
}

fn read_stat(stream: &mut Stream<'_>) -> Result<StoredStat, ImportError> {
    Ok(StoredStat {
        czxid: stream.long()?,
        mzxid: stream.long()?,
        ctime_ms: stream.long()?,
        mtime_ms: stream.long()?,
        version: stream.int()?,
        cversion: stream.int()?,
        aversion: stream.int()?,
        ephemeral_owner: stream.long()?,
        pzxid: stream.long()?,
    })
}
