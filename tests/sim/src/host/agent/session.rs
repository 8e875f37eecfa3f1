//! The agent's session with whoever leads.

use super::Agent;
use crate::{cluster::stream_served, identities::COORDINATORS, moves::yard::Yard, net::address};
use novacron_common::{
    record::{Accel, HostAddresses, HostCapacity, HostHello, HostStatus},
    spec::Name,
    units::{ByteCount, Incarnation},
    wire::{Directory, SessionOpened, StreamKind},
};
use novacron_runtime::{
    spawn,
    time::{sleep, timeout},
};
use novacron_transport::{LinkError, RecvHalf, RoleKind, SendHalf};
use std::{net::SocketAddr, time::Duration};
use tokio::sync::watch;

/// How often status is sent.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// How long a coordinator may take to answer a hello.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Between two rounds of trying every coordinator.
const PAUSE: Duration = Duration::from_millis(400);

impl Agent {
    /// Finds the leader, keeps a session with it, and finds the next one.
    pub(super) async fn keep_session(self) {
        loop {
            for coordinator in 0..COORDINATORS {
                let mut next = Some(address(coordinator));
                while let Some(address) = next.take() {
                    next = self.converse(address).await.unwrap_or_default();
                    self.link.send_replace(None);
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// One session, to its end. Where else to ask, if this coordinator knows.
    async fn converse(&self, address: SocketAddr) -> Result<Option<SocketAddr>, LinkError> {
        let link = self.endpoint.connect_any(address, RoleKind::Coordinator).await?;
        spawn(self.clone().serve(link.clone()));
        let mut stream = link.open(StreamKind::Session).await?;
        stream.send(&self.hello()).await?;
        let Ok(opened) = timeout(ANSWER_DEADLINE, stream.recv::<SessionOpened>()).await else {
            link.close("no answer to the hello");
            return Ok(None);
        };
        match opened? {
            SessionOpened::Welcome(_) => {}
            SessionOpened::NotLeader(leader) => {
                link.close("not the leader");
                return Ok(leader.map(|leader| leader.quic));
            }
            SessionOpened::Refused(reason) => panic!("a host was refused: {reason}"),
        }
        self.link.send_replace(Some(link.clone()));
        let (send, recv) = stream.split();
        tokio::select! {
            biased;
            _ = link.closed() => {}
            ended = take_directory(recv) => stream_served(ended),
            ended = self.send_status(send) => stream_served(ended),
        }
        link.close("the session ended");
        Ok(None)
    }

    async fn send_status(&self, mut send: SendHalf) -> Result<(), LinkError> {
        let mut changes = self.yard.as_ref().map(Yard::changes);
        for sequence in 1.. {
            let status = HostStatus {
                incarnation: self.incarnation(),
                sequence,
                capacity: capacity(),
                load_millis: 0,
                memory_available: capacity().memory,
                vms: self.yard.as_ref().map(Yard::seen).unwrap_or_default(),
                foreign_domains: Vec::new(),
            };
            send.send(&status).await?;
            // Each word by itself: what is news is sent at once, as by the shipped session.
            tokio::select! {
                biased;
                () = changed(&mut changes) => {}
                () = sleep(STATUS_EVERY) => {}
            }
        }
        Ok(())
    }

    fn incarnation(&self) -> Incarnation {
        Incarnation(self.host.kept().incarnation)
    }

    fn hello(&self) -> HostHello {
        let name: Name = format!("h{}", self.host.agent).parse().expect("it is a name");
        HostHello {
            host: self.host.id(),
            name,
            incarnation: self.incarnation(),
            version: "simulated".into(),
            addresses: HostAddresses { quic: address(self.host.agent) },
            capacity: capacity(),
            accel: Accel::Tcg,
            can_kvm: self.yard.is_some(),
            can_namespace: true,
            features: Vec::new(),
        }
    }
}

async fn take_directory(mut recv: RecvHalf) -> Result<(), LinkError> {
    while recv.recv_opt::<Directory>().await?.is_some() {}
    Ok(())
}

/// Waits until something new is seen of a machine, where there are any.
async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    let heard = match changes {
        Some(changes) => changes.changed().await.is_ok(),
        None => false,
    };
    if !heard {
        std::future::pending().await
    }
}

const fn capacity() -> HostCapacity {
    HostCapacity { cpus: 4, memory: ByteCount::mib(8192), storage: ByteCount::mib(65_536) }
}
