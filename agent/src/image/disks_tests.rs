//! Folders and disks as `qemu-img` makes and sees them.

use super::*;
use crate::need::require;
use novacron_common::spec::{ImageRef, ImageSource, Sha256Digest};

struct Place {
    root: tempfile::TempDir,
    disks: Disks,
}

fn place() -> Place {
    let root = tempfile::tempdir().unwrap();
    let disks = Disks::open(root.path().join("vms"), None).unwrap();
    Place { root, disks }
}

impl Place {
    /// A raw image of `mib` MiB with something in it, and a spec whose template names it.
    fn over_image(&self, mib: usize, storage: ByteCount) -> (VmSpec, LocalImages) {
        let path = self.root.path().join("image.raw");
        let mut bytes = vec![0; mib << 20];
        bytes[..5].copy_from_slice(b"hello");
        fs::write(&path, bytes).unwrap();
        let mut spec = VmSpec { storage, ..fixture::spec() };
        let source = ImageSource::Path("/unused".to_owned());
        spec.template.disk =
            Some(ImageRef { sha256: Sha256Digest([0; 32]), source, format: ImageFormat::Raw });
        (spec, LocalImages { disk: Some((path, ImageFormat::Raw)), ..LocalImages::default() })
    }
}

const VM: VmId = VmId::from_u128(5);

#[tokio::test]
async fn an_overlay_shows_its_image_and_grows_to_what_was_asked_for() {
    require!(QEMU_IMG);
    let place = place();
    let (spec, images) = place.over_image(2, ByteCount::mib(8));
    let files = place.disks.create(VM, &spec, &images).await.unwrap();
    let disk = files.disk.clone().unwrap();
    let (image, format) = files.backing.clone().unwrap();
    assert!(same_content((&disk, ImageFormat::Qcow2), (&image, format)).await.unwrap());
    let info = Command::new(QEMU_IMG).args(["info", "--output=json"]).arg(&disk).output().await.unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(info["virtual-size"], 8 << 20);
    assert_eq!(info["backing-filename-format"], "raw");
    assert!(fs::read(files.seed.unwrap()).unwrap().len() == 1 << 20 && files.console_log.exists());
}

#[tokio::test]
async fn making_it_again_keeps_the_disk_and_removing_it_twice_is_fine() {
    require!(QEMU_IMG);
    let place = place();
    let (spec, images) = place.over_image(1, ByteCount(0));
    let disk = place.disks.create(VM, &spec, &images).await.unwrap().disk.unwrap();
    let before = fs::metadata(&disk).unwrap().modified().unwrap();
    place.disks.create(VM, &spec, &images).await.unwrap();
    assert_eq!(fs::metadata(&disk).unwrap().modified().unwrap(), before);
    assert_eq!(virtual_size(&disk, ImageFormat::Raw).await.unwrap().0 % SECTOR, 0);
    assert_eq!(place.disks.list().unwrap(), [VM]);
    place.disks.remove(VM).await.unwrap();
    place.disks.remove(VM).await.unwrap();
    assert_eq!(place.disks.list().unwrap(), []);
}

#[tokio::test]
async fn a_disk_smaller_than_its_image_is_refused_and_nothing_is_made() {
    let place = place();
    let (spec, images) = place.over_image(4, ByteCount::mib(2));
    let error = place.disks.create(VM, &spec, &images).await.unwrap_err();
    let (asked, image) = (ByteCount::mib(2), ByteCount::mib(4));
    assert!(
        matches!(error, DiskError::TooSmall { asked: a, image: i } if (a, i) == (asked, image)),
        "{error}"
    );
    assert!(!place.disks.files(VM, &spec, &images).disk.unwrap().exists());
}

#[tokio::test]
async fn a_blank_disk_has_no_backing_file_and_a_machine_may_have_none() {
    require!(QEMU_IMG);
    let place = place();
    let files = place.disks.create(VM, &fixture::spec(), &LocalImages::default()).await.unwrap();
    let size = virtual_size(&files.disk.unwrap(), ImageFormat::Qcow2).await.unwrap();
    assert_eq!((size, files.backing), (ByteCount::mib(8), None));
    let none = VmSpec { storage: ByteCount(0), ..fixture::spec() };
    let files = place.disks.create(VmId::from_u128(6), &none, &LocalImages::default()).await.unwrap();
    assert_eq!(files.disk, None);
}

#[tokio::test]
async fn a_kernel_is_a_copy_of_its_own() {
    let place = place();
    let shared = place.root.path().join("shared-kernel");
    fs::write(&shared, "kernel").unwrap();
    let images = LocalImages { kernel: Some(shared.clone()), ..LocalImages::default() };
    let spec = VmSpec { storage: ByteCount(0), ..fixture::spec() };
    let (kernel, initramfs) = place.disks.create(VM, &spec, &images).await.unwrap().kernel.unwrap();
    fs::write(&kernel, "spoilt").unwrap();
    assert_eq!((fs::read_to_string(shared).unwrap().as_str(), initramfs), ("kernel", None));
}

#[test]
fn a_qemu_user_that_does_not_exist_is_named() {
    let root = tempfile::tempdir().unwrap();
    let error = Disks::open(root.path().into(), Some("no-such-user-here")).unwrap_err();
    assert!(error.to_string().contains("no-such-user-here"), "{error}");
}
