//! Images of this host, kept by their content.
//!
//! A file named after its SHA-256 is complete and checked, because it gets that name only afterwards, by a rename.
//! Whoever asks for an image that is being fetched waits for that fetch; it goes on when the first asker is gone.

use super::{ImageError, http, local, qcow2, url::Allowed};
use crate::hypervisor::RootImage;
use async_trait::async_trait;
use aws_lc_rs::digest;
use novacron_common::{
    ids::HostId,
    spec::{ImageFormat, ImageRef, ImageSource, Sha256Digest, TemplateSpec},
    units::ByteCount,
};
use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

/// Bytes hashed and written at once.
const CHUNK: usize = 256 << 10;
/// Other agents that are tried before the image's own source.
const PEERS_MAX: usize = 3;
const INCOMING: &str = ".incoming-";

/// What the store needs of agent.toml.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The store's own folder.
    pub folder: PathBuf,
    /// `images.folders`: local images lie under these.
    pub folders: Vec<PathBuf>,
    /// `images.url_allow`.
    pub url_allow: Vec<Allowed>,
    /// `images.size_max`.
    pub size_max: ByteCount,
    /// `images.timeout_seconds`: for one image, all in all.
    pub timeout: Duration,
}

/// An image on its way from another agent.
pub struct PeerImage {
    /// Its length, as the peer says.
    pub length: ByteCount,
    /// Its bytes.
    pub bytes: Pin<Box<dyn AsyncRead + Send>>,
}

/// The other agents, as far as images go. What they send is checked like anybody's.
#[async_trait]
pub trait PeerImages: Send + Sync {
    /// Who may have it, best first.
    async fn holders(&self, image: Sha256Digest) -> Vec<HostId>;

    /// Asks one of them; `None` if it has no copy.
    async fn open(&self, peer: HostId, image: Sha256Digest) -> io::Result<Option<PeerImage>>;
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FetchProgress {
    /// So far.
    pub received: ByteCount,
    /// The whole, if the sender says.
    pub total: Option<ByteCount>,
}

/// A template's images on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalImages {
    /// The image under the machine's disk.
    pub disk: Option<(PathBuf, ImageFormat)>,
    /// The kernel.
    pub kernel: Option<PathBuf>,
    /// The initial RAM file system.
    pub initramfs: Option<PathBuf>,
    /// The image's layers, where it is an archive and they are unpacked.
    pub root: Option<RootImage>,
}

#[derive(Clone)]
enum Stage {
    Fetching(FetchProgress),
    Done(Result<PathBuf, Arc<ImageError>>),
}

struct Inner {
    options: StoreOptions,
    peers: Arc<dyn PeerImages>,
    flights: Mutex<HashMap<PathBuf, watch::Receiver<Stage>>>,
}

/// The store. Clones are the same store.
#[derive(Clone)]
pub struct ImageStore(Arc<Inner>);

impl ImageStore {
    /// Opens the store in its folder, and removes what a crash left half-fetched.
    ///
    /// # Errors
    /// If the folder cannot be made or read.
    pub fn open(options: StoreOptions, peers: Arc<dyn PeerImages>) -> io::Result<Self> {
        // QEMU may run as a user of its own: it must pass through, but has no business listing.
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&options.folder)?;
        for entry in fs::read_dir(&options.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(INCOMING) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self(Arc::new(Inner { options, peers, flights: Mutex::default() })))
    }

    /// Has the image here, fetching it if need be. `on_progress` hears of a fetch, also of one that another
    /// caller began.
    ///
    /// # Errors
    /// [`ImageError`] of the last place that was tried.
    pub async fn ensure(
        &self,
        image: &ImageRef,
        on_progress: impl Fn(FetchProgress) + Send,
    ) -> Result<PathBuf, ImageError> {
        let Some(mut flight) = self.board(image) else { return Ok(self.0.path(image)) };
        loop {
            let stage = flight.borrow_and_update().clone();
            match stage {
                Stage::Done(outcome) => return outcome.map_err(ImageError::Shared),
                Stage::Fetching(progress) => on_progress(progress),
            }
            let ended = |_| ImageError::Io {
                doing: "fetch the image",
                cause: io::Error::other("the fetch ended without a result"),
            };
            flight.changed().await.map_err(ended)?;
        }
    }

    /// Has all images of a template here.
    ///
    /// # Errors
    /// As [`ImageStore::ensure`].
    pub async fn ensure_template(
        &self,
        template: &TemplateSpec,
        on_progress: impl Fn(&ImageRef, FetchProgress) + Send + Sync,
    ) -> Result<LocalImages, ImageError> {
        for image in template.images() {
            self.ensure(image, |progress| on_progress(image, progress)).await?;
        }
        Ok(self.locate(template))
    }

    /// Where a template's images are once they are here. Looks at nothing.
    pub fn locate(&self, template: &TemplateSpec) -> LocalImages {
        use novacron_common::spec::BootSource;
        let (kernel, initramfs) = match &template.boot {
            BootSource::Disk => (None, None),
            BootSource::Kernel { kernel, initramfs, .. } => (Some(kernel), initramfs.as_ref()),
        };
        let with_format = |image: &ImageRef| (self.0.path(image), image.format);
        LocalImages {
            disk: template.disk.as_ref().filter(|image| !image.format.is_archive()).map(with_format),
            root: None,
            kernel: kernel.map(|image| self.0.path(image)),
            initramfs: initramfs.map(|image| self.0.path(image)),
        }
    }

    /// Where an image is once it is here. Looks at nothing.
    pub fn path(&self, image: &ImageRef) -> PathBuf {
        self.0.path(image)
    }

    /// The image's bytes for another agent, with their number; `None` if it is not here.
    ///
    /// # Errors
    /// If it is here and cannot be read.
    pub async fn serve(&self, image: Sha256Digest) -> io::Result<Option<(File, ByteCount)>> {
        for format in ImageFormat::ALL {
            match File::open(self.0.path_of(image, format)).await {
                Ok(file) => {
                    let length = ByteCount(file.metadata().await?.len());
                    return Ok(Some((file, length)));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The flight that brings the image, begun if need be; `None` if it is here.
    fn board(&self, image: &ImageRef) -> Option<watch::Receiver<Stage>> {
        let path = self.0.path(image);
        let mut flights = self.0.flights.lock().unwrap_or_else(PoisonError::into_inner);
        // A flight that ended a moment ago is out of the map only after its file is in place.
        if let Some(flight) = flights.get(&path) {
            return Some(flight.clone());
        }
        if path.is_file() {
            return None;
        }
        let (report, flight) = watch::channel(Stage::Fetching(FetchProgress::default()));
        flights.insert(path.clone(), flight.clone());
        let (inner, image) = (Arc::clone(&self.0), image.clone());
        tokio::spawn(async move {
            let outcome = inner.fetch(&image, &report).await;
            inner.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
            report.send_replace(Stage::Done(outcome.map(|()| path).map_err(Arc::new)));
        });
        Some(flight)
    }
}

impl Inner {
    fn path(&self, image: &ImageRef) -> PathBuf {
        self.path_of(image.sha256, image.format)
    }

    fn path_of(&self, sha256: Sha256Digest, format: ImageFormat) -> PathBuf {
        self.options.folder.join(format!("{sha256}.{}", format.name()))
    }

    async fn fetch(&self, image: &ImageRef, report: &watch::Sender<Stage>) -> Result<(), ImageError> {
        let limit = self.options.timeout;
        match tokio::time::timeout(limit, self.fetch_from_anywhere(image, report)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ImageError::TooSlow(limit)),
        }
    }

    async fn fetch_from_anywhere(
        &self,
        image: &ImageRef,
        report: &watch::Sender<Stage>,
    ) -> Result<(), ImageError> {
        for peer in self.peers.holders(image.sha256).await.into_iter().take(PEERS_MAX) {
            match self.peers.open(peer, image.sha256).await {
                Ok(None) => {}
                Ok(Some(body)) => match self.take_in(image, Source::from(body), report).await {
                    Ok(()) => return Ok(()),
                    Err(error) => tracing::warn!(%peer, image = %image.sha256, %error, "image from a peer"),
                },
                Err(error) => {
                    tracing::warn!(%peer, image = %image.sha256, %error, "asking a peer for an image")
                }
            }
        }
        self.take_in(image, self.open_source(image).await?, report).await
    }

    async fn open_source(&self, image: &ImageRef) -> Result<Source, ImageError> {
        match &image.source {
            ImageSource::Url(url) => {
                let body = http::open(url, &self.options.url_allow).await?;
                Ok(Source { length: body.length, bytes: body.bytes })
            }
            ImageSource::Path(path) => {
                let file = local::open_beneath(&self.options.folders, Path::new(path))?;
                let length = file.metadata().map_err(ImageError::io("look at the image"))?.len();
                Ok(Source { length: Some(ByteCount(length)), bytes: Box::pin(File::from_std(file)) })
            }
        }
    }

    /// Receives, checks and names an image.
    async fn take_in(
        &self,
        image: &ImageRef,
        source: Source,
        report: &watch::Sender<Stage>,
    ) -> Result<(), ImageError> {
        self.check_length(source.length)?;
        let incoming = Incoming::create(&self.options.folder).await?;
        let found = incoming.receive(source, self.options.size_max, report).await?;
        if found != image.sha256 {
            return Err(ImageError::Checksum { wanted: image.sha256, found });
        }
        incoming.settle(image.format, self.path(image)).await
    }

    fn check_length(&self, length: Option<ByteCount>) -> Result<(), ImageError> {
        let max = self.options.size_max;
        let Some(needed) = length else { return Ok(()) };
        if needed > max {
            return Err(ImageError::TooLarge { max });
        }
        let system = nix::sys::statvfs::statvfs(&self.options.folder).map_err(io::Error::from);
        let system = system.map_err(ImageError::io("measure the free room for images"))?;
        let free = ByteCount(system.blocks_available().saturating_mul(system.fragment_size()));
        if needed > free { Err(ImageError::NoRoom { needed, free }) } else { Ok(()) }
    }
}

/// Bytes from somewhere.
struct Source {
    length: Option<ByteCount>,
    bytes: Pin<Box<dyn AsyncRead + Send>>,
}

impl From<PeerImage> for Source {
    fn from(image: PeerImage) -> Self {
        Self { length: Some(image.length), bytes: image.bytes }
    }
}

/// A file that is not yet an image; removed unless it becomes one.
struct Incoming {
    file: File,
    path: PathBuf,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // renamed away, if all went well
    }
}

impl Incoming {
    async fn create(folder: &Path) -> Result<Self, ImageError> {
        let path = folder.join(format!("{INCOMING}{}", uuid::Uuid::new_v4().simple()));
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path).await;
        Ok(Self { file: file.map_err(ImageError::io("make a file for the image"))?, path })
    }

    /// Writes everything that comes, at most `max`, and returns its hash.
    async fn receive(
        &self,
        mut source: Source,
        max: ByteCount,
        report: &watch::Sender<Stage>,
    ) -> Result<Sha256Digest, ImageError> {
        let mut file = self.file.try_clone().await.map_err(ImageError::io("write the image"))?;
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut progress = FetchProgress { received: ByteCount(0), total: source.length };
        let mut chunk = vec![0; CHUNK];
        loop {
            let filled =
                fill(&mut source.bytes, &mut chunk).await.map_err(ImageError::io("read the image"))?;
            if filled == 0 {
                break;
            }
            progress.received.0 += filled as u64;
            if progress.received > max {
                return Err(ImageError::TooLarge { max });
            }
            hash.update(&chunk[..filled]);
            file.write_all(&chunk[..filled]).await.map_err(ImageError::io("write the image"))?;
            report.send_replace(Stage::Fetching(progress));
        }
        file.flush().await.map_err(ImageError::io("write the image"))?;
        let mut found = [0; 32];
        found.copy_from_slice(hash.finish().as_ref());
        Ok(Sha256Digest(found))
    }

    /// Checks the format, makes it durable, and gives it its name.
    async fn settle(self, format: ImageFormat, to: PathBuf) -> Result<(), ImageError> {
        let file = self.file.try_clone().await.map_err(ImageError::io("keep the image"))?.into_std().await;
        let from = self.path.clone();
        let work = tokio::task::spawn_blocking(move || settle(&file, format, &from, &to)).await;
        work.map_err(|error| ImageError::Io { doing: "keep the image", cause: io::Error::other(error) })?
    }
}

fn settle(file: &fs::File, format: ImageFormat, from: &Path, to: &Path) -> Result<(), ImageError> {
    let keep = || ImageError::io("keep the image");
    if format == ImageFormat::Qcow2 {
        let length = ByteCount(file.metadata().map_err(keep())?.len());
        let mut head = vec![0; usize::try_from(length.0).unwrap_or(usize::MAX).min(qcow2::HEADER_MAX)];
        file.read_exact_at(&mut head, 0).map_err(keep())?;
        qcow2::parse(&head, length).map_err(ImageError::Qcow2)?;
    }
    // Shared by machines whose QEMU may run as another user, and written by none.
    file.set_permissions(fs::Permissions::from_mode(0o444)).map_err(keep())?;
    file.sync_all().map_err(keep())?;
    fs::rename(from, to).map_err(keep())?;
    let folder = to.parent().unwrap_or(Path::new("/"));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(keep())
}

/// Reads until the buffer is full or nothing more comes.
async fn fill(from: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]).await? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
