//! Rows of a bench: what ours took, what the peer took, and whether the goal holds.

use anyhow::{Context, Result};
use serde::Serialize;
use std::path::PathBuf;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// Ours, median.
    pub ours: f64,
    /// The peer's, median; without a peer, the goal's number.
    pub peer: f64,
    /// Who the peer is; `goal` without one.
    pub peer_name: String,
    /// Ours / peer.
    pub ratio: f64,
    /// On `ratio`, such as `<=1.1`.
    pub goal: String,
    /// Whether it holds.
    pub holds: bool,
}

impl Row {
    /// A figure beside a peer's; the goal is an upper bound on the ratio, or none.
    pub fn beside(
        name: &str,
        unit: &'static str,
        ours: f64,
        (peer_name, peer): (&str, f64),
        at_most: Option<f64>,
    ) -> Self {
        let ratio = ours / peer;
        Self {
            name: name.to_owned(),
            unit,
            ours,
            peer,
            peer_name: peer_name.to_owned(),
            ratio,
            goal: at_most.map_or_else(|| "-".to_owned(), |bound| format!("<={bound}")),
            holds: at_most.is_none_or(|bound| ratio <= bound),
        }
    }

    /// A figure beside a peer's, of which more is better; the goal is a lower bound on the ratio, or none.
    pub fn more_than(
        name: &str,
        unit: &'static str,
        ours: f64,
        peer: (&str, f64),
        at_least: Option<f64>,
    ) -> Self {
        let row = Self::beside(name, unit, ours, peer, None);
        let goal = at_least.map_or_else(|| "-".to_owned(), |bound| format!(">={bound}"));
        Self { goal, holds: at_least.is_none_or(|bound| row.ratio >= bound), ..row }
    }

    /// A figure without a peer or goal: for the reader.
    pub fn told(name: &str, unit: &'static str, ours: f64) -> Self {
        Self::beside(name, unit, ours, ("-", ours), None)
    }

    /// Whether the goal was reached, and by how much it was missed.
    fn verdict(&self) -> String {
        let bound = self.goal.trim_start_matches(['<', '>', '=']).parse::<f64>();
        match (self.holds, bound) {
            (true, _) => format!("reached ({:.2}, goal {})", self.ratio, self.goal),
            (false, Ok(bound)) if bound > 0.0 => {
                let off = (self.ratio / bound - 1.0).abs() * 100.0;
                format!("MISSED by {off:.0} % ({:.2}, goal {})", self.ratio, self.goal)
            }
            (false, _) => format!("MISSED ({:.2}, goal {})", self.ratio, self.goal),
        }
    }

    /// A count that must be 0: the ratio is the count itself.
    pub fn none_of(name: &str, ours: f64) -> Self {
        let row = Self::beside(name, "", ours, ("goal", 0.0), None);
        Self { ratio: ours, goal: "<=0".to_owned(), holds: ours <= 0.0, ..row }
    }

    /// A figure without a peer, and the most that it should be.
    pub fn at_most(name: &str, unit: &'static str, ours: f64, bound: f64) -> Self {
        Self::beside(name, unit, ours, ("goal", bound), Some(1.0))
    }
}

/// Prints the rows and writes them to `target/bench/NAME.json`.
pub fn publish(bench: &str, rows: &[Row]) -> Result<()> {
    println!(
        "{:52} {:>13} {:>13}  {:14} {:>7} {:>8}  holds",
        "figure", "ours", "peer", "of", "ratio", "goal"
    );
    for row in rows {
        let Row { name, unit, ours, peer, peer_name, ratio, goal, holds } = row;
        println!(
            "{name:52} {ours:>9.2} {unit:3} {peer:>9.2} {unit:3}  {peer_name:14} {ratio:>7.2} {goal:>8}  {holds}"
        );
    }
    for row in rows.iter().filter(|row| row.goal != "-") {
        println!("{}: {}", row.name, row.verdict());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    let path = folder.join(format!("{bench}.json"));
    std::fs::write(&path, serde_json::to_vec_pretty(rows)?)
        .with_context(|| format!("could not write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_says_by_how_much() {
        let rate = Row::more_than("rate", "/s", 120.0, ("peer", 100.0), Some(1.5));
        assert_eq!((rate.holds, rate.verdict().as_str()), (false, "MISSED by 20 % (1.20, goal >=1.5)"));
        let p50 = Row::beside("p50", "ms", 3.0, ("peer", 2.0), Some(1.0));
        assert_eq!(p50.verdict(), "MISSED by 50 % (1.50, goal <=1)");
        assert_eq!(Row::none_of("lost", 2.0).verdict(), "MISSED (2.00, goal <=0)");
        assert_eq!(Row::none_of("lost", 0.0).verdict(), "reached (0.00, goal <=0)");
    }
}
