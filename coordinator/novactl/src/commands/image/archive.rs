//! Archives of images: listed, packed and kept by what is in them. tar(1) reads and writes them, since it knows owners, hard
//! links, sparse files and every compression.

use super::source::Source;
use crate::error::CtlError;
use aws_lc_rs::digest::{Context as Hash, SHA256};
use novacron_common::spec::Sha256Digest;
use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// What the same folder gives the same archive by, wherever it is packed: names in order, owners by number. What is mounted in a
/// root (/proc, most of all) is not of it.
const PACK: [&str; 4] = ["--create", "--sort=name", "--numeric-owner", "--one-file-system"];

/// Longest complaint of tar that is passed on, bytes.
const COMPLAINT_MAX: u64 = 1024;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// The names at the top of an archive, compressed or not.
pub fn tops(archive: &Path) -> Result<Vec<String>, CtlError> {
    let doing = format!("list {}", archive.display());
    let mut list = Command::new("tar");
    // A colon in its name is no host's.
    list.args(["--list", "--force-local"]).arg("--file").arg(archive);
    let mut names: Vec<String> = Vec::new();
    run(list, &doing, |lines| {
        for line in BufReader::new(lines).split(b'\n') {
            let line = line?;
            let name = line.strip_prefix(b"./").unwrap_or(&line);
            let top = String::from_utf8_lossy(name.split(|byte| *byte == b'/').next().unwrap_or_default());
            if !names.iter().any(|known| *known == top) && names.len() < 1000 {
                names.push(top.into_owned());
            }
        }
        Ok(())
    })?;
    Ok(names)
}

/// Puts it into a folder under the name of its content, and says both. What is there already stays.
pub fn put(source: &Source, folder: &Path) -> Result<(Sha256Digest, PathBuf), CtlError> {
    let failed = |path: &Path| CtlError::local(format!("write {}", path.display()));
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let folder = folder.canonicalize().map_err(failed(folder))?;
    let new = folder.join(format!(".import-{}", std::process::id()));
    let written = write(source, &new).and_then(|sha256| {
        let path = folder.join(format!("{sha256}.tar"));
        fs::rename(&new, &path).map_err(failed(&path))?;
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed(&path))?;
        Ok((sha256, path))
    });
    written.inspect_err(|_| drop(fs::remove_file(&new)))
}

fn write(source: &Source, to: &Path) -> Result<Sha256Digest, CtlError> {
    let failed = || CtlError::local(format!("write {}", to.display()));
    let file = File::create(to).map_err(failed())?;
    let mut sha256 = Sha256Digest([0; 32]);
    match source {
        Source::File(path, _) => {
            let mut from = File::open(path).map_err(CtlError::local(format!("read {}", path.display())))?;
            sha256 = hash(&mut from, &file).map_err(failed())?;
        }
        Source::Folder(path, _) => {
            let mut pack = Command::new("tar");
            pack.args(PACK).arg("--directory").arg(path).args(["--file=-", "."]);
            run(pack, &format!("pack {}", path.display()), |from| {
                sha256 = hash(from, &file)?;
                Ok(())
            })?;
        }
    }
    file.sync_all().map_err(failed())?;
    Ok(sha256)
}

/// Copies, and says what it was.
pub fn hash(from: &mut dyn Read, mut to: impl Write) -> io::Result<Sha256Digest> {
    let (mut hash, mut chunk) = (Hash::new(&SHA256), vec![0; CHUNK]);
    loop {
        match from.read(&mut chunk)? {
            0 => break,
            length => {
                hash.update(&chunk[..length]);
                to.write_all(&chunk[..length])?;
            }
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    Ok(Sha256Digest(digest))
}

/// Runs tar, and gives what it prints to `take`. It has to succeed, or its complaint is the cause.
fn run(
    mut tar: Command,
    doing: &str,
    take: impl FnOnce(&mut dyn Read) -> io::Result<()>,
) -> Result<(), CtlError> {
    let failed = || CtlError::local(doing.to_owned());
    tar.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tar =
        tar.spawn().map_err(|cause| failed()(io::Error::new(cause.kind(), format!("tar: {cause}"))))?;
    let (taken, said) = std::thread::scope(|scope| {
        let complaint = tar.stderr.take().map(|stderr| scope.spawn(move || complaint(stderr)));
        let taken = tar.stdout.take().map_or(Ok(()), |mut stdout| take(&mut stdout));
        if taken.is_err() {
            let _ended_already = Child::kill(&mut tar);
        }
        (taken, complaint.and_then(|thread| thread.join().ok()).unwrap_or_default())
    });
    let ended = tar.wait().map_err(failed())?;
    taken.map_err(failed())?;
    if ended.success() { Ok(()) } else { Err(failed()(io::Error::other(said))) }
}

/// Its beginning; the rest is read, so that tar need not wait.
fn complaint(mut stderr: impl Read) -> String {
    let mut said = Vec::new();
    let _as_far_as_it_came = stderr.by_ref().take(COMPLAINT_MAX).read_to_end(&mut said);
    let _rest = io::copy(&mut stderr, &mut io::sink());
    String::from_utf8_lossy(&said).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::spec::ImageFormat;

    #[test]
    fn an_archive_goes_by_its_content_and_the_same_folder_gives_the_same() {
        let place = tempfile::tempdir().unwrap();
        let (root, into) = (place.path().join("root"), place.path().join("import"));
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/sh"), "#!").unwrap();
        fs::hard_link(root.join("bin/sh"), root.join("bin/ash")).unwrap();
        let source = Source::Folder(root.clone(), ImageFormat::Rootfs);
        let (sha256, path) = put(&source, &into).unwrap();
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), format!("{sha256}.tar"));
        assert_eq!(hash(&mut File::open(&path).unwrap(), io::sink()).unwrap(), sha256);
        assert_eq!(put(&source, &into).unwrap(), (sha256, path.clone()));
        assert_eq!(
            put(&Source::File(path.clone(), ImageFormat::Rootfs), &into).unwrap(),
            (sha256, path.clone())
        );
        assert_eq!(fs::read_dir(&into).unwrap().count(), 1);
        let listed = Command::new("tar").arg("-tvf").arg(&path).output().unwrap().stdout;
        assert!(String::from_utf8(listed).unwrap().contains("link to ./bin/"), "hard links stay hard links");
        fs::write(root.join("bin/sh"), "#!!").unwrap();
        assert_ne!(put(&source, &into).unwrap().0, sha256);
    }

    #[test]
    fn what_tar_cannot_do_is_told_in_its_words_and_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let into = place.path().join("import");
        let gone = Source::Folder(place.path().join("gone"), ImageFormat::Rootfs);
        let said = put(&gone, &into).unwrap_err().describe();
        assert!(said.contains("pack") && said.contains("No such file"), "{said}");
        assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
        fs::write(place.path().join("te:xt"), "no archive\n".repeat(100)).unwrap();
        let said = tops(&place.path().join("te:xt")).unwrap_err().describe();
        assert!(said.contains("list") && said.contains("tar archive"), "{said}");
    }
}
