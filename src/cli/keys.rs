//! `keys`: the secrets of a production configuration.

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Subcommand;

#[derive(Subcommand)]
pub enum KeysCommand {
    /// Print fresh keys as lines for the environment. Keep them: what they seal opens with nothing else
    Generate,
}

/// Fresh values for every variable that holds keys.
pub fn fresh() -> [(&'static str, String); 3] {
    ["SEALING_KEYS", "BLIND_INDEX_KEY", "TOKEN_KEYS"]
        .map(|name| (name, format!("1:{}", BASE64_STANDARD.encode(rand::random::<[u8; 32]>()))))
}

pub fn generate() {
    for (name, value) in fresh() {
        println!("{name}={value}");
    }
}
