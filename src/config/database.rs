//! The database, and how many connections to it there may be.

use secrecy::SecretString;

use super::{
    reader::{ConfigErrors, Reader},
    settings::Settings,
};

#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    pub url: SecretString,
    /// Past any pooler, for migrations.
    pub direct_url: SecretString,
    pub request_connections: u32,
    pub job_connections: u32,
}

impl DatabaseConfig {
    /// Reads only what a command needs that talks to the database and nothing else.
    ///
    /// # Errors
    /// All mistakes together.
    pub fn read(settings: &Settings) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(settings);
        let config = Self::from_reader(&mut reader);
        reader.finish(config)
    }

    pub(super) fn from_reader(reader: &mut Reader<'_>) -> Self {
        let schemes = ["postgres", "postgresql"];
        let url = reader.required("DATABASE_URL", "like postgres://user:password@localhost:5432/whitemonday");
        reader.secret_url("DATABASE_URL", &url, &schemes);
        let direct_url = reader.text("DATABASE_DIRECT_URL").unwrap_or_else(|| url.clone());
        reader.secret_url("DATABASE_DIRECT_URL", &direct_url, &schemes);
        let (url, direct_url) = (SecretString::from(url), SecretString::from(direct_url));
        Self {
            url,
            direct_url,
            request_connections: reader.number("DATABASE_REQUEST_CONNECTIONS", 16, 2..=500),
            job_connections: reader.number("DATABASE_JOB_CONNECTIONS", 8, 2..=500),
        }
    }
}
