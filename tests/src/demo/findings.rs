//! The verdict: a pure function of the evidence.

use super::evidence::Evidence;
use super::fires::{self, FireCount};
use super::report::{MoveReport, Report};
use crate::lab::Counts;
use crate::serial::{Verdict, judge, longest_silence_ms};

/// The figures, and what did not hold.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The figures.
    pub report: Report,
    /// Each in plain words; empty: everything held.
    pub faults: Vec<String>,
}

impl Findings {
    /// Judges the evidence.
    #[must_use]
    pub fn of(evidence: &Evidence) -> Self {
        let (verdict, fires) =
            (judge(&evidence.chunks), fires::count(evidence.window, fires::SCHEDULE.1, &evidence.fires));
        let report = report(evidence, &verdict, fires);
        let mut faults = Faults::default();
        guest(&mut faults, evidence, &verdict);
        network(&mut faults, evidence);
        job(&mut faults, fires);
        Self { report, faults: faults.0 }
    }

    /// Whether everything held.
    #[must_use]
    pub fn hold(&self) -> bool {
        self.faults.is_empty()
    }
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn unless(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.0.push(fault());
        }
    }
}

fn report(evidence: &Evidence, verdict: &Verdict, fires: FireCount) -> Report {
    let moves = evidence.moves.iter().map(|made| MoveReport {
        bytes: made.bytes,
        seconds: made.seconds,
        blackout_ms: longest_silence_ms(&evidence.chunks, &made.span),
    });
    Report {
        vm_ticks: verdict.ticks,
        ticks_lost: verdict.lost + verdict.garbled,
        ticks_repeated: verdict.repeated,
        memory_pages_bad: verdict.bad_pages,
        disks_equal: evidence.disk_by_guest == evidence.disk_by_host && verdict.disk_bad == 0,
        connection_survived: evidence.connection.fault.is_none() && evidence.connection.answered > 0,
        blackout_ms_max: verdict.blackout_ms_max,
        migrations: moves.collect(),
        fires_due: fires.due,
        fires_done: fires.done,
        fires_repeated: fires.repeated,
    }
}

fn guest(faults: &mut Faults, evidence: &Evidence, verdict: &Verdict) {
    faults.unless(verdict.is_continuous(), || format!("the guest did not run on without a gap: {verdict:?}"));
    faults.unless(verdict.boots == 1, || format!("the guest booted {} times", verdict.boots));
    faults.unless(
        verdict.last.pages > 0 && verdict.last.disk_writes > 0 && verdict.last.disk_reads > 0,
        || format!("the guest did not work: {:?}", verdict.last),
    );
    faults.unless(evidence.passes_after > 0, || {
        "the guest's memory was not checked in full after the moves".to_owned()
    });
    faults.unless(evidence.disk_by_guest == evidence.disk_by_host, || {
        let (guest, host) = (evidence.disk_by_guest, evidence.disk_by_host);
        format!("the guest read {guest:016x} from its disk, the image on the host holds {host:016x}")
    });
    let hosts_heard = (0..evidence.hosts.len())
        .filter(|source| evidence.chunks.iter().any(|chunk| chunk.source == *source));
    faults.unless(hosts_heard.count() == evidence.hosts.len(), || {
        "the guest did not speak on every host".to_owned()
    });
    faults.unless(evidence.moves.len() == 2, || format!("{} moves were made, not 2", evidence.moves.len()));
}

fn network(faults: &mut Faults, evidence: &Evidence) {
    let connection = &evidence.connection;
    faults.unless(connection.fault.is_none() && connection.answered > 0, || {
        format!(
            "the connection to the guest broke after {} answers: {:?}",
            connection.answered, connection.fault
        )
    });
    let Counts { udp_agent, udp_other, tcp, other, needles, dropped, bytes } = evidence.wire;
    faults.unless(udp_agent > 0, || "no packet to an agent's port was seen on the wire".to_owned());
    faults.unless(udp_other + tcp + other == 0, || {
        format!("between the hosts passed {udp_other} other UDP, {tcp} TCP and {other} other packets")
    });
    faults.unless(needles == 0, || format!("the guest's memory was readable in {needles} packets"));
    faults.unless(dropped == 0, || format!("{dropped} packets were not looked at"));
    let moved: u64 = evidence.moves.iter().map(|made| made.bytes).sum();
    faults.unless(bytes >= moved && moved > 0, || {
        format!("{bytes} bytes on the wire cannot have carried {moved}")
    });
}

fn job(faults: &mut Faults, fires: FireCount) {
    let FireCount { due, done, repeated } = fires;
    faults.unless(due > 0 && done == due, || format!("of {due} fires due, {done} were done"));
    faults.unless(repeated == 0, || format!("{repeated} fires were repeated"));
}

#[cfg(test)]
mod tests {
    use super::super::self_check::tests::evidence;
    use super::*;

    fn first_fault(spoil: impl FnOnce(&mut Evidence)) -> String {
        let mut evidence = evidence();
        spoil(&mut evidence);
        Findings::of(&evidence).faults.first().cloned().unwrap_or_default()
    }

    #[test]
    fn sound_evidence_holds() {
        let findings = Findings::of(&evidence());
        assert!(findings.hold(), "{:?}", findings.faults);
        assert_eq!((findings.report.fires_due, findings.report.fires_done), (3, 3));
        assert_eq!(findings.report.migrations.len(), 2);
    }

    #[test]
    fn each_kind_of_fault_is_said() {
        assert!(first_fault(|e| e.wire.tcp = 1).contains("1 TCP"));
        assert!(first_fault(|e| e.wire.needles = 2).contains("readable in 2"));
        assert!(first_fault(|e| e.wire.dropped = 3).contains("3 packets were not looked at"));
        assert!(first_fault(|e| e.disk_by_host ^= 1).contains("image on the host"));
        assert!(first_fault(|e| e.connection.fault = Some("reset".to_owned())).contains("reset"));
        assert!(first_fault(|e| e.passes_after = 0).contains("not checked in full"));
        assert!(first_fault(|e| drop(e.moves.pop())).contains("1 moves"));
        assert!(first_fault(|e| e.chunks.retain(|chunk| chunk.source == 0)).contains("without a gap"));
    }
}
