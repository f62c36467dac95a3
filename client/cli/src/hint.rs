//! What to try next, for errors that people meet often.
//!
//! *Called by* `main`. The client's own errors bring their hints along.

use client::ClientError;

use crate::handover::HandoverError;
use crate::whereabouts::Whereabouts;

/// A hint for the error, if there is one.
pub fn of(error: &anyhow::Error) -> Option<String> {
    if let Some(found) = error.downcast_ref::<Whereabouts>() {
        return found.advice().map(str::to_owned);
    }
    if let Some(error) = error.downcast_ref::<ClientError>() {
        return of_client(error).map(str::to_owned);
    }
    if let Some(error) = error.downcast_ref::<HandoverError>() {
        return Some(error.hint().to_owned());
    }
    error.downcast_ref::<coordinator_client::Error>().and_then(of_coordinator).map(str::to_owned)
}

fn of_client(error: &ClientError) -> Option<&'static str> {
    error.hint()
}

fn of_coordinator(error: &coordinator_client::Error) -> Option<&'static str> {
    match error {
        error if error.is(coordinator_client::protocol::ErrorCode::Unimplemented) => Some(
            "that is a ZooKeeper server: only Tidegate's own coordinators tell of changes by subscription",
        ),
        error if error.is(coordinator_client::protocol::ErrorCode::NoAuth) => Some(
            "show who you are: --auth digest:super:PASSWORD or TIDEGATE_COORDINATOR_AUTH, as the servers' setting \
             DigestAuthenticationProvider.superDigest or the access list of /zookeeper/config names you. Where none is set: \
             `coordinator --help` has the command that makes one; set it in each server's file, and restart one after the other",
        ),
        coordinator_client::Error::Unavailable => Some(
            "is a majority of the coordinators running? Set --coordinator or TIDEGATE_COORDINATOR",
        ),
        error => error.advice(),
    }
}

#[cfg(test)]
mod tests {
    use coordinator_client::protocol::ErrorCode;

    use super::*;

    #[test]
    fn who_may_not_is_told_what_to_show_and_what_to_set() {
        let refused = coordinator_client::Error::Refused(ErrorCode::NoAuth);
        let hint = of_coordinator(&refused).unwrap();
        assert!(hint.contains("--auth") && hint.contains("set it in each server's file"), "{hint}");
    }
}
