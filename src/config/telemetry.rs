//! Log and traces, which stand before anything else can fail.

use std::str::FromStr;

use super::{
    reader::{ConfigErrors, Reader},
    settings::Settings,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// Where traces are sent to, without a slash at the end; without it none are recorded.
    pub endpoint: Option<String>,
    /// How many of those that begin here are recorded: 0 to 1.
    pub ratio: f64,
}

impl LogConfig {
    /// Reads the log settings alone: the log must stand before anything else can fail.
    ///
    /// # Errors
    /// All mistakes together.
    pub fn read(settings: &Settings) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(settings);
        let config = Self::from_reader(&mut reader);
        reader.finish(config)
    }

    pub(super) fn from_reader(reader: &mut Reader<'_>) -> Self {
        Self {
            filter: reader.text("LOG").unwrap_or_else(|| "info,sqlx=warn".to_owned()),
            format: reader.parsed("LOG_FORMAT", LogFormat::Pretty, "pretty or json"),
        }
    }
}

impl TraceConfig {
    /// Reads the settings of traces alone: they stand before anything else begins.
    ///
    /// # Errors
    /// All mistakes together.
    pub fn read(settings: &Settings) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(settings);
        let config = Self::from_reader(&mut reader);
        reader.finish(config)
    }

    pub(super) fn from_reader(reader: &mut Reader<'_>) -> Self {
        const RULE: &str = "a number from 0 to 1, like 0.01";
        let endpoint = reader.text("OTLP_ENDPOINT");
        if let Some(url) = &endpoint {
            reader.check_scheme("OTLP_ENDPOINT", url, &["http", "https"]);
        }
        let ratio = reader.parsed("TRACE_RATIO", 0.01, RULE);
        if !(0.0..=1.0).contains(&ratio) {
            reader.errors.push(format!("TRACE_RATIO must be {RULE}"));
        }
        Self { endpoint: endpoint.map(|url| url.trim_end_matches('/').to_owned()), ratio }
    }
}
