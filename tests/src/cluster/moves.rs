//! Migrations as a client asks for them and follows them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use novacron_common::api::{MigrationState, MigrationView};

use super::{Cluster, Machine};

/// How often a migration is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Cluster {
    /// Asks for a move, and returns without waiting for it.
    ///
    /// # Errors
    /// When it is refused.
    pub fn ask_to_migrate(&self, machine: &Machine, to: &str, more: &[&str]) -> Result<MigrationView> {
        let view = self.novactl(&[&["vm", "migrate", &machine.name, "--to", to], more].concat())?;
        serde_json::from_value(view).context("reading the migration")
    }

    /// A migration as it is now.
    ///
    /// # Errors
    /// When it cannot be shown.
    pub fn migration(&self, id: &str) -> Result<MigrationView> {
        serde_json::from_value(self.novactl(&["migration", "show", id])?).context("reading the migration")
    }

    /// Waits until the guest has gone over all of its memory once more, from here on.
    ///
    /// # Errors
    /// When it has not within `limit`, or found a fault, or its ticks are not without a gap.
    pub fn check_memory(&self, machine: &Machine, limit: Duration) -> Result<()> {
        // The pass that is under way may have begun before.
        let passes = machine.recorder.judge().last.passes + 2;
        self.wait_until(limit, "all memory is checked", |_| {
            Ok(machine.recorder.judge().last.passes >= passes)
        })?;
        let verdict = machine.recorder.judge();
        ensure!(verdict.is_continuous(), "{verdict:?}");
        Ok(())
    }

    /// Waits until the migration is as `wanted` says. Faults in between (the coordinator may be down) are waited out.
    ///
    /// # Errors
    /// When it is not so within `limit`, or ends otherwise; the error shows the migration.
    pub fn follow(
        &self,
        id: &str,
        limit: Duration,
        wanted: impl Fn(&MigrationView) -> bool,
    ) -> Result<MigrationView> {
        let deadline = Instant::now() + limit;
        loop {
            let seen = self.migration(id);
            match &seen {
                Ok(view) if wanted(view) => return seen,
                Ok(view) if view.status.state.is_final() => bail!("the migration ended otherwise: {view:?}"),
                _ if Instant::now() > deadline => {
                    bail!("the migration did not get there within {limit:?}: {seen:?}")
                }
                _ => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Waits until the migration copies.
    ///
    /// # Errors
    /// As [`Cluster::follow`].
    pub fn follow_to_copying(&self, id: &str) -> Result<MigrationView> {
        let is_copying =
            |view: &MigrationView| view.status.state == MigrationState::Copying && view.total_bytes > 1 << 20;
        self.follow(id, Duration::from_secs(90), is_copying)
    }

    /// Waits for the migration's end, whatever it is.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn follow_to_end(&self, id: &str, limit: Duration) -> Result<MigrationView> {
        self.follow(id, limit, |view| view.status.state.is_final())
    }
}
