//! The report: `report.json` for programs, plain words for people, and beside them what the verdict was drawn from.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::evidence::Evidence;
use super::findings::Findings;

/// What one move took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MoveReport {
    /// Bytes that the agents sent: memory, device state and disk.
    pub bytes: u64,
    /// From the request to the end, by the coordinator's ledger.
    pub seconds: f64,
    /// Longest time between two ticks, stamped outside, the tick's period included.
    pub blackout_ms: f64,
}

/// `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Ticks seen on the guest's serial consoles.
    pub vm_ticks: u64,
    /// Ticks that are missing or unreadable.
    pub ticks_lost: u64,
    /// Ticks seen twice.
    pub ticks_repeated: u64,
    /// Pages that the guest found wrong.
    pub memory_pages_bad: u64,
    /// Whether the host's image holds what the guest read, and the guest never read anything wrong.
    pub disks_equal: bool,
    /// Whether one TCP connection lived through both moves.
    pub connection_survived: bool,
    /// Longest time between two ticks of the whole run, stamped outside.
    pub blackout_ms_max: f64,
    /// Both moves.
    pub migrations: Vec<MoveReport>,
    /// Instants at which the job was due, by the wall clock.
    pub fires_due: u64,
    /// Of these, done.
    pub fires_done: u64,
    /// Runs too many.
    pub fires_repeated: u64,
}

/// Makes the folder, and removes what an earlier run left: a failed run must not show an old success.
///
/// # Errors
/// When the folder cannot be made or emptied.
pub fn clear(folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))
}

/// Writes the report, the raw serial log of each host, the stamps of all of them, the job's fires and the packet counts.
///
/// # Errors
/// When a file cannot be written.
pub fn write(folder: &Path, evidence: &Evidence, findings: &Findings) -> Result<()> {
    let keep = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
    };
    keep("report.json", &serde_json::to_vec_pretty(&findings.report)?)?;
    keep("fires.json", &serde_json::to_vec_pretty(&evidence.fires)?)?;
    keep("wire.json", &serde_json::to_vec_pretty(&evidence.wire)?)?;
    for (source, host) in evidence.hosts.iter().enumerate() {
        let own = evidence.chunks.iter().filter(|chunk| chunk.source == source);
        let bytes: Vec<u8> = own.flat_map(|chunk| chunk.bytes.iter().copied()).collect();
        keep(&format!("serial-{host}.log"), &bytes)?;
    }
    keep("serial-stamps.log", &stamps(evidence)?)?;
    keep("report.txt", Words { evidence, findings }.to_string().as_bytes())
}

/// Every arrival: milliseconds, host, bytes. With the raw logs it gives the whole recording again.
fn stamps(evidence: &Evidence) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for chunk in &evidence.chunks {
        let host = evidence.hosts.get(chunk.source).map_or("?", String::as_str);
        writeln!(text, "{:.3} {host} {}", chunk.at.as_secs_f64() * 1000.0, chunk.bytes.len())?;
    }
    Ok(text)
}

/// The report in plain words.
pub struct Words<'a> {
    /// What was seen.
    pub evidence: &'a Evidence,
    /// What was made of it.
    pub findings: &'a Findings,
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { evidence, findings } = self;
        let report = &findings.report;
        self.journey(f)?;
        let (ticks, lost, again) = (report.vm_ticks, report.ticks_lost, report.ticks_repeated);
        writeln!(f, "Ticks         {ticks} counted, {lost} lost, {again} repeated")?;
        writeln!(f, "Blackout      {:.0} ms at the longest, seen from outside", report.blackout_ms_max)?;
        writeln!(f, "Memory        {} pages wrong", report.memory_pages_bad)?;
        writeln!(f, "Disks         {}", if report.disks_equal { "equal" } else { "NOT EQUAL" })?;
        let alive = if report.connection_survived { "alive" } else { "BROKEN" };
        let answers = evidence.connection.answered;
        writeln!(f, "Connection    {alive}: one TCP connection, {answers} lines answered in order")?;
        let (wire, mib) = (&evidence.wire, mib(evidence.wire.bytes));
        writeln!(
            f,
            "On the wire   {mib:.1} MiB between the hosts: {} packets to the agents' UDP ports,",
            wire.udp_agent
        )?;
        writeln!(
            f,
            "              {} TCP, {} other, {} with the guest's memory readable",
            wire.tcp,
            wire.udp_other + wire.other,
            wire.needles
        )?;
        let (due, done, again) = (report.fires_due, report.fires_done, report.fires_repeated);
        writeln!(f, "Job           {due} fires due, {done} done, {again} repeated")?;
        self.verdict(f)
    }
}

impl Words<'_> {
    fn journey(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moves = self.evidence.moves.iter();
        let first = self.evidence.moves.first().map_or("nowhere", |made| &made.from);
        writeln!(
            f,
            "The VM ran    {}",
            moves.clone().fold(first.to_owned(), |road, made| format!("{road} -> {}", made.to))
        )?;
        for (made, figures) in moves.zip(&self.findings.report.migrations) {
            let MoveReport { bytes, seconds, blackout_ms } = figures;
            let mib = mib(*bytes);
            writeln!(
                f,
                "  {} -> {}    {mib:.1} MiB in {seconds:.1} s, blackout {blackout_ms:.0} ms",
                made.from, made.to
            )?;
        }
        Ok(())
    }

    fn verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.findings.hold() {
            return writeln!(
                f,
                "Verdict       all of it held, and a dropped tick and a dropped fire would have been noticed"
            );
        }
        writeln!(f, "Verdict       FAILED")?;
        self.findings.faults.iter().try_for_each(|fault| writeln!(f, "  - {fault}"))
    }
}

#[allow(clippy::cast_precision_loss)]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
