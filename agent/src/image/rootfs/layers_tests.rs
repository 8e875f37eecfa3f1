//! Archives into layers on a real file system. Whiteouts and owners need root, as the agent has it.

use super::{super::fixture::Tar, *};
use serde_json::json;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

struct Place {
    root: tempfile::TempDir,
    store: LayerStore,
}

fn place() -> Place {
    let root = tempfile::tempdir().unwrap();
    let store = LayerStore::open(root.path().join("layers"), ByteCount::mib(1)).unwrap();
    Place { root, store }
}

fn sha256(bytes: &[u8]) -> Sha256Digest {
    Hashing::new(bytes).finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

impl Place {
    fn ensure(&self, archive: &[u8], format: ImageFormat) -> Result<RootImage, RootfsError> {
        let path = self.root.path().join("archive");
        fs::write(&path, archive).unwrap();
        self.store.ensure(&path, sha256(archive), format)
    }

    /// What lies in the store, whole or not.
    fn entries(&self) -> usize {
        fs::read_dir(self.root.path().join("layers")).unwrap().count() - 1
    }
}

fn base() -> Vec<u8> {
    Tar::new().folder("etc/").file("etc/motd", b"base\n").file("etc/old", b"old").folder("srv/").end()
}

fn upper() -> Vec<u8> {
    Tar::new().file("etc/motd", b"upper\n").file("etc/.wh.old", b"").file("srv/.wh..wh..opq", b"").end()
}

/// An OCI layout; `packed` are the layers as they lie in it, `plain` as their configuration says.
fn oci(packed: &[Vec<u8>], plain: &[Vec<u8>]) -> Vec<u8> {
    let digest = |bytes: &[u8]| format!("sha256:{}", sha256(bytes));
    let diff_ids: Vec<String> = plain.iter().map(|layer| digest(layer)).collect();
    let config = json!({"rootfs": {"diff_ids": diff_ids}, "config": {"Cmd": ["/bin/app"], "Env": ["A=b"]}})
        .to_string();
    let layers: Vec<_> = packed.iter().map(|layer| json!({"digest": digest(layer)})).collect();
    let manifest = json!({"config": {"digest": digest(config.as_bytes())}, "layers": layers}).to_string();
    let index = json!({"manifests": [{"digest": digest(manifest.as_bytes())}]}).to_string();
    let blob = |tar: Tar, bytes: &[u8]| tar.file(&format!("blobs/sha256/{}", sha256(bytes)), bytes);
    let tar = Tar::new().file("oci-layout", b"{}").file("./index.json", index.as_bytes());
    let tar = blob(blob(tar, config.as_bytes()), manifest.as_bytes());
    packed.iter().fold(tar, |tar, layer| blob(tar, layer)).end()
}

#[test]
fn an_image_becomes_the_layers_that_overlayfs_reads() {
    let place = place();
    let archive = oci(&[gzip(&base()), zstd::encode_all(upper().as_slice(), 1).unwrap()], &[base(), upper()]);
    let image = place.ensure(&archive, ImageFormat::Oci).unwrap();
    assert_eq!(image.run.program.argv, ["/bin/app"]);
    let [low, high] = image.layers.as_slice() else { panic!("{:?}", image.layers) };
    assert_eq!(fs::read_to_string(low.join("etc/motd")).unwrap(), "base\n");
    assert_eq!(fs::read_to_string(high.join("etc/motd")).unwrap(), "upper\n");
    let whiteout = fs::symlink_metadata(high.join("etc/old")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    let store = fs::metadata(place.root.path().join("layers")).unwrap();
    assert_eq!(store.permissions().mode() & 0o777, 0o700, "a layer is nobody's business");
    // Again: nothing is unpacked, and the same is found by its name.
    let before = fs::metadata(low).unwrap().ino();
    assert_eq!(place.ensure(&archive, ImageFormat::Oci).unwrap(), image);
    assert_eq!(fs::metadata(low).unwrap().ino(), before);
    assert_eq!(place.store.find(sha256(&archive)).unwrap(), Some(image));
}

#[test]
fn a_layer_is_shared_and_goes_with_its_last_image() {
    let place = place();
    let (one, two) = (oci(&[gzip(&base())], &[base()]), oci(&[gzip(&base()), upper()], &[base(), upper()]));
    let first = place.ensure(&one, ImageFormat::Oci).unwrap();
    let second = place.ensure(&two, ImageFormat::Oci).unwrap();
    assert_eq!(first.layers[0], second.layers[0]);
    assert_eq!((place.entries(), place.store.list().unwrap().len()), (2, 2));
    place.store.retain(&[sha256(&one)]).unwrap();
    assert_eq!(place.store.list().unwrap(), [sha256(&one)]);
    assert!(first.layers[0].is_dir() && !second.layers[1].exists());
    place.store.retain(&[]).unwrap();
    assert_eq!((place.entries(), place.store.find(sha256(&one)).unwrap()), (0, None));
}

#[test]
fn what_docker_saved_is_read_too() {
    let place = place();
    let config = json!({"rootfs": {"diff_ids": [format!("sha256:{}", sha256(&base()))]}}).to_string();
    let manifest = json!([{"Config": "abc.json", "Layers": ["abc/layer.tar"]}]).to_string();
    let tar = Tar::new().folder("abc/").file("abc/layer.tar", &base()).file("abc.json", config.as_bytes());
    let image =
        place.ensure(&tar.file("manifest.json", manifest.as_bytes()).end(), ImageFormat::Oci).unwrap();
    assert_eq!(fs::read_to_string(image.layers[0].join("etc/motd")).unwrap(), "base\n");
}

#[test]
fn a_plain_root_file_system_is_one_layer_however_it_is_compressed() {
    let place = place();
    let image = place.ensure(&gzip(&base()), ImageFormat::Rootfs).unwrap();
    assert_eq!(image.layers, place.ensure(&base(), ImageFormat::Rootfs).unwrap().layers);
    assert_eq!((image.layers.len(), image.run.program), (1, novacron_common::spec::Program::default()));
}

#[test]
fn what_is_not_what_it_says_is_refused_and_leaves_nothing() {
    let other = Tar::new().file("etc/motd", b"evil\n").end();
    let mut damaged = oci(&[base()], &[base()]);
    let at = damaged.windows(5).position(|bytes| bytes == b"base\n").unwrap();
    damaged[at] = b'B';
    for (what, archive) in [("another layer", oci(&[other], &[base()])), ("a damaged one", damaged)] {
        let place = place();
        let error = place.ensure(&archive, ImageFormat::Oci).unwrap_err();
        assert!(matches!(error, RootfsError::Checksum { .. }), "{what}: {error}");
        assert_eq!((place.entries(), place.store.list().unwrap()), (0, vec![]), "{what}");
    }
    let place = place();
    assert!(matches!(place.ensure(&base(), ImageFormat::Oci), Err(RootfsError::Missing(_))));
    assert!(matches!(place.ensure(&gzip(&base()), ImageFormat::Oci), Err(RootfsError::Archive(_))));
    assert!(matches!(place.ensure(b"x", ImageFormat::Rootfs), Err(RootfsError::Layer { number: 1, .. })));
}

#[test]
fn no_layer_reaches_out_of_its_folder() {
    let outside = tempfile::tempdir().unwrap();
    let there = outside.path().to_str().unwrap();
    fs::write(outside.path().join("kept"), "kept").unwrap();
    let through = [
        Tar::new().symlink("a", there).file("a/new", b"x"),
        Tar::new().symlink("a", there).file("a/kept", b"x"),
        Tar::new().symlink("a", there).folder("a/b/"),
        Tar::new().symlink("a", there).file("a/.wh.kept", b""),
        Tar::new().symlink("a", there).file("a/.wh..wh..opq", b""),
        Tar::new().symlink("a", there).hard_link("b", "a/kept"),
        Tar::new().symlink("a", there).symlink("b", "a").folder("b/c/"),
        Tar::new().symlink("a", ".").file("a/b", b"x"),
        Tar::new().symlink("a", "/proc/self/root").file("a/tmp/x", b"x"),
        Tar::new().file("a", b"x").file("a/b", b"x"),
        Tar::new().folder("a/").file("a", b"x"),
    ];
    for (number, tar) in through.into_iter().enumerate() {
        let place = place();
        let error = place.ensure(&tar.end(), ImageFormat::Rootfs).unwrap_err();
        assert!(matches!(error, RootfsError::Layer { .. }), "{number}: {error}");
        assert_eq!(place.entries(), 0, "{number}");
        let left: Vec<_> = fs::read_dir(outside.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["kept"], "{number}");
    }
    // To replace a link is no way through it.
    let place = place();
    let link = Path::new(there).join("kept");
    let tar = Tar::new().symlink("a", link.to_str().unwrap()).file("a", b"mine").end();
    let image = place.ensure(&tar, ImageFormat::Rootfs).unwrap();
    assert_eq!(fs::read_to_string(image.layers[0].join("a")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(link).unwrap(), "kept");
}

#[test]
fn a_bomb_is_cut_off_and_swept_away() {
    let place = place();
    let bomb = gzip(&Tar::new().file("bomb", &vec![0; 4 << 20]).end());
    let error = place.ensure(&bomb, ImageFormat::Rootfs).unwrap_err();
    assert!(crate::text::describe(&error).contains("bytes allowed"), "{}", crate::text::describe(&error));
    assert_eq!(place.entries(), 0);
    // What a crash leaves goes when the store is opened.
    fs::create_dir(place.root.path().join("layers/.new-x")).unwrap();
    fs::write(place.root.path().join("layers/images/.new-y"), "").unwrap();
    LayerStore::open(place.root.path().join("layers"), ByteCount::mib(1)).unwrap();
    assert_eq!(place.entries(), 0);
    assert_eq!(fs::read_dir(place.root.path().join("layers/images")).unwrap().count(), 0);
}
