//! The members of a tar stream, one after the other, in bounded memory.
//!
//! The `tar` crate's own iterator reads a long name or a PAX record whole, however long the archive says it is; so the
//! blocks are walked here, with limits, and the crate reads the fields of a header.

use super::member::Said;
use std::io::{self, Read};
use tar::Header;

/// Bytes of a header, and the unit of everything in an archive.
const BLOCK: u64 = 512;
/// Longest extension of a header (long name, PAX records). Linux bounds a path by 4 KiB.
const EXTENSION_MAX: u64 = 64 << 10;

/// Why a stream is refused.
#[derive(Debug, thiserror::Error)]
pub enum StreamFault {
    /// Not an archive, or damaged.
    #[error("it is not a tar archive, or a damaged one: {0}")]
    Damaged(&'static str),
    /// A record that is longer than anything that it could hold.
    #[error("a name or an extension of a header has {length} bytes, at most {EXTENSION_MAX} are taken")]
    Extension {
        /// As stated.
        length: u64,
    },
    /// Reading or decompressing failed.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
}

/// One member, before its content.
#[derive(Debug)]
pub struct Next {
    /// What the archive says of it.
    pub said: Said,
    /// Bytes of content.
    pub length: u64,
    /// Where its content begins, from the beginning of the stream.
    pub at: u64,
}

/// A walk through a stream.
pub struct Members<R> {
    stream: R,
    /// Bytes read so far.
    at: u64,
    /// Content of the present member that was not read, and the padding behind it.
    left: u64,
    padding: u64,
}

/// What headers of their own said about the member that follows them.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    length: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
}

impl<R: Read> Members<R> {
    /// From the stream's beginning.
    pub fn new(stream: R) -> Self {
        Self { stream, at: 0, left: 0, padding: 0 }
    }

    /// Gives the stream back, for what may stand behind the archive's end.
    pub fn into_inner(self) -> R {
        self.stream
    }

    /// The next member; `None` at the end. What was not read of the last one is skipped.
    ///
    /// # Errors
    /// [`StreamFault`].
    pub fn advance(&mut self) -> Result<Option<Next>, StreamFault> {
        let mut extension = Extension::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let length = header.entry_size().map_err(|_| StreamFault::Damaged("a size that is no number"))?;
            let kind = header.as_bytes().get(156).copied().unwrap_or_default();
            match kind {
                b'L' => extension.name = Some(text(self.take_extension(length)?)),
                b'K' => extension.target = Some(text(self.take_extension(length)?)),
                b'x' => extension.read_pax(&self.take_extension(length)?)?,
                b'g' => drop(self.take_extension(length)?),
                kind => return self.member(&header, kind, length, extension).map(Some),
            }
        }
    }

    /// The content of the present member.
    pub fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    fn member(
        &mut self,
        header: &Header,
        kind: u8,
        length: u64,
        extension: Extension,
    ) -> Result<Next, StreamFault> {
        let number =
            |what: io::Result<u64>| what.map_err(|_| StreamFault::Damaged("an id that is no number"));
        let length = extension.length.unwrap_or(length);
        // What links, devices, folders and pipes claim as their content is not there.
        let has_content = !matches!(kind, b'1'..=b'6');
        self.expect(if has_content { length } else { 0 });
        let said = Said {
            kind,
            name: extension.name.unwrap_or_else(|| header.path_bytes().into_owned()),
            target: extension
                .target
                .or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
                .unwrap_or_default(),
            mode: header.mode().map_err(|_| StreamFault::Damaged("a mode that is no number"))?,
            uid: extension.uid.map_or_else(|| number(header.uid()), Ok)?,
            gid: extension.gid.map_or_else(|| number(header.gid()), Ok)?,
            modified: i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0),
        };
        Ok(Next { said, length: self.left, at: self.at })
    }

    fn expect(&mut self, length: u64) {
        (self.left, self.padding) = (length, length.wrapping_neg() % BLOCK);
    }

    fn skip(&mut self) -> Result<(), StreamFault> {
        let wanted = self.left.checked_add(self.padding).ok_or(StreamFault::Damaged("an absurd size"))?;
        let skipped = io::copy(&mut (&mut self.stream).take(wanted), &mut io::sink())?;
        self.at += skipped;
        (self.left, self.padding) = (0, 0);
        if skipped == wanted { Ok(()) } else { Err(StreamFault::Damaged("it ends within a member")) }
    }

    /// The next header; `None` at a block of zeros, which ends an archive, or where the stream just ends.
    fn header(&mut self) -> Result<Option<Header>, StreamFault> {
        let mut block = [0; BLOCK as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(StreamFault::Damaged("it ends within a header")),
                Ok(length) => filled += length,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        self.at += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        match header.cksum() {
            Ok(stated) if stated == checksum(&block) => Ok(Some(header)),
            _ => Err(StreamFault::Damaged("a header's checksum is wrong")),
        }
    }

    fn take_extension(&mut self, length: u64) -> Result<Vec<u8>, StreamFault> {
        if length > EXTENSION_MAX {
            return Err(StreamFault::Extension { length });
        }
        self.expect(length);
        let mut bytes = Vec::new();
        self.content().read_to_end(&mut bytes)?;
        if self.left > 0 { Err(StreamFault::Damaged("it ends within a name")) } else { Ok(bytes) }
    }
}

/// The content of one member.
pub struct Content<'a, R>(&'a mut Members<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.0.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0); // zstd takes a read into nothing for an error
        }
        let length = self.0.stream.read(&mut buffer[..most])?;
        self.0.left -= length as u64;
        self.0.at += length as u64;
        Ok(length)
    }
}

impl Extension {
    /// PAX records: `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record (POSIX.1-2017, pax).
    fn read_pax(&mut self, mut records: &[u8]) -> Result<(), StreamFault> {
        let bad = || StreamFault::Damaged("a PAX record that is none");
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length = decimal(&records[..space]).ok_or_else(bad)?;
            let length = usize::try_from(length).map_err(|_| bad())?;
            let record = records.get(space + 1..length).ok_or_else(bad)?;
            let (record, end) = record.split_at(record.len().checked_sub(1).ok_or_else(bad)?);
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            if end != b"\n" {
                return Err(bad());
            }
            self.note(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn note(&mut self, key: &[u8], value: &[u8]) -> Result<(), StreamFault> {
        let number = || decimal(value).map(Some).ok_or(StreamFault::Damaged("a PAX number that is none"));
        match key {
            b"path" => self.name = Some(value.to_vec()),
            b"linkpath" => self.target = Some(value.to_vec()),
            b"size" => self.length = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            // Such a member's content is not the file's.
            key if key.starts_with(b"GNU.sparse.") => return Err(StreamFault::Damaged("a sparse file")),
            // Extended attributes are left out: capabilities of files would mean nothing, and overlayfs' own
            // (`trusted.overlay.`) must not come from outside.
            _ => {}
        }
        Ok(())
    }
}

/// A number as PAX writes it: decimal digits alone.
fn decimal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A GNU long name ends in a NUL, which is not part of it.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

/// The sum of all bytes, with spaces in the sum's own place.
fn checksum(block: &[u8]) -> u32 {
    let own = 148..156;
    block.iter().enumerate().map(|(at, byte)| if own.contains(&at) { 32 } else { u32::from(*byte) }).sum()
}

/// Gives every header of a spoilt archive the checksum that it should have, so that a test gets past it.
#[cfg(test)]
pub fn mend_checksums(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(BLOCK as usize) {
        if let Some(block) = block.first_chunk_mut::<512>() {
            let sum = format!("{:06o}\0 ", checksum(block));
            if block.iter().any(|byte| *byte != 0) {
                block[148..156].copy_from_slice(sum.as_bytes());
            }
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
