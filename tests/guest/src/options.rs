//! What the kernel command line asks of the guest: words of the form `nova.key=value`.

use std::net::Ipv4Addr;

use crate::content::Fill;

/// Everything that can be set. Values that cannot be read are listed in `refused` and keep their default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `nova.mb`: working set, MiB.
    pub mib: u64,
    /// `nova.rate`: whole pages rewritten, MiB a second.
    pub rate: u64,
    /// `nova.verify`: pages verified, MiB a second.
    pub verify: u64,
    /// `nova.poke`: 8-byte writes a second.
    pub pokes: u64,
    /// `nova.tick`: milliseconds between ticks.
    pub tick_ms: u64,
    /// `nova.fill`: `rand`, `text` or `zero`.
    pub fill: Fill,
    /// `nova.disk`: `1` for `/dev/vda`, or the device's name (`vdb`); `0` for none.
    pub disk: Option<String>,
    /// `nova.disk_mb`: how much of the disk is written to, MiB.
    pub disk_mib: u64,
    /// `nova.disk_ms`: milliseconds between two blocks.
    pub disk_ms: u64,
    /// `nova.read`: how much of the disk's end it reads through its page cache when it starts, MiB; 0: none.
    pub read_mib: u64,
    /// `nova.feed`: how much data it takes from a client and keeps, MiB; 0: none.
    pub feed_mib: u64,
    /// `nova.addr`: address and prefix length of `eth0`.
    pub addr: Option<(Ipv4Addr, u8)>,
    /// Words that were not understood.
    pub refused: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mib: 32,
            rate: 0,
            verify: 16,
            pokes: 0,
            tick_ms: 100,
            fill: Fill::Rand,
            disk: None,
            disk_mib: 16,
            disk_ms: 20,
            read_mib: 0,
            feed_mib: 0,
            addr: None,
            refused: Vec::new(),
        }
    }
}

impl Options {
    /// Reads a kernel command line; words that do not begin with `nova.` are the kernel's.
    #[must_use]
    pub fn parse(cmdline: &str) -> Self {
        let mut options = Self::default();
        for word in cmdline.split_ascii_whitespace() {
            let Some(setting) = word.strip_prefix("nova.") else {
                continue;
            };
            let taken = setting.split_once('=').and_then(|(key, value)| options.set(key, value));
            if taken.is_none() {
                options.refused.push(word.to_owned());
            }
        }
        options
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "mb" => self.mib = value.parse().ok()?,
            "rate" => self.rate = value.parse().ok()?,
            "verify" => self.verify = value.parse().ok()?,
            "poke" => self.pokes = value.parse().ok()?,
            "tick" => self.tick_ms = value.parse().ok().filter(|&ms| ms > 0)?,
            "fill" => self.fill = parse_fill(value)?,
            "disk" => self.disk = parse_disk(value)?,
            "disk_mb" => self.disk_mib = value.parse().ok().filter(|&mib| mib > 0)?,
            "disk_ms" => self.disk_ms = value.parse().ok()?,
            "read" => self.read_mib = value.parse().ok().filter(|&mib: &u64| mib < 1 << 20)?,
            "feed" => self.feed_mib = value.parse().ok().filter(|&mib: &u64| mib < 1 << 20)?,
            "addr" => self.addr = Some(parse_addr(value)?),
            _ => return None,
        }
        Some(())
    }
}

fn parse_fill(value: &str) -> Option<Fill> {
    match value {
        "rand" => Some(Fill::Rand),
        "text" => Some(Fill::Text),
        "zero" => Some(Fill::Zero),
        _ => None,
    }
}

fn parse_disk(value: &str) -> Option<Option<String>> {
    match value {
        "0" => Some(None),
        "1" => Some(Some("vda".to_owned())),
        name if name.chars().all(|c| c.is_ascii_alphanumeric()) && !name.is_empty() => {
            Some(Some(name.to_owned()))
        }
        _ => None,
    }
}

fn parse_addr(value: &str) -> Option<(Ipv4Addr, u8)> {
    let (addr, prefix) = value.split_once('/')?;
    let prefix = prefix.parse().ok().filter(|&bits: &u8| bits <= 32)?;
    Some((addr.parse().ok()?, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_words_and_leaves_the_kernels() {
        let options = Options::parse(
            "console=ttyS0 nova.mb=64 nova.fill=text nova.disk=1 nova.addr=10.77.0.50/24 quiet",
        );
        assert_eq!(options.mib, 64);
        assert_eq!(options.fill, Fill::Text);
        assert_eq!(options.disk.as_deref(), Some("vda"));
        assert_eq!(options.addr, Some((Ipv4Addr::new(10, 77, 0, 50), 24)));
        assert!(options.refused.is_empty());
    }

    #[test]
    fn what_it_cannot_read_is_listed_and_changes_nothing() {
        let line =
            "nova.mb=many nova.tick=0 nova.addr=10.0.0.1/40 nova.disk=../sda nova.colour=red nova.poke";
        let options = Options::parse(line);
        assert_eq!(options.refused.len(), 6);
        assert_eq!(Options { refused: Vec::new(), ..options }, Options::default());
    }
}
