//! The UNIX sockets of one migration.
//!
//! `RUN_DIR/m/<12 hex digits of the migration's id>/` holds `c` (control), `r` (memory) and `d` (disks): short,
//! since a socket's path has at most 107 bytes. On the source the agent listens there, on the target QEMU does, and
//! libvirt needs the same path on both, so `migration.run_dir` is the same on every host. The folder belongs to
//! QEMU's user, who binds and connects there; nobody else but root gets in, and the agent looks at SO_PEERCRED
//! besides.

use crate::migrate::ports::Route;
use nix::unistd::{Uid, User};
use novacron_common::{ids::MigrationId, wire::LaneKind};
use std::{
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};
use tokio::net::{UnixListener, UnixStream};

/// Debian's and libvirt's own default for whom QEMU runs as.
const QEMU_USER: &str = "libvirt-qemu";

/// The sockets could not be made.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing} {}", path.display())]
pub struct SocketError {
    /// What was being done.
    pub doing: &'static str,
    /// To what.
    pub path: PathBuf,
    /// The kernel's reason.
    #[source]
    pub cause: io::Error,
}

fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SocketError + 'a {
    move |cause| SocketError { doing, path: path.to_owned(), cause }
}

/// Where all migrations of this host have their sockets.
#[derive(Debug, Clone)]
pub struct SocketRoom {
    folder: PathBuf,
    qemu: Uid,
}

impl SocketRoom {
    /// Below `run_dir`. `qemu_user` is whom QEMU runs as; without it libvirt's default if there is such a user,
    /// else root. Sockets of an earlier life of the agent are removed, but for those of migrations that go on.
    ///
    /// # Errors
    /// If there is no such user, or the folder cannot be made.
    pub fn open(run_dir: &Path, qemu_user: Option<&str>, go_on: &[MigrationId]) -> Result<Self, SocketError> {
        let qemu = uid_of(qemu_user).map_err(at("find QEMU's user for", run_dir))?;
        Self::for_uid(run_dir, qemu, go_on)
    }

    /// As [`SocketRoom::open`], for a QEMU that runs as `qemu`.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn for_uid(run_dir: &Path, qemu: Uid, go_on: &[MigrationId]) -> Result<Self, SocketError> {
        let folder = run_dir.join("m");
        let spared: Vec<_> = go_on.iter().map(|migration| name_of(*migration)).collect();
        clear(&folder, &spared).map_err(at("clear", &folder))?;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder);
        made.map_err(at("make", &folder))?;
        Ok(Self { folder, qemu })
    }

    /// The folder of one migration, made anew.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn make(&self, migration: MigrationId) -> Result<Sockets, SocketError> {
        let folder = self.folder.join(name_of(migration));
        let _ = std::fs::remove_dir_all(&folder); // of a try that was cut short
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(at("make", &folder))?;
        let sockets = Sockets { folder, qemu: self.qemu };
        nix::unistd::chown(&sockets.folder, Some(self.qemu), None)
            .map_err(|errno| at("hand over", &sockets.folder)(errno.into()))?;
        Ok(sockets)
    }

    /// The folder of one migration, as a predecessor left it.
    pub fn adopt(&self, migration: MigrationId) -> Sockets {
        Sockets { folder: self.folder.join(name_of(migration)), qemu: self.qemu }
    }
}

/// Twelve hex digits of its id.
fn name_of(migration: MigrationId) -> String {
    let hex = migration.uuid().simple().to_string();
    hex[hex.len() - 12..].to_owned()
}

/// Removes what is in `folder`, but for `spared`.
fn clear(folder: &Path, spared: &[String]) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if spared.iter().any(|name| entry.file_name() == name.as_str()) {
            continue;
        }
        match std::fs::remove_dir_all(entry.path()) {
            // Whoever made it has just removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn uid_of(user: Option<&str>) -> io::Result<Uid> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("there is no user {user:?}"));
    match (User::from_name(user.unwrap_or(QEMU_USER))?, user) {
        (Some(found), _) => Ok(found.uid),
        (None, None) => Ok(Uid::from_raw(0)),
        (None, Some(_)) => Err(unknown()),
    }
}

/// The sockets' folder of one migration; removed when this is dropped.
#[derive(Debug)]
pub struct Sockets {
    folder: PathBuf,
    qemu: Uid,
}

impl Sockets {
    /// The socket of one kind.
    pub fn path(&self, kind: LaneKind) -> PathBuf {
        self.folder.join(match kind {
            LaneKind::Control => "c",
            LaneKind::Memory => "r",
            LaneKind::Disk => "d",
            LaneKind::Held => "h",
        })
    }

    /// The URIs that libvirt is told.
    pub fn route(&self, disk: Option<&'static str>) -> Route {
        let unix = |kind| format!("unix://{}", self.path(kind).display());
        Route {
            control_uri: format!("qemu+unix:///system?socket={}", self.path(LaneKind::Control).display()),
            migrate_uri: unix(LaneKind::Memory),
            disks_uri: unix(LaneKind::Disk),
            disk,
        }
    }

    /// Listens on the socket of one kind; root and QEMU's user may connect.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn listen(&self, kind: LaneKind) -> Result<UnixListener, SocketError> {
        let path = self.path(kind);
        let listener = UnixListener::bind(&path).map_err(at("listen on", &path))?;
        let only_owner = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, only_owner).map_err(at("restrict", &path))?;
        nix::unistd::chown(&path, Some(self.qemu), None).map_err(|e| at("hand over", &path)(e.into()))?;
        Ok(listener)
    }

    /// Leaves everything as it is, for a successor.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    /// Who may connect here.
    pub fn guard(&self) -> PeerGuard {
        PeerGuard { qemu: self.qemu }
    }
}

/// Looks at who connected.
#[derive(Debug, Clone, Copy)]
pub struct PeerGuard {
    qemu: Uid,
}

impl PeerGuard {
    /// Whether whoever is at the other end of `stream` may speak there (SO_PEERCRED): root or QEMU's user.
    pub fn admits(self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == self.qemu.as_raw())
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "sockets of a migration are left over");
        }
    }
}
