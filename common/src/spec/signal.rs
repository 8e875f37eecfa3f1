//! Signals that a machine's command can be sent.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A signal that a program can wait for, or that ends it (`signal(7)`). Numbers are Linux's on every processor that it
/// is run on here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    /// Read the configuration again, to most daemons.
    Hup = 1,
    /// Ctrl-C.
    Int = 2,
    /// End, and be graceful about it (nginx) or leave a core.
    Quit = 3,
    /// End at once: no program hears this one.
    Kill = 9,
    /// The program's own.
    Usr1 = 10,
    /// The program's own.
    Usr2 = 12,
    /// A timer.
    Alrm = 14,
    /// Please end.
    Term = 15,
    /// Go on.
    Cont = 18,
    /// The window has another size; Apache ends gracefully.
    Winch = 28,
}

/// A text that names no [`Signal`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no signal that can be sent: use HUP, INT, QUIT, KILL, USR1, USR2, ALRM, TERM, CONT or WINCH"
)]
pub struct BadSignal(String);

impl Signal {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Hup,
        Self::Int,
        Self::Quit,
        Self::Kill,
        Self::Usr1,
        Self::Usr2,
        Self::Alrm,
        Self::Term,
        Self::Cont,
        Self::Winch,
    ];

    /// The kernel's number for it.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// As it is written, without `SIG`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hup => "HUP",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Kill => "KILL",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Alrm => "ALRM",
            Self::Term => "TERM",
            Self::Cont => "CONT",
            Self::Winch => "WINCH",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `TERM`, `SIGTERM`, `sigterm` or `15`.
impl FromStr for Signal {
    type Err = BadSignal;

    fn from_str(text: &str) -> Result<Self, BadSignal> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let is_meant = |signal: &Self| signal.name() == name || signal.number().to_string() == name;
        Self::ALL.into_iter().find(is_meant).ok_or_else(|| BadSignal(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_known_by_each_of_its_names() {
        for text in ["USR1", "SIGUSR1", "sigusr1", "10"] {
            assert_eq!(text.parse(), Ok(Signal::Usr1), "{text}");
        }
        for signal in Signal::ALL {
            assert_eq!(signal.to_string().parse(), Ok(signal));
            assert_eq!(serde_json::to_value(signal).unwrap(), signal.name());
        }
        for bad in ["", "SIG", "STOP", "SEGV", "64", "-9", "09"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }
}
