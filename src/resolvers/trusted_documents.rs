//! The operations of our own clients, known by the SHA-256 of their text: `frontend-queries/manifest.json`. Clients may send the
//! hash instead of the text (the request shape of Apollo's persisted queries); with `TRUSTED_DOCUMENTS=only` nothing else is run.

use std::{collections::HashMap, fmt::Write, sync::LazyLock};

use async_graphql::{Request, Value};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::errors::ApiError;

/// Built into the program: a server knows every operation that a client in the field may send.
static MANIFEST: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let manifest: Manifest = serde_json::from_str(include_str!("../../frontend-queries/manifest.json")).unwrap_or_default();
    manifest.operations.into_iter().map(|operation| (operation.id, operation.body)).collect()
});

#[derive(Default, Deserialize)]
struct Manifest {
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
struct Operation {
    id: String,
    body: String,
}

/// The document of a hash.
pub fn find(hash: &str) -> Option<&'static str> {
    MANIFEST.get(hash).map(String::as_str)
}

/// Puts the text of a known document into a request that names it by its hash.
///
/// # Errors
/// When the hash is not known or the text is not its own, and, where only trusted ones are run, for any other document.
pub fn resolve(request: &mut Request, only_trusted: bool) -> Result<(), ApiError> {
    let hash = request.extensions.get("persistedQuery").map(hash_of);
    let document = match &hash {
        Some(None) => return Err(ApiError::BadRequest("`persistedQuery` needs `version` 1 and `sha256Hash`.")),
        Some(Some(hash)) => MANIFEST.get(hash),
        None if !only_trusted => return Ok(()),
        None => MANIFEST.get(&sha256(&request.query)),
    };
    match document {
        Some(text) if request.query.is_empty() => request.query.clone_from(text),
        Some(text) if request.query == *text => {}
        // A text of their own with a hash beside it, as clients send that would have it remembered: only the text counts.
        None if !only_trusted && !request.query.is_empty() && hash.flatten().as_deref() == Some(&sha256(&request.query)) => {}
        Some(_) => return Err(ApiError::BadRequest("The document is not the one of its hash.")),
        None => return Err(ApiError::BadRequest("This document is not one of those that the server knows.")),
    }
    Ok(())
}

fn hash_of(extension: &Value) -> Option<String> {
    let Value::Object(extension) = extension else { return None };
    let is_version_1 = extension.get("version").is_none_or(|version| *version == Value::from(1));
    match extension.get("sha256Hash") {
        Some(Value::String(hash)) if is_version_1 => Some(hash.to_ascii_lowercase()),
        _ => None,
    }
}

fn sha256(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
