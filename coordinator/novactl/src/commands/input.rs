//! Files that a command line names; `-` is standard input.

use crate::error::CtlError;
use serde::de::DeserializeOwned;
use std::{io::Read, path::Path};

/// Longest file that is read: what the API takes.
const FILE_MAX: u64 = 1 << 20;

/// Its text.
pub fn text(file: &Path) -> Result<String, CtlError> {
    let mut text = String::new();
    let doing = format!("read {}", file.display());
    let opened: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(CtlError::local(doing.clone()))?)
    };
    opened.take(FILE_MAX + 1).read_to_string(&mut text).map_err(CtlError::local(doing))?;
    if text.len() as u64 > FILE_MAX {
        return Err(CtlError::Settings(format!("{} has more than {FILE_MAX} bytes", file.display())));
    }
    Ok(text)
}

/// Its JSON.
pub fn json<T: DeserializeOwned>(file: &Path) -> Result<T, CtlError> {
    serde_json::from_str(&text(file)?)
        .map_err(|error| CtlError::Settings(format!("{}: {error}", file.display())))
}
