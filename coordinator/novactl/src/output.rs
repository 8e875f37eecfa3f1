//! Tables for people, JSON for programs.

use crate::{cli::Format, error::CtlError};
use comfy_table::{Cell, ContentArrangement, Table, presets};
use novacron_common::units::UnixMillis;
use serde::Serialize;
use std::io::Write;

/// Something that fits into a row.
pub trait Row {
    /// The columns' titles.
    const TITLES: &'static [&'static str];
    /// The cells.
    fn cells(&self) -> Vec<String>;
}

/// Prints a list.
pub fn list<T: Row + Serialize>(items: &[T], format: Format) -> Result<(), CtlError> {
    match format {
        Format::Json => json(items),
        Format::Table => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
            table.set_header(T::TITLES.iter().map(|t| Cell::new(t.to_uppercase())));
            for item in items {
                table.add_row(item.cells());
            }
            line(&table.to_string())
        }
    }
}

/// Prints one thing: its row turned on its side.
pub fn one<T: Row + Serialize>(item: &T, format: Format, more: &[(&str, String)]) -> Result<(), CtlError> {
    match format {
        Format::Json => json(item),
        Format::Table => {
            let cells = item.cells();
            let pairs = T::TITLES.iter().copied().zip(cells).chain(more.iter().map(|(t, v)| (*t, v.clone())));
            let pairs: Vec<_> = pairs.filter(|(_, value)| !value.is_empty()).collect();
            let width = pairs.iter().map(|(title, _)| title.len()).max().unwrap_or(0) + 2;
            let lines: Vec<_> = pairs.iter().map(|(title, value)| format!("{title:width$}{value}")).collect();
            line(&lines.join("\n"))
        }
    }
}

/// Prints any value as JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<(), CtlError> {
    line(&serde_json::to_string_pretty(value).map_err(CtlError::Answer)?)
}

/// Prints a line to standard output; a reader who went away (`| head`) is no error.
pub fn line(text: &str) -> Result<(), CtlError> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(CtlError::local("write to standard output")),
    }
}

/// A serde name of a unit variant, e.g. `handing_over`.
pub fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A time in UTC, or a dash.
pub fn time(at: Option<UnixMillis>) -> String {
    at.map_or_else(|| "-".into(), UnixMillis::rfc3339)
}
