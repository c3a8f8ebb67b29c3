//! Request bodies: bounded, JSON or YAML, one object.

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

use super::error::ApiError;
use super::limits;

/// Reads a body up to its bound.
pub(crate) async fn read<B>(body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, limits::MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large("the body of the request is too large", limits::MAX_BODY)),
        Err(error) => Err(ApiError::bad_request(format!("the body of the request could not be read: {error}"))),
    }
}

/// Parses one object from JSON, or from YAML.
pub(crate) fn object(body: &[u8]) -> Result<Value, ApiError> {
    let first = body.iter().find(|b| !b.is_ascii_whitespace());
    let value: Value = match first {
        None => return Err(ApiError::bad_request("the body of the request is empty")),
        Some(b'{' | b'[') => {
            serde_json::from_slice(body).map_err(|error| ApiError::bad_request(format!("the body is not valid JSON: {error}")))?
        }
        Some(_) => {
            let text = std::str::from_utf8(body).map_err(|_| ApiError::bad_request("the body is not valid UTF-8"))?;
            serde_saphyr::from_str(text).map_err(|error| ApiError::bad_request(format!("the body is not valid YAML: {error}")))?
        }
    };
    if !value.is_object() {
        return Err(ApiError::bad_request("the body must be one object"));
    }
    if depth(&value) > limits::MAX_DEPTH {
        return Err(ApiError::bad_request(format!("the body is nested more than {} levels deep", limits::MAX_DEPTH)));
    }
    Ok(value)
}

fn depth(value: &Value) -> usize {
    // The parsers bound recursion at 128, so this recursion is bounded too.
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
