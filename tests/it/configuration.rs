//! Configuration: one list of variables, and all mistakes at once.

use std::collections::{BTreeMap, BTreeSet};

use whitemonday::config::{Config, MailTransport, Settings};

#[test]
fn env_example_explains_every_variable_and_no_other() {
    let text = include_str!("../../.env.example");
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let names = text.lines().filter_map(|line| line.trim_start_matches(['#', ' ']).split_once('=')).map(|(name, _)| name);
    let explained: BTreeSet<&str> = names.filter(|name| is_name(name)).collect();
    let read: BTreeSet<&str> = Config::variables().into_iter().collect();
    assert_eq!(explained, read);
}

#[test]
fn all_mistakes_are_reported_at_once_and_no_secret_is_repeated() {
    let settings = [
        ("DATABASE_REQUEST_CONNECTIONS", "many"),
        ("LISTEN", "here"),
        ("PUBLIC_URL", "ftp://example.com"),
        ("DEVELOPER_TOOLS", "yes"),
        ("SEALING_KEYS", "1:c2VjcmV0"),
        ("TOKEN_KEYS", "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=,1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("SHOP_CURRENCY", "won"),
        ("DATABASE_DIRECT_URL", "mysql://c2VjcmV0"),
        ("REDIS_URL", "http://c2VjcmV0"),
        ("SMTP_URL", "mail.example.com"),
        ("LOG_FORMAT", "xml"),
        ("OTLP_ENDPOINT", "localhost:4317"),
        ("TRACE_RATIO", "NaN"),
        ("JOB_VISIBILITY_SECONDS", "10"),
        ("JOB_STEP_DEADLINE_SECONDS", "10"),
    ];
    let settings: BTreeMap<String, String> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();

    let report = Config::read(&Settings::fixed(settings), MailTransport::Smtp).unwrap_err().to_string();

    for name in [
        "DATABASE_URL",
        "DATABASE_REQUEST_CONNECTIONS",
        "LISTEN",
        "PUBLIC_URL",
        "DEVELOPER_TOOLS",
        "SEALING_KEYS",
        "BLIND_INDEX_KEY",
        "TOKEN_KEYS",
        "SMTP_URL",
        "PAYMENT_SECRET_KEY",
        "SHOP_CURRENCY",
        "DATABASE_DIRECT_URL",
        "REDIS_URL",
        "LOG_FORMAT",
        "OTLP_ENDPOINT",
        "TRACE_RATIO",
        "JOB_STEP_DEADLINE_SECONDS must be less than JOB_VISIBILITY_SECONDS",
    ] {
        assert!(report.contains(name), "{name} in\n{report}");
    }
    assert!(!report.contains("c2VjcmV0"), "{report}");
}
