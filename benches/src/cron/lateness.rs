//! Lateness from the coordinators' own histogram: it is observed after the commit was acknowledged by a majority, which
//! the stamp in the ledger, taken before, does not tell.

use anyhow::{Context, Result};
use novacron_tests::ledger::api::Api;

const BUCKET: &str = "novacron_fire_lateness_seconds_bucket{le=\"";

/// Cumulative counts by upper bound in milliseconds, summed over all coordinators.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// As it is now.
    pub async fn read(api: &Api) -> Result<Self> {
        let mut sum = Self::default();
        for server in 0..api.servers() {
            sum.add(&Self::parse(&api.text(server, "/metrics").await?)?);
        }
        Ok(sum)
    }

    fn parse(text: &str) -> Result<Self> {
        let buckets = text.lines().filter_map(|line| line.strip_prefix(BUCKET)?.split_once("\"} "));
        let bucket = |(bound, count): (&str, &str)| {
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse::<f64>()? * 1000.0 };
            Ok::<_, std::num::ParseFloatError>((bound, count.trim().parse()?))
        };
        buckets.map(bucket).collect::<Result<_, _>>().map(Self).context("reading the histogram")
    }

    fn add(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            mine.1 += theirs.1;
        }
    }

    /// What came since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let old = |at: usize| before.0.get(at).map_or(0.0, |bucket| bucket.1);
        Self(self.0.iter().enumerate().map(|(at, (bound, count))| (*bound, count - old(at))).collect())
    }

    /// How many there are.
    pub fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |bucket| bucket.1)
    }

    /// The value below which `per_cent` lie, milliseconds; linear within a bucket, as Prometheus' `histogram_quantile`.
    pub fn quantile(&self, per_cent: f64) -> f64 {
        let rank = self.count() * per_cent / 100.0;
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= rank && *count > below {
                let high = if bound.is_finite() { *bound } else { low };
                return low + (high - low) * (rank - below) / (count - below);
            }
            (low, below) = (*bound, *count);
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_what_came_between_two_looks() {
        let text =
            |a, b, c| format!("{BUCKET}0.01\"}} {a}\n{BUCKET}0.05\"}} {b}\n{BUCKET}+Inf\"}} {c}\nother 1\n");
        let before = Histogram::parse(&text(5, 5, 5)).unwrap();
        let now = Histogram::parse(&text(15, 105, 105)).unwrap();
        let between = now.since(&before);
        assert!((between.count() - 100.0).abs() < f64::EPSILON);
        assert!((between.quantile(10.0) - 10.0).abs() < 1e-9);
        assert!((between.quantile(55.0) - 30.0).abs() < 1e-9);
        assert!(Histogram::default().quantile(50.0).is_nan());
    }
}
