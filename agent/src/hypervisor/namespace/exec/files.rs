//! Files into a machine and out of it, by a process that has entered it and has no more rights than its commands: whatever a path or
//! a link says, it leads to something of the machine's.

use crate::hypervisor::namespace::step::{Doing, StepError};
use nix::unistd::{chdir, setsid};
use novacron_common::wire::FileCopy;
use novacron_tree::Skipped;
use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// Returns only if it cannot begin. `tell` is where that would be said: its end tells that it has begun.
pub fn copy_files(copy: &FileCopy, tell: OwnedFd) -> (OwnedFd, StepError) {
    if let Err(error) = prepare() {
        return (tell, error);
    }
    drop(tell);
    let (complaints, code) = match run(copy) {
        Ok(left_out) => (left_out, 0),
        Err(cause) => (vec![cause.to_string()], 1),
    };
    for complaint in complaints {
        // Whoever does not listen any more has ended this already.
        let _told = writeln!(io::stderr(), "{complaint}");
    }
    // SAFETY: nothing of this copy of the porter may run on.
    unsafe { libc::_exit(code) }
}

/// As a command, it leads a session of its own, so that what ends a command ends this.
fn prepare() -> Result<(), StepError> {
    setsid().doing("start a session")?;
    chdir("/").doing("enter /")
}

/// Returns what is to be said of what was left out.
fn run(copy: &FileCopy) -> io::Result<Vec<String>> {
    match copy {
        FileCopy::In { path, name } => {
            let to = novacron_tree::destination(Path::new(path), name)?;
            novacron_tree::unpack(io::BufReader::new(io::stdin().lock()), &to).map(|()| Vec::new())
        }
        FileCopy::Out { path } => {
            // Past Rust's own buffer, which looks for ends of lines.
            let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            let skipped = novacron_tree::pack(Path::new(path), io::BufWriter::new(output))?;
            Ok(skipped.iter().map(Skipped::to_string).collect())
        }
    }
}
