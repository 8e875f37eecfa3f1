//! What became of each cell: a table that grows as the run goes on, on the screen and in the build's folder.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use novacron_tests::bins;
use novacron_tests::matrix::{Cell, allowed};

use super::stage::Ended;

/// One cell that was carried out.
struct Row {
    cell: Cell,
    /// `None`: it failed.
    ended: Option<Ended>,
    seconds: f64,
}

/// All rows so far.
pub struct Report {
    name: &'static str,
    rows: Vec<Row>,
}

impl Report {
    /// An empty one; `name` is that of its file.
    pub fn new(name: &'static str) -> Self {
        Self { name, rows: Vec::new() }
    }

    /// Carries a cell out, enters what became of it, and says whether all was well. What a failed one had to say is
    /// printed at once: the run goes on.
    pub fn time(&mut self, cell: Cell, run: impl FnOnce() -> Result<Ended>) -> Result<bool> {
        let began = Instant::now();
        let ended = run();
        let seconds = began.elapsed().as_secs_f64();
        let well = ended.is_ok();
        match &ended {
            Ok(ended) => println!("{cell}: {} ({seconds:.0} s)", ended.outcome.name()),
            Err(fault) => println!("{cell}: FAILED ({seconds:.0} s): {fault:?}"),
        }
        self.rows.push(Row { cell, ended: ended.ok(), seconds });
        self.write()?;
        Ok(well)
    }

    /// The names of the cells that failed.
    pub fn failed(&self) -> Vec<String> {
        let failed = self.rows.iter().filter(|row| row.ended.is_none());
        failed.map(|row| row.cell.to_string()).collect()
    }

    /// All rows as a table in Markdown.
    pub fn table(&self) -> String {
        let mut table = "| cell | allowed | outcome | longest silence, ms | seconds |\n".to_owned();
        table.push_str("|---|---|---|---:|---:|\n");
        for row in &self.rows {
            let outcome = row.ended.map_or("FAILED", |ended| ended.outcome.name());
            let silence = row.ended.map_or("-".to_owned(), |ended| format!("{:.0}", ended.silence_ms));
            let allowed: Vec<&str> = allowed(row.cell).iter().map(|outcome| outcome.name()).collect();
            let allowed = allowed.join(" or ");
            // Writing to a string cannot fail.
            let _ =
                writeln!(table, "| {} | {allowed} | {outcome} | {silence} | {:.0} |", row.cell, row.seconds);
        }
        table
    }

    /// After each cell, so that a run that is cut short leaves what it found.
    fn write(&self) -> Result<()> {
        let path = self.path()?;
        fs::write(&path, self.table()).with_context(|| format!("writing {}", path.display()))
    }

    fn path(&self) -> Result<PathBuf> {
        let folder = bins::target_dir()?.join("migration");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder.join(format!("{}.md", self.name)))
    }
}
