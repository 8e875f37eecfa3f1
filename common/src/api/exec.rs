//! A command inside a machine, over a WebSocket: text messages are the JSON of this file, binary messages are bytes.
//!
//! The client's first message is an [`ExecRequest`]; after it its binary messages are the command's input, its text
//! messages [`ExecControl`]. The server's text messages are [`ExecEvent`], of which all but `started` are the last one; its
//! binary messages are what the command prints, behind one byte that says where: [`STDOUT`] or [`STDERR`].

use super::Problem;
use crate::{spec::Faults, wire::ExecCommand};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// First byte of what a command printed to its standard output, or to its terminal.
pub const STDOUT: u8 = 1;
/// First byte of what a command printed to its standard error.
pub const STDERR: u8 = 2;

/// What is to be run. The client's first message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// Its name and arguments; no shell is added. At most 64 KiB with all else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// In place of a command: a file or folder goes in or out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<FileCopy>,
    /// Variables, over those of the machine's own command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// As whom: a name or number of the machine's, and perhaps a group behind a colon (default: its user 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where it starts (default: where the machine's own command does).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Whether it reads what is sent; else its input is empty.
    #[serde(default)]
    pub input: bool,
    /// Give it a terminal of this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<WindowSize>,
}

impl ExecRequest {
    /// The same for the wire.
    ///
    /// # Errors
    /// What is wrong with it, by field.
    pub fn to_command(&self) -> Result<ExecCommand, Problem> {
        let command = ExecCommand {
            argv: self.command.clone(),
            env: self.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            user: self.user.clone(),
            working_dir: self.working_dir.clone(),
            input: self.input,
            terminal: self.terminal.map(Into::into),
            copy: self.copy.clone().map(Into::into),
        };
        self.faults(&command).into_result(Some(command)).map_err(Into::into)
    }

    fn faults(&self, command: &ExecCommand) -> Faults {
        let mut faults = Faults::default();
        match &self.copy {
            None if self.command.first().is_none_or(String::is_empty) => {
                faults.add("command", "must name a program");
            }
            None => {}
            Some(_) if !self.command.is_empty() || self.terminal.is_some() => {
                faults.add("copy", "is in place of a command and of a terminal");
            }
            Some(copy) => copy.faults(&mut faults),
        }
        let most = ExecCommand::BYTES_MAX;
        if command.bytes() > most {
            faults.add("command", format!("must be at most {most} bytes, with all else"));
        }
        if self.env.keys().any(|name| name.is_empty() || name.contains('=')) {
            faults.add("env", "a name must not be empty or contain =");
        }
        let words = self.command.iter().chain(self.env.iter().flat_map(|(name, value)| [name, value]));
        if words.chain(&self.working_dir).any(|word| word.contains('\0')) {
            faults.add("command", "must not contain a NUL character, nor may anything else");
        }
        if self.working_dir.as_deref().is_some_and(|folder| !folder.starts_with('/')) {
            faults.add("working_dir", "must begin with /");
        }
        faults
    }
}

/// A file or folder of the machine's as a tar archive, with one entry at its top. It is read or written by the machine's user, within the
/// machine: its links lead to nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "direction", rename_all = "snake_case", deny_unknown_fields)]
pub enum FileCopy {
    /// The archive is the client's binary messages (`input` must be true).
    In {
        /// What it becomes; if that is a folder, it goes into it.
        path: String,
        /// What it is called then.
        name: String,
    },
    /// The archive is what comes as standard output.
    Out {
        /// What is wanted. If it is a link, what that leads to.
        path: String,
    },
}

impl FileCopy {
    fn faults(&self, faults: &mut Faults) {
        let (Self::In { path, .. } | Self::Out { path }) = self;
        if !path.starts_with('/') {
            faults.add("copy.path", "must begin with /");
        }
        let mut words = vec![path];
        if let Self::In { name, .. } = self {
            if matches!(name.as_str(), "" | "." | "..") || name.contains('/') {
                faults.add("copy.name", "must be the name of a file or folder");
            }
            words.push(name);
        }
        if words.iter().any(|word| word.contains('\0')) {
            faults.add("copy", "must not contain a NUL character");
        }
    }
}

impl From<FileCopy> for crate::wire::FileCopy {
    fn from(copy: FileCopy) -> Self {
        match copy {
            FileCopy::In { path, name } => Self::In { path, name },
            FileCopy::Out { path } => Self::Out { path },
        }
    }
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

impl From<WindowSize> for crate::wire::WindowSize {
    fn from(WindowSize { rows, columns }: WindowSize) -> Self {
        Self { rows, columns }
    }
}

/// What a client says while the command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "control", rename_all = "snake_case", deny_unknown_fields)]
pub enum ExecControl {
    /// There is no more input.
    EndOfInput,
    /// The terminal has another size.
    Resize(WindowSize),
    /// This signal to the command's process group.
    Signal {
        /// Its number on Linux, such as 2 for SIGINT and 15 for SIGTERM.
        number: u8,
    },
}

/// What becomes of the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ExecEvent {
    /// It runs.
    Started,
    /// It ended by itself.
    Exited {
        /// Its exit code.
        code: u8,
    },
    /// It was ended by a signal.
    Killed {
        /// The signal's number.
        signal: u8,
    },
    /// The machine could not run it.
    Failed {
        /// Why.
        reason: String,
    },
    /// The machine was not asked, or was lost.
    Refused {
        /// Why.
        problem: Problem,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_is_checked_by_field() {
        let good: ExecRequest =
            serde_json::from_value(json!({"command": ["ls"], "env": {"A": "b=c"}})).unwrap();
        let command = good.to_command().unwrap();
        assert_eq!((command.argv.len(), command.env[0].1.as_str(), command.input), (1, "b=c", false));
        for (bad, field) in [
            (json!({"command": []}), "command"),
            (json!({"command": [""]}), "command"),
            (json!({"command": ["a\0"]}), "command"),
            (json!({"command": ["x".repeat(70_000)]}), "command"),
            (json!({"command": ["a"], "env": {"": "x"}}), "env"),
            (json!({"command": ["a"], "env": {"A=B": "x"}}), "env"),
            (json!({"command": ["a"], "working_dir": "srv"}), "working_dir"),
            (json!({"command": ["a"], "copy": {"direction": "out", "path": "/a"}}), "copy"),
            (json!({"copy": {"direction": "out", "path": "a"}}), "copy.path"),
            (json!({"copy": {"direction": "out", "path": "/a\0"}}), "copy"),
            (json!({"copy": {"direction": "in", "path": "/a", "name": "../b"}}), "copy.name"),
            (json!({"copy": {"direction": "in", "path": "/a", "name": ".."}}), "copy.name"),
        ] {
            let request: ExecRequest = serde_json::from_value(bad).unwrap();
            let problem = request.to_command().unwrap_err();
            assert_eq!(problem.details[0].field, field, "{problem}");
        }
        assert!(serde_json::from_value::<ExecRequest>(json!({"command": ["a"], "cmd": 1})).is_err());
    }

    #[test]
    fn controls_and_events_are_the_json_that_the_documentation_shows() {
        let resize = ExecControl::Resize(WindowSize { rows: 24, columns: 80 });
        assert_eq!(
            serde_json::to_value(resize).unwrap(),
            json!({"control": "resize", "rows": 24, "columns": 80})
        );
        let heard: ExecControl = serde_json::from_value(json!({"control": "signal", "number": 15})).unwrap();
        assert_eq!(heard, ExecControl::Signal { number: 15 });
        assert_eq!(
            serde_json::to_value(ExecEvent::Exited { code: 7 }).unwrap(),
            json!({"event": "exited", "code": 7})
        );
    }
}
