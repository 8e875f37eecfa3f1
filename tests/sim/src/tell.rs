//! Tells a seed as a story: with `NOVACRON_TELL=info,openraft=off` (or any filter of log lines) all that the shipped code logs, and what the
//! world does to it, goes to stderr, with the time in the world and the machine on which it happens. Meant for one seed,
//! named by `NOVACRON_SEED`.

use crate::executor::Executor;
use std::{
    fmt, io,
    sync::{Arc, Weak},
    time::Duration,
};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::{
    EnvFilter,
    fmt::{format::Writer, time::FormatTime},
};

/// Names the filter.
const VARIABLE: &str = "NOVACRON_TELL";

/// Tells what happens on this thread from now on until the guard is dropped, if anybody wants to hear it.
pub fn begin(executor: &Arc<Executor>) -> Option<DefaultGuard> {
    let filter = EnvFilter::try_from_env(VARIABLE).ok()?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(WorldTime(Arc::downgrade(executor)))
        .with_ansi(false)
        .with_writer(io::stderr)
        .finish();
    Some(tracing::subscriber::set_default(subscriber))
}

/// The time in a world, and where.
struct WorldTime(Weak<Executor>);

impl FormatTime for WorldTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Some(executor) = self.0.upgrade() else { return Ok(()) };
        let at = Duration::from_nanos(executor.elapsed()).as_secs_f64();
        match executor.current() {
            Some(machine) => write!(writer, "{at:10.6} machine {machine}"),
            None => write!(writer, "{at:10.6} world    "),
        }
    }
}
