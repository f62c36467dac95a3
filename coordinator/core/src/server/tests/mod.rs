//! Literal effects for the main paths, and three members in one process.

mod access;
mod alike;
mod audit;
mod catching_up;
mod containers;
mod ensemble;
mod failures;
mod forwarding;
mod hijack;
mod large;
mod measures;
mod member_chaos;
mod member_losses;
mod mutated;
mod pauses;
mod poison;
mod random;
mod read_only;
mod readiness;
mod reconfiguration;
mod reply_size;
mod returning;
mod room;
mod sasl;
mod sessions;
mod set_watches;
mod single;
mod slow_disk;
mod snapshots;
mod soft_quota;
mod subscribers;
mod survey;
mod three;
mod transfers;

use bytes::Bytes;
use coordinator_protocol::{Acl, CreateRequest, DeleteRequest, PathWatch, Request, SetDataRequest};

fn create(path: &str, flags: i32) -> Request {
    let data = Some(Bytes::from_static(b"data"));
    Request::Create(CreateRequest { path: path.into(), data, acl: Acl::open(), flags })
}

fn set_data(path: &str, data: &'static str) -> Request {
    let data = Some(Bytes::from_static(data.as_bytes()));
    Request::SetData(SetDataRequest { path: path.into(), data, version: -1 })
}

fn delete(path: &str) -> Request {
    Request::Delete(DeleteRequest { path: path.into(), version: -1 })
}

fn get_data(path: &str, watch: bool) -> Request {
    Request::GetData(PathWatch { path: path.into(), watch })
}

fn exists(path: &str, watch: bool) -> Request {
    Request::Exists(PathWatch { path: path.into(), watch })
}
