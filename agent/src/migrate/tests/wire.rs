//! A wire between two endpoints that can be cut and mended: a UDP relay. Only the dialling side is behind it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};
use tokio::{net::UdpSocket, task::JoinHandle};

/// Ends with its tasks when dropped.
pub struct Wire {
    /// Whom to dial in place of the target.
    pub address: SocketAddr,
    dark: Arc<AtomicBool>,
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
        let (dark, client) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let there = tokio::spawn({
            let (front, back, dark, client) = (front.clone(), back.clone(), dark.clone(), client.clone());
            async move {
                let mut datagram = vec![0; 65_536];
                loop {
                    let Ok((length, from)) = front.recv_from(&mut datagram).await else { continue };
                    *client.lock().unwrap() = Some(from);
                    if !dark.load(SeqCst) {
                        let _ = back.send(&datagram[..length]).await;
                    }
                }
            }
        });
        let again = tokio::spawn({
            let (dark, back) = (dark.clone(), back.clone());
            async move {
                let mut datagram = vec![0; 65_536];
                loop {
                    let Ok(length) = back.recv(&mut datagram).await else { continue };
                    let client = *client.lock().unwrap();
                    if let Some(client) = client.filter(|_| !dark.load(SeqCst)) {
                        let _ = front.send_to(&datagram[..length], client).await;
                    }
                }
            }
        });
        Self { address, dark, back, tasks: [there, again] }
    }

    /// From now on it leads to another target.
    pub async fn lead_to(&self, target: SocketAddr) {
        self.back.connect(target).await.unwrap();
    }

    /// From now on every datagram is lost, both ways.
    pub fn cut(&self) {
        self.dark.store(true, SeqCst);
    }

    /// Not any more.
    pub fn mend(&self) {
        self.dark.store(false, SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
