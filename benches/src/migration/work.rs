//! What a guest got done, and how long it was silent, while it moved and while it did not.

use crate::{
    guest::COMMAND_LIMIT,
    moves::{Series, Stage},
};
use anyhow::Result;
use novacron_tests::serial::{Chunk, Recorder, judge, longest_silence_ms};
use std::{ops::Range, thread, time::Duration};

/// How long an unmoved guest is watched.
const CALM: Duration = Duration::from_secs(5);

/// The longest silences of ours and the peer's guest while nothing moves, milliseconds.
pub fn calm(stage: &Stage<'_>) -> Result<[f64; 2]> {
    let consoles = [&stage.ours.recorder, &stage.peer_console];
    consoles.iter().try_for_each(|console| console.wait_for_ticks(3, COMMAND_LIMIT))?;
    let began = consoles.map(Recorder::now);
    thread::sleep(CALM);
    let silence = |n: usize| longest_silence_ms(&consoles[n].chunks(), &(began[n]..consoles[n].now()));
    Ok([silence(0), silence(1)])
}

/// By how much each mover slowed its guest down, parts of one: what the guest got done a second during all its moves, of
/// what it got done in the calm seconds before the first.
pub fn slowed(stage: &Stage<'_>, all: &[Series]) -> Vec<f64> {
    all.iter().map(|series| slowed_by(stage.console_of(series.mover), series)).collect()
}

fn slowed_by(console: &Recorder, series: &Series) -> f64 {
    let chunks = console.chunks();
    let begin = series.runs.iter().map(|run| run.span.start).min().unwrap_or_default();
    let calm = rate(&chunks, &[begin.saturating_sub(CALM)..begin]);
    let spans: Vec<_> = series.runs.iter().map(|run| run.span.clone()).collect();
    1.0 - rate(&chunks, &spans) / calm
}

/// Pages rewritten and poked a second within these spans.
fn rate(chunks: &[Chunk], spans: &[Range<Duration>]) -> f64 {
    let (mut work, mut seconds) = (0, 0.0);
    for span in spans {
        work += done_until(chunks, span.end) - done_until(chunks, span.start);
        seconds += (span.end - span.start).as_secs_f64();
    }
    #[allow(clippy::cast_precision_loss)]
    let work = work as f64;
    work / seconds
}

/// The guest's totals as its last tick before `at` told them.
fn done_until(chunks: &[Chunk], at: Duration) -> u64 {
    let until = chunks.partition_point(|chunk| chunk.at <= at);
    let last = judge(&chunks[..until]).last;
    last.pages + last.pokes
}
