//! A cloud image boots as clouds boot it: firmware, boot loader, kernel, systemd, cloud-init. All that makes it this machine
//! (name, key, address, what to run) must come out of the seed that the agent made.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use novacron_tests::cloud_image::CloudImage;
use novacron_tests::cluster::{Cluster, ClusterOptions, machine_path};
use novacron_tests::lab::HostOptions;
use novacron_tests::require;
use novacron_tests::serial::Recorder;
use serde_json::json;

const NAME: &str = "web-1";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 60);
/// cloud-init starts an interpreter four times, each for seconds on an emulated processor.
const BOOT_LIMIT: Duration = Duration::from_secs(360);
const SSH_LIMIT: Duration = Duration::from_secs(90);
/// Runs last of all, so sshd serves by then.
const USER_DATA: &str = "#cloud-config\nruncmd:\n- echo \"SEEDED $(hostname)\" > /dev/ttyS0\n";

struct Files {
    key: PathBuf,
    arguments: [String; 2],
}

/// A user's key pair and documents, in a folder that the lab removes.
fn files_of_a_user(cluster: &Cluster) -> Result<Files> {
    let folder = cluster.lab.outside().dir();
    let (key, user_data) = (folder.join("id_ed25519"), folder.join("user-data"));
    fs::write(&user_data, USER_DATA)?;
    let mut generate = Command::new("ssh-keygen");
    let made = generate.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let arguments = [
        format!("--ssh-keys={}", key.with_extension("pub").display()),
        format!("--user-data={}", user_data.display()),
    ];
    Ok(Files { key, arguments })
}

fn make_template(cluster: &Cluster) -> Result<()> {
    let image = CloudImage::build()?.disk;
    let disk = json!({ "path": image.path.display().to_string(), "sha256": image.sha256, "format": "qcow2" });
    let path = cluster.lab.outside().dir().join("template.json");
    fs::write(&path, json!({ "name": "debian", "disk": disk }).to_string())?;
    cluster.novactl(&["template", "create", &path.display().to_string()]).map(drop)
}

/// What a command printed in the guest, over ssh with the user's key.
fn over_ssh(cluster: &Cluster, key: &PathBuf, command: &str) -> Result<String> {
    let mut ssh = Command::new("ssh");
    ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]);
    ssh.args(["-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60", "-i"]).arg(key);
    ssh.arg(format!("{}@{ADDRESS}", CloudImage::USER)).arg(command);
    let process = cluster.lab.outside().spawn_command(ssh)?;
    let status = process.wait_for(SSH_LIMIT).context("ssh did not end")?;
    ensure!(status.success(), "ssh: {status}: {}", process.printed());
    Ok(process.printed().trim().to_owned())
}

#[test]
fn a_cloud_image_boots_through_firmware_and_is_who_its_seed_says() -> Result<()> {
    require!(root, libvirt, qemu, apt, debootstrap, ssh);
    let hosts = vec![("h1".to_owned(), HostOptions::default())];
    let cluster = Cluster::start(&ClusterOptions { hosts, ..ClusterOptions::two_hosts("firmware") })?;
    make_template(&cluster)?;
    let files = files_of_a_user(&cluster)?;
    let address = format!("--address={ADDRESS}/24");
    let mut words =
        vec!["vm", "create", NAME, "--template=debian", "--memory=512M", "--storage=2G", &address];
    words.extend(files.arguments.iter().map(String::as_str));
    let view = cluster.novactl(&words)?;
    let id = view["id"].as_str().context("a machine without an id")?;
    let recorder = Recorder::start(vec![machine_path(&cluster.members[0].host, id, "console.log")?]);
    let seeded = recorder.wait_for(Duration::ZERO, BOOT_LIMIT, |line| line.starts_with("SEEDED"));
    let seeded = seeded.with_context(|| format!("{:?}", cluster.novactl(&["vm", "show", NAME])))?;
    ensure!(seeded.text == format!("SEEDED {NAME}"), "{seeded:?}");
    println!("from the request to the end of cloud-init: {:.0} s", seeded.at.as_secs_f64());

    let said = over_ssh(&cluster, &files.key, "hostname; ip -4 -o addr show; id -un")?;
    ensure!(said.starts_with(NAME) && said.ends_with(CloudImage::USER), "{said}");
    ensure!(said.contains(&format!("inet {ADDRESS}/24")), "{said}");
    let view = cluster.novactl(&["vm", "show", NAME])?;
    ensure!(view["addresses"][0] == ADDRESS.to_string(), "{view}");
    cluster.novactl_said(&["vm", "delete", NAME, "--wait"]).map(drop)
}
