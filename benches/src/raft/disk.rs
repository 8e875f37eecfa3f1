//! What the disk allows: how often a second a small append can be made durable.

use anyhow::Result;
use std::{
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

const MEASURED: Duration = Duration::from_secs(2);

/// Appends of 4 KiB followed by fdatasync(2), one after the other, in a file of `folder`.
pub fn syncs_per_second(folder: &Path) -> Result<f64> {
    let path = folder.join("syncs");
    let mut file = std::fs::File::create(&path)?;
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < MEASURED {
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        count += 1;
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(rate)
}
