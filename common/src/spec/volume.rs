//! Folders that outlive a machine, and are shown within it.

use super::{BadName, Name};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// A volume of the machine's host by its name. It is made when it is first asked for.
    Named(Name),
    /// A folder of the machine's host, below one that its configuration names.
    Folder(FolderPath),
}

/// A volume, and where it is within the machine: `data:/var/lib/data`, `/srv/www:/www:ro`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// What is shown.
    pub source: VolumeSource,
    /// Where.
    pub target: FolderPath,
    /// Whether the machine may only read it.
    pub read_only: bool,
}

/// An absolute path without detours: no `.`, no `..`, no empty parts, and not `/` itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FolderPath(String);

/// A text that is no volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadVolume {
    /// Not two or three parts.
    #[error(
        "write it like data:/var/lib/data or /srv/www:/www:ro: a volume's name or a folder of the host, and where the machine has it"
    )]
    Shape,
    /// The third part is neither of the two.
    #[error("ends with {0:?}: after the machine's folder comes ro, rw or nothing")]
    Mode(String),
    /// The first part is no path, and no name either.
    #[error("the volume's name {0}; a folder of the host begins with /")]
    Name(BadName),
    /// A path that is not absolute, or goes a long way round.
    #[error("{0:?} must be an absolute path without '.', '..' or an empty part, of at most {max} bytes, and not / itself", max = FolderPath::LENGTH_MAX)]
    Path(String),
    /// Where a machine has something else.
    #[error("{0:?} is no place for a volume: /proc, /sys and /dev are the kernel's")]
    Kernels(String),
}

impl FolderPath {
    /// Longest: what the kernel takes (`PATH_MAX`), with room for where the machine's root is.
    pub const LENGTH_MAX: usize = 1024;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its folders, from the root on.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0[1..].split('/')
    }
}

impl FromStr for FolderPath {
    type Err = BadVolume;
    fn from_str(text: &str) -> Result<Self, BadVolume> {
        let wrong = || BadVolume::Path(text.to_owned());
        let inner = text.strip_prefix('/').ok_or_else(wrong)?;
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let is_fine = |part: &str| !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control);
        match inner.len() < Self::LENGTH_MAX && inner.split('/').all(is_fine) {
            true => Ok(Self(format!("/{inner}"))),
            false => Err(wrong()),
        }
    }
}

impl TryFrom<String> for FolderPath {
    type Error = BadVolume;
    fn try_from(text: String) -> Result<Self, BadVolume> {
        text.parse()
    }
}

impl From<FolderPath> for String {
    fn from(path: FolderPath) -> Self {
        path.0
    }
}

impl FromStr for VolumeMount {
    type Err = BadVolume;
    fn from_str(text: &str) -> Result<Self, BadVolume> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, mode) = match parts.as_slice() {
            [source, target] => (*source, *target, "rw"),
            [source, target, mode] => (*source, *target, *mode),
            _ => return Err(BadVolume::Shape),
        };
        let read_only = match mode {
            "ro" => true,
            "rw" => false,
            other => return Err(BadVolume::Mode(other.to_owned())),
        };
        let source = match source.starts_with('/') {
            true => VolumeSource::Folder(source.parse()?),
            false => VolumeSource::Named(source.parse().map_err(BadVolume::Name)?),
        };
        let target: FolderPath = target.parse()?;
        let is_the_kernels = target.parts().next().is_some_and(|top| matches!(top, "proc" | "sys" | "dev"));
        match is_the_kernels {
            true => Err(BadVolume::Kernels(target.0)),
            false => Ok(Self { source, target, read_only }),
        }
    }
}

impl fmt::Display for FolderPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for VolumeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => name.fmt(f),
            Self::Folder(path) => path.fmt(f),
        }
    }
}

impl fmt::Display for VolumeMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.read_only { ":ro" } else { "" };
        write!(f, "{}:{}{mode}", self.source, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec;

    #[test]
    fn volumes_are_read_as_they_are_shown() {
        for text in ["data:/var/lib/data", "/srv/www:/www:ro", "a.b-c_1:/x"] {
            assert_eq!(text.parse::<VolumeMount>().unwrap().to_string(), text);
        }
        assert_eq!("data:/x/:rw".parse::<VolumeMount>().unwrap().to_string(), "data:/x");
        let parts = "/a/b/c".parse::<FolderPath>().unwrap();
        assert_eq!(parts.parts().collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn what_comes_over_the_wire_is_looked_at_again() {
        let path: FolderPath = "/srv/www".parse().unwrap();
        let bytes = codec::encode(&path).unwrap();
        assert_eq!(codec::decode::<FolderPath>(&bytes).unwrap(), path);
        for text in ["", "/", "srv", "/srv/../etc"] {
            let bytes = codec::encode(&text).unwrap();
            assert!(codec::decode::<FolderPath>(&bytes).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_volume_says_why() {
        let wrong = |text: &str| text.parse::<VolumeMount>().unwrap_err();
        for text in ["", "data", "/srv", "a:/b:ro:x", "a:b:c:d"] {
            assert_eq!(wrong(text), BadVolume::Shape, "{text}");
        }
        assert_eq!(wrong("a:/b:rx"), BadVolume::Mode("rx".into()));
        for text in ["../a:/b", ":/b", "a b:/b", ".hidden:/b"] {
            assert!(matches!(wrong(text), BadVolume::Name(_)), "{text}");
        }
        let long = format!("a:/{}", "x".repeat(FolderPath::LENGTH_MAX));
        for text in ["a:b", "a:/", "a://", "a:/b/../c", "a:/b/.", "a:/b//c", "/a/..:/b", "a:/b\n", &long] {
            assert!(matches!(wrong(text), BadVolume::Path(_)), "{text}");
        }
        for text in ["a:/proc", "a:/sys/x", "a:/dev/shm"] {
            assert!(matches!(wrong(text), BadVolume::Kernels(_)), "{text}");
        }
    }
}
