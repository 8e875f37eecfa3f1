//! A `/dev` with the harmless devices, and nothing else.

use super::{STAGE, bind};
use crate::hypervisor::namespace::step::{Doing, StepError};
use std::{
    fs::{File, create_dir},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// The host's own nodes are bound in: nobody can make device nodes in a user namespace.
const NODES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// Builds it on the stage, with a place for shared memory.
pub fn build() -> Result<PathBuf, StepError> {
    let folder = places()?;
    for name in NODES {
        bind(&Path::new("/dev").join(name), &folder.join(name)).doing("bind a device")?;
    }
    Ok(folder)
}

/// The same with places for devices that somebody else binds.
pub fn places() -> Result<PathBuf, StepError> {
    let folder = Path::new(STAGE).join("dev");
    create_dir(&folder).doing("make /dev")?;
    create_dir(folder.join("shm")).doing("make /dev/shm")?;
    for (to, name) in LINKS {
        symlink(to, folder.join(name)).doing("link the standard streams")?;
    }
    for name in NODES {
        File::create(folder.join(name)).doing("make a place for a device")?;
    }
    Ok(folder)
}
