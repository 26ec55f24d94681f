//! Where settings come from.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// Where settings come from: the process's environment, or the file that a running demo wrote for operators' commands.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `None` is the environment. Any of them may be secret.
    values: Option<BTreeMap<String, SecretString>>,
    defaults: BTreeMap<&'static str, &'static str>,
}

/// Name of the file in a demo's data folder, with `NAME=value` lines.
pub const SETTINGS_FILE: &str = "settings.env";

impl Settings {
    /// The process's environment.
    #[must_use]
    pub const fn environment() -> Self {
        Self { values: None, defaults: BTreeMap::new() }
    }

    /// Exactly these settings; the environment is not looked at.
    #[must_use]
    pub fn fixed(values: BTreeMap<String, String>) -> Self {
        let values = values.into_iter().map(|(name, value)| (name, value.into())).collect();
        Self { values: Some(values), defaults: BTreeMap::new() }
    }

    /// The same, with another default for one variable.
    #[must_use]
    pub fn or(mut self, name: &'static str, default: &'static str) -> Self {
        self.defaults.insert(name, default);
        self
    }

    /// The settings of the demo that runs on this data folder.
    ///
    /// # Errors
    /// When no demo has written its settings there.
    pub fn of_data_folder(folder: &Path) -> std::io::Result<Self> {
        let text = Zeroizing::new(std::fs::read_to_string(folder.join(SETTINGS_FILE))?);
        let values = text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Self::fixed(values.collect()))
    }

    /// The value of a variable; an empty one is none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        let value = match &self.values {
            Some(values) => values.get(name).map(|value| value.expose_secret().to_owned()),
            None => std::env::var(name).ok(),
        };
        value.filter(|value| !value.trim().is_empty()).or_else(|| self.defaults.get(name).map(|&default| default.to_owned()))
    }
}

/// The path of this program, for those who start it once more.
///
/// # Errors
/// When the system does not tell.
pub fn program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}
