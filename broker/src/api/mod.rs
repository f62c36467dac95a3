//! Kafka APIs, one file each: authorise, validate, decide, act, answer.
