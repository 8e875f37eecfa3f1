//! The parts of an initramfs with QEMU's own guest agent: the program from its Debian package, a shell for what it is
//! asked to run, and the libraries of this machine that they load.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::cpio::Archive;
use super::run;

const PACKAGE: &str = "qemu-guest-agent";
const AGENT: &str = "usr/sbin/qemu-ga";
/// Programs of this machine, and where the guest has them.
const PROGRAMS: [(&str, &str); 8] = [
    ("/bin/sh", "bin/sh"),
    ("/bin/cat", "bin/cat"),
    ("/bin/sleep", "bin/sleep"),
    ("/bin/dd", "bin/dd"),
    ("/bin/mkdir", "bin/mkdir"),
    ("/bin/mkfifo", "bin/mkfifo"),
    ("/bin/rm", "bin/rm"),
    ("/usr/bin/wc", "bin/wc"),
];

/// The archive with all of it, to be put behind that of the guest: the kernel unpacks one after the other.
pub fn archive(cache: &Path) -> Result<Vec<u8>> {
    let agent = unpack(cache)?.join(AGENT);
    let mut files: Vec<(PathBuf, String)> = vec![(agent, AGENT.to_owned())];
    files.extend(PROGRAMS.map(|(from, to)| (PathBuf::from(from), to.to_owned())));
    let mut libraries = BTreeSet::new();
    for (program, _) in &files {
        libraries.extend(libraries_of(program)?);
    }
    files.extend(libraries.into_iter().map(|path| {
        let inside = path.trim_start_matches('/').to_owned();
        (PathBuf::from(path), inside)
    }));
    let mut archive = Archive::default();
    for folder in folders(&files) {
        archive.folder(&folder);
    }
    for (from, to) in &files {
        let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        archive.program(to, &bytes);
    }
    Ok(archive.finish())
}

/// Parents before children.
fn folders(files: &[(PathBuf, String)]) -> BTreeSet<String> {
    let parents = |path: &String| {
        let above: Vec<String> =
            Path::new(path).ancestors().skip(1).map(|p| p.display().to_string()).collect();
        above.into_iter().filter(|path| !path.is_empty())
    };
    files.iter().flat_map(|(_, to)| parents(to)).collect()
}

fn unpack(cache: &Path) -> Result<PathBuf> {
    let unpacked = cache.join("unpacked");
    if unpacked.is_dir() {
        return Ok(unpacked);
    }
    fs::create_dir_all(cache)?;
    // As for the kernel: root's download is otherwise handed to a user who cannot enter this folder.
    let mut fetch = Command::new("apt-get");
    run(fetch.args(["-q", "-o", "APT::Sandbox::User=root", "download", PACKAGE]).current_dir(cache))?;
    let mut names = fs::read_dir(cache)?.flatten().map(|entry| entry.path());
    let package = names.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let half = cache.join("half");
    let _ = fs::remove_dir_all(&half);
    run(Command::new("dpkg").arg("-x").arg(package.context("apt-get left no package")?).arg(&half))?;
    fs::rename(&half, &unpacked).context("keeping the unpacked package")?;
    Ok(unpacked)
}

/// What the loader says that a program needs, itself included.
fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let listing = run(Command::new("ldd").arg(program))?;
    ensure!(!listing.contains("not found"), "{} lacks libraries here: {listing}", program.display());
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    Ok(listing.lines().filter_map(path).collect())
}
