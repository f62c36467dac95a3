//! DeleteTopics (key 20).
//!
//! *Called by* admin clients and the broker, which forwards it to the controller.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::TopicId;
use crate::messages::exchange;

exchange!(DeleteTopics, DeleteTopicsRequest, DeleteTopicsResponse);

wire_structs! {
    /// Versions 1-6. 4 is flexible, 6 deletes by name or id.
    pub struct DeleteTopicsRequest {
        /// By name or id.
        topics: Vec<DeleteTopicState> [6..],
        /// By name.
        topic_names: Vec<String> [0..=5],
        /// How long the broker may wait until the topics are gone.
        timeout_ms: i32 [0..],
    }

    /// One topic, by name or id.
    pub struct DeleteTopicState {
        /// Its name; null when the id is given.
        name: Option<String> [6.., nullable 6..],
        /// Its id; `None` when the name is given.
        topic_id: Option<TopicId> [6..],
    }

    /// By topic.
    pub struct DeleteTopicsResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [1..],
        /// By topic, as asked.
        responses: Vec<DeletableTopicResult> [0..],
    }

    /// What became of one topic.
    pub struct DeletableTopicResult {
        /// Its name; null when it was asked for by an id that is not known.
        name: Option<String> [0.., nullable 6..],
        /// Its id.
        topic_id: Option<TopicId> [6..],
        /// Whether it is gone.
        error_code: ErrorCode [0..],
        /// Why not, in words.
        error_message: Option<String> [5.., nullable 5..],
    }
}
