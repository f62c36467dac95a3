//! DescribeConfigs (key 32): settings of topics and brokers, and where each comes from.
//!
//! *Called by* admin clients and the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::messages::exchange;

exchange!(DescribeConfigs, DescribeConfigsRequest, DescribeConfigsResponse);

/// `resource_type` of a topic; the name is the topic's.
pub const RESOURCE_TOPIC: i8 = 2;
/// `resource_type` of a broker; the name is its number in decimal, or empty for the cluster-wide default.
pub const RESOURCE_BROKER: i8 = 4;

/// `config_source`: set on the topic.
pub const SOURCE_TOPIC: i8 = 1;
/// `config_source`: set on this broker while it ran.
pub const SOURCE_DYNAMIC_BROKER: i8 = 2;
/// `config_source`: set for all brokers while they ran.
pub const SOURCE_DYNAMIC_DEFAULT_BROKER: i8 = 3;
/// `config_source`: from the broker's file or command line.
pub const SOURCE_STATIC_BROKER: i8 = 4;
/// `config_source`: nobody set it.
pub const SOURCE_DEFAULT: i8 = 5;

wire_structs! {
    /// Versions 1-4. 3 has documentation, 4 is flexible.
    pub struct DescribeConfigsRequest {
        /// What to describe.
        resources: Vec<DescribeConfigsResource> [0..],
        /// Tell the other places the value could come from, too.
        include_synonyms: bool [1..],
        /// Tell what each setting is for.
        include_documentation: bool [3..],
    }

    /// One topic or broker.
    pub struct DescribeConfigsResource {
        /// [`RESOURCE_TOPIC`], [`RESOURCE_BROKER`] or another.
        resource_type: i8 [0..],
        /// Its name.
        resource_name: String [0..],
        /// The settings wanted; null for all.
        configuration_keys: Option<Vec<String>> [0.., nullable 0..],
    }

    /// By resource.
    pub struct DescribeConfigsResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [0..],
        /// By resource, as asked.
        results: Vec<DescribeConfigsResult> [0..],
    }

    /// The settings of one resource.
    pub struct DescribeConfigsResult {
        /// Whether it could be described.
        error_code: ErrorCode [0..],
        /// Why not, in words.
        error_message: Option<String> [0.., nullable 0..],
        /// As asked.
        resource_type: i8 [0..],
        /// As asked.
        resource_name: String [0..],
        /// By setting.
        configs: Vec<DescribeConfigsEntry> [0..],
    }

    /// One setting.
    pub struct DescribeConfigsEntry {
        /// Its name.
        name: String [0..],
        /// Its value; null when it is sensitive or not set.
        value: Option<String> [0.., nullable 0..],
        /// Cannot be changed while the broker runs.
        read_only: bool [0..],
        /// One of the `SOURCE_` constants; -1 when unknown.
        config_source: i8 [1.., default -1],
        /// Its value is not shown.
        is_sensitive: bool [0..],
        /// Where the value could come from, strongest first.
        synonyms: Vec<DescribeConfigsSynonym> [1..],
        /// 0 unknown, 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9 password.
        config_type: i8 [3..],
        /// What it is for.
        documentation: Option<String> [3.., nullable 3..],
    }

    /// One place a value could come from.
    pub struct DescribeConfigsSynonym {
        /// The setting's name there.
        name: String [1..],
        /// Its value there.
        value: Option<String> [1.., nullable 1..],
        /// One of the `SOURCE_` constants.
        source: i8 [1..],
    }
}
