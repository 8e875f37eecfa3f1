//! Templates over HTTP.

use crate::{
    ids::TemplateId,
    spec::{BootSource, Faults, ImageFormat, ImageRef, ImageSource, Sha256Digest, TemplateSpec},
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One file of a template: exactly one of `url` and `path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageBody {
    /// An `http` or `https` address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// An absolute path on the hosts, under a folder that agent.toml lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// SHA-256 of the content, 64 hex digits.
    pub sha256: String,
    /// `raw` or `qcow2` for a disk; `oci` (an OCI image layout or a docker archive, as a tar file) or `rootfs` (a tar
    /// archive of a root file system, plain or compressed) for namespace machines. Never probed.
    pub format: ImageFormat,
}

impl ImageBody {
    const SOURCE_MAX: usize = 2048;

    /// A file of a virtual machine, which is read as it is.
    fn check_plain(&self, field: &str, faults: &mut Faults) -> Option<ImageRef> {
        if self.format.is_archive() {
            faults.add(format!("{field}.format"), "must be raw or qcow2: an archive cannot be booted");
        }
        self.check(field, faults)
    }

    fn check(&self, field: &str, faults: &mut Faults) -> Option<ImageRef> {
        let source = match (&self.url, &self.path) {
            (Some(url), None) if url.starts_with("http://") || url.starts_with("https://") => {
                Some(ImageSource::Url(url.clone()))
            }
            (Some(_), None) => {
                faults.add(format!("{field}.url"), "must begin with http:// or https://");
                None
            }
            (None, Some(path)) if path.starts_with('/') => Some(ImageSource::Path(path.clone())),
            (None, Some(_)) => {
                faults.add(format!("{field}.path"), "must be an absolute path");
                None
            }
            _ => {
                faults.add(field, "give exactly one of url and path");
                None
            }
        };
        let length = self.url.as_ref().or(self.path.as_ref()).map_or(0, String::len);
        if length > Self::SOURCE_MAX {
            faults.add(field, format!("url or path is longer than {} bytes", Self::SOURCE_MAX));
        }
        let sha256 = faults.take(&format!("{field}.sha256"), self.sha256.parse::<Sha256Digest>());
        Some(ImageRef { sha256: sha256?, source: source?, format: self.format })
    }
}

impl From<&ImageRef> for ImageBody {
    fn from(image: &ImageRef) -> Self {
        let (url, path) = match &image.source {
            ImageSource::Url(url) => (Some(url.clone()), None),
            ImageSource::Path(path) => (None, Some(path.clone())),
        };
        Self { url, path, sha256: image.sha256.to_string(), format: image.format }
    }
}

/// Direct kernel boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BootBody {
    /// The kernel.
    pub kernel: ImageBody,
    /// The initial RAM file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<ImageBody>,
    /// The kernel's command line.
    #[serde(default)]
    pub cmdline: String,
}

/// `POST /api/v1/templates`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateCreate {
    /// Unique in the cluster.
    pub name: String,
    /// The image under each VM's overlay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<ImageBody>,
    /// Direct kernel boot; without it the VM boots from its disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootBody>,
}

/// Checks a kernel command line.
pub(super) fn check_cmdline(field: &str, cmdline: &str, faults: &mut Faults) {
    if cmdline.len() as u64 >= TemplateSpec::CMDLINE_MAX.0 {
        faults.add(field, format!("is longer than {} bytes", TemplateSpec::CMDLINE_MAX.0 - 1));
    }
    if cmdline.chars().any(char::is_control) {
        faults.add(field, "has a control character");
    }
}

impl TryFrom<&TemplateCreate> for TemplateSpec {
    type Error = Faults;
    fn try_from(body: &TemplateCreate) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let name = faults.take("name", body.name.parse());
        let disk = body.disk.as_ref().map(|disk| match &body.boot {
            Some(_) => disk.check_plain("disk", &mut faults),
            None => disk.check("disk", &mut faults),
        });
        let boot = match &body.boot {
            None if body.disk.is_none() => {
                faults.add("disk", "a template needs a disk image, a kernel to boot, or both");
                None
            }
            None => Some(BootSource::Disk),
            Some(boot) => {
                check_cmdline("boot.cmdline", &boot.cmdline, &mut faults);
                let kernel = boot.kernel.check_plain("boot.kernel", &mut faults);
                let initramfs = boot.initramfs.as_ref().map(|i| i.check_plain("boot.initramfs", &mut faults));
                kernel.map(|kernel| BootSource::Kernel {
                    kernel,
                    initramfs: initramfs.flatten(),
                    cmdline: boot.cmdline.clone(),
                })
            }
        };
        let spec = name.zip(boot).map(|(name, boot)| TemplateSpec { name, boot, disk: disk.flatten() });
        faults.into_result(spec)
    }
}

/// A template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TemplateView {
    /// Its id.
    pub id: TemplateId,
    /// Its name.
    pub name: String,
    /// The image under each VM's overlay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<ImageBody>,
    /// Direct kernel boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootBody>,
    /// When it was made.
    pub created_at: UnixMillis,
}

impl TemplateView {
    /// The view of a stored template.
    pub fn new(id: TemplateId, spec: &TemplateSpec, created_at: UnixMillis) -> Self {
        let boot = match &spec.boot {
            BootSource::Disk => None,
            BootSource::Kernel { kernel, initramfs, cmdline } => Some(BootBody {
                kernel: kernel.into(),
                initramfs: initramfs.as_ref().map(Into::into),
                cmdline: cmdline.clone(),
            }),
        };
        Self { id, name: spec.name.to_string(), disk: spec.disk.as_ref().map(Into::into), boot, created_at }
    }
}
