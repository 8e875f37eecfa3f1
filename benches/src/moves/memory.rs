//! The most memory that the two agents had resident during one migration.

use crate::process::status_mib;
use anyhow::{Context, Result};
use std::fs;

/// Peak resident set sizes.
#[derive(Debug, Clone, Copy)]
pub struct Peaks {
    /// Of the agent that sends, MiB.
    pub source_mib: f64,
    /// Of the agent that receives, MiB.
    pub target_mib: f64,
}

/// Begins anew: the kernel's high-water marks are set to what is resident now (proc_pid_clear_refs(5)).
pub fn forget_peaks(pids: [u32; 2]) -> Result<()> {
    const PEAK: &str = "5";
    pids.iter().try_for_each(|pid| {
        fs::write(format!("/proc/{pid}/clear_refs"), PEAK)
            .with_context(|| format!("resetting the peak of {pid}"))
    })
}

/// The marks since then (`VmHWM`), of source and target.
pub fn peaks([source, target]: [u32; 2]) -> Result<Peaks> {
    Ok(Peaks { source_mib: status_mib(source, "VmHWM")?, target_mib: status_mib(target, "VmHWM")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_seen_and_forgotten() {
        const MIB: usize = 1 << 20;
        let me = [std::process::id(); 2];
        let room = vec![1_u8; 64 * MIB];
        assert!(std::hint::black_box(&room).iter().all(|&byte| byte == 1));
        drop(room);
        let before = peaks(me).unwrap().source_mib;
        assert!(before >= 64.0, "{before}");
        forget_peaks(me).unwrap();
        let after = peaks(me).unwrap().target_mib;
        assert!(after + 32.0 < before, "{after} of {before}");
    }
}
