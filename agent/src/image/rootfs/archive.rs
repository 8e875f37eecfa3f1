//! An image archive: an OCI image layout or a `docker save`, as one uncompressed tar file whose members are read in place.

use super::{
    RootfsError,
    manifest::{self, Blob, Chosen, DOCUMENT_MAX, Manifest},
    member::LayerPath,
    stream::Members,
};
use aws_lc_rs::digest::{Context, SHA256};
use novacron_common::spec::Sha256Digest;
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::FileExt,
};

/// Most members of an archive: each layer is one, and each document.
const MEMBERS_MAX: usize = 4096;
/// Indexes that may lead to one another before a manifest comes.
const INDEXES_MAX: usize = 4;
const CHUNK: usize = 128 << 10;

/// An archive, and where its members' content lies in it.
pub struct Archive {
    file: File,
    members: HashMap<LayerPath, (u64, u64)>,
}

impl Archive {
    /// Reads an archive's headers.
    ///
    /// # Errors
    /// [`RootfsError`] if it is no tar archive, or has too many members.
    pub fn open(file: File) -> Result<Self, RootfsError> {
        let length = file.metadata().map_err(RootfsError::io("look at the archive"))?.len();
        let mut walk =
            Members::new(BufReader::with_capacity(CHUNK, Window { file: &file, at: 0, left: length }));
        let mut members = HashMap::new();
        while let Some(next) = walk.advance().map_err(RootfsError::Archive)? {
            // Names that lead out are never asked for: whatever is looked up is no path of the host's.
            let Ok(path) = LayerPath::parse(&next.said.name) else { continue };
            if members.len() >= MEMBERS_MAX {
                return Err(RootfsError::Members(MEMBERS_MAX));
            }
            if matches!(next.said.kind, 0 | b'0') {
                members.insert(path, (next.at, next.length));
            }
        }
        Ok(Self { file, members })
    }

    /// The manifest of the one image in it.
    ///
    /// # Errors
    /// [`RootfsError`].
    pub fn manifest(&self) -> Result<Manifest, RootfsError> {
        if !self.has("index.json") {
            return Ok(manifest::docker_manifest(&self.named("manifest.json")?)?);
        }
        let mut index = self.named("index.json")?;
        for _ in 0..INDEXES_MAX {
            match manifest::choose(&index)? {
                Chosen::Index(digest) => index = self.document(&Blob::Digest(digest))?,
                Chosen::Manifest(digest) => {
                    return Ok(manifest::manifest(&self.document(&Blob::Digest(digest))?)?);
                }
            }
        }
        Err(RootfsError::Indexes(INDEXES_MAX))
    }

    /// A document, checked against its digest if it goes by one.
    ///
    /// # Errors
    /// [`RootfsError`] if it is missing, too long, or another.
    pub fn document(&self, blob: &Blob) -> Result<Vec<u8>, RootfsError> {
        let bytes = self.named(&name_of(blob))?;
        let mut hash = Context::new(&SHA256);
        hash.update(&bytes);
        check(blob, finish(hash))?;
        Ok(bytes)
    }

    /// The bytes of a layer, as they lie in the archive.
    ///
    /// # Errors
    /// [`RootfsError`] if it is missing.
    pub fn layer(&self, blob: &Blob) -> Result<Window<'_>, RootfsError> {
        let name = name_of(blob);
        let (at, left) = self.find(&name).ok_or(RootfsError::Missing(name))?;
        Ok(Window { file: &self.file, at, left })
    }

    fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<(u64, u64)> {
        LayerPath::parse(name.as_bytes()).ok().and_then(|path| self.members.get(&path).copied())
    }

    fn named(&self, name: &str) -> Result<Vec<u8>, RootfsError> {
        let (at, left) = self.find(name).ok_or_else(|| RootfsError::Missing(name.to_owned()))?;
        if left > DOCUMENT_MAX {
            return Err(RootfsError::Document(name.to_owned()));
        }
        let mut bytes = Vec::new();
        let read = Window { file: &self.file, at, left }.read_to_end(&mut bytes);
        read.map_err(RootfsError::io("read the archive"))?;
        Ok(bytes)
    }
}

/// Compares what came with what it goes by.
///
/// # Errors
/// [`RootfsError::Checksum`].
pub fn check(blob: &Blob, found: Sha256Digest) -> Result<(), RootfsError> {
    match blob {
        Blob::Digest(wanted) if *wanted != found => Err(RootfsError::Checksum { wanted: *wanted, found }),
        Blob::Digest(_) | Blob::Named(_) => Ok(()),
    }
}

fn name_of(blob: &Blob) -> String {
    match blob {
        Blob::Digest(digest) => format!("blobs/sha256/{digest}"),
        Blob::Named(name) => name.clone(),
    }
}

/// A part of a file.
pub struct Window<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += length as u64;
        self.left -= length as u64;
        Ok(length)
    }
}

/// Passes bytes on, and knows their digest.
pub struct Hashing<R> {
    stream: R,
    hash: Context,
}

impl<R: Read> Hashing<R> {
    /// Nothing read yet.
    pub fn new(stream: R) -> Self {
        Self { stream, hash: Context::new(&SHA256) }
    }

    /// Reads what is left, and returns the digest of everything.
    ///
    /// # Errors
    /// The stream's.
    pub fn finish(mut self) -> io::Result<Sha256Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(finish(self.hash))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

fn finish(hash: Context) -> Sha256Digest {
    let mut found = [0; 32];
    found.copy_from_slice(hash.finish().as_ref());
    Sha256Digest(found)
}

/// The stream within gzip or zstd, by their magic numbers (RFC 1952, RFC 8878), or as it is.
///
/// # Errors
/// The stream's.
pub fn decompressed<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(CHUNK, stream);
    let head = stream.fill_buf()?;
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(stream)?),
        _ => Box::new(stream),
    })
}
