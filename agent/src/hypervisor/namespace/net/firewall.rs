//! What may pass between machines, their host and the world: nftables rules.
//!
//! They are in two tables of the agent's own, one that sees packets on their way (`inet`) and one that sees frames on the bridges
//! (`bridge`). Rules are the same for all; what belongs to a machine is elements of sets. Every change is one transaction of
//! `nft -f -`: it holds as a whole or not at all. Its text is made of names, addresses and numbers that are checked types here,
//! never of words that somebody wrote.
//!
//! A machine whose elements are missing can send nothing: so they may come after its card, and a crash in between opens nothing.

use super::{CARD, Card, Tag};
use crate::hypervisor::namespace::step::{Doing, StepError};
use std::{
    fmt::Write,
    io::{self, ErrorKind},
    process::Stdio,
};
use tokio::{io::AsyncWriteExt, process::Command};

/// The program, of the package nftables.
const NFT: &str = "nft";

/// Longest complaint of it that is passed on, bytes.
const COMPLAINT_MAX: usize = 1024;

/// The rules of one agent.
#[derive(Debug)]
pub struct Firewall {
    tag: Tag,
    /// Whether the tables are there, as far as this life of the agent knows.
    stands: bool,
}

impl Firewall {
    /// That of an agent that has not looked yet.
    pub const fn new(tag: Tag) -> Self {
        Self { tag, stands: false }
    }

    /// Has the rules as these machines need them, whatever an earlier life left; without machines, none.
    ///
    /// # Errors
    /// [`StepError`] if there is no `nft`, or it refuses.
    pub async fn reset(&mut self, live: &[Card]) -> Result<(), StepError> {
        let done = if live.is_empty() {
            match commit(&self.without_tables()).await {
                // Whoever has no nft never made a table.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                done => done,
            }
        } else {
            commit(&self.with_tables(live)).await
        };
        self.stands = done.is_ok() && !live.is_empty();
        done.doing("set up the firewall of tenant networks")
    }

    /// Lets a machine take part. `live` are those that do already.
    ///
    /// # Errors
    /// [`StepError`] if there is no `nft`, or it refuses.
    pub async fn admit(&mut self, card: &Card, live: &[Card]) -> Result<(), StepError> {
        if !self.stands {
            let all: Vec<Card> = live.iter().chain([card]).cloned().collect();
            return self.reset(&all).await;
        }
        commit(&self.elements("add", card, &Shared::Bridge)).await.doing("admit a machine to the firewall")
    }

    /// Shuts a machine out that has ended; `live` are those that stay.
    ///
    /// # Errors
    /// [`StepError`] if `nft` refuses.
    pub async fn dismiss(&mut self, card: &Card, live: &[Card]) -> Result<(), StepError> {
        if live.is_empty() || !self.stands {
            return self.reset(live).await;
        }
        let shared = if live.iter().any(|other| other.bridge == card.bridge) {
            Shared::Nothing
        } else {
            Shared::Bridge
        };
        // Added first: what is not there cannot be deleted, and one missing element would keep all others.
        let text = self.elements("add", card, &shared) + &self.elements("delete", card, &shared);
        commit(&text).await.doing("take a machine out of the firewall")
    }

    fn name(&self) -> String {
        format!("novacron_{}", self.tag.0)
    }

    fn without_tables(&self) -> String {
        let name = self.name();
        let gone = |family: &str| format!("table {family} {name} {{}}\ndelete table {family} {name}\n");
        gone("inet") + &gone("bridge")
    }

    fn with_tables(&self, live: &[Card]) -> String {
        let rules = RULES.replace("@NAME", &self.name()).replace("@CARDS", &format!("{CARD}{}*", self.tag.0));
        let elements = live.iter().map(|card| self.elements("add", card, &Shared::Bridge));
        self.without_tables() + &rules + &elements.collect::<String>()
    }

    /// The elements of one machine, and with `shared` those of its network.
    fn elements(&self, verb: &str, card: &Card, shared: &Shared) -> String {
        let (name, Card { link, bridge, mac, address, .. }) = (self.name(), card);
        let (address, mut text) = (address.addr(), String::new());
        let mut put = |family: &str, set: &str, element: std::fmt::Arguments<'_>| {
            let _into_memory = writeln!(text, "{verb} element {family} {name} {set} {{ {element} }}");
        };
        put("bridge", "cards", format_args!(r#""{link}" . {mac} . {address}"#));
        if *shared == Shared::Bridge {
            put("inet", "bridges", format_args!(r#""{bridge}""#));
            put("inet", "within", format_args!(r#""{bridge}" . "{bridge}""#));
        }
        for port in &card.publish {
            let (protocol, from, to) = (port.protocol, port.host, port.machine);
            let target = if verb == "add" { format!(" : {address} . {to}") } else { String::new() };
            put("inet", "published", format_args!("{protocol} . {from}{target}"));
        }
        text
    }
}

/// What of a machine's network changes with it.
#[derive(Debug, PartialEq, Eq)]
enum Shared {
    Nothing,
    Bridge,
}

/// The same on every host. A machine may open connections to those of its own network and to the world, and ping its host; what
/// clouds tell their guests at link-local addresses is not for it. The world, and everybody, may open connections to published ports.
const RULES: &str = r#"
table inet @NAME {
    set bridges { type ifname; }
    set within { type ifname . ifname; }
    map published { type inet_proto . inet_service : ipv4_addr . inet_service; }
    chain input {
        type filter hook input priority filter; policy accept;
        iifname != @bridges accept
        ct state established,related accept
        icmp type echo-request accept
        drop
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        iifname . oifname @within accept
        oifname @bridges ct status dnat accept
        oifname @bridges drop
        iifname @bridges ip daddr 169.254.0.0/16 drop
    }
    chain arriving {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local dnat ip to meta l4proto . th dport map @published
    }
    chain own {
        type nat hook output priority -100; policy accept;
        ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport map @published
    }
    chain leaving {
        type nat hook postrouting priority srcnat; policy accept;
        iifname @bridges oifname != @bridges masquerade
        iifname . oifname @within ct status dnat masquerade
    }
}
table bridge @NAME {
    set cards { type ifname . ether_addr . ipv4_addr; }
    chain arriving {
        type filter hook prerouting priority -300; policy accept;
        iifname != "@CARDS" accept
        iifname . ether saddr . ip saddr @cards accept
        iifname . ether saddr . arp saddr ip @cards iifname . arp saddr ether . arp saddr ip @cards accept
        drop
    }
}
"#;

/// Has `nft` do all of it or nothing.
async fn commit(transaction: &str) -> io::Result<()> {
    let mut nft = Command::new(NFT);
    nft.args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let named = |cause: io::Error| io::Error::new(cause.kind(), format!("{NFT} (package nftables): {cause}"));
    let mut nft = nft.spawn().map_err(named)?;
    if let Some(mut stdin) = nft.stdin.take() {
        stdin.write_all(transaction.as_bytes()).await.map_err(named)?;
    }
    let done = nft.wait_with_output().await.map_err(named)?;
    if done.status.success() {
        return Ok(());
    }
    let said =
        String::from_utf8_lossy(&done.stderr[..done.stderr.len().min(COMPLAINT_MAX)]).trim().to_owned();
    Err(io::Error::other(format!("{NFT} failed: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        ids::{NetworkId, VmId},
        spec::NetworkSpec,
    };

    fn firewall() -> (Firewall, Card) {
        let tag = Tag::of("0123456789ab");
        let spec = NetworkSpec {
            address: Some("10.1.2.7/24".parse().unwrap()),
            gateway: Some("10.1.2.1".parse().unwrap()),
            tenant: Some(NetworkId::from_u128(1)),
            publish: vec!["8080:80".parse().unwrap()],
            ..NetworkSpec::default()
        };
        let card = Card::of(&tag, VmId::from_u128(1), &spec).unwrap();
        (Firewall::new(tag), card)
    }

    #[test]
    fn what_is_added_for_a_machine_is_what_is_deleted_after_it() {
        let (firewall, card) = firewall();
        let added = firewall.elements("add", &card, &Shared::Bridge);
        let own = [
            r#"bridge novacron_01234 cards { "nv012340a010207" . 52:54:0a:01:02:07 . 10.1.2.7 }"#,
            "inet novacron_01234 published { tcp . 8080 : 10.1.2.7 . 80 }",
        ];
        let shared = [
            r#"inet novacron_01234 bridges { "nb012340a010200" }"#,
            r#"inet novacron_01234 within { "nb012340a010200" . "nb012340a010200" }"#,
        ];
        assert!(own.iter().chain(&shared).all(|part| added.contains(part)), "{added}");
        let deleted = firewall.elements("delete", &card, &Shared::Bridge);
        // Of a map, the key alone.
        assert_eq!(deleted, added.replace("add ", "delete ").replace(" : 10.1.2.7 . 80", ""));
        let stays = firewall.elements("delete", &card, &Shared::Nothing);
        assert!(shared.iter().all(|part| !stays.contains(part)) && stays.lines().count() == 2, "{stays}");
    }

    #[test]
    fn the_tables_replace_those_of_an_earlier_life_in_the_same_transaction() {
        let (firewall, card) = firewall();
        let text = firewall.with_tables(&[card]);
        let places = ["delete table inet", "delete table bridge", "set bridges", "set cards", "add element"];
        let found = places.map(|part| text.find(part).unwrap_or_else(|| panic!("no {part}: {text}")));
        assert!(found[..2].iter().all(|gone| found[2..].iter().all(|made| gone < made)), "{text}");
        assert!(!text.contains("@NAME") && !text.contains("@CARDS"), "{text}");
    }
}
