//! A command inside a running machine: what is asked for, and what goes to and fro while it runs.
//!
//! The same frames ([`super::codec`]) go all the way from the coordinator to the process that starts the command; the agent
//! between them copies bytes and reads none.

use crate::ids::VmId;
use serde::{Deserialize, Serialize};

/// First frame of an `Exec` stream, from the coordinator. After an `Accepted` reply come [`ExecInput`] frames one way and
/// [`ExecOutput`] frames the other; when the coordinator ends its side, the command is ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOpen {
    /// In which machine.
    pub vm: VmId,
    /// What.
    pub command: ExecCommand,
}

/// A command, and how it is to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecCommand {
    /// Its name and arguments; no shell is added.
    pub argv: Vec<String>,
    /// Variables, over those of the machine's own command.
    pub env: Vec<(String, String)>,
    /// As whom: a name or number of the machine's, and perhaps a group behind a colon; its user 0 if absent.
    pub user: Option<String>,
    /// Where it starts; where the machine's own command does if absent.
    pub working_dir: Option<String>,
    /// Whether it reads what is sent; else its input is empty.
    pub input: bool,
    /// Of a command that gets a terminal of its own: how large that is.
    pub terminal: Option<WindowSize>,
    /// In place of a program of the machine's: files go in or out.
    pub copy: Option<FileCopy>,
}

/// A file or folder of the machine's as a tar archive, which comes by standard input or goes by standard output. It is read or
/// written within the machine, with a command's rights: what its links lead to is the machine's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileCopy {
    /// What is read becomes this path, or goes under this name into it if it is a folder.
    In {
        /// Where.
        path: String,
        /// What it is called where it comes from.
        name: String,
    },
    /// This path is written.
    Out {
        /// Which.
        path: String,
    },
}

impl ExecCommand {
    /// Most bytes of all its words together: half of what a kernel with the smallest stack limit takes (`execve(2)`).
    pub const BYTES_MAX: usize = 64 * 1024;

    /// Bytes of all its words together.
    pub fn bytes(&self) -> usize {
        let variables = self.env.iter().flat_map(|(name, value)| [name, value]);
        let copied: &[&String] = match &self.copy {
            None => &[],
            Some(FileCopy::In { path, name }) => &[path, name],
            Some(FileCopy::Out { path }) => &[path],
        };
        let others = self.user.iter().chain(&self.working_dir).chain(copied.iter().copied());
        self.argv.iter().chain(variables).chain(others).map(|word| word.len() + 1).sum()
    }
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// Most bytes in one frame of input or output.
pub const EXEC_BYTES_MAX: usize = 16 * 1024;

/// What goes to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecInput {
    /// For its standard input; at most [`EXEC_BYTES_MAX`].
    Bytes(Vec<u8>),
    /// There is no more of it. A terminal is sent its end-of-file character.
    End,
    /// Its terminal has another size.
    Resize(WindowSize),
    /// This signal, by its number, to its process group.
    Signal(u8),
}

/// What comes from a command. `Ended` or `Failed` is the last of it; a stream that ends without either broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecOutput {
    /// It runs.
    Started,
    /// From its standard output or its terminal; at most [`EXEC_BYTES_MAX`].
    Output(Vec<u8>),
    /// From its standard error; at most [`EXEC_BYTES_MAX`].
    Errors(Vec<u8>),
    /// It ended.
    Ended(ExecEnd),
    /// It never ran, and why.
    Failed(String),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecEnd {
    /// By itself, with this code.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}
