//! The NoCloud seed: a small FAT volume labelled `cidata`, from which cloud-init learns who the guest is.
//!
//! The documents are JSON, which every YAML parser reads: nothing that a user typed needs YAML's quoting rules.
//! Equal machines give equal bytes, so that the seed of a moved machine is made again on the target, not sent.

use novacron_common::{
    ids::VmId,
    spec::{CloudInit, MacAddress, NetworkSpec, VmSpec},
};
use serde_json::{Value, json};
use std::io::{self, Cursor, Write};

/// Size of the volume: user-data is at most 16 KiB, ssh keys are lines.
const VOLUME_BYTES: usize = 1 << 20;
/// cloud-init looks for this label in either case.
const LABEL: [u8; 11] = *b"cidata     ";

/// The volume for a machine, or `None` if it wants none.
///
/// # Errors
/// If the documents do not fit the volume.
pub fn build(vm: VmId, spec: &VmSpec) -> io::Result<Option<Vec<u8>>> {
    let Some(wanted) = &spec.cloud_init else { return Ok(None) };
    let files = [
        ("meta-data", meta_data(vm, spec, wanted)),
        ("user-data", user_data(spec, wanted)),
        ("network-config", network_config(MacAddress::of_vm(vm), &spec.network)),
    ];
    volume(vm, &files).map(Some)
}

fn volume(vm: VmId, files: &[(&str, String)]) -> io::Result<Vec<u8>> {
    let mut disk = Cursor::new(vec![0; VOLUME_BYTES]);
    let [.., a, b, c, d] = vm.uuid().into_bytes();
    let options =
        fatfs::FormatVolumeOptions::new().volume_label(LABEL).volume_id(u32::from_be_bytes([a, b, c, d]));
    fatfs::format_volume(&mut disk, options)?;
    // fatfs without its chrono feature stamps every file with 1980-01-01.
    let system = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new().update_accessed_date(false))?;
    for (name, content) in files {
        system.root_dir().create_file(name)?.write_all(content.as_bytes())?;
    }
    system.unmount()?;
    Ok(disk.into_inner())
}

fn hostname<'a>(spec: &'a VmSpec, wanted: &'a CloudInit) -> &'a str {
    wanted.hostname.as_ref().unwrap_or(&spec.name).as_str()
}

fn meta_data(vm: VmId, spec: &VmSpec, wanted: &CloudInit) -> String {
    let document = json!({
        "instance-id": vm.to_string(),
        "local-hostname": hostname(spec, wanted),
        "public-keys": wanted.ssh_keys,
    });
    format!("{document:#}\n")
}

fn user_data(spec: &VmSpec, wanted: &CloudInit) -> String {
    wanted.user_data.clone().unwrap_or_else(|| {
        let document = json!({
            "hostname": hostname(spec, wanted),
            "ssh_authorized_keys": wanted.ssh_keys,
        });
        format!("#cloud-config\n{document:#}\n")
    })
}

/// Network configuration, version 2 of cloud-init's format.
fn network_config(mac: MacAddress, network: &NetworkSpec) -> String {
    let mut card = json!({ "match": { "macaddress": mac.to_string() } });
    match network.address {
        Some(address) => card["addresses"] = json!([address.to_string()]),
        None => card["dhcp4"] = Value::Bool(true),
    }
    if let Some(gateway) = network.gateway {
        let to = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        card["routes"] = json!([{ "to": to, "via": gateway.to_string() }]);
    }
    if !network.dns.is_empty() {
        card["nameservers"] = json!({ "addresses": network.dns });
    }
    let document = json!({ "version": 2, "ethernets": { "nic0": card } });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::disks::fixture;
    use std::io::Read;

    fn read(volume: Vec<u8>, name: &str) -> String {
        let system = fatfs::FileSystem::new(Cursor::new(volume), fatfs::FsOptions::new()).unwrap();
        assert_eq!(system.volume_label(), "cidata");
        let mut text = String::new();
        system.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    fn json_of(volume: &[u8], name: &str) -> Value {
        let text = read(volume.to_vec(), name);
        serde_json::from_str(text.trim_start_matches("#cloud-config\n")).unwrap()
    }

    #[test]
    fn the_seed_names_the_guest_and_its_card() {
        let vm = VmId::from_u128(7);
        let mut spec = fixture::spec();
        spec.network.address = Some("10.77.0.20/24".parse().unwrap());
        spec.network.gateway = Some("10.77.0.1".parse().unwrap());
        spec.network.dns = vec!["10.77.0.1".parse().unwrap()];
        spec.cloud_init =
            Some(CloudInit { ssh_keys: vec!["ssh-ed25519 AAAA me".to_owned()], ..CloudInit::default() });
        let volume = build(vm, &spec).unwrap().unwrap();
        let meta = json_of(&volume, "meta-data");
        assert_eq!(
            (&meta["instance-id"], &meta["local-hostname"]),
            (&json!(vm.to_string()), &json!("web-1"))
        );
        assert!(read(volume.clone(), "user-data").starts_with("#cloud-config\n"));
        assert_eq!(json_of(&volume, "user-data")["ssh_authorized_keys"], json!(["ssh-ed25519 AAAA me"]));
        let card = &json_of(&volume, "network-config")["ethernets"]["nic0"];
        assert_eq!(card["match"]["macaddress"], json!("52:54:00:00:00:07"));
        assert_eq!(card["addresses"], json!(["10.77.0.20/24"]));
        assert_eq!(card["routes"], json!([{ "to": "0.0.0.0/0", "via": "10.77.0.1" }]));
        assert_eq!(card["nameservers"]["addresses"], json!(["10.77.0.1"]));
        assert_eq!(card.get("dhcp4"), None);
    }

    #[test]
    fn what_a_user_typed_stays_a_text() {
        let nasty = "ssh-rsa \"AAAA\": [x]\n- run: 'rm -rf /' # {}";
        let mut spec = fixture::spec();
        spec.cloud_init = Some(CloudInit { ssh_keys: vec![nasty.to_owned()], ..CloudInit::default() });
        let volume = build(VmId::from_u128(1), &spec).unwrap().unwrap();
        assert_eq!(json_of(&volume, "user-data")["ssh_authorized_keys"], json!([nasty]));
        assert_eq!(json_of(&volume, "user-data").as_object().unwrap().len(), 2);
    }

    #[test]
    fn a_users_own_document_is_taken_as_it_is_and_without_an_address_dhcp_is_used() {
        let own = "#!/bin/sh\necho 'hello: world'\n";
        let mut spec = fixture::spec();
        let hostname = Some("other".parse().unwrap());
        spec.cloud_init =
            Some(CloudInit { hostname, user_data: Some(own.to_owned()), ..CloudInit::default() });
        let volume = build(VmId::from_u128(1), &spec).unwrap().unwrap();
        assert_eq!(read(volume.clone(), "user-data"), own);
        assert_eq!(json_of(&volume, "meta-data")["local-hostname"], json!("other"));
        assert_eq!(json_of(&volume, "network-config")["ethernets"]["nic0"]["dhcp4"], json!(true));
    }

    #[test]
    fn the_same_machine_has_the_same_bytes_and_another_has_others() {
        let seed = |n| build(VmId::from_u128(n), &fixture::spec()).unwrap().unwrap();
        assert_eq!(seed(1), seed(1));
        assert_ne!(seed(1), seed(2));
        let without = VmSpec { cloud_init: None, ..fixture::spec() };
        assert_eq!(build(VmId::from_u128(1), &without).unwrap(), None);
    }

    #[test]
    fn the_largest_user_data_fits() {
        let largest = "x".repeat(usize::try_from(VmSpec::USER_DATA_MAX.0).unwrap());
        let mut spec = fixture::spec();
        spec.cloud_init = Some(CloudInit { user_data: Some(largest.clone()), ..CloudInit::default() });
        let volume = build(VmId::from_u128(1), &spec).unwrap().unwrap();
        assert_eq!(read(volume, "user-data"), largest);
    }
}
