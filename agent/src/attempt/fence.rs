//! The highest epoch seen of each fire, on disk: it outlives the attempt's own folder, so that a start command
//! which arrives late, after the attempt was acknowledged and its folder removed, does not run it again.

use super::admission::Fence;
use novacron_common::{ids::FireKey, units::Epoch};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Fires remembered: at one fire a second, more than half a day, where a command is late by seconds.
const FIRES_MAX: usize = 50_000;

/// Lines appended before the file is written anew.
const APPENDED_MAX: usize = 50_000;

/// A journal of one line a start, and what it says.
#[derive(Debug)]
pub struct Fences {
    path: PathBuf,
    file: File,
    seen: BTreeMap<FireKey, (Fence, u64)>,
    next: u64,
    appended: usize,
}

impl Fences {
    /// Reads the journal, and writes it anew without what is out of date. A torn last line is what a crash leaves
    /// of a start that was never acted on.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let text = match std::fs::read(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let file = File::options().create(true).append(true).open(path)?;
        let mut fences = Self { path: path.into(), file, seen: BTreeMap::new(), next: 0, appended: 0 };
        for line in String::from_utf8_lossy(&text).split_inclusive('\n') {
            if let Some((fire, fence)) = line.strip_suffix('\n').and_then(parse) {
                fences.note(fire, fence);
            }
        }
        fences.rewrite()?;
        Ok(fences)
    }

    /// What was seen of this fire.
    pub fn of(&self, fire: &FireKey) -> Option<Fence> {
        self.seen.get(fire).map(|(fence, _)| *fence)
    }

    /// Remembers, durably. To be called before anything is started.
    ///
    /// # Errors
    /// The file system's; nothing may be started then.
    pub fn raise(&mut self, fire: FireKey, fence: Fence) -> io::Result<()> {
        self.file.write_all(line(&fire, fence).as_bytes())?;
        self.file.sync_data()?;
        self.note(fire, fence);
        self.appended += 1;
        if self.appended >= APPENDED_MAX { self.rewrite() } else { Ok(()) }
    }

    /// The later line wins only if it is not lower.
    fn note(&mut self, fire: FireKey, fence: Fence) {
        if self.of(&fire).is_none_or(|seen| seen.epoch <= fence.epoch) {
            self.seen.insert(fire, (fence, self.next));
            self.next += 1;
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let excess = self.seen.len().saturating_sub(FIRES_MAX) as u64;
        let mut ages: Vec<u64> = self.seen.values().map(|(_, age)| *age).collect();
        ages.sort_unstable();
        let oldest_kept = ages.get(usize::try_from(excess).unwrap_or(usize::MAX)).copied().unwrap_or(0);
        self.seen.retain(|_, (_, age)| *age >= oldest_kept);

        let aside = self.path.with_extension("new");
        let mut file = File::create(&aside)?;
        let lines: String = self.seen.iter().map(|(fire, (fence, _))| line(fire, *fence)).collect();
        file.write_all(lines.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&aside, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        (self.file, self.appended) = (File::options().append(true).open(&self.path)?, 0);
        Ok(())
    }
}

fn line(fire: &FireKey, fence: Fence) -> String {
    format!("{fire} {} {}\n", fence.epoch.0, fence.number)
}

fn parse(line: &str) -> Option<(FireKey, Fence)> {
    let mut fields = line.split(' ');
    let fire = fields.next()?.parse().ok()?;
    let (epoch, number) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    fields.next().is_none().then_some((fire, Fence { epoch: Epoch(epoch), number }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        ids::{FireCause, JobId},
        units::UnixMillis,
    };

    fn fire(at: i64) -> FireKey {
        FireKey { job: JobId::from_u128(1), scheduled_at: UnixMillis(at), cause: FireCause::Manual }
    }

    fn fence(epoch: u64) -> Fence {
        Fence { epoch: Epoch(epoch), number: 1 }
    }

    #[test]
    fn a_torn_line_is_dropped_and_the_rest_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fences");
        let mut fences = Fences::open(&path).unwrap();
        fences.raise(fire(1), fence(4)).unwrap();
        fences.raise(fire(2), fence(7)).unwrap();
        drop(fences);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 2]).unwrap();
        let mut fences = Fences::open(&path).unwrap();
        assert_eq!(fences.of(&fire(1)), Some(fence(4)));
        assert_eq!(fences.of(&fire(2)), None);
        // What is appended behind a torn line must not be swallowed by it.
        fences.raise(fire(3), fence(9)).unwrap();
        assert_eq!(Fences::open(&path).unwrap().of(&fire(3)), Some(fence(9)));
    }

    #[test]
    fn an_epoch_is_never_lowered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fences");
        std::fs::write(&path, format!("{}{}", line(&fire(1), fence(9)), line(&fire(1), fence(3)))).unwrap();
        assert_eq!(Fences::open(&path).unwrap().of(&fire(1)), Some(fence(9)));
    }
}
