//! Layers of images that users name: no bytes panic or spin the walk through a tar stream, no limit is passed, and nothing
//! that is put into a tree lies outside of it.
//!
//! The agent's files are taken in as they stand: they are pure, and the rest of the agent would need libvirt.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::{
    io::{self, Read},
    path::{Component, Path},
};

#[path = "../../../agent/src/image/rootfs/apply.rs"]
mod apply;
#[path = "../../../agent/src/image/rootfs/member.rs"]
mod member;
#[path = "../../../agent/src/image/rootfs/stream.rs"]
mod stream;

use apply::{Limits, Tree, apply};
use member::{Attributes, LayerPath};

const LIMITS: Limits = Limits { bytes: 1 << 20, members: 64 };

#[derive(Default)]
struct Judge {
    bytes: u64,
    members: u64,
}

impl Judge {
    fn sees(&mut self, path: &LayerPath) -> io::Result<()> {
        stays_inside(path);
        self.members += 1;
        assert!(self.members <= LIMITS.members);
        Ok(())
    }

    fn owner(&mut self, path: &LayerPath, attributes: &Attributes, mask: u32) -> io::Result<()> {
        assert!(attributes.uid <= 65_535 && attributes.gid <= 65_535);
        assert_eq!(attributes.mode & !mask, 0);
        self.sees(path)
    }
}

fn stays_inside(path: &LayerPath) {
    let path = path.as_path();
    assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?} leads out");
    assert!(path.as_os_str().len() <= member::PATH_MAX);
}

impl Tree for Judge {
    fn folder(&mut self, path: &LayerPath, attributes: &Attributes) -> io::Result<()> {
        self.owner(path, attributes, 0o3777)
    }
    fn file(&mut self, path: &LayerPath, attributes: &Attributes, content: &mut dyn Read) -> io::Result<()> {
        self.bytes += io::copy(content, &mut io::sink())?;
        assert!(self.bytes <= LIMITS.bytes);
        assert!(path.name().is_some());
        self.owner(path, attributes, 0o777)
    }
    fn symlink(&mut self, path: &LayerPath, attributes: &Attributes, target: &Path) -> io::Result<()> {
        assert!(!target.as_os_str().is_empty());
        self.owner(path, attributes, 0o777)
    }
    fn hard_link(&mut self, path: &LayerPath, target: &LayerPath) -> io::Result<()> {
        assert!(target.name().is_some() && target != path);
        stays_inside(target);
        self.sees(path)
    }
    fn pipe(&mut self, path: &LayerPath, attributes: &Attributes) -> io::Result<()> {
        self.owner(path, attributes, 0o777)
    }
    fn whiteout(&mut self, path: &LayerPath) -> io::Result<()> {
        assert!(path.name().is_some());
        self.sees(path)
    }
    fn opaque(&mut self, path: &LayerPath) -> io::Result<()> {
        self.sees(path)
    }
}

/// Behind the checksum lies everything else, so most inputs get a right one.
fn mend(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512).filter(|block| block.iter().any(|byte| *byte != 0)) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let mut archive = rest.to_vec();
    if choice % 8 != 0 {
        mend(&mut archive);
    }
    let _refused = apply(archive.as_slice(), LIMITS, &mut Judge::default());
});
