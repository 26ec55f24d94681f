//! What commands print for people: tables, progress bars, errors.

use std::{io::IsTerminal, time::Duration};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use indicatif::{ProgressBar, ProgressStyle};

use crate::stampede::report::Row;

/// A table as wide as the terminal.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table
}

/// What was measured, and what it is held to.
pub fn measured(what: &str, rows: Vec<Row>) -> Table {
    let mut table = table(&[what, "", "held to"]);
    for row in rows {
        let goal = row.goal.map_or_else(|| Cell::new(""), |(is_well, goal)| verdict(is_well, goal));
        table.add_row(vec![Cell::new(row.what), Cell::new(row.value), goal]);
    }
    table
}

/// Green for what is well, red for what is not; plain where there is no terminal.
pub fn verdict(is_well: bool, text: impl ToString) -> Cell {
    Cell::new(text).fg(if is_well { Color::Green } else { Color::Red })
}

/// A bar on standard error; silent where there is no terminal.
pub fn progress(total: u64, what: &'static str) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(total) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_message(what)
}

/// A count without an end that is known, on standard error; silent where there is no terminal.
pub fn spinner(what: &'static str) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{spinner} {msg} {human_pos} {per_sec}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.with_message(what)
}

/// A bar that fills with time, on standard error; silent where there is no terminal.
pub fn timed(lasting: Duration, what: &'static str) -> ProgressBar {
    let length = u64::try_from(lasting.as_millis()).unwrap_or(u64::MAX);
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_prefix(what)
}

/// The error and what caused it.
pub fn error(error: &anyhow::Error) {
    let label = if std::io::stderr().is_terminal() { "\u{1b}[31merror\u{1b}[0m" } else { "error" };
    eprintln!("{label}: {error:#}");
}
