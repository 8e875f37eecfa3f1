//! One machine with everything, for the adapter's own tests.

use crate::hypervisor::{Definition, MachineFiles};
use novacron_common::{
    ids::VmId,
    spec::{
        BootSource, CloudInit, HealthSpec, ImageFormat, ImageRef, ImageSource, MachineKind, Mobility,
        NetworkSpec, RestartPolicy, Sha256Digest, TemplateSpec, VmSpec,
    },
    units::ByteCount,
};
use quick_xml::{Reader, events::Event};

fn image(byte: u8, format: ImageFormat) -> ImageRef {
    ImageRef {
        sha256: Sha256Digest([byte; 32]),
        source: ImageSource::Path(format!("/images/{byte}")),
        format,
    }
}

/// A machine with disk, backing image, seed, kernel and card.
pub fn definition() -> Definition {
    let kernel = image(1, ImageFormat::Raw);
    let boot = BootSource::Kernel { kernel, initramfs: None, cmdline: "console=ttyS0 quiet".to_owned() };
    let spec = VmSpec {
        name: "web-1".parse().expect("a good name"),
        kind: MachineKind::Kvm,
        cpus: 2,
        memory: ByteCount::mib(256),
        storage: ByteCount::gib(1),
        template: TemplateSpec {
            name: "debian".parse().expect("a good name"),
            boot,
            disk: Some(image(2, ImageFormat::Raw)),
        },
        cmdline: None,
        network: NetworkSpec::default(),
        cloud_init: Some(CloudInit::default()),
        restart: RestartPolicy::Never,
        mobility: Mobility::Usual,
        health: HealthSpec::default(),
        volumes: Vec::new(),
    };
    let files = MachineFiles {
        disk: Some("/data/vms/x/disk.qcow2".into()),
        backing: Some(("/data/images/02.raw".into(), ImageFormat::Raw)),
        seed: Some("/data/vms/x/seed.img".into()),
        kernel: Some(("/data/vms/x/kernel".into(), Some("/data/vms/x/initramfs".into()))),
        ..MachineFiles::bare("/data/vms/x")
    };
    Definition { vm: VmId::from_u128(0x11), spec, files, bridge: Some("novabr0".to_owned()) }
}

/// The text of the first element of that name, unescaped.
pub fn text_of(xml: &str, name: &str) -> String {
    let mut reader = Reader::from_str(xml);
    loop {
        match reader.read_event().expect("well-formed") {
            Event::Start(start) if start.name().as_ref() == name.as_bytes() => {
                let raw = reader.read_text(start.name()).expect("its text");
                return quick_xml::escape::unescape(&raw).expect("good escapes").into_owned();
            }
            Event::Eof => return String::new(),
            _ => {}
        }
    }
}
