//! `namespace`: how fast machines of namespaces are made, beside the OCI runtimes runc and crun, from the same root file system
//! in the same run.
//!
//! * `create`: from the request to the program's first own instruction. Ours is asked through the agent's hypervisor port
//!   (`define`, `start`), with all that a machine has: its own disk, ids, cgroup, seccomp. The runtimes get a bundle that is ready, as
//!   their own `spec` writes it, with the same limits and no user namespace, disk or seccomp.
//! * `sustained`: machines made, run to their end and removed without a pause for a minute.
//! * `crowd`: whether the thousandth that runs is made as fast as the first.
//! * `idle`: what a thousand that sleep cost the agent and the kernel.
//!
//! The program tells the instant itself, on the clock that it shares with its host (`CLOCK_MONOTONIC`).

mod create;
pub mod idle;
mod ours;
mod runtimes;
mod stage;
mod sustained;

use crate::report::publish;
use anyhow::{Context, Result, bail, ensure};
use nix::time::{ClockId, clock_gettime};
use novacron_tests::need::{Need, first_missing};
use stage::Stage;

/// All parts, or the one that `ROW` names.
pub fn run() -> Result<()> {
    if let Some(why) = first_missing(&[Need::Root]) {
        bail!("the namespace bench {why}");
    }
    let wanted = std::env::var("ROW").ok();
    let wants = |part: &str| wanted.as_deref().is_none_or(|wanted| wanted == part);
    let stage = Stage::set()?;
    let mut rows = Vec::new();
    if wants("create") {
        rows.extend(create::rows(&stage)?);
        publish("namespace", &rows)?;
    }
    if wants("sustained") {
        rows.extend(sustained::rows(&stage)?);
        publish("namespace", &rows)?;
    }
    if wants("crowd") {
        rows.extend(sustained::crowd_rows(&stage)?);
        publish("namespace", &rows)?;
    }
    if wants("idle") {
        rows.extend(idle::rows(&stage)?);
        publish("namespace", &rows)?;
    }
    ensure!(!rows.is_empty(), "ROW is {wanted:?}; there are create, sustained, crowd and idle");
    Ok(())
}

/// An instant of `CLOCK_MONOTONIC`, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Instant(i64);

impl Instant {
    fn now() -> Result<Self> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        Ok(Self(now.tv_sec() * 1_000_000_000 + now.tv_nsec()))
    }

    /// What `novacron-first` prints.
    fn told_in(text: &str) -> Option<Self> {
        text.lines().find_map(|line| line.strip_prefix("FIRST ")?.parse().ok().map(Self))
    }

    /// From an earlier one to this, milliseconds.
    fn ms_since(self, earlier: Self) -> Result<f64> {
        let nanoseconds =
            u32::try_from(self.0 - earlier.0).context("the machine's clock is not the host's")?;
        Ok(f64::from(nanoseconds) / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_instruction_is_told_and_is_behind_the_request() {
        let told = Instant::told_in("noise\nFIRST 2500000\n").unwrap();
        assert!((told.ms_since(Instant(1_000_000)).unwrap() - 1.5).abs() < 1e-9);
        assert!(told.ms_since(Instant(3_000_000)).is_err());
        assert_eq!(Instant::told_in("FIRST \nfirst 3\n"), None);
    }
}
