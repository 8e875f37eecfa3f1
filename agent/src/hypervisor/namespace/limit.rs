//! Which limits a command ran into: told at the end of its output, as its own message, if it has one, names a symptom.
//! Want of memory is an outcome of its own. Pure.

use novacron_common::record::AttemptOutcome;

/// What is known when the tree is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// How many forks its limit of processes refused.
    pub forks_refused: u64,
    /// Whether there is no room left for what it writes.
    pub is_full: bool,
}

impl Reached {
    /// Lines for whoever reads the output of a command that failed. Success needs no excuse.
    pub fn notes(&self, outcome: &AttemptOutcome) -> Vec<String> {
        if *outcome == AttemptOutcome::Exited(0) {
            return Vec::new();
        }
        let forks = (self.forks_refused > 0)
            .then(|| format!("pids limit: {} more processes were refused", self.forks_refused));
        let full = self.is_full.then(|| "disk full: no room is left for what it writes".to_owned());
        forks.into_iter().chain(full).map(|note| format!("\n[{note}]\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_is_explained_and_success_is_not() {
        let all = Reached { forks_refused: 7, is_full: true };
        let notes = all.notes(&AttemptOutcome::TimedOut).concat();
        assert!(notes.contains("[pids limit: 7 more") && notes.contains("[disk full:"), "{notes}");
        assert!(all.notes(&AttemptOutcome::Exited(0)).is_empty());
        assert!(Reached::default().notes(&AttemptOutcome::Exited(1)).is_empty());
    }
}
