//! What an image archive says about itself: the OCI image layout (`image-layout.md`, `manifest.md`, `config.md` of the OCI
//! image specification) and the older `manifest.json` of `docker save`. Pure: bytes in, facts or fault out.

#[path = "manifest/health.rs"]
mod health;

use novacron_common::spec::{BadDigest, HealthSpec, ImageRun, Program, Sha256Digest};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Longest document that is read.
pub const DOCUMENT_MAX: u64 = 4 << 20;
/// Most layers: as many as overlayfs is given lower folders here.
pub const LAYERS_MAX: usize = 127;
/// Most arguments or variables of an image's command.
const WORDS_MAX: usize = 1024;
/// Longest of them, and of a path.
const WORD_MAX: usize = 32 << 10;

/// Why an image's own account of itself is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestFault {
    /// Not the document that it should be.
    #[error("{what} is no such document")]
    Json {
        /// Which.
        what: &'static str,
        /// Where it ends to be one.
        #[source]
        cause: serde_json::Error,
    },
    /// A digest of another kind, or none.
    #[error("{0:?} is no SHA-256 digest")]
    Digest(String, #[source] BadDigest),
    /// None that this host could run.
    #[error("it holds no image for {0}")]
    Platform(&'static str),
    /// Several.
    #[error("it holds {0} images: make an archive of one")]
    Several(usize),
    /// Too many, or none.
    #[error("it has {0} layers, 1 to {LAYERS_MAX} are taken")]
    Layers(usize),
    /// Config and manifest do not tell of the same layers.
    #[error("its manifest has {manifest} layers and its configuration {config}")]
    Disagree {
        /// In the manifest.
        manifest: usize,
        /// In the configuration.
        config: usize,
    },
    /// Longer than any command.
    #[error("its {0} is absurdly long, or has a NUL byte")]
    Words(&'static str),
}

/// This host's name in image indexes.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };

/// `index.json`, or an index within one.
#[derive(Debug, Deserialize)]
pub struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// What an index leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// Another index, by its digest.
    Index(Sha256Digest),
    /// A manifest.
    Manifest(Sha256Digest),
}

/// Chooses this host's image of an index.
///
/// # Errors
/// [`ManifestFault`] if there is none, or several.
pub fn choose(index: &[u8]) -> Result<Chosen, ManifestFault> {
    let index: Index = json("index.json", index)?;
    let fits: Vec<&Descriptor> = index.manifests.iter().filter(|d| d.fits()).collect();
    match fits.as_slice() {
        [] => Err(ManifestFault::Platform(ARCHITECTURE)),
        [one] if one.media_type.contains("index") || one.media_type.contains("manifest.list") => {
            digest(&one.digest).map(Chosen::Index)
        }
        [one] => digest(&one.digest).map(Chosen::Manifest),
        several => Err(ManifestFault::Several(several.len())),
    }
}

impl Descriptor {
    /// Attestations (buildkit's) stand beside images as manifests of no platform.
    fn fits(&self) -> bool {
        let is_attestation =
            self.annotations.as_ref().is_some_and(|notes| notes.contains_key("vnd.docker.reference.type"));
        let platform = self.platform.as_ref();
        !is_attestation && platform.is_none_or(|p| p.os == "linux" && p.architecture == ARCHITECTURE)
    }
}

/// One layer as an archive holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blob {
    /// Under `blobs/sha256`, checked against this.
    Digest(Sha256Digest),
    /// Under a name of its own, as older `docker save` wrote it. Its uncompressed content is checked all the same.
    Named(String),
}

/// A manifest: where the configuration is, and where the layers are, the lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration.
    pub config: Blob,
    /// Layers.
    pub layers: Vec<Blob>,
}

/// Reads an OCI manifest.
///
/// # Errors
/// [`ManifestFault`].
pub fn manifest(bytes: &[u8]) -> Result<Manifest, ManifestFault> {
    #[derive(Deserialize)]
    struct Raw {
        config: Descriptor,
        layers: Vec<Descriptor>,
    }
    let raw: Raw = json("the manifest", bytes)?;
    check_layers(raw.layers.len())?;
    let blob = |d: &Descriptor| digest(&d.digest).map(Blob::Digest);
    Ok(Manifest {
        config: blob(&raw.config)?,
        layers: raw.layers.iter().map(blob).collect::<Result<_, _>>()?,
    })
}

/// Reads the `manifest.json` of `docker save`.
///
/// # Errors
/// [`ManifestFault`].
pub fn docker_manifest(bytes: &[u8]) -> Result<Manifest, ManifestFault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Raw {
        config: String,
        layers: Vec<String>,
    }
    let mut images: Vec<Raw> = json("manifest.json", bytes)?;
    match (images.pop(), images.len()) {
        (Some(one), 0) => {
            check_layers(one.layers.len())?;
            let layers = one.layers.into_iter().map(Blob::Named).collect();
            Ok(Manifest { config: Blob::Named(one.config), layers })
        }
        (None, _) => Err(ManifestFault::Platform(ARCHITECTURE)),
        (Some(_), others) => Err(ManifestFault::Several(others + 1)),
    }
}

/// An image's configuration, as far as it means something here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// The SHA-256 of each layer's uncompressed stream, the lowest first.
    pub diff_ids: Vec<Sha256Digest>,
    /// How it is run.
    pub run: ImageRun,
}

/// Reads a configuration for a manifest of so many layers.
///
/// # Errors
/// [`ManifestFault`].
pub fn config(bytes: &[u8], layers: usize) -> Result<ImageConfig, ManifestFault> {
    #[derive(Deserialize)]
    struct Raw {
        rootfs: RootFs,
        #[serde(default)]
        config: Option<Run>,
        #[serde(default)]
        architecture: Option<String>,
    }
    #[derive(Deserialize)]
    struct RootFs {
        diff_ids: Vec<String>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Run {
        entrypoint: Option<Vec<String>>,
        cmd: Option<Vec<String>>,
        env: Option<Vec<String>>,
        working_dir: Option<String>,
        user: Option<String>,
        stop_signal: Option<String>,
        healthcheck: Option<health::Raw>,
    }
    let raw: Raw = json("the configuration", bytes)?;
    if raw.architecture.as_ref().is_some_and(|name| !name.is_empty() && name != ARCHITECTURE) {
        return Err(ManifestFault::Platform(ARCHITECTURE));
    }
    let diff_ids: Vec<_> = raw.rootfs.diff_ids.iter().map(|id| digest(id)).collect::<Result<_, _>>()?;
    if diff_ids.len() != layers {
        return Err(ManifestFault::Disagree { manifest: layers, config: diff_ids.len() });
    }
    let run = raw.config.unwrap_or_default();
    let argv = run.entrypoint.into_iter().chain(run.cmd).flatten();
    let env = run.env.unwrap_or_default();
    let env = checked("environment", env)?.into_iter().filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    });
    let folder = run.working_dir.filter(|folder| folder.starts_with('/'));
    let user = run.user.filter(|user| !user.is_empty());
    Ok(ImageConfig {
        diff_ids,
        run: ImageRun {
            program: Program {
                argv: checked("command", argv.collect())?,
                env: env.collect(),
                working_dir: checked("working folder", folder.into_iter().collect())?.pop(),
                stdin: None,
            },
            user: checked("user", user.into_iter().collect())?.pop(),
            // One that is not passed on to a command (systemd's SIGRTMIN+3) is as good as none.
            stop_signal: run.stop_signal.and_then(|name| name.parse().ok()),
            health: run.healthcheck.map_or(Ok(HealthSpec::default()), health::Raw::check)?,
        },
    })
}

fn checked(what: &'static str, words: Vec<String>) -> Result<Vec<String>, ManifestFault> {
    let is_fine = |word: &String| word.len() <= WORD_MAX && !word.contains('\0');
    match words.len() <= WORDS_MAX && words.iter().all(is_fine) {
        true => Ok(words),
        false => Err(ManifestFault::Words(what)),
    }
}

fn check_layers(count: usize) -> Result<(), ManifestFault> {
    if (1..=LAYERS_MAX).contains(&count) { Ok(()) } else { Err(ManifestFault::Layers(count)) }
}

fn json<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, ManifestFault> {
    serde_json::from_slice(bytes).map_err(|cause| ManifestFault::Json { what, cause })
}

/// `sha256:` and 64 hex digits.
fn digest(text: &str) -> Result<Sha256Digest, ManifestFault> {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.parse().map_err(|cause| ManifestFault::Digest(text.chars().take(80).collect(), cause))
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
