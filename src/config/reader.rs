//! Reads variables, and remembers what is wrong with them.

use std::{fmt, num::NonZeroU32, ops::RangeInclusive, str::FromStr};

use secrecy::SecretString;

use super::settings::Settings;

/// Everything that is wrong with the settings, each with the variable's name.
#[derive(Debug)]
pub struct ConfigErrors(Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} to mend in the configuration (.env.example explains each variable):", self.0.len())?;
        self.0.iter().try_for_each(|error| writeln!(f, "  - {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads variables and remembers every mistake instead of stopping at the first.
pub(super) struct Reader<'a> {
    settings: &'a Settings,
    pub(super) names: Vec<&'static str>,
    pub(super) errors: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(settings: &'a Settings) -> Self {
        Self { settings, names: Vec::new(), errors: Vec::new() }
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.names.push(name);
        self.settings.get(name)
    }

    /// A value that must be given. On a mistake the returned placeholder is never used: `finish` refuses.
    pub(super) fn required(&mut self, name: &'static str, what: &str) -> String {
        self.text(name).unwrap_or_else(|| {
            self.errors.push(format!("{name} is missing: {what}"));
            String::new()
        })
    }

    /// An address that may hold a password, so that a mistake names the variable and never repeats the value.
    pub(super) fn secret_url(&mut self, name: &'static str, value: &str, schemes: &[&str]) {
        if !value.is_empty() {
            self.check_scheme(name, value, schemes);
        }
    }

    pub(super) fn secret(&mut self, name: &'static str, what: &str) -> SecretString {
        self.required(name, what).into()
    }

    pub(super) fn optional<T: FromStr>(&mut self, name: &'static str, rule: &str) -> Option<T> {
        let value = self.text(name)?.parse().ok();
        if value.is_none() {
            self.errors.push(format!("{name} must be {rule}"));
        }
        value
    }

    pub(super) fn parsed<T: FromStr>(&mut self, name: &'static str, default: T, rule: &str) -> T {
        self.optional(name, rule).unwrap_or(default)
    }

    pub(super) fn number(&mut self, name: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let rule = format!("a number from {} to {}", range.start(), range.end());
        let value = self.parsed(name, default, &rule);
        if !range.contains(&value) {
            self.errors.push(format!("{name} must be {rule}"));
        }
        value
    }

    pub(super) fn above_zero(&mut self, name: &'static str, default: u32) -> NonZeroU32 {
        NonZeroU32::new(self.number(name, default, 1..=1_000_000)).unwrap_or(NonZeroU32::MIN)
    }

    pub(super) fn switch(&mut self, name: &'static str) -> bool {
        match self.text(name).as_deref() {
            None | Some("off") => false,
            Some("on") => true,
            Some(_) => {
                self.errors.push(format!("{name} must be on or off"));
                false
            }
        }
    }

    pub(super) fn url(&mut self, name: &'static str, default: &str, schemes: &[&str]) -> String {
        let value = self.text(name).unwrap_or_else(|| default.to_owned());
        self.check_scheme(name, &value, schemes);
        value.trim_end_matches('/').to_owned()
    }

    pub(super) fn check_scheme(&mut self, name: &'static str, value: &str, schemes: &[&str]) {
        if !schemes.iter().any(|scheme| value.starts_with(&format!("{scheme}://"))) {
            self.errors.push(format!("{name} must start with {}://", schemes.join(":// or ")));
        }
    }

    /// Origins as browsers send them, separated by commas; the one of `own_url` first.
    pub(super) fn origins(&mut self, name: &'static str, own_url: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        let listed = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        let origins = std::iter::once(own_url).chain(listed).map(|given| (given, origin(given)));
        let mut good = Vec::new();
        for (given, origin) in origins {
            match origin {
                Some(origin) if given.starts_with("http") && (given == own_url || origin.eq_ignore_ascii_case(given)) => good.push(origin),
                _ => self.errors.push(format!("{name} must be origins like https://shop.example.com, separated by commas")),
            }
        }
        good
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() { Ok(value) } else { Err(ConfigErrors(self.errors)) }
    }
}

/// `https://shop.example.com` of an address on it.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split('/').next().filter(|host| !host.is_empty())?;
    Some(format!("{scheme}://{host}").to_ascii_lowercase())
}
