//! One write, as each target's public endpoint takes it.

use super::{Order, Target};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

/// Length of the prefix of a gRPC message: a flag and four bytes of length (gRPC over HTTP/2, "Length-Prefixed-Message").
const GRPC_PREFIX: usize = 5;

/// Makes requests of one kind.
#[derive(Debug, Clone)]
pub struct Writer {
    http: reqwest::Client,
    server: String,
    order: Order,
    value: String,
}

impl Writer {
    /// A connection of its own to one server.
    pub fn new(order: &Order, number: usize) -> Result<Self> {
        let server = order.servers[number % order.servers.len()].clone();
        let mut builder =
            reqwest::Client::builder().timeout(std::time::Duration::from_secs(20)).tcp_nodelay(true);
        builder = match &order.ca {
            Some(ca) => builder.tls_certs_only([reqwest::Certificate::from_der(&hex(ca)?)?]),
            // Without TLS nothing is negotiated: HTTP/2 at once.
            None => builder.http2_prior_knowledge(),
        };
        Ok(Self {
            http: builder.build()?,
            server,
            order: order.clone(),
            value: "v".repeat(order.value_bytes),
        })
    }

    /// Whether acknowledged writes are to be printed.
    pub fn traces(&self) -> bool {
        self.order.trace
    }

    /// Writes under a key of its own.
    pub async fn write(&self, number: u64) -> Result<()> {
        match self.order.target {
            Target::NovaCron => self.create_job(number).await,
            Target::Etcd => self.put(number).await,
        }
    }

    async fn create_job(&self, number: u64) -> Result<()> {
        let Order { run, schedule, enabled, token, .. } = &self.order;
        let body = if *enabled {
            json!({"name": format!("{run}-{number}"), "schedule": schedule})
        } else {
            let target = json!({"type": "command", "command": ["/bin/true"], "env": {"VALUE": self.value}});
            json!({"name": format!("{run}-{number}"), "schedule": schedule, "enabled": false, "target": target})
        };
        let request = self.http.post(format!("{}/api/v1/jobs", self.server)).bearer_auth(token).json(&body);
        let answer = request.send().await?;
        let status = answer.status();
        let said = answer.bytes().await?;
        ensure!(status == 201, "{status}: {}", String::from_utf8_lossy(&said));
        Ok(())
    }

    async fn put(&self, number: u64) -> Result<()> {
        let key = format!("{}-{number:09}", self.order.run);
        let request = self
            .http
            .post(format!("{}/etcdserverpb.KV/Put", self.server))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(put_request(key.as_bytes(), self.value.as_bytes()));
        let answer = request.send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        // A call that fails is answered by trailers alone, which then are the headers.
        if let Some(status) = answer.headers().get("grpc-status").filter(|status| *status != "0") {
            bail!("gRPC status {status:?} {:?}", answer.headers().get("grpc-message"));
        }
        let said = answer.bytes().await.context("reading the answer")?;
        ensure!(said.len() >= GRPC_PREFIX, "an answer without a message");
        Ok(())
    }
}

/// `PutRequest { key = 1, value = 2 }` (etcd's rpc.proto), with its prefix.
fn put_request(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(key.len() + value.len() + 12);
    for (field, bytes) in [(1_u8, key), (2, value)] {
        message.push(field << 3 | 2);
        varint(&mut message, bytes.len());
        message.extend_from_slice(bytes);
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut framed = vec![0];
    framed.extend_from_slice(&length.to_be_bytes());
    framed.append(&mut message);
    framed
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn hex(text: &str) -> Result<Vec<u8>> {
    let byte =
        |at: usize| u8::from_str_radix(text.get(at..at + 2).context("odd length")?, 16).context("not hex");
    (0..text.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_framed_as_grpc_says() {
        assert_eq!(put_request(b"k", b"vw"), [0, 0, 0, 0, 7, 0x0a, 1, b'k', 0x12, 2, b'v', b'w']);
        let long = put_request(b"k", &[b'x'; 300]);
        assert_eq!(long[8..11], [0x12, 0xac, 0x02]);
        assert_eq!(hex("00ff7f").unwrap(), [0, 255, 127]);
        assert!(hex("0").is_err());
    }
}
