//! The crash matrix on real QEMU: every cell of [`novacron_tests::matrix`] that a run selects, one after the other in
//! one lab, which is healed after each cell and thrown away after one that failed.
//!
//! `make test` carries out eight cells of chance; `NOVACRON_MATRIX_SEED` replays them, `NOVACRON_MATRIX_CELL` selects
//! cells by a part of their name. `make soak-migration` carries out all of them.

mod audit;
mod edge;
mod report;
pub mod stage;
pub mod strike;

use anyhow::{Result, ensure};
use novacron_tests::matrix::{self, Cell};
use novacron_tests::{need, require};

use report::Report;
use stage::Stage;

#[test]
fn crash_matrix_sample() -> Result<()> {
    require!(root, libvirt, qemu, apt, iptables);
    let seed = matrix::seed()?;
    println!("NOVACRON_MATRIX_SEED={seed}");
    let cells = match matrix::selected()? {
        Some(cells) => cells,
        None => matrix::sample(seed),
    };
    carry_out(&cells, Report::new("crash-matrix-sample"))
}

/// Only with `NOVACRON_SOAK=1`: it takes most of an hour.
#[test]
fn crash_matrix_whole() -> Result<()> {
    if std::env::var_os("NOVACRON_SOAK").is_none() {
        return need::skip("matrix::crash_matrix_whole", "takes most of an hour: make soak-migration");
    }
    require!(root, libvirt, qemu, apt, iptables);
    let cells = matrix::selected()?.unwrap_or_else(matrix::all);
    carry_out(&cells, Report::new("crash-matrix"))
}

fn carry_out(cells: &[Cell], mut report: Report) -> Result<()> {
    let mut stage = None;
    for &cell in cells {
        let mut here = match stage.take() {
            Some(stage) => stage,
            None => Stage::start()?,
        };
        let outcome = report.time(cell, || here.run(cell))?;
        // What a failed cell left behind must not fail the next.
        stage = outcome.then_some(here);
    }
    println!("{}", report.table());
    ensure!(report.failed().is_empty(), "failed: {:?}\n{}", report.failed(), report.table());
    Ok(())
}
