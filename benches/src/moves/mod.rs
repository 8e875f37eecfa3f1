//! Moving a guest between the lab's two hosts, by the agents or by QEMU itself, and what each move took. The benches `relay`
//! and `migration` differ in the guests, the links and the goals.

mod memory;
mod mover;
pub mod pki;
mod stage;
mod wire;

pub use memory::Peaks;
pub use mover::Mover;
#[cfg(test)]
pub use stage::Agents;
pub use stage::{Run, Stage};

use crate::stats::median;

/// What was measured with one mover.
pub struct Series {
    /// Who moved.
    pub mover: Mover,
    /// Each of its moves.
    pub runs: Vec<Run>,
}

impl Series {
    /// The middle of one figure.
    pub fn median(&self, part: fn(&Run) -> f64) -> f64 {
        median(&self.runs.iter().map(part).collect::<Vec<_>>())
    }
}

/// Moves by each in turn, so that all see the same noise.
pub fn series(stage: &mut Stage<'_>, movers: &[Mover], rounds: usize) -> anyhow::Result<Vec<Series>> {
    let mut all: Vec<Series> = movers.iter().map(|&mover| Series { mover, runs: Vec::new() }).collect();
    for _ in 0..rounds {
        for series in &mut all {
            let run = stage.run(series.mover)?;
            println!("{:>20}: {run}", series.mover.name());
            series.runs.push(run);
        }
    }
    Ok(all)
}

/// Ours among them.
pub fn ours_of(all: &[Series]) -> anyhow::Result<&Series> {
    all.iter()
        .find(|series| series.mover == Mover::Ours)
        .ok_or_else(|| anyhow::anyhow!("ours was not measured"))
}
