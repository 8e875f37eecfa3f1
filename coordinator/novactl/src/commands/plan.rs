//! A move that is only thought of, for people: the guest, a table of hosts, and what speaks against each.

use super::Context;
use crate::{
    cli::Format,
    error::CtlError,
    output::{self, Row, word},
};
use novacron_common::{
    api::{Actual, Candidate, MigrationPlan, PlannedGuest},
    record::{Forecast, Interval},
    units::ByteCount,
};

/// A candidate, as a line of the table.
struct Line<'a>(&'a Candidate);

impl serde::Serialize for Line<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Row for Line<'_> {
    const TITLES: &'static [&'static str] =
        &["host", "link", "round trip", "time", "blackout", "bytes", "ends by", "possible"];
    fn cells(&self) -> Vec<String> {
        let Candidate { name, chosen, possible, link, forecast, .. } = self.0;
        let mark = if *chosen { "*" } else { "" };
        let dash = || "-".to_owned();
        let of = |show: fn(&Forecast) -> String| forecast.as_ref().map_or_else(dash, show);
        vec![
            format!("{name}{mark}"),
            link.rate.map_or_else(dash, |rate| format!("{}/s", ByteCount(rate))),
            link.round_trip_us.map_or_else(dash, round_trip),
            of(|forecast| around(forecast.total_ms, millis)),
            of(|forecast| around(forecast.blackout_ms, millis)),
            of(|forecast| around(forecast.wire_bytes, bytes)),
            of(ending),
            if *possible { "yes" } else { "no" }.to_owned(),
        ]
    }
}

/// Prints it.
pub fn show(context: &Context, plan: &MigrationPlan) -> Result<(), CtlError> {
    if context.format == Format::Json {
        return output::json(plan);
    }
    output::line(&about(&plan.name, &plan.guest))?;
    let lines: Vec<_> = plan.candidates.iter().map(Line).collect();
    output::list(&lines, context.format)?;
    plan.candidates
        .iter()
        .flat_map(remarks)
        .chain(plan.guest.notes.clone())
        .try_for_each(|line| output::line(&line))
}

fn about(name: &str, guest: &PlannedGuest) -> String {
    let in_use =
        guest.in_use_bytes.map_or_else(String::new, |bytes| format!(", {} in use", ByteCount(bytes)));
    let dirty = guest.dirty.map_or_else(String::new, |dirty| {
        let (rate, set) = (ByteCount(dirty.bytes_per_second), ByteCount(dirty.working_set_bytes));
        format!(", writes {rate} a second to {set} of it")
    });
    let disk = match guest.disk_bytes {
        0 => String::new(),
        bytes => format!(", {} of disk", ByteCount(bytes)),
    };
    format!("{name}: {} of memory{in_use}{dirty}{disk}", ByteCount(guest.memory_bytes))
}

/// What speaks against a host, and what is not known of it.
fn remarks(candidate: &Candidate) -> Vec<String> {
    let name = &candidate.name;
    let fault = |fault: &novacron_common::record::PreflightFault| {
        let how = if fault.certain { "" } else { " (warning)" };
        format!("{name}: {}{how}: {}; {}", word(&fault.kind), fault.text, fault.remedy)
    };
    let risk =
        candidate.forecast.filter(|forecast| forecast.limit.is_none()).and_then(|forecast| forecast.at_risk);
    let risk = risk
        .map(|limit| format!("{name}: at worst {} ends it, and the machine stays where it is", word(&limit)));
    let split = candidate.forecast.filter(|forecast| forecast.may_split).map(|_| {
        format!(
            "{name}: it may end by post-copy; if the link or a host fails just then, the guest stands still until both are \
             back, or is lost"
        )
    });
    let link = candidate.link.note.iter().map(|note| format!("{name}: the way there: {note}"));
    candidate.faults.iter().map(fault).chain(risk).chain(split).chain(link).collect()
}

fn ending(forecast: &Forecast) -> String {
    match forecast.limit {
        None => word(&forecast.rung),
        Some(limit) => format!("stays: {}", word(&limit)),
    }
}

/// A forecast beside what happened, where that is known.
pub fn beside(forecast: &Forecast, actual: Option<&Actual>) -> Vec<(&'static str, String)> {
    let line = |interval, show: fn(u64) -> String, actual: Option<u64>| {
        let forecast = around(interval, show);
        actual.map_or_else(|| forecast.clone(), |actual| format!("{forecast}, took {}", show(actual)))
    };
    vec![
        ("forecast", format!("{}, from {} earlier moves", ending(forecast), forecast.basis.moves)),
        ("time", line(forecast.total_ms, millis, actual.map(|a| a.total_ms))),
        ("blackout", line(forecast.blackout_ms, millis, actual.and_then(|a| a.blackout_ms))),
        ("bytes sent", line(forecast.wire_bytes, bytes, actual.map(|a| a.wire_bytes))),
    ]
}

/// `12.0 s (9.5 s to 17.1 s)`.
fn around(interval: Interval, show: fn(u64) -> String) -> String {
    format!("{} ({} to {})", show(interval.expected), show(interval.low), show(interval.high))
}

fn millis(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..600_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min", ms / 60_000),
    }
}

fn bytes(bytes: u64) -> String {
    ByteCount(bytes).to_string()
}

fn round_trip(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        api::PlannedLink,
        ids::HostId,
        record::{Limit, PreflightFault, PreflightKind, Rung},
    };

    fn candidate() -> Candidate {
        let forecast = Forecast {
            total_ms: Interval { low: 900, expected: 12_050, high: 700_000 },
            blackout_ms: Interval { low: 20, expected: 80, high: 300 },
            wire_bytes: Interval { low: 1 << 20, expected: 1 << 30, high: 1 << 31 },
            rung: Rung::LongerPause,
            limit: None,
            at_risk: Some(Limit::Deadline),
            may_split: true,
            ..Forecast::default()
        };
        Candidate {
            host: HostId::from_u128(1),
            name: "host-2".to_owned(),
            chosen: true,
            possible: true,
            faults: vec![PreflightFault::warning(PreflightKind::Image, "one is missing", "nothing")],
            link: PlannedLink { rate: Some(125 << 20), round_trip_us: Some(1234), note: None },
            forecast: Some(forecast),
        }
    }

    #[test]
    fn a_host_is_a_line_with_its_intervals() {
        let wanted = [
            "host-2*",
            "125.0 MiB/s",
            "1.23 ms",
            "12.0 s (900 ms to 11 min)",
            "80 ms (20 ms to 300 ms)",
            "1.0 GiB (1.0 MiB to 2.0 GiB)",
            "longer_pause",
            "yes",
        ];
        assert_eq!(Line(&candidate()).cells(), wanted);
        let none = Candidate {
            forecast: None,
            link: PlannedLink::default(),
            possible: false,
            chosen: false,
            ..candidate()
        };
        assert_eq!(Line(&none).cells(), ["host-2", "-", "-", "-", "-", "-", "-", "no"]);
    }

    #[test]
    fn faults_have_their_remedies_and_a_risk_is_named() {
        let wanted = [
            "host-2: image (warning): one is missing; nothing",
            "host-2: at worst deadline ends it, and the machine stays where it is",
            "host-2: it may end by post-copy; if the link or a host fails just then, the guest stands still until both are \
             back, or is lost",
        ];
        assert_eq!(remarks(&candidate()), wanted);
    }

    #[test]
    fn a_forecast_stands_beside_what_happened() {
        let forecast = candidate().forecast.unwrap();
        let actual = Actual { total_ms: 11_000, blackout_ms: None, wire_bytes: 1 << 29 };
        let lines = beside(&forecast, Some(&actual));
        assert_eq!(lines[1], ("time", "12.0 s (900 ms to 11 min), took 11.0 s".to_owned()));
        assert_eq!(lines[2], ("blackout", "80 ms (20 ms to 300 ms)".to_owned()));
        assert!(beside(&forecast, None)[1].1.ends_with("11 min)"));
    }
}
