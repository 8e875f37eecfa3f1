//! What a process takes of memory and of the processors, as the kernel counts it.

use anyhow::{Context, Result};
use std::fs;

/// `USER_HZ`, in which `/proc/PID/stat` counts (proc_pid_stat(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of all of them so far, seconds.
pub fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| seconds(&fs::read_to_string(format!("/proc/{pid}/stat"))?)).sum()
}

/// Fields 14 and 15 of a line; the second, a name in brackets, may have spaces.
fn seconds(stat: &str) -> Result<f64> {
    let (_, rest) = stat.rsplit_once(") ").context("no name in stat")?;
    let ticks = rest.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>().context("stat is no line of numbers")? / TICKS_PER_SECOND)
}

/// A figure of proc_pid_status(5) that is in kB, such as `VmRSS`; in MiB.
pub fn status_mib(pid: u32, key: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib = kib.with_context(|| format!("no {key} in /proc/PID/status"))?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_read_behind_the_name() {
        let line = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert!((seconds(line).unwrap() - 3.0).abs() < f64::EPSILON);
        assert!(seconds("no brackets").is_err());
    }
}
