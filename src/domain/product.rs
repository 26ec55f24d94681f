//! Rules about products that need no database.

use unicode_normalization::UnicodeNormalization;

pub const MAX_TITLE_CHARACTERS: usize = 255;
const MAX_DESCRIPTION_CHARACTERS: usize = 20_000;
pub const MAX_IMAGES: usize = 20;
const MAX_IMAGE_URL_BYTES: usize = 2_048;
/// Of an ordinary price and of a sale's: with it, no total of an order is too large for a number.
pub const MAX_PRICE_MINOR: i64 = 1_000_000_000_000;
/// Pieces of a product in the ordinary stock.
pub const MAX_AVAILABLE: i32 = 100_000_000;

/// A product's description: trimmed, NFC, of any number of lines, at most 20,000 characters; `None` otherwise.
#[must_use]
pub fn description(text: &str) -> Option<String> {
    if text.len() > 4 * MAX_DESCRIPTION_CHARACTERS {
        return None;
    }
    let normal: String = text.trim().nfc().collect();
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    (normal.chars().count() <= MAX_DESCRIPTION_CHARACTERS && normal.chars().all(is_plain)).then_some(normal)
}

/// Whether a browser may be sent there for a picture: an https URL of at most 2,048 bytes, with a host and without a user's name in it.
#[must_use]
pub fn is_image_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://") else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_host = host.starts_with(|c: char| c.is_ascii_alphanumeric())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':'));
    // RFC 3986: anything else is percent-encoded.
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
    is_host && url.len() <= MAX_IMAGE_URL_BYTES && url.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_behind_https_at_a_host() {
        for url in ["https://a.example/x.jpg", "https://a.example", "https://1.2.3.4:8443/%ED%95%9C?w=80#top"] {
            assert!(is_image_url(url), "{url}");
        }
        let long = format!("https://a.example/{}", "x".repeat(2_048));
        for url in [
            "",
            "https://",
            "https:///x.jpg",
            "http://a.example/x.jpg",
            "HTTPS://a.example",
            "javascript:alert(1)",
            "data:image/png;base64,AAAA",
            "https://user@a.example/x.jpg",
            "https://a.example/x y.jpg",
            "https://a.example/\"onerror=",
            "https://한국.example/",
            &long,
        ] {
            assert!(!is_image_url(url), "{url}");
        }
    }

    #[test]
    fn a_description_has_lines_and_no_other_control_characters() {
        assert_eq!(description(" two\nlines\t\n").as_deref(), Some("two\nlines"));
        assert_eq!(description("").as_deref(), Some(""));
        assert_eq!(description("null\0"), None);
        assert_eq!(description(&"가".repeat(20_000)).map(|text| text.chars().count()), Some(20_000));
        assert_eq!(description(&"x".repeat(20_001)), None);
    }
}
