//! Pages of lists.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube::api::ListParams;
use tonic::Status;

use crate::errors::{self, Violations};
use crate::limits;

/// How many items are asked for: 0 means the default, more than the maximum means the maximum.
pub(super) fn size(asked: i32, default: usize) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Err(_) => Err(errors::invalid("page_size", "it is negative: leave it out, or ask for 1 to 1000")),
        Ok(0) => Ok(default),
        Ok(n) => Ok(n.min(limits::PAGE_MAX)),
    }
}

/// Parameters of a list request. A page token carries the selector that it was made with: pages
/// of different lists must not be mixed.
pub(super) fn params(size_asked: i32, token: &str, selector: &str) -> Result<ListParams, Status> {
    let mut params = ListParams::default().limit(size(size_asked, limits::PAGE_DEFAULT)? as u32);
    if !selector.is_empty() {
        check_selector(selector)?;
        params = params.labels(selector);
    }
    if !token.is_empty() {
        params = params.continue_token(&open(token, selector)?);
    }
    Ok(params)
}

/// The token of the next page; empty on the last one.
pub(super) fn next(continuation: Option<&str>, selector: &str) -> String {
    match continuation {
        None | Some("") => String::new(),
        Some(continuation) => URL_SAFE_NO_PAD.encode(format!("{}\0{continuation}", fingerprint(selector))),
    }
}

/// What [`next`] was given.
pub(super) fn open(token: &str, selector: &str) -> Result<String, Status> {
    let foreign = || errors::invalid("page_token", "it is not a token of this list: begin with the first page");
    if token.len() > limits::PAGE_TOKEN_BYTES {
        return Err(foreign());
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| foreign())?;
    let text = String::from_utf8(bytes).map_err(|_| foreign())?;
    match text.split_once('\0') {
        Some((mark, continuation)) if mark == fingerprint(selector) => Ok(continuation.to_owned()),
        _ => Err(foreign()),
    }
}

fn fingerprint(selector: &str) -> String {
    use sha2::Digest as _;
    hex::encode(&sha2::Sha256::digest(selector.as_bytes())[..8])
}

/// A token that the API server no longer knows is the client's to start over with.
pub(super) fn failed(kind: &str, token: &str, error: kube::Error) -> Status {
    match &error {
        kube::Error::Api(status) if !token.is_empty() && matches!(status.code, 400 | 410) => {
            errors::invalid("page_token", "it is too old or not a token of this list: begin with the first page")
        }
        _ => super::objects::failed(kind, "", error),
    }
}

fn check_selector(selector: &str) -> Result<(), Status> {
    let mut violations = Violations::default();
    if selector.split(',').count() > limits::SELECTOR_PAIRS {
        violations.add("label_selector", format!("it has more than {} terms", limits::SELECTOR_PAIRS));
    }
    violations.into_result()
}
