//! ApiVersions (key 18): what the broker speaks; the first request on every connection.
//!
//! *Called by* every client and the broker. The response always has header v0. A broker that does not know the
//! version asked for answers with version 0, error UNSUPPORTED_VERSION and the range of this API alone (KIP-511).

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::field::Field;
use crate::messages::{Message, exchange};
use crate::reader::{DecodeError, Reader};

exchange!(ApiVersions, ApiVersionsRequest, ApiVersionsResponse);

wire_structs! {
    /// Versions 0-4. 3 is flexible and names the client.
    pub struct ApiVersionsRequest {
        /// The name of the client library.
        client_software_name: String [3..],
        /// Its version.
        client_software_version: String [3..],
    }

    /// The table, and features of the cluster.
    pub struct ApiVersionsResponse {
        /// UNSUPPORTED_VERSION when the broker does not speak the version asked for.
        error_code: ErrorCode [0..],
        /// By API.
        api_keys: Vec<ApiVersionRange> [0..],
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [1..],
        /// What the broker could do. Below version 4 leave out those with a minimum of 0: clients trip over them.
        supported_features: Vec<SupportedFeature> [3.., tag 0],
        /// Counts changes of the finalized features; -1 when unknown.
        finalized_features_epoch: i64 [3.., tag 1, default -1],
        /// What the whole cluster does.
        finalized_features: Vec<FinalizedFeature> [3.., tag 2],
        /// Of Kafka's own migration; we never set it.
        zk_migration_ready: bool [3.., tag 3],
    }

    /// The versions of one API.
    pub struct ApiVersionRange {
        /// The API's key; may be one that this crate does not know.
        api_key: i16 [0..],
        /// Lowest, inclusive.
        min_version: i16 [0..],
        /// Highest, inclusive.
        max_version: i16 [0..],
    }

    /// Levels of a feature that the broker supports.
    pub struct SupportedFeature {
        /// Its name.
        name: String [3..],
        /// Lowest, inclusive.
        min_version: i16 [3..],
        /// Highest, inclusive.
        max_version: i16 [3..],
    }

    /// Levels of a feature that the cluster settled on.
    pub struct FinalizedFeature {
        /// Its name.
        name: String [3..],
        /// Highest, inclusive.
        max_version_level: i16 [3..],
        /// Lowest, inclusive.
        min_version_level: i16 [3..],
    }
}

impl ApiVersionsResponse {
    /// Reads the answer to a request of `version`: an UNSUPPORTED_VERSION answer is of version 0 whatever was asked.
    ///
    /// # Errors
    /// [`DecodeError`]: close the connection.
    pub fn decode_answer(reader: &mut Reader<'_>, version: i16) -> Result<Self, DecodeError> {
        let plain = crate::Shape { version: 0, flexible: false, nullable: false };
        let error_code = ErrorCode::read(&mut reader.clone(), plain)?;
        match error_code {
            ErrorCode::UnsupportedVersion => Self::decode(reader, 0),
            _ => Self::decode(reader, version),
        }
    }
}
