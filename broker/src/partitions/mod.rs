//! The partitions that this broker holds: registry, append and commit threads, parked requests.
