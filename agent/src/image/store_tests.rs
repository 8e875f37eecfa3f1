//! The store against good and bad sources.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Peers that hold one image's bytes, or something else under its name.
struct Peers {
    bytes: Vec<&'static [u8]>,
    asked: AtomicUsize,
}

#[async_trait]
impl PeerImages for Peers {
    async fn holders(&self, _: Sha256Digest) -> Vec<HostId> {
        (0..self.bytes.len()).map(|n| HostId::from_u128(n as u128)).collect()
    }

    async fn open(&self, peer: HostId, _: Sha256Digest) -> io::Result<Option<PeerImage>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let bytes = self.bytes[usize::try_from(peer.uuid().as_u128()).unwrap()];
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(Some(PeerImage { length: ByteCount(bytes.len() as u64), bytes: Box::pin(bytes) }))
    }
}

struct Place {
    root: tempfile::TempDir,
    peers: Arc<Peers>,
    store: ImageStore,
}

fn place(bytes: Vec<&'static [u8]>) -> Place {
    let root = tempfile::tempdir().unwrap();
    let listed = root.path().join("listed");
    fs::create_dir(&listed).unwrap();
    let peers = Arc::new(Peers { bytes, asked: AtomicUsize::new(0) });
    let options = StoreOptions {
        folder: root.path().join("images"),
        folders: vec![listed],
        url_allow: Vec::new(),
        size_max: ByteCount::mib(1),
        timeout: Duration::from_secs(20),
    };
    let store = ImageStore::open(options, Arc::clone(&peers) as Arc<dyn PeerImages>).unwrap();
    Place { root, peers, store }
}

impl Place {
    /// A file in the listed folder, and its reference.
    fn listed(&self, name: &str, bytes: &[u8], format: ImageFormat) -> ImageRef {
        let path = self.root.path().join("listed").join(name);
        fs::write(&path, bytes).unwrap();
        ImageRef {
            sha256: sha256(bytes),
            source: ImageSource::Path(path.to_str().unwrap().to_owned()),
            format,
        }
    }

    async fn ensure(&self, image: &ImageRef) -> Result<PathBuf, ImageError> {
        self.store.ensure(image, |_| {}).await
    }

    fn files(&self) -> usize {
        fs::read_dir(self.root.path().join("images")).unwrap().count()
    }
}

fn sha256(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest(digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap())
}

/// The error that the fetch itself met.
fn cause(error: ImageError) -> Arc<ImageError> {
    match error {
        ImageError::Shared(cause) => cause,
        other => Arc::new(other),
    }
}

#[tokio::test]
async fn a_local_image_is_copied_under_its_hash_and_served_to_peers() {
    let place = place(vec![]);
    let image = place.listed("disk", b"some bytes", ImageFormat::Raw);
    let path = place.ensure(&image).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"some bytes");
    assert_eq!(path.file_name().unwrap().to_str().unwrap(), format!("{}.raw", image.sha256));
    let (mut file, length) = place.store.serve(image.sha256).await.unwrap().unwrap();
    let mut served = Vec::new();
    file.read_to_end(&mut served).await.unwrap();
    assert_eq!((served.as_slice(), length), (&b"some bytes"[..], ByteCount(10)));
    assert!(place.store.serve(sha256(b"other")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_wrong_checksum_leaves_nothing_behind() {
    let place = place(vec![]);
    let mut image = place.listed("disk", b"some bytes", ImageFormat::Raw);
    image.sha256 = sha256(b"other bytes");
    let error = cause(place.ensure(&image).await.unwrap_err());
    assert!(matches!(*error, ImageError::Checksum { .. }), "{error}");
    assert_eq!(place.files(), 0);
}

#[tokio::test]
async fn a_peer_that_lies_is_passed_over() {
    let place = place(vec![b"a lie", b"the truth"]);
    let path = "/nowhere".to_owned();
    let image =
        ImageRef { sha256: sha256(b"the truth"), source: ImageSource::Path(path), format: ImageFormat::Raw };
    assert_eq!(fs::read(place.ensure(&image).await.unwrap()).unwrap(), b"the truth");
    assert_eq!(place.files(), 1);
}

#[tokio::test]
async fn ten_askers_share_one_fetch_and_all_hear_of_it() {
    let place = place(vec![b"shared"]);
    let source = ImageSource::Path("/nowhere".to_owned());
    let image = ImageRef { sha256: sha256(b"shared"), source, format: ImageFormat::Raw };
    let heard = AtomicUsize::new(0);
    let ask = || async {
        let first = std::sync::atomic::AtomicBool::new(true);
        place
            .store
            .ensure(&image, |_| {
                if first.swap(false, Ordering::SeqCst) {
                    heard.fetch_add(1, Ordering::SeqCst);
                }
            })
            .await
    };
    let outcomes = futures_util::future::join_all((0..10).map(|_| ask())).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!((place.peers.asked.load(Ordering::SeqCst), heard.load(Ordering::SeqCst)), (1, 10));
}

#[tokio::test]
async fn a_fetch_goes_on_when_its_first_asker_is_gone() {
    let place = place(vec![b"patient"]);
    let source = ImageSource::Path("/nowhere".to_owned());
    let image = ImageRef { sha256: sha256(b"patient"), source, format: ImageFormat::Raw };
    let asked = async {
        while place.peers.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await
        }
    };
    tokio::select! {
        biased;
        early = place.ensure(&image) => panic!("the fetch ended before its asker left: {early:?}"),
        () = asked => {}
    }
    place.ensure(&image).await.unwrap();
    assert_eq!(place.peers.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_image_above_the_limit_is_refused_also_when_its_length_was_a_lie() {
    struct Endless;
    #[async_trait]
    impl PeerImages for Endless {
        async fn holders(&self, _: Sha256Digest) -> Vec<HostId> {
            vec![HostId::from_u128(1)]
        }
        async fn open(&self, _: HostId, _: Sha256Digest) -> io::Result<Option<PeerImage>> {
            Ok(Some(PeerImage { length: ByteCount(1), bytes: Box::pin(tokio::io::repeat(7)) }))
        }
    }
    let mut place = place(vec![]);
    let large = place.listed("large", &vec![0; (1 << 20) + 1], ImageFormat::Raw);
    let error = cause(place.ensure(&large).await.unwrap_err());
    assert!(matches!(*error, ImageError::TooLarge { .. }), "{error}");
    place.store = ImageStore::open(place.store.0.options.clone(), Arc::new(Endless)).unwrap();
    let error = cause(place.ensure(&large).await.unwrap_err());
    assert!(matches!(*error, ImageError::TooLarge { .. }), "{error}");
    assert_eq!(place.files(), 0);
}

#[tokio::test]
async fn a_qcow2_image_is_looked_at_and_a_raw_one_is_not() {
    let place = place(vec![]);
    let mut bytes = vec![0u8; 512];
    bytes[..4].copy_from_slice(b"QFI\xfb");
    let error = cause(place.ensure(&place.listed("bad", &bytes, ImageFormat::Qcow2)).await.unwrap_err());
    assert!(matches!(*error, ImageError::Qcow2(_)), "{error}");
    place.ensure(&place.listed("same", &bytes, ImageFormat::Raw)).await.unwrap();
}

#[tokio::test]
async fn a_silent_source_is_given_up_in_time() {
    struct Silent;
    #[async_trait]
    impl PeerImages for Silent {
        async fn holders(&self, _: Sha256Digest) -> Vec<HostId> {
            std::future::pending().await
        }
        async fn open(&self, _: HostId, _: Sha256Digest) -> io::Result<Option<PeerImage>> {
            Ok(None)
        }
    }
    let place = place(vec![]);
    let image = place.listed("disk", b"some bytes", ImageFormat::Raw);
    let options = StoreOptions { timeout: Duration::from_millis(50), ..place.store.0.options.clone() };
    let store = ImageStore::open(options, Arc::new(Silent)).unwrap();
    let error = cause(store.ensure(&image, |_| {}).await.unwrap_err());
    assert!(matches!(*error, ImageError::TooSlow(_)), "{error}");
}

#[test]
fn what_a_crash_left_is_removed_at_the_next_start() {
    let place = place(vec![]);
    let half = place.root.path().join("images").join(format!("{INCOMING}1"));
    fs::write(&half, "half").unwrap();
    let peers = Arc::clone(&place.peers) as Arc<dyn PeerImages>;
    ImageStore::open(place.store.0.options.clone(), peers).unwrap();
    assert!(!half.exists());
}
