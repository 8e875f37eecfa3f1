//! The tick line: how the guest proves on its serial console that it runs, once, without a gap.
//!
//! `T 17 1700.123 pages=40 pokes=0 passes=1 bad=0 dw=5 dr=5 db=0 *1f2e3d4c`: number, milliseconds of the guest's monotonic
//! clock, counters, and a checksum over all before it, so that a line garbled by a move is not taken for a tick.

use std::fmt;
use std::str::FromStr;

use crate::hash;

/// Running totals since the guest booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Whole pages rewritten.
    pub pages: u64,
    /// 8-byte writes.
    pub pokes: u64,
    /// Times that the whole working set has been verified.
    pub passes: u64,
    /// Pages found wrong.
    pub bad: u64,
    /// Disk blocks written.
    pub disk_writes: u64,
    /// Disk blocks read back and compared.
    pub disk_reads: u64,
    /// Disk blocks found wrong, and disk calls that failed.
    pub disk_bad: u64,
}

/// One tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// 1 for the first after boot, then one more each time.
    pub number: u64,
    /// The guest's CLOCK_MONOTONIC, in microseconds. It stands still while the guest is paused.
    pub guest_us: u64,
    /// Totals at that moment.
    pub counters: Counters,
}

/// A line that begins like a tick and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbled;

impl Tick {
    fn body(&self) -> String {
        let c = &self.counters;
        format!(
            "T {} {}.{:03} pages={} pokes={} passes={} bad={} dw={} dr={} db={}",
            self.number,
            self.guest_us / 1000,
            self.guest_us % 1000,
            c.pages,
            c.pokes,
            c.passes,
            c.bad,
            c.disk_writes,
            c.disk_reads,
            c.disk_bad
        )
    }
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        write!(f, "{body} *{:08x}", checksum(&body))
    }
}

impl FromStr for Tick {
    type Err = Garbled;

    fn from_str(line: &str) -> Result<Self, Garbled> {
        let (body, sum) = line.rsplit_once(" *").ok_or(Garbled)?;
        if u64::from_str_radix(sum, 16) != Ok(checksum(body)) {
            return Err(Garbled);
        }
        parse_body(body).ok_or(Garbled)
    }
}

fn checksum(body: &str) -> u64 {
    hash::of_bytes(body.as_bytes()) & 0xffff_ffff
}

fn parse_body(body: &str) -> Option<Tick> {
    let mut words = body.strip_prefix("T ")?.split(' ');
    let number = words.next()?.parse().ok()?;
    let (ms, us) = words.next()?.split_once('.')?;
    let guest_us = ms.parse::<u64>().ok()? * 1000 + us.parse::<u64>().ok()?;
    let mut field = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=')?.parse().ok();
    let counters = Counters {
        pages: field("pages")?,
        pokes: field("pokes")?,
        passes: field("passes")?,
        bad: field("bad")?,
        disk_writes: field("dw")?,
        disk_reads: field("dr")?,
        disk_bad: field("db")?,
    };
    Some(Tick { number, guest_us, counters })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick() -> Tick {
        let counters =
            Counters { pages: 1, pokes: 2, passes: 3, bad: 4, disk_writes: 5, disk_reads: 6, disk_bad: 7 };
        Tick { number: 42, guest_us: 1_234_005, counters }
    }

    #[test]
    fn a_tick_survives_its_text() {
        assert_eq!(tick().to_string().parse(), Ok(tick()));
        assert!(tick().to_string().starts_with("T 42 1234.005 pages=1 "));
    }

    #[test]
    fn a_changed_doubled_or_missing_character_is_seen() {
        let line = tick().to_string();
        for at in 0..line.len() - 9 {
            let doubled = format!("{}{}", &line[..=at], &line[at..]);
            let missing = format!("{}{}", &line[..at], &line[at + 1..]);
            assert_eq!(doubled.parse::<Tick>(), Err(Garbled), "{doubled}");
            assert_eq!(missing.parse::<Tick>(), Err(Garbled), "{missing}");
        }
    }
}
