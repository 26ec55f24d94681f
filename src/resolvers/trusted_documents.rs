//! The operations of our own clients, known by the SHA-256 of their text: `frontend-queries/manifest.json`. Clients may send the
//! hash instead of the text (the request shape of Apollo's persisted queries); with `TRUSTED_DOCUMENTS=only` nothing else is run.

use std::{collections::HashMap, fmt::Write, sync::LazyLock};

use async_graphql::{Request, Value};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::errors::ApiError;

/// Built into the program: a server knows every operation that a client in the field may send.
static MANIFEST: LazyLock<HashMap<String, Operation>> = LazyLock::new(|| {
    let manifest: Manifest = serde_json::from_str(include_str!("../../frontend-queries/manifest.json")).unwrap_or_default();
    manifest.operations.into_iter().map(|operation| (operation.id.clone(), operation)).collect()
});

/// Names by documents.
static NAMES: LazyLock<HashMap<&str, &str>> =
    LazyLock::new(|| MANIFEST.values().map(|operation| (operation.body.as_str(), operation.name.as_str())).collect());

/// What metrics call every operation that is not one of our own clients'.
pub const OTHER: &str = "other";

#[derive(Default, Deserialize)]
struct Manifest {
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
struct Operation {
    id: String,
    name: String,
    body: String,
}

/// The document of a hash.
pub fn find(hash: &str) -> Option<&'static str> {
    MANIFEST.get(hash).map(|operation| operation.body.as_str())
}

/// What metrics call a request: the name of its document, by its text or the hash that it gives.
pub fn name(request: &Request) -> &'static str {
    let name = match request.extensions.get("persistedQuery") {
        Some(extension) => hash_of(extension).and_then(|hash| MANIFEST.get(&hash)).map(|operation| operation.name.as_str()),
        None => return name_of(&request.query),
    };
    name.unwrap_or(OTHER)
}

/// The name of a document.
pub fn name_of(text: &str) -> &'static str {
    NAMES.get(text).copied().unwrap_or(OTHER)
}

/// The names of all documents, and the one of all others.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.values().copied().chain([OTHER])
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
        Some(known) if request.query.is_empty() => request.query.clone_from(&known.body),
        Some(known) if request.query == known.body => {}
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
