//! A throw-away CA, and certificates with which the hosts' QEMUs migrate over TLS: the peer of what ours encrypts.

use crate::certificates::valid;
use anyhow::{Context, Result};
use novacron_tests::{cluster::Cluster, lab::Host};
use rcgen::{BasicConstraints, Certificate, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::{fs, io::Write as _};

/// As the hosts see it: a folder of their own.
const FOLDER: &str = "/etc/libvirt/pki-migrate";

/// Gives every host certificates and restarts its libvirtd, which reads their place once.
pub fn give_certificates(cluster: &mut Cluster) -> Result<()> {
    let (ca, issuer) = authority()?;
    for member in &mut cluster.members {
        write_for(&member.host, &ca, &issuer)?;
        member.host.kill9_libvirtd()?;
        member.host.start_libvirtd()?;
    }
    Ok(())
}

fn authority() -> Result<(Certificate, Issuer<'static, KeyPair>)> {
    let key = KeyPair::generate()?;
    let mut params = valid("bench CA", Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok((params.self_signed(&key)?, Issuer::new(params, key)))
}

fn write_for(host: &Host, ca: &Certificate, issuer: &Issuer<'_, KeyPair>) -> Result<()> {
    let folder = host.dir().join("etc-libvirt/pki-migrate");
    fs::create_dir_all(&folder)?;
    let key = KeyPair::generate()?;
    let mut params = valid(host.name(), vec![host.name().to_owned(), host.address().to_string()])?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, issuer)?;
    fs::write(folder.join("ca-cert.pem"), ca.pem())?;
    for side in ["server", "client"] {
        fs::write(folder.join(format!("{side}-cert.pem")), certificate.pem())?;
        fs::write(folder.join(format!("{side}-key.pem")), key.serialize_pem())?;
    }
    let conf = host.dir().join("etc-libvirt/qemu.conf");
    let mut conf = fs::OpenOptions::new().append(true).open(conf).context("opening qemu.conf")?;
    writeln!(conf, "migrate_tls_x509_cert_dir = \"{FOLDER}\"\nmigrate_tls_x509_verify = 1")?;
    Ok(())
}
