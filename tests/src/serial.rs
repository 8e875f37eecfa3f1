//! The judge of a guest's continuity: from what its serial console wrote on every host where it ran, and when, says how many
//! ticks were lost or repeated and how long the longest silence was.
//!
//! Silence is measured here, outside, because the guest's own clock stands still while it is paused.

mod recorder;

use std::ops::Range;
use std::time::Duration;

use novacron_guest::tick::{Counters, Tick};
use serde::Serialize;

pub use recorder::Recorder;

/// Bytes that a console log grew by, and when that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Which of the recorded logs.
    pub source: usize,
    /// Since the recording began.
    pub at: Duration,
    /// What was new.
    pub bytes: Vec<u8>,
}

/// A whole line. Its time and source are those of the chunk that ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which of the recorded logs.
    pub source: usize,
    /// Since the recording began.
    pub at: Duration,
    /// Without the line's end.
    pub text: String,
}

/// What the judge found.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Verdict {
    /// Whole ticks seen.
    pub ticks: u64,
    /// Numbers that were jumped over.
    pub lost: u64,
    /// Ticks whose number was not higher than the one before: the guest went back, or ran twice.
    pub repeated: u64,
    /// Lines that began like a tick and were none.
    pub garbled: u64,
    /// Times that the guest booted.
    pub boots: u64,
    /// Pages that the guest found wrong.
    pub bad_pages: u64,
    /// Disk blocks that the guest found wrong, and disk calls that failed.
    pub disk_bad: u64,
    /// The longest time between the arrival of two neighbouring ticks, in milliseconds. The tick period is part of it.
    pub blackout_ms_max: f64,
    /// The guest's totals at the last tick.
    #[serde(skip)]
    pub last: Counters,
    /// What the guest complained about.
    pub complaints: Vec<String>,
}

impl Verdict {
    /// Whether one guest ran on without a gap, and neither its memory nor its disk was ever wrong.
    #[must_use]
    pub fn is_continuous(&self) -> bool {
        let faults = self.lost + self.repeated + self.garbled + self.bad_pages + self.disk_bad;
        self.ticks > 0 && faults == 0 && self.boots <= 1
    }
}

/// Joins the chunks of all logs in the order of their arrival and cuts them into lines. A guest that moves in the middle of a
/// line ends it on the other host.
#[must_use]
pub fn lines(chunks: &[Chunk]) -> Vec<Line> {
    let (mut lines, mut open) = (Vec::new(), Vec::new());
    for chunk in chunks {
        for &byte in &chunk.bytes {
            if byte != b'\n' {
                open.push(byte);
                continue;
            }
            let text = String::from_utf8_lossy(&open).trim_end_matches('\r').to_owned();
            lines.push(Line { source: chunk.source, at: chunk.at, text });
            open.clear();
        }
    }
    lines
}

/// Judges a recording from its first tick on.
#[must_use]
pub fn judge(chunks: &[Chunk]) -> Verdict {
    let (mut verdict, mut before) = (Verdict::default(), None);
    for line in lines(chunks) {
        match Kind::of(&line.text) {
            Kind::Boot => {
                verdict.boots += 1;
                before = None;
            }
            Kind::Tick(tick) => {
                verdict.take(tick, line.at, before);
                before = Some((tick.number.max(before.map_or(0, |(number, _)| number)), line.at));
            }
            Kind::Garbled => verdict.garbled += 1,
            Kind::Complaint => verdict.complaints.push(line.text),
            Kind::Other => {}
        }
    }
    verdict
}

/// The longest time between two neighbouring ticks of which at least one arrived within `span`, in milliseconds.
#[must_use]
pub fn longest_silence_ms(chunks: &[Chunk], span: &Range<Duration>) -> f64 {
    let lines = lines(chunks);
    let ticks = lines.iter().filter(|line| matches!(Kind::of(&line.text), Kind::Tick(_)));
    let times: Vec<Duration> = ticks.map(|line| line.at).collect();
    let touching = times.windows(2).filter(|pair| pair[1] >= span.start && pair[0] < span.end);
    touching.map(|pair| millis(pair[1].saturating_sub(pair[0]))).fold(0.0, f64::max)
}

enum Kind {
    Boot,
    Tick(Tick),
    Garbled,
    Complaint,
    Other,
}

impl Kind {
    fn of(text: &str) -> Self {
        match text.split(' ').next() {
            Some("T") => text.parse().map_or(Self::Garbled, Self::Tick),
            Some("READY") => Self::Boot,
            Some("BAD" | "FAULT" | "REFUSED" | "UNKNOWN") => Self::Complaint,
            _ => Self::Other,
        }
    }
}

impl Verdict {
    fn take(&mut self, tick: Tick, at: Duration, before: Option<(u64, Duration)>) {
        self.ticks += 1;
        self.bad_pages = self.bad_pages.max(tick.counters.bad);
        self.disk_bad = self.disk_bad.max(tick.counters.disk_bad);
        self.last = tick.counters;
        let Some((number, then)) = before else { return };
        match tick.number.checked_sub(number) {
            None | Some(0) => self.repeated += 1,
            Some(step) => self.lost += step - 1,
        }
        self.blackout_ms_max = self.blackout_ms_max.max(millis(at.saturating_sub(then)));
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(number: u64) -> String {
        let counters = Counters { pages: number, ..Counters::default() };
        format!("{}\n", Tick { number, guest_us: number * 10_000, counters })
    }

    fn chunk(source: usize, at_ms: u64, text: &str) -> Chunk {
        Chunk { source, at: Duration::from_millis(at_ms), bytes: text.as_bytes().to_vec() }
    }

    /// Ticks ten milliseconds apart.
    fn recording(numbers: &[u64]) -> Vec<Chunk> {
        numbers.iter().zip(1..).map(|(&number, n)| chunk(0, n * 10, &tick(number))).collect()
    }

    #[test]
    fn an_unbroken_run_is_continuous() {
        let verdict = judge(&recording(&[1, 2, 3, 4, 5]));
        assert!(verdict.is_continuous(), "{verdict:?}");
        assert_eq!((verdict.ticks, verdict.last.pages), (5, 5));
        assert!((verdict.blackout_ms_max - 10.0).abs() < 0.001);
    }

    #[test]
    fn a_dropped_tick_is_lost() {
        let verdict = judge(&recording(&[1, 2, 4, 5]));
        assert_eq!((verdict.ticks, verdict.lost, verdict.repeated), (4, 1, 0));
        assert!(!verdict.is_continuous());
    }

    #[test]
    fn a_repeated_tick_is_repeated() {
        let verdict = judge(&recording(&[1, 2, 2, 3]));
        assert_eq!((verdict.ticks, verdict.lost, verdict.repeated), (4, 0, 1));
        assert!(!verdict.is_continuous());
    }

    #[test]
    fn a_guest_that_went_back_is_seen_as_often_as_it_repeats() {
        let verdict = judge(&recording(&[7, 8, 9, 8, 9, 10]));
        assert_eq!((verdict.lost, verdict.repeated), (0, 2));
    }

    #[test]
    fn a_tick_split_by_the_move_is_whole_again() {
        let line = tick(2);
        let (head, tail) = line.split_at(9);
        let chunks =
            [chunk(0, 10, &tick(1)), chunk(0, 20, head), chunk(1, 320, tail), chunk(1, 330, &tick(3))];
        let verdict = judge(&chunks);
        assert!(verdict.is_continuous(), "{verdict:?}");
        assert!((verdict.blackout_ms_max - 310.0).abs() < 0.001, "{verdict:?}");
        assert_eq!(lines(&chunks)[1].source, 1);
    }

    #[test]
    fn a_byte_lost_in_the_move_costs_a_tick() {
        let line = tick(2);
        let chunks = [
            chunk(0, 10, &tick(1)),
            chunk(0, 20, &line[..9]),
            chunk(1, 30, &line[10..]),
            chunk(1, 40, &tick(3)),
        ];
        let verdict = judge(&chunks);
        assert_eq!((verdict.garbled, verdict.lost), (1, 1));
        assert!(!verdict.is_continuous());
    }

    #[test]
    fn a_second_boot_breaks_continuity_but_repeats_nothing() {
        let text = format!("READY pages=1\n{}{}READY pages=1\n{}", tick(1), tick(2), tick(1));
        let verdict = judge(&[chunk(0, 0, &text)]);
        assert_eq!((verdict.boots, verdict.lost, verdict.repeated), (2, 0, 0));
        assert!(!verdict.is_continuous());
    }

    #[test]
    fn bad_pages_and_complaints_are_kept() {
        let counters = Counters { bad: 2, disk_bad: 1, ..Counters::default() };
        let text = format!("BAD page 7\r\n{}\n", Tick { number: 1, guest_us: 0, counters });
        let verdict = judge(&[chunk(0, 0, &text)]);
        assert_eq!((verdict.bad_pages, verdict.disk_bad), (2, 1));
        assert_eq!(verdict.complaints, ["BAD page 7"]);
        assert!(!verdict.is_continuous());
    }

    #[test]
    fn nothing_at_all_is_not_continuous() {
        assert!(!judge(&[]).is_continuous());
    }

    #[test]
    fn silence_is_found_within_its_span_only() {
        let chunks: Vec<Chunk> = [(10, 1), (20, 2), (200, 3), (210, 4), (600, 5)]
            .map(|(at, number)| chunk(0, at, &tick(number)))
            .to_vec();
        let within =
            |from, to| longest_silence_ms(&chunks, &(Duration::from_millis(from)..Duration::from_millis(to)));
        assert!((within(0, 205) - 180.0).abs() < 0.001);
        assert!((within(50, 100) - 180.0).abs() < 0.001, "a silence that spans the whole window counts");
        assert!((within(300, 700) - 390.0).abs() < 0.001);
    }
}
