//! Checkpoints: what is kept of a machine's memory when it leaves this host, so that less has to cross when it returns.
//!
//! ```text
//!  a machine leaves:  encoder ─▶ Sink ─▶ (bounded queue) ─▶ thread ─▶ VM.draft ─▶ moved: VM.pages + VM.key
//!  it comes back:     VM.pages ─▶ Stock ─▶ prints, over the lane of held pages ─▶ source ─▶ references ─▶ decoder ─▶ Stock
//!  one of a gang:     decoder ─▶ Sink ─▶ a file without a name ─▶ Stock of those that follow it
//!  it is new here:    its template's image ─▶ Stock
//! ```
//!
//! A page that is not kept costs bytes later, never the move: the queue drops what the disk is too slow for, a draft that
//! fails is thrown away, and whatever is damaged is not offered. Every page is sealed (AES-256-GCM) under a key that is
//! only in `VM.key`: to overwrite that file is to erase the pages (crypto-erasure), and pages without a key are no
//! checkpoint. Nothing is synchronised to the disk: what a power cut tears is found out by its seal.

mod draft;
mod gang;
mod pages;
mod seal;
mod sink;
mod stock;
mod template;
#[cfg(test)]
mod tests;
mod versions;

pub use draft::Draft;
pub use gang::Arriving;
pub use sink::{KEEPING, LaneSink, SharedSink, Sink};
pub use stock::{Stock, StockReader};

use crate::text::describe;
use gang::{Gangs, Part};
use novacron_codec::STOCK_MAX;
use novacron_common::{
    ids::{GangId, VmId},
    spec::ImageFormat,
    units::{ByteCount, UnixMillis},
};
use pages::{CHUNK, CHUNK_PAGES, Pages, length_of};
use seal::Seal;
use std::{
    ffi::OsStr,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use stock::Held;
use template::TemplatePages;

const PAGES: &str = "pages";
const KEY: &str = "key";
const DRAFT: &str = "draft";

/// What checkpoints may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All of them together, on disk; 0: none are kept.
    pub total: ByteCount,
    /// How old one may get.
    pub age: Duration,
    /// What must stay free on their file system.
    pub reserve: ByteCount,
}

/// The checkpoints of this host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Checkpoints(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    limits: Limits,
    now: fn() -> UnixMillis,
    gangs: Gangs,
}

/// A checkpoint that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    vm: VmId,
    sealed_at: UnixMillis,
    size: u64,
}

impl Checkpoints {
    /// None are kept.
    pub fn off() -> Self {
        Self(None)
    }

    /// Those in `folder`, which is made if need be. What is half written, damaged or too old is thrown away.
    ///
    /// # Errors
    /// If the folder cannot be made or read.
    pub fn open(folder: PathBuf, limits: Limits, now: fn() -> UnixMillis) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let inner = Inner { folder, limits, now, gangs: Gangs::default() };
        inner.throw_away_remains()?;
        inner.evict(None)?;
        Ok(Self((limits.total.0 > 0).then(|| Arc::new(inner))))
    }

    /// Begins the checkpoint of a machine that is about to leave; `None` if none is to be kept, or can be.
    pub fn begin(&self, vm: VmId) -> Option<(Draft, Sink)> {
        let inner = self.0.as_ref()?;
        match Draft::begin(inner.clone(), vm) {
            Ok(begun) => Some(begun),
            Err(error) => {
                tracing::warn!(%vm, reason = describe(&error), "no checkpoint of its memory will be kept");
                None
            }
        }
    }

    /// Begins to keep what a machine of a gang brings, for those that follow it; `None` if nothing can be kept.
    pub fn arriving(&self, gang: GangId) -> Option<(Arriving, Sink)> {
        gang::begin(self.0.as_ref()?, gang)
    }

    /// What is held of a machine that is about to arrive: what it left here, and what others of its gang brought. Of one that
    /// left nothing, what the image below its disk holds. Reads no page yet.
    pub fn stock(
        &self,
        vm: VmId,
        gang: Option<GangId>,
        image: Option<&(PathBuf, ImageFormat)>,
    ) -> Option<Arc<Stock>> {
        let mut held: Vec<Held> =
            self.checkpoint(vm).map(|part| Held::Checkpoint(vm, part)).into_iter().collect();
        let image = image.filter(|_| held.is_empty());
        if let Some((inner, gang)) = self.0.as_ref().zip(gang) {
            held.extend(inner.gangs.parts(gang).into_iter().map(|part| Held::Gang(gang, part)));
        }
        held.extend(image.and_then(|(path, format)| of_image(vm, path, *format)).map(Held::Template));
        let stock = (!held.is_empty()).then(|| Stock::of(self.0.clone(), held)).transpose();
        stock.unwrap_or_else(|error| {
            tracing::warn!(%vm, reason = describe(&error), "what is held of it cannot be offered");
            None
        })
    }

    /// What a machine left here.
    fn checkpoint(&self, vm: VmId) -> Option<Part> {
        let inner = self.0.as_ref()?;
        inner.open_checkpoint(vm).unwrap_or_else(|error| {
            tracing::warn!(%vm, reason = describe(&error), "its checkpoint is damaged and thrown away");
            inner.remove(vm);
            None
        })
    }

    /// Whose checkpoints there are.
    pub fn held(&self) -> Vec<VmId> {
        let all = self.0.as_ref().and_then(|inner| inner.list().ok()).unwrap_or_default();
        all.into_iter().map(|kept| kept.vm).collect()
    }

    /// Erases a machine's, if there is one. Blocks for a disk write.
    pub fn remove(&self, vm: VmId) {
        if let Some(inner) = &self.0 {
            inner.remove(vm);
        }
    }

    /// Erases what is too old or too much by now.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn evict(&self) -> io::Result<()> {
        let Some(inner) = &self.0 else { return Ok(()) };
        inner.gangs.evict((inner.now)());
        inner.evict(None)
    }
}

impl Inner {
    fn path(&self, vm: VmId, extension: &str) -> PathBuf {
        self.folder.join(format!("{vm}.{extension}"))
    }

    /// Pages that one checkpoint may have.
    fn room(&self) -> u32 {
        let chunks = u32::try_from(self.limits.total.0 / CHUNK as u64).unwrap_or(u32::MAX);
        chunks.saturating_mul(CHUNK_PAGES).min(STOCK_MAX)
    }

    /// Whether the file system has more free than is to stay so.
    fn demand_reserve(&self) -> io::Result<()> {
        let system = nix::sys::statvfs::statvfs(&self.folder)?;
        let free = system.blocks_available().saturating_mul(system.fragment_size());
        if free > self.limits.reserve.0 {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::StorageFull, "too little would stay free"))
    }

    fn open_checkpoint(&self, vm: VmId) -> io::Result<Option<Part>> {
        let seal = match Seal::read(&self.path(vm, KEY)) {
            Ok(seal) if seal.vm == vm => seal,
            Ok(_) => return Err(io::Error::other("it is another machine's")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if self.is_old(seal.sealed_at) {
            self.remove(vm);
            return Ok(None);
        }
        let path = self.path(vm, PAGES);
        let pages = Pages::open(&path, &seal.key)?;
        if seal.pages > STOCK_MAX || pages.length()? < length_of(seal.pages) {
            return Err(io::Error::other("it is shorter than it was"));
        }
        Ok(Some(Part { pages: Arc::new(pages), count: seal.pages }))
    }

    fn is_old(&self, sealed_at: UnixMillis) -> bool {
        let age = (self.now)().0.saturating_sub(sealed_at.0);
        u128::try_from(age).is_ok_and(|age| age > self.limits.age.as_millis())
    }

    /// First the key: without it the pages are noise, whatever comes between.
    fn remove(&self, vm: VmId) {
        let erased = Seal::erase(&self.path(vm, KEY)).and_then(|()| remove_file(&self.path(vm, PAGES)));
        if let Err(error) = erased {
            tracing::error!(%vm, reason = describe(&error), "its checkpoint could not be erased");
        }
    }

    fn list(&self) -> io::Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for (path, vm) in self.files(KEY)? {
            match Seal::read(&path) {
                Ok(seal) if seal.vm == vm => {
                    let size = fs::metadata(self.path(vm, PAGES)).map_or(0, |file| file.len());
                    kept.push(Kept { vm, sealed_at: seal.sealed_at, size });
                }
                _ => {
                    tracing::warn!(%vm, "its checkpoint is damaged and thrown away");
                    self.remove(vm);
                }
            }
        }
        Ok(kept)
    }

    /// The files with this extension, and whose they are.
    fn files(&self, extension: &str) -> io::Result<Vec<(PathBuf, VmId)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension() == Some(OsStr::new(extension))
                && let Some(vm) = path.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.parse().ok())
            {
                files.push((path, vm));
            }
        }
        Ok(files)
    }

    /// Drafts of moves that an agent before this one did not bring to their end, and pages without a key.
    fn throw_away_remains(&self) -> io::Result<()> {
        for (path, vm) in self.files(DRAFT)? {
            tracing::info!(%vm, "a checkpoint that was not finished is thrown away");
            remove_file(&path)?;
        }
        for (path, vm) in self.files(PAGES)? {
            if !self.path(vm, KEY).exists() {
                tracing::info!(%vm, "a checkpoint without a key is thrown away");
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Erases what is too old, and of the rest the oldest until all fit; `newest` goes last.
    fn evict(&self, newest: Option<VmId>) -> io::Result<()> {
        let (old, mut fresh): (Vec<_>, Vec<_>) =
            self.list()?.into_iter().partition(|kept| self.is_old(kept.sealed_at));
        old.iter().for_each(|kept| self.remove(kept.vm));
        fresh.sort_by_key(|kept| (Some(kept.vm) == newest, kept.sealed_at));
        let mut total: u64 = fresh.iter().map(|kept| kept.size).sum();
        for kept in fresh {
            if total <= self.limits.total.0 {
                break;
            }
            tracing::info!(vm = %kept.vm, "its checkpoint makes room for others");
            self.remove(kept.vm);
            total -= kept.size;
        }
        Ok(())
    }
}

/// The pages of the image below a machine's disk, if any lie in it as they are.
fn of_image(vm: VmId, path: &Path, format: ImageFormat) -> Option<Arc<TemplatePages>> {
    let pages = TemplatePages::open(path, format).inspect_err(|error| {
        tracing::warn!(%vm, reason = describe(error), "what its template's image holds is not offered");
    });
    pages.ok().filter(|pages| pages.count() > 0).map(Arc::new)
}

/// 256 random bits.
fn new_key() -> io::Result<[u8; pages::KEY]> {
    let mut key = [0; pages::KEY];
    aws_lc_rs::rand::fill(&mut key).map_err(io::Error::other)?;
    Ok(key)
}

/// Gone already is as good.
fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
