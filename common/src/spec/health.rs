//! How a machine is asked whether it is well, and what the answers mean: Docker's terms and defaults.

use super::Faults;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The command that asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthTest {
    /// None, whatever the image says.
    Off,
    /// By the machine's own `/bin/sh -c`.
    Shell(String),
    /// A program and its arguments.
    Exec(Vec<String>),
}

/// What is said of it, by an image or by who makes a machine. The default says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// What asks.
    pub test: Option<HealthTest>,
    /// Milliseconds between an answer and the next question.
    pub interval_ms: Option<u64>,
    /// Milliseconds that an answer may take.
    pub timeout_ms: Option<u64>,
    /// So many failures in a row, and the machine is unhealthy.
    pub retries: Option<u32>,
    /// Milliseconds from the start of a machine in which failures do not count, until the first success.
    pub start_period_ms: Option<u64>,
}

/// A command that is run in a machine again and again: it succeeds where the machine is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Its words.
    pub argv: Vec<String>,
    /// Between an answer and the next question.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many failures in a row, and the machine is unhealthy.
    pub retries: u32,
    /// From the start of the machine; failures in it do not count, until the first success.
    pub start_period: Duration,
}

impl HealthSpec {
    /// Of `interval` and `timeout`: every question is a process of its host.
    pub const PERIOD_MIN: Duration = Duration::from_secs(1);
    /// Of each of the three lengths of time.
    pub const PERIOD_MAX: Duration = Duration::from_secs(24 * 3600);
    /// More failures than anybody waits for.
    pub const RETRIES_MAX: u32 = 1000;
    /// Most bytes of the command: as much as a command in a machine may have.
    pub const COMMAND_MAX: usize = 32 * 1024;

    const INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
    const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
    const RETRIES_DEFAULT: u32 = 3;

    /// What is wrong with it, field by field below `field`.
    pub fn check(&self, field: &str, faults: &mut Faults) {
        let periods = [
            ("interval", self.interval_ms, Self::PERIOD_MIN),
            ("timeout", self.timeout_ms, Self::PERIOD_MIN),
            ("start_period", self.start_period_ms, Duration::ZERO),
        ];
        for (name, ms, min) in periods {
            let fits = |ms| (min..=Self::PERIOD_MAX).contains(&Duration::from_millis(ms));
            if !ms.is_none_or(fits) {
                faults.add(format!("{field}.{name}"), format!("must be {}s to 24h", min.as_secs()));
            }
        }
        if self.retries.is_some_and(|retries| !(1..=Self::RETRIES_MAX).contains(&retries)) {
            faults.add(format!("{field}.retries"), format!("must be 1 to {}", Self::RETRIES_MAX));
        }
        if let Some(HealthTest::Shell(command)) = &self.test
            && (command.trim().is_empty() || command.len() > Self::COMMAND_MAX || command.contains('\0'))
        {
            let most = Self::COMMAND_MAX;
            faults.add(format!("{field}.cmd"), format!("must be a shell command of at most {most} bytes"));
        }
    }

    /// The check that is made of this and, for all that it does not say, of what the image says. `None` if nobody names a
    /// command. Images are strangers: what they say that cannot be is brought within bounds.
    pub fn over(&self, image: &Self) -> Option<HealthCheck> {
        let argv = match self.test.as_ref().or(image.test.as_ref())? {
            HealthTest::Off => return None,
            HealthTest::Shell(command) => vec!["/bin/sh".to_owned(), "-c".to_owned(), command.clone()],
            HealthTest::Exec(argv) => argv.clone(),
        };
        let period = |own: Option<u64>, images: Option<u64>, usual: Duration, min: Duration| {
            own.or(images).map_or(usual, Duration::from_millis).clamp(min, Self::PERIOD_MAX)
        };
        let retries = self.retries.or(image.retries).unwrap_or(Self::RETRIES_DEFAULT);
        Some(HealthCheck {
            argv,
            interval: period(self.interval_ms, image.interval_ms, Self::INTERVAL_DEFAULT, Self::PERIOD_MIN),
            timeout: period(self.timeout_ms, image.timeout_ms, Self::TIMEOUT_DEFAULT, Self::PERIOD_MIN),
            retries: retries.clamp(1, Self::RETRIES_MAX),
            start_period: period(self.start_period_ms, image.start_period_ms, Duration::ZERO, Duration::ZERO),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(command: &str) -> HealthSpec {
        HealthSpec { test: Some(HealthTest::Shell(command.into())), ..HealthSpec::default() }
    }

    #[test]
    fn what_a_machine_does_not_say_its_image_says_and_else_docker() {
        let image = HealthSpec { interval_ms: Some(5000), retries: Some(7), ..shell("curl -f localhost") };
        let silent = HealthSpec::default();
        assert_eq!(silent.over(&silent), None);
        let check = silent.over(&image).unwrap();
        assert_eq!(check.argv, ["/bin/sh", "-c", "curl -f localhost"]);
        assert_eq!((check.interval, check.retries), (Duration::from_secs(5), 7));
        assert_eq!((check.timeout, check.start_period), (Duration::from_secs(30), Duration::ZERO));
        let own = HealthSpec { interval_ms: Some(9000), start_period_ms: Some(4000), ..shell("own") };
        let check = own.over(&image).unwrap();
        assert_eq!(check.argv[2], "own");
        assert_eq!((check.interval, check.retries), (Duration::from_secs(9), 7));
        assert_eq!(check.start_period, Duration::from_secs(4));
        assert_eq!(own.over(&silent).unwrap().retries, 3);
        let off = HealthSpec { test: Some(HealthTest::Off), ..silent.clone() };
        assert_eq!((off.over(&image), silent.over(&off)), (None, None));
    }

    #[test]
    fn what_an_image_says_is_brought_within_bounds() {
        let wild = HealthSpec {
            interval_ms: Some(0),
            timeout_ms: Some(u64::MAX),
            retries: Some(0),
            start_period_ms: Some(u64::MAX),
            ..shell("x")
        };
        let check = HealthSpec::default().over(&wild).unwrap();
        assert_eq!((check.interval, check.retries), (HealthSpec::PERIOD_MIN, 1));
        assert_eq!((check.timeout, check.start_period), (HealthSpec::PERIOD_MAX, HealthSpec::PERIOD_MAX));
    }

    #[test]
    fn what_a_user_says_that_cannot_be_is_refused_by_its_name() {
        let faults = |spec: HealthSpec| {
            let mut faults = Faults::default();
            spec.check("health", &mut faults);
            faults.0.into_iter().map(|fault| fault.field).collect::<Vec<_>>()
        };
        let ms = |ms| Some(ms);
        assert_eq!(
            faults(HealthSpec { start_period_ms: ms(0), interval_ms: ms(1000), ..shell("x") }),
            [""; 0]
        );
        assert_eq!(faults(HealthSpec { interval_ms: ms(999), ..shell("x") }), ["health.interval"]);
        assert_eq!(faults(HealthSpec { timeout_ms: ms(86_400_001), ..shell("x") }), ["health.timeout"]);
        assert_eq!(
            faults(HealthSpec { start_period_ms: ms(u64::MAX), ..shell("x") }),
            ["health.start_period"]
        );
        assert_eq!(faults(HealthSpec { retries: Some(0), ..shell("x") }), ["health.retries"]);
        for command in ["", " ", "a\0b", &"x".repeat(HealthSpec::COMMAND_MAX + 1)] {
            assert_eq!(faults(shell(command)), ["health.cmd"]);
        }
    }
}
