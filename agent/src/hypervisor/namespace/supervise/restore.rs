//! A tree as it was saved: its walls are built as at any start, and CRIU puts its processes in.

use super::{Tree, output_pipe};
use crate::hypervisor::namespace::{
    cgroup::Group,
    checkpoint::{
        criu::{Criu, Gifts, LOG, restore_words},
        hook,
        record::Checkpoint,
        users,
    },
    ids::IdMap,
    root,
    spawn::{Channel, Init},
    step::{Doing, StepError},
};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sched::{CloneFlags, unshare},
    unistd::{Pid, pipe2},
};
use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::{
            fs::{PermissionsExt, chown},
            process::CommandExt,
        },
    },
    path::Path,
    process::Command,
};

/// Where CRIU writes the number of the first process, in the folder of the images.
const PID_FILE: &str = "restored.pid";

/// Once the root is built, in the supervisor's namespaces. The new processes are the supervisor's, as any other tree.
pub(super) fn restored(group: &Group, map: IdMap) -> Result<Tree, StepError> {
    let doing = "restore the machine";
    let checkpoint = Checkpoint::of(Path::new(".."));
    let made =
        checkpoint.made().doing(doing)?.ok_or_else(|| StepError::new(doing, "there is no checkpoint"))?;
    users::rewrite(checkpoint.path(), map).doing(doing)?;
    let (output, write_end) = output_pipe(map)?;
    let (word, last) = pipe2(super::QUIET).doing("make a pipe for the last word")?;
    let pid_file = checkpoint.path().join(PID_FILE);
    let _there_was_none = fs::remove_file(&pid_file);
    let root = root::new_root();
    let gifts = Gifts {
        root: &root,
        stage: root::stage(),
        externals: &made.externals,
        pipes: &[(write_end.as_raw_fd(), made.output), (last.as_raw_fd(), made.word)],
        pid_file: Path::new(PID_FILE),
    };
    let words = restore_words(checkpoint.path(), &hook::program()?, &gifts);
    let doors = group.doors()?;
    let inherited: [RawFd; 2] = [write_end.as_raw_fd(), last.as_raw_fd()];
    let prepare = |command: &mut Command| {
        let inside = move || {
            doors.enter().map_err(|error| io::Error::other(error.chain()))?;
            // In the machine's cgroup by now, so that it is what its processes see as the root.
            unshare(CloneFlags::CLONE_NEWCGROUP)?;
            for fd in inherited {
                // SAFETY: open in the parent, and so in this copy of it.
                fcntl(unsafe { BorrowedFd::borrow_raw(fd) }, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        };
        // SAFETY: the supervisor has one thread, so its copy may do whatever it likes before it becomes CRIU.
        unsafe { command.pre_exec(inside) };
    };
    let criu = Criu::find().doing(doing)?;
    lend(&checkpoint, map.root_outside()).doing(doing)?;
    let restored = criu.run("restore", &words, checkpoint.path(), prepare);
    take_back(&checkpoint).doing(doing)?;
    let _log_for_people = fs::copy(checkpoint.path().join(LOG), LOG);
    if let Ok(reason) = fs::read_to_string(checkpoint.path().join(hook::FAILED)) {
        let _next_time_anew = fs::remove_file(checkpoint.path().join(hook::FAILED));
        return Err(StepError::new(doing, reason));
    }
    restored.doing(doing)?;
    let pid = fs::read_to_string(&pid_file).doing(doing)?.trim().parse().doing(doing)?;
    Ok(Tree { init: Init { pid: Pid::from_raw(pid), channel: Channel::closed()? }, output, word: Some(word) })
}

/// Lets the first restored process look for images by their names. It does so as the host's user 0, whom the folder belongs to, while it
/// is in the machine's user namespace already, whose ids may not be there yet and whose capabilities count for nothing then
/// (CRIU's `prepare_timens`); later as the machine's user 0, by its group.
fn lend(checkpoint: &Checkpoint, group: u32) -> io::Result<()> {
    chown(checkpoint.path(), Some(0), Some(group))?;
    fs::set_permissions(checkpoint.path(), Permissions::from_mode(0o710))
}

/// Closed to all but root again.
fn take_back(checkpoint: &Checkpoint) -> io::Result<()> {
    fs::set_permissions(checkpoint.path(), Permissions::from_mode(0o700))?;
    chown(checkpoint.path(), Some(0), Some(0))
}
