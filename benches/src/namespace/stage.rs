//! The root file system that everybody starts from: one static program and the folders that runtimes mount on.

use anyhow::{Context, Result, ensure};
use novacron_agent::{hypervisor::RootImage, image::rootfs::LayerStore};
use novacron_common::{
    spec::{ImageFormat, Sha256Digest},
    units::ByteCount,
};
use novacron_tests::guest_image;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// The program, as machines see it.
pub const PROGRAM: &str = "/first";

/// A folder for everything that the bench makes.
pub struct Stage {
    folder: TempDir,
    /// The image, unpacked by the agent's own code.
    pub image: RootImage,
}

impl Stage {
    /// Builds the program and unpacks the image.
    pub fn set() -> Result<Self> {
        let folder = TempDir::new()?;
        let packed = folder.path().join("packed");
        for name in ["dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(packed.join(name))?;
        }
        fs::write(packed.join("etc/passwd"), "root:x:0:0::/:/first\n")?;
        fs::copy(guest_image::static_program("novacron-first")?, packed.join(&PROGRAM[1..]))?;
        let archive = folder.path().join("root.tar");
        let tar = Command::new("tar").arg("-C").arg(&packed).arg("-cf").arg(&archive).arg(".").status();
        ensure!(tar.context("running tar")?.success(), "tar could not pack the root");
        let store = LayerStore::open(folder.path().join("layers"), ByteCount::gib(1))?;
        let image = store.ensure(&archive, Sha256Digest([0; 32]), ImageFormat::Rootfs)?;
        Ok(Self { folder, image })
    }

    /// Where our host keeps its machines.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The same root for a runtime, which mounts it itself.
    pub fn root(&self) -> Result<&Path> {
        match self.image.layers.as_slice() {
            [only] => Ok(only),
            layers => anyhow::bail!("the image has {} layers", layers.len()),
        }
    }

    /// A new folder for a runtime's bundle.
    pub fn bundle(&self, name: &str) -> Result<PathBuf> {
        let bundle = self.folder.path().join(name);
        fs::create_dir_all(&bundle)?;
        Ok(bundle)
    }
}
