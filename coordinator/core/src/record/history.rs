//! What became of a job's ticks, older ones as run-length summaries: bounded however long a job lives.

use novacron_common::{
    ids::{JobId, MigrationId, VmId},
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// Why there is no fire for a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TickReason {
    /// Missed: nobody was there to commit it, and the job fires no late ticks.
    Misfire,
    /// Missed: nobody was there to commit it, and of the late ticks the job fires later ones.
    Superseded,
    /// Missed: nobody was there to commit it within the misfire window.
    TooOld,
    /// Missed: nobody was there to commit it within the start deadline.
    StartDeadline,
    /// Skipped: another fire had not ended, and the job forbids two.
    Overlap,
    /// Skipped: as many fires wait as may.
    QueueFull,
    /// Skipped: as many fires as are kept had not ended.
    Backlog,
    /// Skipped: the job was paused.
    Paused,
}

impl TickReason {
    /// Whether nobody was there, other than by the job's own rules.
    pub const fn is_miss(self) -> bool {
        match self {
            Self::Misfire | Self::Superseded | Self::TooOld | Self::StartDeadline => true,
            Self::Overlap | Self::QueueFull | Self::Backlog | Self::Paused => false,
        }
    }
}

/// What became of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TickFate {
    /// Fired, and done.
    Succeeded,
    /// Fired, and every try failed.
    Failed,
    /// Fired, and cancelled.
    Cancelled,
    /// Fired, and not started in time.
    NotStarted,
    /// Not fired.
    None(TickReason),
}

/// Consecutive ticks of one fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickRun {
    /// What became of them.
    pub fate: TickFate,
    /// The first.
    pub from: UnixMillis,
    /// The last.
    pub until: UnixMillis,
    /// How many.
    pub count: u64,
    /// The longest time from a tick to its commit, milliseconds.
    pub late_ms_max: u64,
}

/// Ticks that are older than every run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickTotals {
    /// The first of them.
    pub from: Option<UnixMillis>,
    /// The last of them.
    pub until: Option<UnixMillis>,
    /// Fired, and done.
    pub succeeded: u64,
    /// Fired, and not done.
    pub failed: u64,
    /// Not fired by the job's own rules.
    pub skipped: u64,
    /// Not fired, or not started in time.
    pub missed: u64,
}

/// The ticks of one job of which there is no record of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// Whose.
    pub job: JobId,
    /// In the order of their first ticks; at most [`HistoryRecord::RUNS_MAX`].
    pub runs: Vec<TickRun>,
    /// What was before them.
    pub older: TickTotals,
}

impl HistoryRecord {
    /// Most runs that are told apart.
    pub const RUNS_MAX: usize = 64;

    /// Takes in `run`. It is joined to the run before it if `adjoins` says that nothing lies between two instants.
    pub fn note(&mut self, run: TickRun, adjoins: impl FnOnce(UnixMillis, UnixMillis) -> bool) {
        let place = self.runs.partition_point(|r| r.from <= run.from);
        let before = place.checked_sub(1).and_then(|at| self.runs.get_mut(at));
        match before {
            Some(before) if before.fate == run.fate && adjoins(before.until, run.from) => {
                before.until = before.until.max(run.until);
                before.count = before.count.saturating_add(run.count);
                before.late_ms_max = before.late_ms_max.max(run.late_ms_max);
            }
            _ => self.runs.insert(place, run),
        }
        if self.runs.len() > Self::RUNS_MAX {
            let oldest = self.runs.remove(0);
            self.older.add(&oldest);
        }
    }
}

impl TickTotals {
    fn add(&mut self, run: &TickRun) {
        self.from = Some(self.from.map_or(run.from, |from| from.min(run.from)));
        self.until = self.until.max(Some(run.until));
        let count = match run.fate {
            TickFate::Succeeded => &mut self.succeeded,
            TickFate::Failed | TickFate::Cancelled => &mut self.failed,
            TickFate::None(reason) if !reason.is_miss() => &mut self.skipped,
            TickFate::NotStarted | TickFate::None(_) => &mut self.missed,
        };
        *count = count.saturating_add(run.count);
    }
}

/// What tells the end of something that is done to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerbWatch {
    /// It runs.
    Runs(VmId),
    /// It has stopped.
    Stopped(VmId),
    /// It was restarted this many times.
    Restarted {
        /// Which.
        vm: VmId,
        /// The request that was made.
        request: u64,
    },
    /// It has moved.
    Moved(MigrationId),
}
