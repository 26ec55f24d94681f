//! The program's own pages, built from web/ and embedded: `GraphiQL`, and where the links in mails lead.

use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "web/dist/"]
#[allow_missing = true]
struct Web;

/// Nothing from elsewhere, no inline scripts. `GraphiQL`'s editor sets styles from scripts.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; img-src 'self' data:; \
     connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// Names of assets hold a hash of their content.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const SHORT: HeaderValue = HeaderValue::from_static("public, max-age=3600");

pub async fn graphiql() -> Response {
    page("index.html")
}

pub async fn verify() -> Response {
    page("verify.html")
}

pub async fn reset() -> Response {
    page("reset.html")
}

pub async fn confirm_email() -> Response {
    page("confirm-email.html")
}

pub async fn asset(Path(file): Path<String>) -> Response {
    embedded(&format!("assets/{file}"), IMMUTABLE)
}

pub async fn favicon() -> Response {
    embedded("favicon.svg", SHORT)
}

/// The licences of what the pages are built from.
pub async fn licenses() -> Response {
    embedded("licenses.txt", SHORT)
}

/// One of the HTML pages.
pub fn page(name: &str) -> Response {
    let Some(file) = Web::get(name) else {
        let hint = Html("<p>The pages are not built into this program: run <code>make web</code> and build again.");
        return (StatusCode::NOT_FOUND, hint).into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, NO_STORE),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    ];
    (headers, file.data).into_response()
}

fn embedded(path: &str, cache: HeaderValue) -> Response {
    let Some(file) = Web::get(path) else { return StatusCode::NOT_FOUND.into_response() };
    let mime = file.metadata.mimetype();
    let is_text = mime.starts_with("text/");
    let content_type = if is_text { format!("{mime}; charset=utf-8") } else { mime.to_owned() };
    ([(header::CONTENT_TYPE, content_type)], [(header::CACHE_CONTROL, cache)], file.data).into_response()
}
