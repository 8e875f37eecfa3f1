//! Shows that the verdict can fail: a copy of the evidence with one tick dropped, and one with one fire dropped, must not
//! hold. A demo that cannot fail shows nothing.

use super::evidence::Evidence;
use super::findings::Findings;
use super::fires;

/// What the self-check finds wrong with the judge; empty: spoilt evidence is found out.
pub fn faults(evidence: &Evidence) -> Vec<String> {
    let tick =
        Findings::of(&without_a_tick(evidence)).report.ticks_lost > Findings::of(evidence).report.ticks_lost;
    let fire = Findings::of(&without_a_fire(evidence));
    let fire = fire.report.fires_done < Findings::of(evidence).report.fires_done && !fire.hold();
    let blind = [(tick, "tick"), (fire, "fire")].into_iter().filter(|(seen, _)| !seen);
    blind.map(|(_, what)| format!("self-check: a dropped {what} was not noticed")).collect()
}

/// A copy in which one whole tick line in the middle of the recording is missing.
fn without_a_tick(evidence: &Evidence) -> Evidence {
    let mut copy = evidence.clone();
    let middle = copy.chunks.len() / 2;
    let cut = copy.chunks.iter_mut().skip(middle).find_map(|chunk| {
        let text = String::from_utf8_lossy(&chunk.bytes).into_owned();
        let line = text.split_inclusive('\n').find(|line| line.starts_with("T ") && line.ends_with('\n'))?;
        chunk.bytes = text.replacen(line, "", 1).into_bytes();
        Some(())
    });
    debug_assert!(cut.is_some() || evidence.chunks.is_empty(), "no chunk holds a whole tick");
    copy
}

/// A copy in which the fire of one instant within the window is missing.
fn without_a_fire(evidence: &Evidence) -> Evidence {
    let mut copy = evidence.clone();
    let at = (evidence.window.from / fires::SCHEDULE.1 + 1) * fires::SCHEDULE.1;
    copy.fires.retain(|fire| fire.scheduled_at.0 != at);
    copy
}

#[cfg(test)]
pub mod tests {
    use std::time::Duration;

    use novacron_common::api::{AttemptView, FireState, FireView};
    use novacron_common::ids::{FireCause, JobId};
    use novacron_common::units::UnixMillis;
    use novacron_guest::tick::{Counters, Tick};

    use super::super::evidence::{Move, Window};
    use super::*;
    use crate::cluster::EchoReport;
    use crate::lab::Counts;
    use crate::serial::Chunk;

    /// Evidence in which everything holds.
    pub fn evidence() -> Evidence {
        let made = |from: &str, to: &str, at: u64| Move {
            from: from.to_owned(),
            to: to.to_owned(),
            span: Duration::from_millis(at)..Duration::from_millis(at + 100),
            bytes: 1000,
            seconds: 0.1,
        };
        Evidence {
            hosts: vec!["h1".to_owned(), "h2".to_owned()],
            chunks: chunks(),
            passes_after: 1,
            moves: vec![made("h1", "h2", 200), made("h2", "h1", 400)],
            connection: EchoReport { answered: 9, longest_wait: Duration::ZERO, fault: None },
            disk_by_guest: 7,
            disk_by_host: 7,
            window: Window { from: 10_000, to: 25_000 },
            fires: [15_000, 20_000, 25_000].map(fire).to_vec(),
            wire: Counts { udp_agent: 5, bytes: 5000, ..Counts::default() },
        }
    }

    fn chunks() -> Vec<Chunk> {
        let counters = Counters { pages: 1, disk_writes: 1, disk_reads: 1, passes: 3, ..Counters::default() };
        let ready = Chunk { source: 0, at: Duration::ZERO, bytes: b"READY pages=1\n".to_vec() };
        let ticks = (1..=60).map(|number| Chunk {
            source: usize::from((20..40).contains(&number)),
            at: Duration::from_millis(number * 10),
            bytes: format!("{}\n", Tick { number, guest_us: number * 10_000, counters }).into_bytes(),
        });
        std::iter::once(ready).chain(ticks).collect()
    }

    fn fire(at: i64) -> FireView {
        let attempt = AttemptView {
            number: 1,
            host: None,
            outcome: "exited(0)".to_owned(),
            exit_code: Some(0),
            output: None,
            started_at: None,
            ended_at: None,
        };
        FireView {
            id: at.to_string(),
            job: JobId::from(uuid::Uuid::nil()),
            scheduled_at: UnixMillis(at),
            committed_at: UnixMillis(at),
            cause: FireCause::Schedule,
            state: FireState::Succeeded,
            late_ms: 0,
            queued: false,
            overdue: false,
            not_before: None,
            unknown_since: None,
            ended_at: None,
            attempts: vec![attempt],
        }
    }

    #[test]
    fn a_dropped_tick_and_a_dropped_fire_are_each_found_out() {
        let evidence = evidence();
        assert_eq!(faults(&evidence), Vec::<String>::new());
        assert!(!Findings::of(&without_a_tick(&evidence)).hold());
        assert!(!Findings::of(&without_a_fire(&evidence)).hold());
    }

    #[test]
    fn evidence_without_fires_and_ticks_does_not_pass_the_self_check() {
        let empty = Evidence { chunks: Vec::new(), fires: Vec::new(), ..evidence() };
        assert_eq!(faults(&empty).len(), 2);
    }
}
