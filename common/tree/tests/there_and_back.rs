//! Trees go there and back as they were, and archives made to do harm do none.

use novacron_tree::{destination, pack, unpack};
use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

fn packed(from: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    assert!(pack(from, &mut archive).unwrap().is_empty());
    archive
}

#[test]
fn a_tree_comes_out_as_it_went_in() {
    let place = TempDir::new().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    let long = "n".repeat(200);
    fs::create_dir_all(from.join("sub/empty")).unwrap();
    fs::write(from.join("sub").join(&long), vec![7; 100_000]).unwrap();
    fs::write(from.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(from.join("run"), Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(from.join("sub/empty"), Permissions::from_mode(0o500)).unwrap();
    symlink("/etc/passwd", from.join("link")).unwrap();
    unpack(packed(&from).as_slice(), &to).unwrap();
    assert_eq!(fs::read(to.join("sub").join(&long)).unwrap(), vec![7; 100_000]);
    assert_eq!(fs::metadata(to.join("run")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(to.join("sub/empty")).unwrap().mode() & 0o7777, 0o500);
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
    let times = ["from/run", "to/run"].map(|name| fs::metadata(place.path().join(name)).unwrap().mtime());
    assert_eq!(times[0], times[1]);

    // Again, over what is there: files are new ones, and what is there beside them stays.
    fs::hard_link(to.join("run"), place.path().join("other")).unwrap();
    fs::write(to.join("own"), "own").unwrap();
    fs::write(from.join("run"), "#!/bin/bash\n").unwrap();
    unpack(packed(&from).as_slice(), &to).unwrap();
    assert_eq!(fs::read_to_string(to.join("run")).unwrap(), "#!/bin/bash\n");
    assert_eq!(fs::read_to_string(place.path().join("other")).unwrap(), "#!/bin/sh\n");
    assert!(to.join("own").exists());
}

#[test]
fn what_is_copied_goes_into_a_folder_or_gets_the_name() {
    let place = TempDir::new().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("file"), "").unwrap();
    assert_eq!(destination(&at("folder"), "x").unwrap(), at("folder/x"));
    assert_eq!(destination(&at("file"), "x").unwrap(), at("file"));
    assert_eq!(destination(&at("new"), "x").unwrap(), at("new"));
    assert_eq!(destination(Path::new("new"), "x").unwrap(), Path::new("new"));
    for missing in ["none/", "none/new", "file/new"] {
        assert!(destination(&at(missing), "x").is_err(), "{missing}");
    }
}

#[test]
fn a_link_is_followed_where_it_was_named_and_a_socket_is_left_out() {
    let place = TempDir::new().unwrap();
    let from = place.path().join("from");
    fs::create_dir(&from).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    symlink(&from, place.path().join("link")).unwrap();
    let mut archive = Vec::new();
    assert_eq!(pack(&place.path().join("link"), &mut archive).unwrap().len(), 1);
    unpack(archive.as_slice(), &place.path().join("to")).unwrap();
    assert_eq!(fs::read_dir(place.path().join("to")).unwrap().count(), 0);
    assert!(pack(&place.path().join("none"), io::sink()).is_err());
}

/// An archive of these: a name as it stands, what it is, where it leads.
fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (name, kind, target) in entries {
        let mut header = Header::new_gnu();
        // Past the checks of the library, which makes no such names.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o666);
        header.set_mtime(0);
        header.set_size(if *kind == EntryType::Regular { 5 } else { 0 });
        if !target.is_empty() {
            header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
        }
        header.set_cksum();
        let content: &[u8] = if *kind == EntryType::Regular { b"owned" } else { b"" };
        archive.append(&header, content).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn nothing_is_written_outside() {
    use EntryType::{Char, Directory, Fifo, Link, Regular, Symlink};
    let top = ("top", Directory, "");
    let cases: &[&[(&str, EntryType, &str)]] = &[
        &[("../out", Regular, "")],
        &[("/out", Regular, "")],
        &[top, ("top/../../out", Regular, "")],
        &[top, ("top/x", Symlink, ".."), ("top/x/out", Regular, "")],
        &[top, ("top/x", Symlink, "/"), ("top/x/out", Directory, "")],
        &[("top", Symlink, ".."), ("top/out", Regular, "")],
        &[top, ("top/x", Link, "../out"), ("top/x", Regular, "")],
        &[top, ("top/x", Regular, ""), ("top/x/out", Regular, "")],
        &[top, ("top/x", Char, "")],
        &[top, ("top/x", Fifo, "")],
        &[("top/before", Regular, "")],
        &[],
    ];
    for case in cases {
        let place = TempDir::new().unwrap();
        let inside = place.path().join("inside");
        fs::create_dir(&inside).unwrap();
        fs::write(place.path().join("out.kept"), "kept").unwrap();
        assert!(unpack(archive(case).as_slice(), &inside.join("to")).is_err(), "{case:?}");
        let outside: Vec<_> = fs::read_dir(place.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(outside.len(), 2, "{case:?}: {outside:?}");
    }
}

#[test]
fn a_link_in_the_way_is_replaced_and_not_followed() {
    let place = TempDir::new().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::write(at("victim"), "safe").unwrap();
    fs::create_dir(at("to")).unwrap();
    symlink(at("victim"), at("to/x")).unwrap();
    let tree = archive(&[("top", EntryType::Directory, ""), ("top/x", EntryType::Regular, "")]);
    unpack(tree.as_slice(), &at("to")).unwrap();
    assert_eq!(fs::read_to_string(at("victim")).unwrap(), "safe");
    assert_eq!(fs::read_to_string(at("to/x")).unwrap(), "owned");
}

#[test]
fn an_archive_that_is_cut_short_is_an_error() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("from"), vec![1; 5000]).unwrap();
    let whole = packed(&place.path().join("from"));
    for length in [0, 100, 512, 600, 4000] {
        assert!(unpack(&whole[..length], &place.path().join("to")).is_err(), "{length}");
    }
}
