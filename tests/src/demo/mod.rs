//! The demo: one coordinator and two hosts on this machine; a guest that ticks, rewrites its memory and writes to its disk
//! is moved live to the other host and back while a job fires every five seconds.
//!
//! [`story`] lets it happen and collects what was seen ([`evidence`]); [`findings`] judges that and nothing else, so that
//! [`self_check`] can show that spoilt evidence is found out.

mod evidence;
mod findings;
mod fires;
mod report;
mod self_check;
mod story;

use std::path::PathBuf;

use anyhow::Result;

use crate::bins;
pub use findings::Findings;
pub use report::Report;
pub use story::Kept;

/// How the demo is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// Leave the cluster up.
    pub keep: bool,
}

/// How the demo ended.
pub struct Outcome {
    /// What was found.
    pub findings: Findings,
    /// The same in plain words.
    pub words: String,
    /// Where the report and the serial logs are.
    pub folder: PathBuf,
    /// How to reach the cluster, if it was left up.
    pub kept: Option<Kept>,
}

/// Runs the demo and writes its report; `say` is told what happens.
///
/// # Errors
/// When a step fails outright. What merely did not hold is in the outcome's findings.
pub fn run(settings: Settings, say: &dyn Fn(&str)) -> Result<Outcome> {
    let folder = bins::target_dir()?.join("demo");
    report::clear(&folder)?;
    let told = story::tell(settings, say)?;
    let mut findings = Findings::of(&told.evidence);
    findings.faults.extend(told.leftovers);
    findings.faults.extend(self_check::faults(&told.evidence));
    report::write(&folder, &told.evidence, &findings)?;
    let words = report::Words { evidence: &told.evidence, findings: &findings }.to_string();
    Ok(Outcome { findings, words, folder, kept: told.kept })
}
