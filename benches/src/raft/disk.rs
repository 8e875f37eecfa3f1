//! What the disk allows: how often a second a small write can be made durable.

use crate::report::Row;
use anyhow::Result;
use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

const MEASURED: Duration = Duration::from_secs(2);
const WRITE: [u8; 4096] = [7; 4096];
/// As long as a segment of etcd's log.
const ALLOCATED: u64 = 64 << 20;

/// Both ways to write: behind the end of a file, and into blocks that it has already.
pub fn rows(folder: &Path) -> Result<[Row; 2]> {
    let path = folder.join("syncs");
    let mut file = File::create(&path)?;
    let appended = per_second(|_| {
        file.write_all(&WRITE)?;
        Ok(file.sync_data()?)
    })?;
    let file = File::create(&path)?;
    for _ in 0..ALLOCATED / WRITE.len() as u64 {
        (&file).write_all(&WRITE)?;
    }
    file.sync_all()?;
    let overwritten = per_second(|number| {
        file.write_all_at(&WRITE, number * WRITE.len() as u64 % ALLOCATED)?;
        Ok(file.sync_data()?)
    })?;
    std::fs::remove_file(&path)?;
    Ok([
        Row::told("fdatasync of 4 KiB, file grows", "/s", appended),
        Row::told("fdatasync of 4 KiB, blocks are there", "/s", overwritten),
    ])
}

#[allow(clippy::cast_precision_loss)]
fn per_second(mut write: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < MEASURED {
        write(count)?;
        count += 1;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}
