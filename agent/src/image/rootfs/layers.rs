//! Unpacked layers, kept by their content and shared by all machines of this host.
//!
//! ```text
//! layers/  <sha256 of the layer's uncompressed stream>/   the layer, complete: it gets this name by a rename
//!          images/<sha256 of the archive>                which layers an image has, and its program
//!          .new-<uuid>/                                  being unpacked; removed when the store is opened
//! ```
//!
//! Nobody but root may enter: a layer has files that a stranger wrote, owned by the host's own ids. Machines see it
//! through mappings of their own.

use super::{
    RootfsError,
    apply::{Limits, apply},
    archive::{Archive, Hashing, check, decompressed},
    manifest,
    tree::{self, OnDisk},
};
use crate::hypervisor::RootImage;
use novacron_common::{
    spec::{ImageFormat, ImageRun, Sha256Digest},
    units::ByteCount,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Most files and folders of one layer. Each costs an inode whatever its size.
const MEMBERS_MAX: u64 = 1_000_000;
/// Of the free room, this part is left to the host, in percent.
const ROOM_LEFT_PERCENT: u64 = 10;
const STAGING: &str = ".new-";
const IMAGES: &str = "images";

/// What is kept of an image.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    layers: Vec<Sha256Digest>,
    #[serde(flatten)]
    run: ImageRun,
}

/// The layers of one host. All methods block.
#[derive(Debug)]
pub struct LayerStore {
    folder: PathBuf,
    max: ByteCount,
    /// One image is unpacked at a time: two that share a layer unpack it once.
    turn: Mutex<()>,
}

impl LayerStore {
    /// Opens the store, and removes what a crash left half-unpacked. No layer may unpack to more than `max`.
    ///
    /// # Errors
    /// [`RootfsError::Io`].
    pub fn open(folder: PathBuf, max: ByteCount) -> Result<Self, RootfsError> {
        let open = || RootfsError::io("open the folder of layers");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.join(IMAGES)).map_err(open())?;
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(open())?;
        for parent in [&folder, &folder.join(IMAGES)] {
            for entry in fs::read_dir(parent).map_err(open())? {
                let entry = entry.map_err(open())?;
                if entry.file_name().to_string_lossy().starts_with(STAGING) {
                    remove(&entry.path()).map_err(RootfsError::io("remove what was half-unpacked"))?;
                }
            }
        }
        Ok(Self { folder, max, turn: Mutex::default() })
    }

    /// The image of this archive, if it was unpacked.
    ///
    /// # Errors
    /// [`RootfsError`] if its record cannot be read.
    pub fn find(&self, archive: Sha256Digest) -> Result<Option<RootImage>, RootfsError> {
        let Some(record) = self.record(archive)? else { return Ok(None) };
        let layers: Vec<PathBuf> = record.layers.iter().map(|layer| self.path(*layer)).collect();
        let is_whole = layers.iter().all(|layer| layer.is_dir());
        Ok(is_whole.then_some(RootImage { layers, run: record.run }))
    }

    /// Has the image of an archive, whose content was checked to be `sha256`, unpacked.
    ///
    /// # Errors
    /// [`RootfsError`]; complete layers stay and are taken up by the next try.
    pub fn ensure(
        &self,
        archive: &Path,
        sha256: Sha256Digest,
        format: ImageFormat,
    ) -> Result<RootImage, RootfsError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = self.find(sha256)? {
            return Ok(ready);
        }
        let file = File::open(archive).map_err(RootfsError::io("open the archive"))?;
        let record = match format {
            ImageFormat::Rootfs => Record { layers: vec![self.unpack(1, file)?], run: ImageRun::default() },
            _ => self.unpack_image(file)?,
        };
        self.keep(sha256, &record)?;
        let layers = record.layers.iter().map(|layer| self.path(*layer)).collect();
        Ok(RootImage { layers, run: record.run })
    }

    /// The archives whose images are here.
    ///
    /// # Errors
    /// [`RootfsError::Io`].
    pub fn list(&self) -> Result<Vec<Sha256Digest>, RootfsError> {
        names(&self.folder.join(IMAGES))
    }

    /// Removes every image but those of `keep`, and the layers that only they had. No machine may use one.
    ///
    /// # Errors
    /// [`RootfsError`].
    pub fn retain(&self, keep: &[Sha256Digest]) -> Result<(), RootfsError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || RootfsError::io("remove an image");
        let mut used = BTreeSet::new();
        for image in self.list()? {
            if !keep.contains(&image) {
                fs::remove_file(self.record_path(image)).map_err(gone())?;
            } else if let Some(record) = self.record(image)? {
                used.extend(record.layers);
            }
        }
        for layer in names(&self.folder)?.into_iter().filter(|layer| !used.contains(layer)) {
            // Under its own name it would look complete while it goes.
            let going = self.staging();
            fs::rename(self.path(layer), &going).and_then(|()| remove(&going)).map_err(gone())?;
        }
        Ok(())
    }

    fn unpack_image(&self, file: File) -> Result<Record, RootfsError> {
        let archive = Archive::open(file)?;
        let manifest = archive.manifest()?;
        let config = manifest::config(&archive.document(&manifest.config)?, manifest.layers.len())?;
        for (index, (blob, wanted)) in manifest.layers.iter().zip(&config.diff_ids).enumerate() {
            if self.path(*wanted).is_dir() {
                continue;
            }
            let mut packed = Hashing::new(archive.layer(blob)?);
            let staged = self.stage(index + 1, &mut packed)?;
            check(blob, packed.finish().map_err(RootfsError::io("read the archive"))?)?;
            if staged.found != *wanted {
                return Err(RootfsError::Checksum { wanted: *wanted, found: staged.found });
            }
            staged.settle(&self.path(*wanted))?;
        }
        Ok(Record { layers: config.diff_ids, run: config.run })
    }

    fn unpack(&self, number: usize, packed: impl Read) -> Result<Sha256Digest, RootfsError> {
        let staged = self.stage(number, packed)?;
        let found = staged.found;
        if !self.path(found).is_dir() {
            staged.settle(&self.path(found))?;
        }
        Ok(found)
    }

    /// Unpacks a layer under a name that says that it is not complete.
    fn stage(&self, number: usize, packed: impl Read) -> Result<Staged, RootfsError> {
        let make = || RootfsError::io("make a folder for a layer");
        let limits = Limits { bytes: self.room()?.0, members: MEMBERS_MAX };
        let folder = self.staging();
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(make())?;
        let mut staged = Staged { folder, found: Sha256Digest([0; 32]) };
        let mut tree = OnDisk::open(&staged.folder).map_err(make())?;
        let mut plain = Hashing::new(decompressed(packed).map_err(RootfsError::io("read a layer"))?);
        let applied = apply(&mut plain, limits, &mut tree);
        let applied = applied.map_err(|cause| RootfsError::Layer { number, cause })?;
        staged.found = plain.finish().map_err(RootfsError::io("read a layer"))?;
        tracing::info!(layer = %staged.found, members = applied.members, devices = applied.left_out, "unpacked");
        Ok(staged)
    }

    /// Bytes that a layer may have.
    fn room(&self) -> Result<ByteCount, RootfsError> {
        let system = nix::sys::statvfs::statvfs(&self.folder).map_err(io::Error::from);
        let system = system.map_err(RootfsError::io("measure the free room for layers"))?;
        let free = system.blocks_available().saturating_mul(system.fragment_size());
        Ok(self.max.min(ByteCount(free / 100 * (100 - ROOM_LEFT_PERCENT))))
    }

    fn path(&self, layer: Sha256Digest) -> PathBuf {
        self.folder.join(layer.to_string())
    }

    fn staging(&self) -> PathBuf {
        self.folder.join(format!("{STAGING}{}", uuid::Uuid::new_v4().simple()))
    }

    fn record_path(&self, archive: Sha256Digest) -> PathBuf {
        self.folder.join(IMAGES).join(archive.to_string())
    }

    fn record(&self, archive: Sha256Digest) -> Result<Option<Record>, RootfsError> {
        let path = self.record_path(archive);
        match fs::read(&path) {
            Ok(bytes) => {
                let record = serde_json::from_slice(&bytes);
                record.map(Some).map_err(|cause| RootfsError::Record { path, cause })
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(RootfsError::io("read the record of an image")(cause)),
        }
    }

    fn keep(&self, archive: Sha256Digest, record: &Record) -> Result<(), RootfsError> {
        let keep = || RootfsError::io("write the record of an image");
        let path = self.record_path(archive);
        let new = path.with_file_name(format!("{STAGING}{archive}"));
        let bytes = serde_json::to_vec(record).map_err(|cause| keep()(cause.into()))?;
        let mut file = File::create(&new).map_err(keep())?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(keep())?;
        fs::rename(&new, &path).and_then(|()| sync_parent(&path)).map_err(keep())
    }
}

/// A layer that is not yet named; removed unless it gets its name.
struct Staged {
    folder: PathBuf,
    found: Sha256Digest,
}

impl Staged {
    fn settle(self, to: &Path) -> Result<(), RootfsError> {
        let settled = tree::sync(&self.folder).and_then(|()| fs::rename(&self.folder, to));
        settled.and_then(|()| sync_parent(to)).map_err(RootfsError::io("keep a layer"))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder); // renamed away, if all went well
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// The entries that are called by a digest.
fn names(folder: &Path) -> Result<Vec<Sha256Digest>, RootfsError> {
    let entries = fs::read_dir(folder).map_err(RootfsError::io("list the layers"))?;
    let mut found: Vec<Sha256Digest> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
