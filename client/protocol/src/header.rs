//! Request headers (v1, v2) and response headers (v0, v1), and whole frames with them.
//!
//! *Called by* the connections of broker and client. *Calls* `api`, `field`, `messages`.
//!
//! Two quirks: the client id keeps its 2-byte length even in header v2, and an ApiVersions response always has
//! header v0, because the client does not know yet what the broker speaks. Header v0 of requests belongs to
//! ControlledShutdown v0 alone, which nobody here speaks.

use crate::api::ApiKey;
use crate::field::{Field, Shape, read_string, write_string};
use crate::frame::{EncodedFrame, LENGTH_BYTES};
use crate::ids::CorrelationId;
use crate::messages::{Message, Request};
use crate::reader::{DecodeError, LengthPrefix, Reader};
use crate::writer::{EncodeError, Writer};

/// What stands in front of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API.
    pub key: ApiKey,
    /// A version this crate speaks; whether the listener allows it is another question ([`ApiKey::allows`]).
    pub version: i16,
    /// To be sent back.
    pub correlation_id: CorrelationId,
    /// The client's name for itself. Unchecked text of a stranger's: escape it before it is logged.
    pub client_id: Option<String>,
}

/// Why a frame cannot be dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Close the connection.
    #[error("unknown api key {0}")]
    UnknownApi(i16),
    /// Close the connection, except for ApiVersions: answer that with a response of version 0, error
    /// UNSUPPORTED_VERSION and the range of ApiVersions itself.
    #[error("api {} has no version {version} here", key.name())]
    UnsupportedVersion {
        /// The API.
        key: ApiKey,
        /// The version asked for.
        version: i16,
        /// To be sent back.
        correlation_id: CorrelationId,
    },
    /// Close the connection.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

const PLAIN: Shape = Shape { version: 0, flexible: false, nullable: true };

/// Reads the header; the reader then stands before the body.
///
/// # Errors
/// [`HeaderError`], which says what to do.
pub fn decode_request_header(reader: &mut Reader<'_>) -> Result<RequestHeader, HeaderError> {
    let code = i16::read(reader, PLAIN)?;
    let version = i16::read(reader, PLAIN)?;
    let correlation_id = CorrelationId::read(reader, PLAIN)?;
    let key = ApiKey::from_code(code).ok_or(HeaderError::UnknownApi(code))?;
    if !key.speaks(version) {
        return Err(HeaderError::UnsupportedVersion { key, version, correlation_id });
    }
    let client_id = read_string(reader, LengthPrefix::Short)?;
    if key.is_flexible(version) {
        reader.tagged_fields(|_, _| Ok(false))?;
    }
    Ok(RequestHeader { key, version, correlation_id, client_id })
}

/// Writes a whole request frame.
///
/// # Errors
/// [`EncodeError`] when the version cannot carry the request.
pub fn encode_request<R: Request>(
    correlation_id: CorrelationId,
    client_id: Option<&str>,
    version: i16,
    request: &R,
) -> Result<EncodedFrame, EncodeError> {
    let mut writer = Writer::new();
    writer.put(&[0; LENGTH_BYTES]);
    writer.put(&R::KEY.code().to_be_bytes());
    writer.put(&version.to_be_bytes());
    correlation_id.write(&mut writer, PLAIN)?;
    write_string(&mut writer, client_id, LengthPrefix::Short)?;
    if R::KEY.is_flexible(version) {
        writer.unsigned_varint(0);
    }
    request.encode(&mut writer, version)?;
    EncodedFrame::from_writer(writer)
}

const fn response_header_is_flexible(key: ApiKey, version: i16) -> bool {
    key.is_flexible(version) && !matches!(key, ApiKey::ApiVersions)
}

/// Writes a whole response frame, with splice points where records of the caller's go.
///
/// # Errors
/// [`EncodeError`] when the version cannot carry the response.
pub fn encode_response<M: Message>(
    correlation_id: CorrelationId,
    version: i16,
    response: &M,
) -> Result<EncodedFrame, EncodeError> {
    let mut writer = Writer::new();
    writer.put(&[0; LENGTH_BYTES]);
    correlation_id.write(&mut writer, PLAIN)?;
    if response_header_is_flexible(M::KEY, version) {
        writer.unsigned_varint(0);
    }
    response.encode(&mut writer, version)?;
    EncodedFrame::from_writer(writer)
}

/// Reads the header of the response to a request of that API and version; the reader then stands before the body.
///
/// # Errors
/// [`DecodeError`]: close the connection.
pub fn decode_response_header(
    reader: &mut Reader<'_>,
    key: ApiKey,
    version: i16,
) -> Result<CorrelationId, DecodeError> {
    let correlation_id = CorrelationId::read(reader, PLAIN)?;
    if response_header_is_flexible(key, version) {
        reader.tagged_fields(|_, _| Ok(false))?;
    }
    Ok(correlation_id)
}
