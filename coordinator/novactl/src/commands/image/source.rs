//! What somebody wants to import: told by what is in it, and refused where it is nothing of the kind.

use super::archive::{self, hash};
use crate::error::CtlError;
use novacron_common::spec::ImageFormat;
use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// One of these at the top makes an archive or a folder an image.
const OF_AN_IMAGE: [&str; 2] = ["oci-layout", "manifest.json"];

/// One of these at the top makes it a root file system.
const OF_A_ROOT: [&str; 5] = ["bin", "sbin", "usr", "etc", "lib"];

/// The only place of an OCI image layout whose files go by their content here.
const BLOBS: &str = "blobs/sha256";

/// gzip, and Zstandard.
const COMPRESSED: [&[u8]; 2] = [&[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd]];

/// It, as it was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// Is an archive already.
    File(PathBuf, ImageFormat),
    /// Has to be packed.
    Folder(PathBuf, ImageFormat),
}

impl Source {
    /// Looks at a file or folder.
    pub fn of(path: &Path) -> Result<Self, CtlError> {
        let found = fs::metadata(path).map_err(CtlError::local(format!("find {}", path.display())))?;
        let refused = |why: &str| Err(CtlError::Settings(format!("{}: {why}", path.display())));
        let tops = if found.is_dir() { names(path)? } else { archive::tops(path)? };
        let has = |wanted: &[&str]| tops.iter().any(|top| wanted.contains(&top.as_str()));
        let format = match (has(&OF_AN_IMAGE), has(&OF_A_ROOT)) {
            (true, _) => ImageFormat::Oci,
            (false, true) => ImageFormat::Rootfs,
            (false, false) => {
                return refused(
                    "is neither an OCI image layout (no oci-layout), nor what docker save writes (no manifest.json), nor a root \
                     file system (no bin, usr or etc at its top)",
                );
            }
        };
        if found.is_dir() {
            if format == ImageFormat::Oci {
                check_blobs(path)?;
            }
            return Ok(Self::Folder(path.to_owned(), format));
        }
        if format == ImageFormat::Oci && is_compressed(path)? {
            return refused(
                "is an image that is compressed as a whole: uncompress it first (gunzip, unzstd)",
            );
        }
        Ok(Self::File(path.to_owned(), format))
    }

    /// What it is to the agents.
    pub const fn format(&self) -> ImageFormat {
        match self {
            Self::File(_, format) | Self::Folder(_, format) => *format,
        }
    }
}

fn names(folder: &Path) -> Result<Vec<String>, CtlError> {
    let failed = || CtlError::local(format!("look into {}", folder.display()));
    let entries = fs::read_dir(folder).map_err(failed())?.collect::<io::Result<Vec<_>>>().map_err(failed())?;
    Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn is_compressed(file: &Path) -> Result<bool, CtlError> {
    let mut head = Vec::new();
    let opened = File::open(file).and_then(|file| file.take(4).read_to_end(&mut head));
    opened.map_err(CtlError::local(format!("read {}", file.display())))?;
    Ok(COMPRESSED.iter().any(|magic| head.starts_with(magic)))
}

/// A blob is what its name says, and no link: that would be packed as one, and lead nowhere. Only an image that has none of
/// them damaged is worth its way.
fn check_blobs(layout: &Path) -> Result<(), CtlError> {
    let folder = layout.join(BLOBS);
    for name in names(&folder)? {
        let blob = folder.join(&name);
        let failed = || CtlError::local(format!("read {}", blob.display()));
        let refused = |why: String| Err(CtlError::Settings(format!("{} {why}", blob.display())));
        let found = fs::symlink_metadata(&blob).map_err(failed())?;
        if !Metadata::is_file(&found) {
            return refused("is no plain file: copy the layout with its links resolved".into());
        }
        let sha256 = File::open(&blob).and_then(|mut file| hash(&mut file, io::sink())).map_err(failed())?;
        if sha256.to_string() != name {
            return refused(format!("is damaged: its content is sha256 {sha256}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::symlink, process::Command};

    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn make(folder: &Path, files: &[&str]) {
        for file in files {
            let file = folder.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "hello").unwrap();
        }
    }

    /// With the top folder as "./", as `tar -C folder .` writes it.
    fn pack(folder: &Path, flags: &str, name: &str) -> PathBuf {
        let file = folder.with_file_name(name);
        assert!(
            Command::new("tar")
                .arg("-C")
                .arg(folder)
                .arg(flags)
                .arg(&file)
                .arg(".")
                .status()
                .unwrap()
                .success()
        );
        file
    }

    #[test]
    fn what_it_is_is_told_by_what_is_in_it() {
        let place = tempfile::tempdir().unwrap();
        let (layout, docker, root) = (place.path().join("l"), place.path().join("d"), place.path().join("r"));
        make(&layout, &["oci-layout", "index.json", &format!("{BLOBS}/{HELLO}")]);
        make(&docker, &["manifest.json", "layer.tar"]);
        make(&root, &["bin/sh", "etc/passwd"]);
        for (folder, format) in
            [(&layout, ImageFormat::Oci), (&docker, ImageFormat::Oci), (&root, ImageFormat::Rootfs)]
        {
            let packed = pack(folder, "-cf", "packed.tar");
            assert_eq!(Source::of(&packed).unwrap(), Source::File(packed, format));
        }
        assert_eq!(Source::of(&layout).unwrap(), Source::Folder(layout.clone(), ImageFormat::Oci));
        assert_eq!(Source::of(&root).unwrap(), Source::Folder(root.clone(), ImageFormat::Rootfs));
        let small = pack(&root, "-czf", "small.tar.gz");
        assert_eq!(Source::of(&small).unwrap().format(), ImageFormat::Rootfs);
        let whole = pack(&layout, "-czf", "whole.tar.gz");
        assert!(Source::of(&whole).unwrap_err().to_string().contains("gunzip"));
    }

    #[test]
    fn what_is_nothing_of_the_kind_is_refused_and_so_is_a_damaged_layout() {
        let place = tempfile::tempdir().unwrap();
        let (other, layout) = (place.path().join("o"), place.path().join("l"));
        make(&other, &["a", "deep/bin/sh"]);
        assert!(Source::of(&other).unwrap_err().to_string().contains("neither"));
        assert!(Source::of(&pack(&other, "-cf", "o.tar")).unwrap_err().to_string().contains("neither"));
        assert!(Source::of(&other.join("a")).unwrap_err().describe().contains("tar"));
        assert!(Source::of(&place.path().join("none")).is_err());
        make(&layout, &["oci-layout", &format!("{BLOBS}/{}", HELLO.replace('2', "3"))]);
        assert!(Source::of(&layout).unwrap_err().to_string().contains("damaged"));
        fs::remove_dir_all(layout.join(BLOBS)).unwrap();
        fs::create_dir_all(layout.join(BLOBS)).unwrap();
        symlink("/etc/shadow", layout.join(BLOBS).join(HELLO)).unwrap();
        assert!(Source::of(&layout).unwrap_err().to_string().contains("no plain file"));
    }
}
