//! libvirt with real QEMU, in the lab.

use super::{Place, promises};
use anyhow::{Context as _, Result, ensure};
use novacron_agent::{
    bridge,
    hypervisor::{
        Definition, Hypervisor, HypervisorEvent, Listed,
        libvirt::{AccelSetting, Libvirt},
    },
    image::{Disks, LocalImages},
};
use novacron_common::{
    ids::VmId,
    record::VmState,
    spec::{
        BootSource, CloudInit, HealthSpec, ImageFormat, ImageRef, ImageSource, MachineKind, Mobility,
        NetworkSpec, RestartPolicy, Sha256Digest, TemplateSpec, VmSpec,
    },
    units::ByteCount,
};
use novacron_tests::{
    guest_image::{Checked, DiskFormat, GuestImage},
    lab::{Host, HostOptions, Lab, QemuUser},
    require,
};
use std::{
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

const BRIDGE: &str = "novabr0";
const FOREIGN: &str = "somebody-elses";

pub(super) struct InLab {
    pub(super) libvirt: Libvirt,
    disks: Disks,
    images: LocalImages,
    template: TemplateSpec,
    // Dropped in this order: the host before the lab.
    pub(super) host: Host,
    _lab: Lab,
}

impl InLab {
    async fn new(name: &str, qemu_user: QemuUser) -> Result<Self> {
        Self::with(name, qemu_user, GuestImage::build()?).await
    }

    /// With machines that boot `guest`.
    pub(super) async fn with(name: &str, qemu_user: QemuUser, guest: GuestImage) -> Result<Self> {
        let mut lab = Lab::new(name)?;
        let host = lab.host("h1", HostOptions { qemu_user })?;
        make_bridge(&host)?;
        // Seen at the same place from inside the host and from here.
        let folder = host.dir().join("machines");
        std::fs::create_dir(&folder)?;
        let image = folder.join("base.raw");
        let disk = GuestImage::empty_disk(&image, DiskFormat::Raw, 16)?;
        let owner = (qemu_user == QemuUser::LibvirtQemu).then_some("libvirt-qemu");
        Ok(Self {
            libvirt: Libvirt::connect(&host.libvirt_uri(), AccelSetting::Tcg).await?,
            disks: Disks::open(folder.join("vms"), owner)?,
            images: LocalImages {
                disk: Some((image, ImageFormat::Raw)),
                kernel: Some(guest.kernel.path.clone()),
                initramfs: Some(guest.initramfs.path.clone()),
                root: None,
            },
            template: template(&guest, &disk)?,
            host,
            _lab: lab,
        })
    }

    fn image(&self) -> PathBuf {
        self.images.disk.as_ref().map(|(path, _)| path.clone()).unwrap_or_default()
    }
}

/// Twice: it must not mind its own work.
fn make_bridge(host: &Host) -> Result<()> {
    host.on_network(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for _ in 0..2 {
            runtime.block_on(bridge::ensure(BRIDGE, Some("eth1")))?;
        }
        Ok(())
    })
}

fn image_ref(file: &Checked) -> Result<ImageRef> {
    let source = ImageSource::Path(file.path.display().to_string());
    let sha256: Sha256Digest = file.sha256.parse()?;
    Ok(ImageRef { sha256, source, format: ImageFormat::Raw })
}

fn template(guest: &GuestImage, disk: &Checked) -> Result<TemplateSpec> {
    let boot = BootSource::Kernel {
        kernel: image_ref(&guest.kernel)?,
        initramfs: Some(image_ref(&guest.initramfs)?),
        cmdline: "console=ttyS0 quiet panic=-1 nova.mb=4 nova.tick=200 nova.disk=1 nova.disk_mb=4".to_owned(),
    };
    Ok(TemplateSpec { name: "guest".parse()?, boot, disk: Some(image_ref(disk)?) })
}

impl Place for InLab {
    fn hypervisor(&self) -> &dyn Hypervisor {
        &self.libvirt
    }

    async fn definition(&self, number: u128) -> Result<Definition> {
        let vm = VmId::from_u128(number);
        let spec = VmSpec {
            name: format!("guest-{number}").parse()?,
            kind: MachineKind::Kvm,
            cpus: 1,
            memory: ByteCount::mib(128),
            storage: ByteCount::mib(32),
            template: self.template.clone(),
            cmdline: None,
            network: NetworkSpec::default(),
            cloud_init: Some(CloudInit::default()),
            restart: RestartPolicy::Never,
            mobility: Mobility::Usual,
            health: HealthSpec::default(),
            volumes: Vec::new(),
        };
        let files = self.disks.create(vm, &spec, &self.images).await?;
        Ok(Definition { vm, spec, files, bridge: Some(BRIDGE.to_owned()) })
    }

    fn add_foreign(&self) -> Result<String> {
        let path = self.host.dir().join("machines/foreign.xml");
        let xml = format!(
            "<domain type='qemu'><name>{FOREIGN}</name><memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>"
        );
        std::fs::write(&path, xml)?;
        self.host.virsh(&["define", &path.display().to_string()])?;
        Ok(FOREIGN.to_owned())
    }

    async fn hold(&self, vm: VmId) -> Result<()> {
        Ok(self.libvirt.pause(vm).await?)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn libvirt_keeps_the_contract_with_qemu_as_root() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let place = InLab::new("contract", QemuUser::Root).await?;
    promises::all(&place).await?;
    what_a_guest_writes_is_counted(&place).await
}

async fn what_a_guest_writes_is_counted(place: &InLab) -> Result<()> {
    let definition = place.definition(30).await?;
    place.libvirt.define(&definition).await?;
    place.libvirt.start(definition.vm).await?;
    let deadline = Instant::now() + place.patience();
    loop {
        let counted = place.libvirt.statistics(definition.vm).await?;
        ensure!(counted.network.is_some() && counted.processes.is_none(), "{counted:?}");
        if counted.disk.context("its disk is not counted")?.written > ByteCount(0) {
            return Ok(place.libvirt.undefine(definition.vm).await?);
        }
        ensure!(Instant::now() < deadline, "it wrote nothing: {counted:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn libvirt_keeps_the_contract_with_qemu_as_a_user_of_its_own() -> Result<()> {
    require!(root, libvirt, qemu, apt, libvirt_qemu_user);
    let place = InLab::new("contract", QemuUser::LibvirtQemu).await?;
    promises::all(&place).await?;
    // Shared files stay root's, whatever libvirt hands to QEMU's user.
    let shared = [Some(place.image()), place.images.kernel.clone(), place.images.initramfs.clone()];
    for path in shared.into_iter().flatten() {
        ensure!(std::fs::metadata(&path)?.uid() == 0, "{} was handed over", path.display());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_libvirtd_is_survived() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let mut place = InLab::new("restart", QemuUser::Root).await?;
    let definition = place.definition(1).await?;
    place.libvirt.define(&definition).await?;
    place.libvirt.start(definition.vm).await?;
    let mut events = place.libvirt.events();
    place.host.kill9_libvirtd()?;
    place.host.start_libvirtd()?;
    let resync = async { while !matches!(events.recv().await, Ok(HypervisorEvent::Resync)) {} };
    tokio::time::timeout(Duration::from_secs(20), resync).await.context("no Resync was announced")?;
    // The very next call works, without a retry of the caller's.
    ensure!(place.libvirt.state(definition.vm).await? == VmState::Running);
    ensure!(place.libvirt.list().await? == [Listed::Ours(definition.vm, VmState::Running)]);
    let mut events = place.libvirt.events();
    place.libvirt.undefine(definition.vm).await?;
    let changed = async { while events.recv().await != Ok(HypervisorEvent::Changed(definition.vm)) {} };
    tokio::time::timeout(Duration::from_secs(10), changed).await.context("events ended with the restart")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_in_bounded_time_while_libvirtd_is_away() -> Result<()> {
    require!(root, libvirt, qemu);
    let mut place = InLab::new("away", QemuUser::Root).await?;
    place.host.kill9_libvirtd()?;
    let asked = Instant::now();
    ensure!(place.libvirt.list().await.is_err(), "a dead libvirtd listed its domains");
    ensure!(asked.elapsed() < Duration::from_secs(20), "it took {:?}", asked.elapsed());
    place.host.start_libvirtd()?;
    ensure!(place.libvirt.list().await?.is_empty());
    Ok(())
}
