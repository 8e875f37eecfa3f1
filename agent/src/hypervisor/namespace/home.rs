//! Where the supervisors of one kind have their folders, and the name of their cgroups. What an agent finds here
//! after a restart is what it adopts; what it finds of ours without a folder is swept away.

use super::{
    cgroup::Group,
    folder::{Folder, FolderError},
    net::Tag,
    step::{Doing, StepError},
};
use std::path::{Path, PathBuf};

/// Characters of the instance's name: enough that no two agents under one kernel share a cgroup.
const INSTANCE_CHARS: usize = 12;

/// A folder of folders.
#[derive(Debug, Clone)]
pub struct Home {
    path: PathBuf,
    instance: String,
}

/// A home that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Its own files.
    #[error("could not open {path}")]
    Open {
        /// The home.
        path: PathBuf,
        /// Why.
        #[source]
        cause: StepError,
    },
    /// A supervisor's folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl Home {
    /// Opens it, and makes it first if need be.
    ///
    /// # Errors
    /// [`HomeError`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, HomeError> {
        let path = path.into();
        match Self::instance(&path) {
            Ok(instance) => Ok(Self { path, instance }),
            Err(cause) => Err(HomeError::Open { path, cause }),
        }
    }

    /// The name is made once and kept, so that a later life of the agent finds the groups of an earlier one. Two
    /// agents may share a kernel (and paths, in mount namespaces of their own), so the path cannot be the name.
    fn instance(path: &Path) -> Result<String, StepError> {
        std::fs::create_dir_all(path).doing("make the folder")?;
        let file = path.join(".instance");
        match std::fs::read_to_string(&file) {
            Ok(name) if name.len() == INSTANCE_CHARS && name.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Ok(name)
            }
            _ => {
                let name: String =
                    uuid::Uuid::new_v4().simple().to_string().chars().take(INSTANCE_CHARS).collect();
                std::fs::write(&file, &name).doing("write the instance's name")?;
                Ok(name)
            }
        }
    }

    /// The folder of this name.
    pub fn folder(&self, name: &str) -> Folder {
        Folder::at(self.path.join(name))
    }

    /// The names of all supervisors' folders; one that begins with a dot is another's.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn names(&self) -> Result<Vec<String>, FolderError> {
        let io = |cause| FolderError::Io { doing: "list", path: self.path.clone(), cause };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_type().map_err(io)?.is_dir() {
                names.extend(entry.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The cgroup of the supervisor with this name.
    pub fn group_of(&self, name: &str) -> String {
        format!("{}/{name}", self.group())
    }

    /// What its network links have in their names.
    pub fn tag(&self) -> Tag {
        Tag::of(&self.instance)
    }

    fn group(&self) -> String {
        format!("novacron-{}", self.instance)
    }

    /// Ends and removes every cgroup of ours but those of `keep`, and the one above them if nothing is kept.
    pub fn sweep_groups(&self, keep: &[String]) {
        let above = Group::load(&self.group());
        for name in above.children().into_iter().filter(|name| !keep.contains(name)) {
            sweep(&Group::load(&self.group_of(&name)));
        }
        if keep.is_empty() {
            drop(above.remove());
        }
    }

    /// Ends and removes what is left of one tree.
    pub fn sweep_group(&self, name: &str) {
        sweep(&Group::load(&self.group_of(name)));
    }
}

fn sweep(group: &Group) {
    if let Err(error) = group.kill_all().and_then(|()| group.remove()) {
        tracing::warn!(error = error.chain(), "could not sweep a cgroup");
    }
}
