//! The rows of each scenario, with their goals. Pure.

use super::{CUT, Measured};
use crate::{
    moves::{Mover, Run, Series, ours_of},
    report::Row,
    stats::percentile,
};
use anyhow::{Context, Result};

/// A cut may cost so much more than it lasts, seconds.
const CUT_EXTRA: f64 = 2.0;
const BLACKOUT_P50_MS: f64 = 50.0;
const BLACKOUT_MAX_MS: f64 = 300.0;
const AGENT_MIB: f64 = 256.0;
/// Of the bytes of the first trip.
const RETURN: f64 = 0.1;
/// Of a guest's work, in per cent.
const SLOWED_PCT: f64 = 5.0;

/// A forecast may be off by so much, parts of what it took …
const FORECAST_OFF: f64 = 0.2;
/// … in so many of a hundred moves.
const FORECAST_PCT: f64 = 90.0;

const SECONDS: fn(&Run) -> f64 = |run| run.seconds;
const MIB: fn(&Run) -> f64 = |run| run.mib;

/// 1.3 times faster than QEMU's best compression, and fewer bytes.
pub fn files(measured: &Measured) -> Result<Vec<Row>> {
    let peer = peer(measured, Mover::MultifdZstd)?;
    Ok(vec![
        beside("files", measured, peer, "s", SECONDS, Some(1.0 / 1.3))?,
        beside("files", measured, peer, "MiB", MIB, Some(1.0))?,
    ])
}

/// As fast as QEMU where nothing is to be gained; a cut costs little more than it lasts.
pub fn noise(measured: &Measured) -> Result<Vec<Row>> {
    let plain = peer(measured, Mover::Plain)?;
    let cut = measured.cut.as_ref().context("no move was cut")?;
    let extra = cut.median(SECONDS) - ours_of(&measured.all)?.median(SECONDS);
    Ok(vec![
        beside("noise", measured, plain, "s", SECONDS, Some(1.05))?,
        beside("noise", measured, plain, "MiB", MIB, Some(1.02))?,
        Row::at_most("5 s cut in the middle, extra time", "s", extra, CUT.as_secs_f64() + CUT_EXTRA),
    ])
}

/// 1.3 times faster than QEMU's best compression over what TCP there is (BBR on our machines: a network namespace may not choose).
pub fn far(measured: &Measured) -> Result<Vec<Row>> {
    let peer = peer(measured, Mover::MultifdZstd)?;
    Ok(vec![
        beside("far", measured, peer, "s", SECONDS, Some(1.0 / 1.3))?,
        beside("far", measured, peer, "MiB", MIB, None)?,
    ])
}

/// 1.4 times faster than the fastest of QEMU's modes.
pub fn busy(measured: &Measured) -> Result<Vec<Row>> {
    let peers = measured.all.iter().filter(|series| series.mover != Mover::Ours);
    let best = peers.clone().min_by(|a, b| a.median(SECONDS).total_cmp(&b.median(SECONDS)));
    let best = best.context("no peer")?.mover;
    let goal = |peer: Mover| (peer == best).then_some(1.0 / 1.4);
    let mut rows = Vec::new();
    for peer in peers {
        rows.push(beside("busy", measured, peer, "s", SECONDS, goal(peer.mover))?);
    }
    for (series, slowed) in measured.all.iter().zip(&measured.slowed) {
        rows.push(Row::told(&format!("busy, slowed by {}", series.mover.name()), "%", slowed * 100.0));
    }
    Ok(rows)
}

/// Encrypted, and nearly as fast as QEMU in the clear.
pub fn unshaped(measured: &Measured) -> Result<Vec<Row>> {
    let (multifd, tls) = (peer(measured, Mover::Multifd)?, peer(measured, Mover::Tls)?);
    Ok(vec![
        beside("unshaped", measured, multifd, "s", SECONDS, Some(1.0 / 0.8))?,
        beside("unshaped", measured, tls, "s", SECONDS, Some(1.0))?,
    ])
}

/// Of an idle guest.
pub fn blackout_idle(measured: &Measured) -> Result<Vec<Row>> {
    blackout("idle", measured)
}

/// Of a busy one.
pub fn blackout_busy(measured: &Measured) -> Result<Vec<Row>> {
    blackout("busy", measured)
}

fn blackout(guest: &str, measured: &Measured) -> Result<Vec<Row>> {
    let silences = |series: &Series| series.runs.iter().map(|run| run.blackout_ms).collect::<Vec<_>>();
    let (ours, peer) = (silences(ours_of(&measured.all)?), silences(peer(measured, Mover::Plain)?));
    let p50 = percentile(&peer, 50.0);
    let row = |what: &str, value| Row::told(&format!("blackout, {guest}, {what}"), "ms", value);
    Ok(vec![
        row("unmoved, max", measured.calm_ms[0]),
        row("QEMU's p50", p50),
        row("QEMU's max", percentile(&peer, 100.0)),
        Row::at_most(
            &format!("blackout, {guest}, p50"),
            "ms",
            percentile(&ours, 50.0),
            BLACKOUT_P50_MS.max(p50 * 1.1),
        ),
        Row::at_most(&format!("blackout, {guest}, max"), "ms", percentile(&ours, 100.0), BLACKOUT_MAX_MS),
    ])
}

/// No slower than under QEMU, and hardly at all.
pub fn slow_down(measured: &Measured) -> Result<Vec<Row>> {
    let of = |mover| {
        measured.all.iter().position(|series| series.mover == mover).map(|at| measured.slowed[at] * 100.0)
    };
    let ours = of(Mover::Ours).context("ours was not measured")?;
    let plain = of(Mover::Plain).context("QEMU plain was not measured")?;
    Ok(vec![
        Row::beside("slow-down while moving", "%", ours, (Mover::Plain.name(), plain), Some(1.0)),
        Row::at_most("slow-down while moving, aim", "%", ours, SLOWED_PCT),
    ])
}

/// Of each move by us whose link was left alone: what it was expected to take, of what it took.
pub fn forecasts(measured: &Measured) -> Vec<f64> {
    let runs = ours_of(&measured.all).map(|ours| &ours.runs[..]).unwrap_or_default();
    runs.iter().filter_map(|run| Some(run.agents?.forecast_seconds / run.seconds)).collect()
}

/// Nine of ten within a fifth.
pub fn forecast_row(forecasts: &[f64]) -> Option<Row> {
    let hits = forecasts.iter().filter(|of_actual| (**of_actual - 1.0).abs() <= FORECAST_OFF);
    #[allow(clippy::cast_precision_loss)]
    let percent = hits.count() as f64 * 100.0 / forecasts.len() as f64;
    let name = format!("forecast within 20 % of the time, of {} moves", forecasts.len());
    (!forecasts.is_empty()).then(|| Row::more_than(&name, "%", percent, ("goal", FORECAST_PCT), Some(1.0)))
}

/// A tenth of the first trip's bytes, what the target says of what it holds included.
pub fn returns(measured: &Measured) -> Result<Vec<Row>> {
    let [first, back] = measured.returns.as_ref().context("no machine returned")?;
    let both: fn(&Run) -> f64 = |run| run.mib + run.answered_mib;
    let row = |unit, part: fn(&Run) -> f64, goal| {
        let peer = ("the first trip", first.median(part));
        Row::beside("return after light use", unit, back.median(part), peer, goal)
    };
    Ok(vec![row("MiB", both, Some(RETURN)), row("s", SECONDS, None)])
}

/// What the agents took over all scenarios: the most memory, and processor time for what they moved.
pub fn costs(ours: &[Series]) -> Vec<Row> {
    let agents: Vec<_> =
        ours.iter().flat_map(|one| &one.runs).filter_map(|run| Some((run.agents?, run.mib))).collect();
    let most = |part: fn(&crate::moves::Peaks) -> f64| {
        agents.iter().map(|(agents, _)| part(&agents.peaks)).fold(0.0, f64::max)
    };
    let cpu: f64 = agents.iter().map(|(agents, _)| agents.cpu_seconds).sum();
    let gib: f64 = agents.iter().map(|(_, mib)| mib / 1024.0).sum();
    vec![
        Row::at_most("agent memory, source, peak RSS", "MiB", most(|peaks| peaks.source_mib), AGENT_MIB),
        Row::at_most("agent memory, target, peak RSS", "MiB", most(|peaks| peaks.target_mib), AGENT_MIB),
        Row::told("CPU-seconds of both agents a GiB on the wire", "s", cpu / gib),
    ]
}

fn beside(
    what: &str,
    measured: &Measured,
    peer: &Series,
    unit: &'static str,
    part: fn(&Run) -> f64,
    goal: Option<f64>,
) -> Result<Row> {
    let name = format!("{what} vs {}", peer.mover.name());
    let ours = ours_of(&measured.all)?.median(part);
    Ok(Row::beside(&name, unit, ours, (peer.mover.name(), peer.median(part)), goal))
}

fn peer(measured: &Measured, mover: Mover) -> Result<&Series> {
    measured
        .all
        .iter()
        .find(|series| series.mover == mover)
        .with_context(|| format!("{} was not measured", mover.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn series(mover: Mover, seconds: f64) -> Series {
        let span = Duration::ZERO..Duration::ZERO;
        let run =
            Run { seconds, mib: 100.0, answered_mib: 1.0, blackout_ms: seconds * 10.0, span, agents: None };
        Series { mover, runs: vec![run] }
    }

    fn measured(all: Vec<Series>) -> Measured {
        let slowed = vec![0.02; all.len()];
        Measured { all, calm_ms: [8.0; 2], cut: None, returns: None, slowed }
    }

    #[test]
    fn busy_is_held_against_the_fastest_peer_even_if_others_never_ended() {
        let all =
            [(Mover::Plain, f64::INFINITY), (Mover::Xbzrle, 9.0), (Mover::PostCopy, 7.0), (Mover::Ours, 6.0)];
        let rows = busy(&measured(all.map(|(mover, seconds)| series(mover, seconds)).into())).unwrap();
        let judged: Vec<_> = rows.iter().filter(|row| row.goal != "-").collect();
        assert_eq!(judged.len(), 1);
        assert_eq!((judged[0].peer_name.as_str(), judged[0].holds), ("QEMU post-copy", false));
    }

    #[test]
    fn nine_of_ten_forecasts_are_within_a_fifth_of_what_it_took() {
        let mostly: Vec<f64> = [0.81; 5].into_iter().chain([1.19; 4]).chain([3.0]).collect();
        let row = forecast_row(&mostly).unwrap();
        assert!(row.holds && (row.ours - 90.0).abs() < 1e-9, "{row:?}");
        let off: Vec<f64> = [1.0; 8].into_iter().chain([0.79, 1.21]).collect();
        assert!(!forecast_row(&off).unwrap().holds);
        assert!(forecast_row(&[]).is_none());
    }

    #[test]
    fn a_return_is_held_against_its_first_trip_with_what_was_offered() {
        let mut back = series(Mover::Ours, 1.0);
        back.runs[0].mib = 9.0;
        let returns = Some([series(Mover::Ours, 5.0), back]);
        let mut measured = Measured { returns, ..measured(Vec::new()) };
        assert!(returns_row(&measured));
        measured.returns.as_mut().unwrap()[1].runs[0].answered_mib = 2.0;
        assert!(!returns_row(&measured));
    }

    fn returns_row(measured: &Measured) -> bool {
        returns(measured).unwrap()[0].holds
    }

    #[test]
    fn a_blackout_may_be_a_tenth_longer_than_qemus() {
        let all = vec![series(Mover::Plain, 10.0), series(Mover::Ours, 10.5)];
        let rows = blackout("idle", &measured(all)).unwrap();
        assert!(rows[3].holds && rows[4].holds);
        let all = vec![series(Mover::Plain, 1.0), series(Mover::Ours, 10.5)];
        assert!(!blackout("idle", &measured(all)).unwrap()[3].holds);
    }
}
