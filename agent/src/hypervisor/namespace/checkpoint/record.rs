//! What agent, supervisor and CRIU's hook write down about a saved machine, and where.
//!
//! ```text
//! MACHINE/run/save          agent        save it; removed once read
//! MACHINE/run/saved         supervisor   whether it is
//! MACHINE/checkpoint.new/   supervisor   images that are being made; swept where nobody makes them
//! MACHINE/checkpoint/       hook         whole: CRIU's images, `made`, and, if the machine ran on, its disk of then
//! MACHINE/checkpoint/suspended           the machine is there, and nowhere else
//! ```

use super::mounts::External;
use crate::hypervisor::namespace::folder::{Folder, FolderError};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

const ASK: &str = "save";
const ANSWER: &str = "saved";
const MADE: &str = "made";
const SUSPENDED: &str = "suspended";
const DISK: &str = "disk.ext4";

/// What a supervisor is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Whether the machine runs on afterwards.
    pub leave_running: bool,
}

/// What came of it; a reason if nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Why the machine was not saved, and runs on.
    pub refused: Option<String>,
}

/// What is needed to restore a machine, beside CRIU's images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The pipe that it prints to, by its inode.
    pub output: u64,
    /// The pipe for its last word.
    pub word: u64,
    /// The mounts that CRIU is given.
    pub externals: Vec<External>,
    /// Whether the machine ran on, so that its disk of then is kept here.
    pub keeps_disk: bool,
}

/// Asks the supervisor of this folder; what it answered before is gone.
///
/// # Errors
/// [`FolderError`].
pub fn ask(run: &Folder, ask: Ask) -> Result<(), FolderError> {
    let _there_was_none = fs::remove_file(run.path().join(ANSWER));
    run.write_loosely(ASK, &ask)
}

/// What this supervisor is asked, once.
pub fn asked(run: &Folder) -> Option<Ask> {
    let ask = run.read(ASK).ok().flatten()?;
    fs::remove_file(run.path().join(ASK)).ok().map(|()| ask)
}

/// Answers.
///
/// # Errors
/// [`FolderError`].
pub fn answer(run: &Folder, answer: &Answer) -> Result<(), FolderError> {
    run.write_loosely(ANSWER, answer)
}

/// The supervisor's answer, if there is one yet.
///
/// # Errors
/// [`FolderError`].
pub fn answered(run: &Folder) -> Result<Option<Answer>, FolderError> {
    run.read(ANSWER)
}

/// The checkpoint of one machine.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    folder: Folder,
    draft: Folder,
}

impl Checkpoint {
    /// Of the machine that has this folder.
    pub fn of(machine: &Path) -> Self {
        Self {
            folder: Folder::at(machine.join("checkpoint")),
            draft: Folder::at(machine.join("checkpoint.new")),
        }
    }

    /// Where it is, once it is whole.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What is needed to restore it; `None` if there is none.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn made(&self) -> Result<Option<Made>, FolderError> {
        self.folder.read(MADE)
    }

    /// The machine's disk of then.
    pub fn disk(&self) -> PathBuf {
        self.path().join(DISK)
    }

    /// Whether the machine is here, and nowhere else.
    pub fn is_suspended(&self) -> bool {
        self.path().join(SUSPENDED).exists()
    }

    /// Notes, durably, whether it is.
    ///
    /// # Errors
    /// That of the file system.
    pub fn suspend(&self, is_so: bool) -> io::Result<()> {
        let marker = self.path().join(SUSPENDED);
        match is_so {
            true => File::create(marker).map(drop)?,
            false => drop(fs::remove_file(marker)),
        }
        match File::open(self.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound && !is_so => Ok(()),
            folder => folder?.sync_all(),
        }
    }

    /// Where it is while it is made.
    pub fn draft(&self) -> &Path {
        self.draft.path()
    }

    /// Begins another: an empty folder that only root sees.
    ///
    /// # Errors
    /// That of the file system.
    pub fn begin(&self) -> io::Result<&Folder> {
        self.sweep()?;
        DirBuilder::new().mode(0o700).create(self.draft.path())?;
        Ok(&self.draft)
    }

    /// What is needed to restore what was begun.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn write(&self, made: &Made) -> Result<(), FolderError> {
        self.draft.write_loosely(MADE, made)
    }

    /// What was written of what was begun.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn begun(&self) -> Result<Option<Made>, FolderError> {
        self.draft.read(MADE)
    }

    /// Puts what was begun in the place of what there was, durably. From here on it is the checkpoint; until then what there was
    /// is, also behind a crash.
    ///
    /// # Errors
    /// That of the file system.
    pub fn finish(&self, is_suspended: bool) -> io::Result<()> {
        if is_suspended {
            File::create(self.draft.path().join(SUSPENDED))?;
        }
        for entry in fs::read_dir(self.draft.path())? {
            File::open(entry?.path())?.sync_all()?;
        }
        File::open(self.draft.path())?.sync_all()?;
        let how = if self.path().is_dir() { RenameFlags::RENAME_EXCHANGE } else { RenameFlags::empty() };
        renameat2(AT_FDCWD, self.draft.path(), AT_FDCWD, self.path(), how)?;
        File::open(self.path().parent().unwrap_or(Path::new(".")))?.sync_all()?;
        self.sweep()
    }

    /// Where the disk goes while it is made.
    pub fn disk_begun(&self) -> PathBuf {
        self.draft.path().join(DISK)
    }

    /// Removes what was begun and not finished.
    ///
    /// # Errors
    /// That of the file system.
    pub fn sweep(&self) -> io::Result<()> {
        remove(self.draft.path())
    }

    /// Removes it.
    ///
    /// # Errors
    /// That of the file system.
    pub fn remove(&self) -> io::Result<()> {
        remove(self.path())
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    fn made(output: u64) -> Made {
        Made { output, word: 2, externals: Vec::new(), keeps_disk: false }
    }

    #[test]
    fn a_checkpoint_is_whole_or_the_one_before() {
        let machine = TempDir::new().unwrap();
        let checkpoint = Checkpoint::of(machine.path());
        assert_eq!(checkpoint.made().unwrap(), None);
        for number in [1, 2] {
            let draft = checkpoint.begin().unwrap();
            assert_eq!(fs::metadata(draft.path()).unwrap().permissions().mode() & 0o777, 0o700);
            checkpoint.write(&made(number)).unwrap();
            assert_eq!(checkpoint.begun().unwrap(), Some(made(number)));
            assert_ne!(checkpoint.made().unwrap(), Some(made(number)));
            checkpoint.finish(number == 2).unwrap();
            assert_eq!(
                (checkpoint.made().unwrap(), checkpoint.is_suspended()),
                (Some(made(number)), number == 2)
            );
        }
        checkpoint.begin().unwrap();
        checkpoint.sweep().unwrap();
        assert_eq!(fs::read_dir(machine.path()).unwrap().count(), 1);
        checkpoint.suspend(false).unwrap();
        assert!(!checkpoint.is_suspended());
        checkpoint.remove().unwrap();
        checkpoint.suspend(false).unwrap();
        assert!(checkpoint.suspend(true).is_err(), "there is nothing that it could be in");
    }

    #[test]
    fn a_question_is_asked_once_and_has_its_own_answer() {
        let folder = TempDir::new().unwrap();
        let run = Folder::at(folder.path());
        assert_eq!(asked(&run), None);
        answer(&run, &Answer { refused: Some("old".into()) }).unwrap();
        ask(&run, Ask { leave_running: true }).unwrap();
        assert_eq!(answered(&run).unwrap(), None);
        assert_eq!(asked(&run), Some(Ask { leave_running: true }));
        assert_eq!(asked(&run), None);
    }
}
