//! Whom a machine's command runs as: its image's `User` (`config.md` of the OCI image specification), looked up in the
//! image's own `/etc/passwd` and `/etc/group`, by an init that sees nothing else.

use super::{
    ids,
    step::{Doing, StepError},
};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    unistd::{Gid, Uid, fchown, setgroups, setresgid, setresuid},
};
use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
};

/// Longest passwd or group file that is read.
const DATABASE_MAX: u64 = 1 << 20;

/// Why nobody goes by this name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchUser {
    /// Not in `/etc/passwd`.
    #[error("the image's /etc/passwd has no user {0:?}")]
    User(String),
    /// Not in `/etc/group`.
    #[error("the image's /etc/group has no group {0:?}")]
    Group(String),
    /// More than a machine has.
    #[error("{0} is above 65535, the highest id that a machine has")]
    TooHigh(u32),
}

/// A user, in the machine's own numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    user: u32,
    group: u32,
    /// Beside `group`.
    others: Vec<u32>,
    /// Its home, where the passwd file tells one.
    pub home: Option<String>,
}

impl Identity {
    /// Looks up `user[:group]`, either as a name or a number, in the root that this process has.
    ///
    /// # Errors
    /// [`StepError`] if there is no such user or group, or the files cannot be read.
    pub fn find(user: &str) -> Result<Self, StepError> {
        let doing = || format!("run as {user:?}");
        let read = |path| database(Path::new(path)).doing(&format!("{}: read {path}", doing()));
        Self::of(user, &read("/etc/passwd")?, &read("/etc/group")?)
            .map_err(|cause| StepError::new(doing(), cause))
    }

    fn of(user: &str, passwd: &str, group: &str) -> Result<Self, NoSuchUser> {
        let (name, group_name) = match user.split_once(':') {
            Some((name, group_name)) => (name, Some(group_name)),
            None => (user, None),
        };
        let entry = entries(passwd).find(|fields| is_called(fields, name));
        let number = |fields: &[&str], at: usize| fields.get(at).and_then(|id| id.parse::<u32>().ok());
        let id = entry.as_ref().and_then(|fields| number(fields, 2)).or_else(|| name.parse().ok());
        let id = id.ok_or_else(|| NoSuchUser::User(name.to_owned()))?;
        let own_group = entry.as_ref().and_then(|fields| number(fields, 3)).unwrap_or(0);
        let (own_group, others) = match group_name {
            Some(wanted) => {
                let found = entries(group).find(|fields| is_called(fields, wanted));
                let found = found.and_then(|fields| number(&fields, 2)).or_else(|| wanted.parse().ok());
                (found.ok_or_else(|| NoSuchUser::Group(wanted.to_owned()))?, Vec::new())
            }
            None => {
                let login = entry.as_ref().and_then(|fields| fields.first().copied());
                (own_group, member_of(group, login))
            }
        };
        let highest = others.iter().copied().chain([id, own_group]).max().unwrap_or(id);
        if highest >= ids::RANGE {
            return Err(NoSuchUser::TooHigh(highest));
        }
        let home = entry.and_then(|fields| fields.get(5).map(|home| (*home).to_owned()));
        Ok(Self { user: id, group: own_group, others, home: home.filter(|home| home.starts_with('/')) })
    }

    /// Makes the calling process this user's, for good, and hands over what it prints to: programs that open
    /// `/dev/stdout` by name need that.
    ///
    /// # Errors
    /// [`StepError`] if the kernel refuses, as it does for ids that are not mapped.
    pub fn assume(&self) -> Result<(), StepError> {
        let doing = || format!("become user {} and group {}", self.user, self.group);
        let (user, group) = (Uid::from_raw(self.user), Gid::from_raw(self.group));
        if self.user != 0 {
            // SAFETY: descriptor 1 is open: what is printed goes there.
            let output = unsafe { BorrowedFd::borrow_raw(1) };
            fchown(output.as_fd(), Some(user), Some(group)).doing("hand over the standard output")?;
        }
        let others: Vec<Gid> = self.others.iter().copied().map(Gid::from_raw).collect();
        setgroups(&others).doing(&doing())?;
        setresgid(group, group, group).doing(&doing())?;
        setresuid(user, user, user).doing(&doing())
    }
}

/// The lines of a file like `/etc/passwd`.
fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

/// By its name, or else by its number.
fn is_called(fields: &[&str], name: &str) -> bool {
    fields.first() == Some(&name) || (name.parse::<u32>().is_ok() && fields.get(2) == Some(&name))
}

fn member_of(group: &str, login: Option<&str>) -> Vec<u32> {
    let Some(login) = login else { return Vec::new() };
    let has =
        |fields: &Vec<&str>| fields.get(3).is_some_and(|members| members.split(',').any(|m| m == login));
    entries(group).filter(has).filter_map(|fields| fields.get(2)?.parse().ok()).collect()
}

/// An image may have none, or something else in its place.
fn database(path: &Path) -> std::io::Result<String> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY).bits();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(String::new()),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = Vec::new();
    file.take(DATABASE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/srv/app:/bin/sh\nbroken\n\
                          far:x:70000:0::/:/bin/sh\n1000x:x:7:7::relative:\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nwww:x:33:other,app\nlog:x:4:app\nwide:x:99999:\n";

    fn of(user: &str) -> Result<(u32, u32, Vec<u32>, Option<String>), NoSuchUser> {
        Identity::of(user, PASSWD, GROUP).map(|found| (found.user, found.group, found.others, found.home))
    }

    #[test]
    fn users_and_groups_go_by_name_or_number() {
        let home = || Some("/srv/app".to_owned());
        for app in ["app", "1000"] {
            assert_eq!(of(app), Ok((1000, 1001, vec![33, 4], home())));
        }
        assert_eq!(of("app:www"), Ok((1000, 33, vec![], home())));
        assert_eq!(of("app:5"), Ok((1000, 5, vec![], home())));
        assert_eq!(of("0"), Ok((0, 0, vec![], Some("/root".to_owned()))));
        // A number needs no entry.
        assert_eq!(of("2000"), Ok((2000, 0, vec![], None)));
        assert_eq!(of("2000:2001"), Ok((2000, 2001, vec![], None)));
        assert_eq!(of("1000x"), Ok((7, 7, vec![], None)));
    }

    #[test]
    fn whoever_is_not_there_is_named() {
        assert_eq!(of("nobody"), Err(NoSuchUser::User("nobody".to_owned())));
        assert_eq!(of(""), Err(NoSuchUser::User(String::new())));
        assert_eq!(of("broken"), Err(NoSuchUser::User("broken".to_owned())));
        assert_eq!(of("app:nobody"), Err(NoSuchUser::Group("nobody".to_owned())));
        assert_eq!(of("far"), Err(NoSuchUser::TooHigh(70000)));
        assert_eq!(of("app:wide"), Err(NoSuchUser::TooHigh(99999)));
        assert_eq!(of("-1"), Err(NoSuchUser::User("-1".to_owned())));
    }

    #[test]
    fn a_database_that_is_missing_is_empty_and_a_folder_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(database(&folder.path().join("passwd")).unwrap(), "");
        assert!(database(folder.path()).is_err());
    }
}
