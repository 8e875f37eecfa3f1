//! A backup of the ledger: streamed beside its place, checked, and only then given its name.

use super::Context;
use crate::{error::CtlError, output};
use aws_lc_rs::digest::{Context as Hash, SHA256};
use novacron_common::wire::backup::{TRAILER_BYTES, TRAILER_MAGIC};
use std::{
    io,
    path::{Path, PathBuf},
};
use tokio::{fs::File, io::AsyncWriteExt};

pub async fn run(context: &Context, file: &Path) -> Result<(), CtlError> {
    let part = part_of(file);
    let bytes = match fetch(context, &part).await {
        Ok(bytes) => bytes,
        Err(error) => {
            // What is left of a failed one is of no use.
            let _ = tokio::fs::remove_file(&part).await;
            return Err(error);
        }
    };
    tokio::fs::rename(&part, file).await.map_err(|cause| local("name", file, cause))?;
    output::line(&format!("{}: {bytes} bytes, checksum right", file.display()))?;
    eprintln!("The CA's key in it stays sealed: keep the seal key too, elsewhere. `restore` needs both.");
    Ok(())
}

fn part_of(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    file.with_file_name(name)
}

fn local(doing: &str, file: &Path, cause: io::Error) -> CtlError {
    CtlError::Local { doing: format!("{doing} {}", file.display()), cause }
}

async fn fetch(context: &Context, part: &Path) -> Result<u64, CtlError> {
    let mut response = context.client.stream("/api/v1/cluster/backup").await?;
    let mut options = tokio::fs::OpenOptions::new();
    // It holds the digests of every token.
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(part).await;
    let mut out: File = opened.map_err(|cause| local("write", part, cause))?;
    let mut check = Check::new();
    loop {
        let chunk = response.chunk().await.map_err(|cause| CtlError::Unreachable {
            server: context.client.settings.server.clone(),
            cause: cause.without_url().into(),
        })?;
        let Some(chunk) = chunk else { break };
        check.take(&chunk);
        out.write_all(&chunk).await.map_err(|cause| local("write", part, cause))?;
    }
    out.sync_all().await.map_err(|cause| local("write", part, cause))?;
    check.end().ok_or_else(|| CtlError::Outcome("the backup was cut off, or is damaged: try again".into()))
}

/// Hashes all but the trailer, which is known as such only at the end.
struct Check {
    hash: Hash,
    held: Vec<u8>,
    bytes: u64,
}

impl Check {
    fn new() -> Self {
        Self { hash: Hash::new(&SHA256), held: Vec::new(), bytes: 0 }
    }

    fn take(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.held.extend_from_slice(chunk);
        let sure = self.held.len().saturating_sub(TRAILER_BYTES);
        self.hash.update(&self.held[..sure]);
        self.held.drain(..sure);
    }

    /// How long it is, if it is whole.
    fn end(self) -> Option<u64> {
        let digest = self.hash.finish();
        let (magic, sum) = self.held.split_at_checked(TRAILER_MAGIC.len())?;
        (magic == TRAILER_MAGIC && sum == digest.as_ref()).then_some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::digest::digest;

    fn checked(file: &[u8], pieces: usize) -> Option<u64> {
        let mut check = Check::new();
        file.chunks(pieces).for_each(|chunk| check.take(chunk));
        check.end()
    }

    #[test]
    fn a_backup_that_is_cut_or_damaged_anywhere_is_noticed() {
        let content = b"rows and rows";
        let file = [content.as_slice(), &TRAILER_MAGIC, digest(&SHA256, content).as_ref()].concat();
        for pieces in [1, 7, 1000] {
            assert_eq!(checked(&file, pieces), Some(file.len() as u64));
        }
        for end in 0..file.len() {
            assert_eq!(checked(&file[..end], 1000), None, "cut at {end}");
            let mut damaged = file.clone();
            damaged[end] ^= 1;
            assert_eq!(checked(&damaged, 1000), None, "damaged at {end}");
        }
    }

    #[test]
    fn the_part_lies_beside_the_file() {
        assert_eq!(part_of(Path::new("/a/b.backup")), Path::new("/a/b.backup.part"));
    }
}
