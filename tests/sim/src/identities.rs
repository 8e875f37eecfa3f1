//! Who the machines are. Certificates are real but nobody looks at them: a simulated network knows its machines.
//! They are made once, outside of any world.

use crate::executor::Machine;
use novacron_common::{
    ids::{ClusterId, HostId},
    units::UnixMillis,
};
use novacron_transport::{CertificateAuthority, Identity, IdentityCell, Role, certificate_request};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

/// The cluster's id.
pub const CLUSTER: ClusterId = ClusterId::from_u128(0xc1);
/// Most machines in a world.
pub const MACHINES_MAX: usize = 8;
/// Coordinators; further machines are hosts.
pub const COORDINATORS: usize = 3;
/// Hosts: their agents are the machines after the coordinators, their supervisors the machines after those.
pub const HOSTS: usize = 2;
/// Machines of a world.
pub const MACHINES: usize = COORDINATORS + 2 * HOSTS;

/// The role of a machine.
pub fn role(machine: Machine) -> Role {
    match machine {
        coordinator if coordinator < COORDINATORS => Role::Coordinator { node: coordinator as u64 + 1 },
        host => Role::Agent { host: host_id(host) },
    }
}

/// The host of a machine that is one.
pub const fn host_id(machine: Machine) -> HostId {
    HostId::from_u128(machine as u128)
}

/// The certificate of a machine.
///
/// # Panics
/// If this process cannot make keys.
pub fn identity(machine: Machine) -> Arc<IdentityCell> {
    static MADE: OnceLock<Vec<Arc<IdentityCell>>> = OnceLock::new();
    Arc::clone(&MADE.get_or_init(make)[machine])
}

fn make() -> Vec<Arc<IdentityCell>> {
    let now = UnixMillis(i64::try_from(crate::os::BEGIN_UNIX_SECONDS * 1000).unwrap_or(0));
    let authority = CertificateAuthority::generate(CLUSTER, now).expect("a CA is made");
    let one = |machine| {
        let (key, request) = certificate_request().expect("a key is made");
        let validity = Duration::from_secs(365 * 86_400);
        let certificate = authority.issue(&request, &role(machine), validity, now).expect("it is signed");
        let identity = Identity::new(CLUSTER, authority.certificate_der(), &certificate, &key);
        Arc::new(IdentityCell::new(identity.expect("it is whole")))
    };
    (0..MACHINES_MAX).map(one).collect()
}
