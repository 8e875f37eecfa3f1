//! Over how many channels the memory of a machine crosses, each on a connection of its own: QUIC's cryptography and the
//! codec of one connection take a processor each, so one connection fills no fast link, however many processors idle.
//!
//! A page that is written again may take another channel than before, so the versions that a channel has sent are of little
//! use there: over a link that one connection fills anyway, several cost bytes and gain nothing.

use super::link::window::MEMORY_MAX;
use serde::{Deserialize, Deserializer, de::Error};
use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    num::NonZeroU8,
    path::Path,
    time::Duration,
};
use tokio::time::sleep;

/// Beside the main channel, which then carries next to nothing.
pub const CHANNELS_MAX: u8 = MEMORY_MAX - 1;
/// One is no gain over the main channel.
const CHANNELS_MIN: u8 = 2;
/// Processors that each channel keeps busy on a source: its codec and its connection here, and a thread of QEMU.
const PROCESSORS_EACH: f64 = 2.0;
/// What one connection fills by itself, Mbit (10⁶ bits) a second.
const LINK_FAST: u32 = 5000;
/// What the package adds to libvirt's AppArmor profile for QEMU.
const APPARMOR_LEAVE: &str = "/etc/apparmor.d/abstractions/libvirt-qemu.d/novacron";
/// Over so long is looked how many processors idle: ten ticks of the kernel's clock (proc_stat(5)).
const LOOK: Duration = Duration::from_millis(100);

/// `migration.channels` in agent.toml.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Channels {
    /// Several where processors idle and the link is fast, else the main channel alone.
    #[default]
    Auto,
    /// So many beside the main one, always; `None`: the main channel alone.
    Always(Option<NonZeroU8>),
}

impl<'de> Deserialize<'de> for Channels {
    /// `"auto"`, or 1 to [`CHANNELS_MAX`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Word(String),
        }
        let number = match Written::deserialize(deserializer)? {
            Written::Word(word) if word == "auto" => return Ok(Self::Auto),
            Written::Word(_) => None,
            Written::Number(number) => u8::try_from(number).ok(),
        };
        match number {
            Some(1) => Ok(Self::Always(None)),
            Some(several @ CHANNELS_MIN..=CHANNELS_MAX) => Ok(Self::Always(NonZeroU8::new(several))),
            _ => Err(D::Error::custom(format!("must be \"auto\" or 1 to {CHANNELS_MAX}"))),
        }
    }
}

impl Channels {
    /// For one move to `target`, as things are now; `None`: the main channel alone.
    pub async fn towards(self, target: SocketAddr) -> Option<NonZeroU8> {
        match self {
            Self::Always(channels) => channels,
            Self::Auto => {
                let link = link_mbit(target)?;
                if link < LINK_FAST || is_confined() {
                    return None;
                }
                let before = Clock::read()?;
                sleep(LOOK).await;
                worth_it(link, Clock::read()?.idle_since(before))
            }
        }
    }
}

/// How many channels a link of so many Mbit a second and so many idle processors are worth.
fn worth_it(link_mbit: u32, idle: f64) -> Option<NonZeroU8> {
    let feed = (idle / PROCESSORS_EACH).min(f64::from(CHANNELS_MAX)).floor() as u8;
    NonZeroU8::new(feed).filter(|channels| link_mbit >= LINK_FAST && channels.get() >= CHANNELS_MIN)
}

/// Whether QEMU may not connect to our sockets by itself, as it does for several channels: under SELinux, and under AppArmor
/// where libvirt's profile was not told of them, as the package does.
fn is_confined() -> bool {
    let armored = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let armored = armored.is_ok_and(|says| says.starts_with('Y')) && !Path::new(APPARMOR_LEAVE).exists();
    armored || Path::new("/sys/fs/selinux/enforce").exists()
}

/// How fast the interface is by which `target` is reached, Mbit a second; `None` where it does not say (sysfs-class-net:
/// `speed`, which virtual ones may lack).
fn link_mbit(target: SocketAddr) -> Option<u32> {
    let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?; // sends nothing
    let interface = interface_of(socket.local_addr().ok()?.ip())?;
    fs::read_to_string(Path::new("/sys/class/net").join(interface).join("speed")).ok()?.trim().parse().ok()
}

fn interface_of(address: IpAddr) -> Option<String> {
    let has_it = |storage: &nix::sys::socket::SockaddrStorage| match address {
        IpAddr::V4(ip) => storage.as_sockaddr_in().is_some_and(|own| own.ip() == ip),
        IpAddr::V6(ip) => storage.as_sockaddr_in6().is_some_and(|own| own.ip() == ip),
    };
    let mut all = nix::ifaddrs::getifaddrs().ok()?;
    all.find(|one| one.address.as_ref().is_some_and(has_it)).map(|one| one.interface_name)
}

/// What all processors have done since the host booted, in ticks (proc_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clock {
    idle: u64,
    all: u64,
    processors: u32,
}

impl Clock {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        let mut lines = stat.lines();
        let fields = lines.next()?.strip_prefix("cpu ")?.split_whitespace();
        // user, nice, system, idle, iowait, irq, softirq, steal; what guests take is in the first two already.
        let ticks: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        let idle = ticks.get(3)? + ticks.get(4)?;
        let processors = lines.take_while(|line| line.starts_with("cpu")).count();
        Some(Self { idle, all: ticks.iter().sum(), processors: u32::try_from(processors).ok()? })
    }

    /// Processors that idled meanwhile, on average.
    fn idle_since(self, before: Self) -> f64 {
        let (idle, all) = (self.idle.saturating_sub(before.idle), self.all.saturating_sub(before.all));
        if all == 0 { 0.0 } else { f64::from(self.processors) * idle as f64 / all as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(channels: u8) -> Option<NonZeroU8> {
        NonZeroU8::new(channels)
    }

    #[test]
    fn several_channels_are_for_fast_links_and_idle_processors() {
        assert_eq!(worth_it(10_000, 3.9), None, "one channel beside the main one gains nothing");
        assert_eq!(worth_it(10_000, 4.0), some(2));
        assert_eq!(worth_it(25_000, 7.5), some(3));
        assert_eq!(worth_it(100_000, 120.0), some(CHANNELS_MAX));
        assert_eq!(worth_it(2500, 120.0), None, "one connection fills such a link");
    }

    #[test]
    fn idle_processors_are_counted_between_two_looks() {
        let stat = |idle: u64, user: u64| {
            format!(
                "cpu  {user} 0 10 {idle} 5 0 0 1 7 0\ncpu0 1 2\ncpu1 1 2\ncpu2 1 2\ncpu3 1 2\nintr 12345 0\n"
            )
        };
        let clock = |idle, user| Clock::parse(&stat(idle, user)).unwrap();
        let (before, after) = (clock(1000, 100), clock(1030, 110));
        assert_eq!((before.processors, before.idle, before.all), (4, 1005, 1116));
        assert!((after.idle_since(before) - 3.0).abs() < 1e-9, "three quarters of four");
        assert!(before.idle_since(before).abs() < 1e-9, "no tick has passed");
        assert_eq!([Clock::parse(""), Clock::parse("cpu  1 2 x\n"), Clock::parse("intr 1\n")], [None; 3]);
        assert!(Clock::read().is_some_and(|clock| clock.processors > 0 && clock.all >= clock.idle));
    }

    #[test]
    fn the_setting_is_a_word_or_a_number_within_bounds() {
        #[derive(Deserialize)]
        struct Section {
            channels: Channels,
        }
        let read = |written: &str| {
            let section = toml::from_str::<Section>(&format!("channels = {written}"));
            section.map(|section| section.channels).map_err(|error| error.to_string())
        };
        assert_eq!(read("\"auto\""), Ok(Channels::Auto));
        assert_eq!(read("1"), Ok(Channels::Always(None)));
        assert_eq!(read("4"), Ok(Channels::Always(some(4))));
        for wrong in ["0", "5", "300", "-1", "\"many\""] {
            assert!(read(wrong).is_err_and(|said| said.contains("1 to 4")), "{wrong}");
        }
    }

    #[tokio::test]
    async fn an_interface_that_names_no_speed_has_one_channel() {
        let here = SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!((interface_of(here.ip()).as_deref(), link_mbit(here)), (Some("lo"), None));
        assert_eq!(Channels::Auto.towards(here).await, None);
        assert_eq!(Channels::Always(some(2)).towards(here).await, some(2));
    }
}
