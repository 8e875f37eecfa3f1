//! Ways by which a volume could lead out of what it is to show: links in the image, in folders of the host, in the configuration, and
//! in another volume, also while somebody turns them. None does, and the host is as it was.

use crate::volumes::{flags_of, open, refused, sh, sleeper, start, with};
use nix::{
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
    mount::{MntFlags, MsFlags, mount, umount2},
};
use novacron_agent::hypervisor::Hypervisor;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

/// Starts of a machine while its folder is turned into a link and back.
const STARTS: usize = 6;

fn made(folder: PathBuf, mode: u32) -> PathBuf {
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, PermissionsExt::from_mode(mode)).unwrap();
    folder
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[tokio::test]
async fn a_folder_is_shown_only_if_it_may_be_and_is_got_at_through_no_link() {
    novacron_tests::require!(root);
    let (place, outside) = (sleeper(), TempDir::new().unwrap());
    let allowed = made(place.folder.path().join("allowed"), 0o700);
    let loose = made(place.folder.path().join("loose"), 0o755);
    let alias = place.folder.path().join("alias");
    symlink(outside.path(), &alias).unwrap();
    symlink(outside.path(), allowed.join("way-out")).unwrap();
    symlink(".", allowed.join("round")).unwrap();
    made(outside.path().join("below"), 0o755);
    let host = open(&place, &[&allowed, &loose, &alias]).await;
    let at = |folder: &Path, rest: &str| format!("{}{rest}", folder.display());
    for (volume, why) in [
        ("/etc:/shown:ro".to_owned(), "volume_folders"),
        (at(place.folder.path(), ":/shown:ro"), "volume_folders"),
        (at(&allowed, "/way-out:/shown:ro"), "a symbolic link is in the way"),
        (at(&allowed, "/way-out/below:/shown:ro"), "a symbolic link is in the way"),
        (at(&allowed, "/round/round:/shown:ro"), "a symbolic link is in the way"),
        (at(&alias, ":/shown:ro"), "a symbolic link is in the way"),
        (at(&alias, "/below:/shown:ro"), "a symbolic link is in the way"),
        (at(&allowed, "/none:/shown"), "No such file"),
        (at(&loose, ":/shown"), "chmod 700"),
    ] {
        let wanted = with(&place, &[&volume]);
        let said = refused(&host, &wanted).await;
        assert!(said.contains(why), "{volume}: {said}");
        host.undefine(wanted.vm).await.unwrap();
    }
}

#[tokio::test]
async fn a_folder_that_is_turned_into_a_link_meanwhile_shows_itself_or_nothing() {
    novacron_tests::require!(root);
    let (place, outside) = (sleeper(), TempDir::new().unwrap());
    fs::write(outside.path().join("secret"), "the host's\n").unwrap();
    let allowed = made(place.folder.path().join("allowed"), 0o700);
    let (folder, link) = (made(allowed.join("turned"), 0o755), allowed.join("link"));
    symlink(outside.path(), &link).unwrap();
    let host = open(&place, &[&allowed]).await;
    let shown = format!("{}:/shown:ro", folder.display());
    let ended = Arc::new(AtomicBool::new(false));
    let turning = std::thread::spawn({
        let ended = Arc::clone(&ended);
        move || {
            while !ended.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &folder, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        }
    });
    for _ in 0..STARTS {
        let wanted = with(&place, &[&shown]);
        host.define(&wanted).await.unwrap();
        if host.start(wanted.vm).await.is_ok() {
            assert_eq!(sh(&host, wanted.vm, "echo /shown/*").await, "/shown/*\n");
        }
        host.undefine(wanted.vm).await.unwrap();
    }
    ended.store(true, Ordering::Relaxed);
    turning.join().unwrap();
}

#[tokio::test]
async fn links_at_the_place_of_a_volume_lead_to_the_machines_own_or_nowhere() {
    novacron_tests::require!(root);
    let (place, outside) = (sleeper(), TempDir::new().unwrap());
    fs::set_permissions(outside.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let allowed = made(place.folder.path().join("allowed"), 0o700);
    symlink(outside.path(), allowed.join("absolute")).unwrap();
    symlink("../../../../../../../..", allowed.join("up")).unwrap();
    let host = open(&place, &[&allowed]).await;
    let mut wanted = place.definition();
    start(&host, &wanted).await;
    let prepared = "ln -s / /srv/top; ln -s ../../../../../.. /srv/up; echo ok";
    assert_eq!(sh(&host, wanted.vm, prepared).await, "ok\n");
    host.stop(wanted.vm, Duration::ZERO.into()).await.unwrap();

    let shown = format!("{}:/shown", allowed.display());
    for (volumes, why) in [
        (vec!["a:/srv/top"], "it leads to the machine's root"),
        (vec!["a:/srv/up"], "it leads to the machine's root"),
        (vec![shown.as_str(), "a:/shown/absolute"], "find the folder"),
        (vec![shown.as_str(), "a:/shown/absolute/deep"], "find the folder"),
        (vec![shown.as_str(), "a:/shown/up"], "it leads to the machine's root"),
    ] {
        wanted.spec.volumes = with(&place, &volumes).spec.volumes;
        let said = refused(&host, &wanted).await;
        assert!(said.contains(why), "{volumes:?}: {said}");
    }
    host.undefine(wanted.vm).await.unwrap();
    assert_eq!((mode(outside.path()), fs::read_dir(outside.path()).unwrap().count()), (0o700, 0));
}

/// A file system in a folder, as long as this is there.
struct Mounted(PathBuf);

impl Mounted {
    fn at(folder: PathBuf) -> Self {
        mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        Self(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn what_is_mounted_in_a_folder_is_shown_with_it_and_no_more_may_be_done_there() {
    novacron_tests::require!(root);
    let place = sleeper();
    let allowed = made(place.folder.path().join("allowed"), 0o700);
    let within = Mounted::at(made(allowed.join("within"), 0o755));
    fs::write(within.0.join("file"), "mounted\n").unwrap();
    let closed = Mounted::at(made(allowed.join("closed"), 0o755));
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, &closed.0, None::<&str>, read_only, None::<&str>).unwrap();
    let host = open(&place, &[&allowed]).await;
    let show = |end: &str| format!("{}:/shown{end}", allowed.display());

    let wanted = with(&place, &[&show(":ro")]);
    start(&host, &wanted).await;
    let seen = sh(&host, wanted.vm, "cat /shown/within/file; echo x >/shown/within/file").await;
    assert!(seen.starts_with("mounted\n") && seen.contains("Read-only"), "{seen}");
    for at in ["/shown", "/shown/within", "/shown/closed"] {
        assert_eq!(flags_of(&host, wanted.vm, at).await, "ro,nosuid,nodev,idmapped", "{at}");
    }
    host.undefine(wanted.vm).await.unwrap();

    let wanted = with(&place, &[&show("")]);
    start(&host, &wanted).await;
    for (at, flags) in [
        ("/shown", "rw,nosuid,nodev,idmapped"),
        ("/shown/within", "rw,nosuid,nodev,idmapped"),
        // The host's own word stands.
        ("/shown/closed", "ro,nosuid,nodev,idmapped"),
    ] {
        assert_eq!(flags_of(&host, wanted.vm, at).await, flags, "{at}");
    }
    host.undefine(wanted.vm).await.unwrap();
}
