//! A wire between two endpoints that can be cut and mended: a UDP relay. Only the dialling side is behind it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{net::UdpSocket, sync::watch, task::JoinHandle};

/// What becomes of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Whole,
    Cut,
    Held,
}

/// Ends with its tasks when dropped.
pub struct Wire {
    /// Whom to dial in place of the target.
    pub address: SocketAddr,
    condition: watch::Sender<Condition>,
    back: Arc<UdpSocket>,
    tasks: [JoinHandle<()>; 2],
}

impl Wire {
    /// To `target`.
    pub async fn to(target: SocketAddr) -> Self {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let front = Arc::new(UdpSocket::bind(local).await.unwrap());
        let back = Arc::new(UdpSocket::bind(local).await.unwrap());
        back.connect(target).await.unwrap();
        let address = front.local_addr().unwrap();
        let (condition, client) = (watch::Sender::new(Condition::Whole), Arc::new(Mutex::new(None)));
        let there = tokio::spawn({
            let (front, back, client) = (front.clone(), back.clone(), client.clone());
            let mut condition = condition.subscribe();
            async move {
                let mut datagram = vec![0; 65_536];
                loop {
                    let Ok((length, from)) = front.recv_from(&mut datagram).await else { continue };
                    *client.lock().unwrap() = Some(from);
                    if is_whole(&mut condition).await {
                        let _ = back.send(&datagram[..length]).await;
                    }
                }
            }
        });
        let again = tokio::spawn({
            let (back, mut condition) = (back.clone(), condition.subscribe());
            async move {
                let mut datagram = vec![0; 65_536];
                loop {
                    let Ok(length) = back.recv(&mut datagram).await else { continue };
                    let whole = is_whole(&mut condition).await;
                    let client = *client.lock().unwrap();
                    if let Some(client) = client.filter(|_| whole) {
                        let _ = front.send_to(&datagram[..length], client).await;
                    }
                }
            }
        });
        Self { address, condition, back, tasks: [there, again] }
    }

    /// From now on it leads to another target.
    pub async fn lead_to(&self, target: SocketAddr) {
        self.back.connect(target).await.unwrap();
    }

    /// From now on every datagram is lost, both ways.
    pub fn cut(&self) {
        self.condition.send_replace(Condition::Cut);
    }

    /// From now on every datagram waits, as many as the sockets hold.
    pub fn hold(&self) {
        self.condition.send_replace(Condition::Held);
    }

    /// Not any more.
    pub fn mend(&self) {
        self.condition.send_replace(Condition::Whole);
    }
}

/// Waits while it is held; whether datagrams get through.
async fn is_whole(condition: &mut watch::Receiver<Condition>) -> bool {
    condition.wait_for(|now| *now != Condition::Held).await.is_ok_and(|now| *now == Condition::Whole)
}

impl Drop for Wire {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
