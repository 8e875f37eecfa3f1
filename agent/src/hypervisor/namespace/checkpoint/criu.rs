//! CRIU as a program: where it is, what it is told, and what it says when it fails. Never by way of a shell.

use super::{hook, mounts::External};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where it is looked for: what `packaging/deps.sh --criu` builds comes before a distribution's.
const PLACES: &[&str] = &["/usr/local/sbin/criu", "/usr/sbin/criu"];

/// The oldest that copes with kernels of today.
const OLDEST: (u32, u32) = (4, 1);

/// Its search path: it runs tar(1) for files in memory.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Most of a deleted file that goes into a checkpoint, bytes.
const GHOST_MAX: u32 = 64 << 20;

/// How much of its log is read for a reason, bytes.
const LOG_MAX: u64 = 256 << 10;

/// Longest reason, characters.
const REASON_MAX: usize = 400;

/// What it prints of its version, at most.
const ANSWER_MAX: usize = 4096;

/// The log of either deed, in the folder of the images.
pub const LOG: &str = "criu.log";

/// Why it did not.
#[derive(Debug, thiserror::Error)]
pub enum CriuError {
    /// There is none, or only an old one.
    #[error(
        "this host has no CRIU {}.{} or newer ({found}): install one as {}, e.g. by `packaging/deps.sh --criu`",
        OLDEST.0, OLDEST.1, PLACES.join(" or ")
    )]
    Missing {
        /// What was found instead.
        found: String,
    },
    /// It did not start.
    #[error("could not run {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It refused, in its own words.
    #[error("CRIU could not {doing} it: {reason}")]
    Failed {
        /// "save" or "restore".
        doing: &'static str,
        /// The first error of its log.
        reason: String,
    },
}

/// One that is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Criu(PathBuf);

impl Criu {
    /// Looks for it.
    ///
    /// # Errors
    /// [`CriuError::Missing`], with what to do.
    pub fn find() -> Result<Self, CriuError> {
        Self::find_in(PLACES)
    }

    fn find_in(places: &[&str]) -> Result<Self, CriuError> {
        let mut found = "none is installed".to_owned();
        for place in places.iter().map(Path::new).filter(|place| place.is_file()) {
            match version_of(place) {
                Some(version) if version >= OLDEST => return Ok(Self(place.into())),
                Some((major, minor)) => found = format!("{} is {major}.{minor}", place.display()),
                None => found = format!("{} does not tell its version", place.display()),
            }
        }
        Err(CriuError::Missing { found })
    }

    /// Does what the words say, and waits. `images` holds the log; `prepare` is run in the new process before it begins.
    ///
    /// # Errors
    /// [`CriuError`].
    pub fn run(
        &self,
        doing: &'static str,
        words: &[OsString],
        images: &Path,
        prepare: impl Prepare,
    ) -> Result<(), CriuError> {
        let mut command = Command::new(&self.0);
        command.args(words).env_clear().env("PATH", PATH).env(hook::VARIABLE, hook::RUN);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        prepare.with(&mut command);
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                let log = tail(&images.join(LOG)).unwrap_or_default();
                let reason = reason(&log).unwrap_or_else(|| format!("it ended with {status}"));
                Err(CriuError::Failed { doing, reason })
            }
            Err(cause) => Err(CriuError::Start { program: self.0.clone(), cause }),
        }
    }
}

/// What is done with a command before it is started.
pub trait Prepare {
    /// Changes it.
    fn with(self, command: &mut Command);
}

impl Prepare for () {
    fn with(self, _: &mut Command) {}
}

impl<F: FnOnce(&mut Command)> Prepare for F {
    fn with(self, command: &mut Command) {
        self(command);
    }
}

/// What both deeds are told.
fn common(verb: &str, images: &Path, hook: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = [verb, "--images-dir"].map(OsString::from).into();
    words.push(images.into());
    let rest = [
        "--log-file",
        LOG,
        "-v2",
        "--manage-cgroups=ignore",
        "--empty-ns",
        "net",
        "--tcp-established",
        "--skip-in-flight",
        "--file-locks",
        "--ghost-limit",
    ];
    words.extend(rest.map(OsString::from));
    words.push(GHOST_MAX.to_string().into());
    words.extend(["--action-script".into(), hook.into()]);
    words
}

/// The words for saving the tree of this process. `hook` is the program that CRIU runs at each of its steps.
pub fn save_words(
    init: i32,
    images: &Path,
    hook: &Path,
    externals: &[External],
    has_card: bool,
    leave_running: bool,
) -> Vec<OsString> {
    let mut words = common("dump", images, hook);
    words.extend(["--tree".into(), init.to_string().into(), "--network-lock".into()]);
    words.push(if has_card { "nftables" } else { "skip" }.into());
    if leave_running {
        words.push("--leave-running".into());
    }
    for external in externals {
        words.extend(["--external".into(), format!("mnt[{}]:{}", external.at, external.key()).into()]);
    }
    words
}

/// What a restored tree is given by its supervisor.
pub struct Gifts<'a> {
    /// Where its root file system is mounted.
    pub root: &'a Path,
    /// Where the rest of what it sees was built.
    pub stage: &'a Path,
    /// What is mounted in it.
    pub externals: &'a [External],
    /// The supervisor's descriptors that take the places of pipes: their numbers, and the pipes'.
    pub pipes: &'a [(i32, u64)],
    /// Where the number of its first process is written.
    pub pid_file: &'a Path,
}

/// The words for restoring a tree.
pub fn restore_words(images: &Path, hook: &Path, gifts: &Gifts<'_>) -> Vec<OsString> {
    let mut words = common("restore", images, hook);
    // As a child of whoever runs CRIU, and CRIU ends.
    words.extend(["--restore-detached", "--restore-sibling", "--root"].map(OsString::from));
    words.extend([gifts.root.into(), "--pidfile".into(), gifts.pid_file.into()]);
    for external in gifts.externals {
        let source = external.source(gifts.stage);
        words.extend(["--external".into(), format!("mnt[{}]:{}", external.key(), source.display()).into()]);
    }
    for (fd, pipe) in gifts.pipes {
        words.extend(["--inherit-fd".into(), format!("fd[{fd}]:pipe:[{pipe}]").into()]);
    }
    words
}

fn version_of(program: &Path) -> Option<(u32, u32)> {
    let told = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    version(&String::from_utf8_lossy(&told.stdout[..told.stdout.len().min(ANSWER_MAX)]))
}

/// `Version: 4.2.1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let line = text.lines().find_map(|line| line.strip_prefix("Version:"))?;
    let mut numbers = line.trim().split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_MAX)))?;
    let mut bytes = Vec::new();
    file.take(LOG_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What went wrong first; the errors after it follow from that. That it may not open more files than others is none.
fn reason(log: &str) -> Option<String> {
    let errors = log.lines().filter_map(|line| Some(line.split_once("Error (")?.1.split_once("): ")?.1));
    let said = errors.into_iter().find(|said| !said.starts_with("rlimit:"))?;
    let clean: String = said.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect();
    Some(clean.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};
    use tempfile::TempDir;

    #[test]
    fn one_that_is_new_enough_is_taken_and_any_other_named() {
        let folder = TempDir::new().unwrap();
        let program = |name: &str, says: &str| {
            let path = folder.path().join(name);
            fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (old, new) = (program("old", "Version: 3.17.1"), program("new", "Version: 4.2.1"));
        let (mute, none) = (program("mute", "what?"), folder.path().join("none"));
        assert_eq!(Criu::find_in(&[&old, &new]).unwrap(), Criu(PathBuf::from(&new)));
        for (places, word) in [
            (vec![&*old], "is 3.17"),
            (vec![&*mute], "does not tell"),
            (vec![none.to_str().unwrap()], "none is"),
        ] {
            let told = Criu::find_in(&places).unwrap_err().to_string();
            assert!(told.contains(word) && told.contains("4.1") && told.contains("deps.sh --criu"), "{told}");
        }
    }

    #[test]
    fn versions_are_told_by_their_numbers() {
        assert_eq!(version("Version: 4.2.1\nGitID: v4\n"), Some((4, 2)));
        assert_eq!(version("Version: 4.1\n"), Some((4, 1)));
        assert!(version("Version: 10.0").unwrap() > OLDEST && version("Version: 4.0").unwrap() < OLDEST);
        assert_eq!(version("Version: x\n"), None);
        assert_eq!(version(""), None);
    }

    #[test]
    fn the_first_error_of_its_log_is_the_reason() {
        let log = "(00.1) Warn  (criu/kerndat.c:1): slow\n(00.2) Error (criu/util.c:7): rlimit: not permitted\n(00.2) Error (criu/sk-unix.c:9): External socket\u{7} is used\n\
                   (00.3) Error (criu/cr-dump.c:1): Dumping FAILED.\n";
        assert_eq!(reason(log).as_deref(), Some("External socket is used"));
        assert_eq!(reason("(00.1) Dumping finished successfully\n"), None);
    }

    #[test]
    fn what_is_told_names_each_mount_and_pipe() {
        let externals = [External { at: "/dev/null".into() }];
        let text = |words: Vec<OsString>| {
            words.into_iter().map(|w| w.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        let save = text(save_words(77, Path::new("images"), Path::new("hook"), &externals, true, false));
        assert!(
            save.contains("dump --images-dir images") && save.contains("--tree 77 --network-lock nftables"),
            "{save}"
        );
        assert!(
            save.contains("--external mnt[/dev/null]:.dev.null") && !save.contains("--leave-running"),
            "{save}"
        );
        let gifts = Gifts {
            root: Path::new("/stage"),
            stage: Path::new("/stage"),
            externals: &externals,
            pipes: &[(5, 99)],
            pid_file: Path::new("pid"),
        };
        let restore = text(restore_words(Path::new("images"), Path::new("hook"), &gifts));
        assert!(restore.contains("--external mnt[.dev.null]:/dev/null"), "{restore}");
        assert!(
            restore.contains("--inherit-fd fd[5]:pipe:[99]") && restore.contains("--root /stage"),
            "{restore}"
        );
    }
}
