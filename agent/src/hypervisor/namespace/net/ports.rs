//! Ports of the host that machines are to have.

use super::Card;
use crate::hypervisor::namespace::step::StepError;
use novacron_common::spec::{Protocol, PublishedPort};
use std::{
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
};

/// Makes sure that no program of the host serves a port that is to be led to a machine: it would be cut off from the world.
///
/// # Errors
/// [`StepError`] names the port.
pub fn require_free(card: &Card) -> Result<(), StepError> {
    card.publish.iter().try_for_each(|port| {
        try_bind(port).map_err(|cause| {
            StepError::new(format!("publish the host's port {}/{}", port.host, port.protocol), cause)
        })
    })
}

/// Bound and let go: whoever comes later finds the port led away, as the ledger says.
fn try_bind(port: &PublishedPort) -> io::Result<()> {
    let place = (Ipv4Addr::UNSPECIFIED, port.host.get());
    match port.protocol {
        Protocol::Tcp => TcpListener::bind(place).map(drop),
        Protocol::Udp => UdpSocket::bind(place).map(drop),
    }
}
