//! What may pass between machines, their host and the world: nftables rules.
//!
//! They are in two tables of the agent's own, one that sees packets on their way (`inet`) and one that sees frames on the bridges
//! (`bridge`). Rules are the same for all; what belongs to a machine is elements of sets. Every change is one transaction of
//! `nft -f -`: it holds as a whole or not at all. Its text is made of names, addresses and numbers that are checked types here,
//! never of words that somebody wrote.
//!
//! A machine whose elements are missing can send nothing: so they may come after its card, and a crash in between opens nothing.
//!
//! What an element says of a card (its name, Ethernet address and IP address) follows from the address alone, and no card has the
//! name but that machine's. So the cards of a whole [`Block`] of addresses are let in with the first of them, and the next
//! machines start without a run of `nft`.

use super::{BRIDGE, CARD, Card, Tag};
use crate::hypervisor::namespace::step::{Doing, StepError};
use ipnet::Ipv4Net;
use novacron_common::spec::MacAddress;
use std::{
    collections::BTreeSet,
    fmt::Write,
    io::{self, ErrorKind},
    net::Ipv4Addr,
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
    /// Whose elements the tables have, as far as this life of the agent knows; `None` if there may be no tables.
    admitted: Option<BTreeSet<Block>>,
}

/// Neighbouring addresses of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    network: Ipv4Net,
    first: u32,
}

impl Block {
    /// Addresses: more make the first start on a network longer, fewer make more of the others run `nft`.
    const SIZE: u32 = 64;

    fn of(card: &Card) -> Self {
        let first = card.address.addr().to_bits() / Self::SIZE * Self::SIZE;
        Self { network: card.address.trunc(), first }
    }

    fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        let all = (self.first..=self.first.saturating_add(Self::SIZE - 1)).map(Ipv4Addr::from_bits);
        all.filter(move |address| self.network.contains(address))
    }
}

impl Firewall {
    /// That of an agent that has not looked yet.
    pub const fn new(tag: Tag) -> Self {
        Self { tag, admitted: None }
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
        self.admitted = (done.is_ok() && !live.is_empty()).then(|| live.iter().map(Block::of).collect());
        done.doing("set up the firewall of tenant networks")
    }

    /// Lets a machine take part. `live` are those that do already.
    ///
    /// # Errors
    /// [`StepError`] if there is no `nft`, or it refuses.
    pub async fn admit(&mut self, card: &Card, live: &[Card]) -> Result<(), StepError> {
        let Some(admitted) = &self.admitted else {
            let all: Vec<Card> = live.iter().chain([card]).cloned().collect();
            return self.reset(&all).await;
        };
        let block = Block::of(card);
        let lacks = (!admitted.contains(&block)).then_some(block);
        self.commit(&self.elements("add", card, lacks)).await.doing("admit a machine to the firewall")?;
        if let Some(admitted) = &mut self.admitted {
            admitted.insert(block);
        }
        Ok(())
    }

    /// Shuts a machine out that has ended; `live` are those that stay.
    ///
    /// # Errors
    /// [`StepError`] if `nft` refuses.
    pub async fn dismiss(&mut self, card: &Card, live: &[Card]) -> Result<(), StepError> {
        let Some(admitted) = self.admitted.as_ref().filter(|_| !live.is_empty()) else {
            return self.reset(live).await;
        };
        let network = card.address.trunc();
        let stays = live.iter().any(|other| other.address.trunc() == network);
        let gone = admitted.iter().copied().filter(|block| !stays && block.network == network);
        let gone: BTreeSet<Block> = gone.collect();
        // Added first: what is not there cannot be deleted, and one missing element would keep all others.
        let text = self.elements("add", card, gone.iter().copied())
            + &self.elements("delete", card, gone.iter().copied());
        self.commit(&text).await.doing("take a machine out of the firewall")?;
        if let Some(admitted) = &mut self.admitted {
            admitted.retain(|block| !gone.contains(block));
        }
        Ok(())
    }

    /// Has `nft` do all of it or nothing; and is not run for nothing.
    async fn commit(&self, transaction: &str) -> io::Result<()> {
        if transaction.is_empty() { Ok(()) } else { commit(transaction).await }
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
        let blocks: BTreeSet<Block> = live.iter().map(Block::of).collect();
        let blocks = blocks.into_iter().map(|block| self.of_block("add", block));
        let ports = live.iter().map(|card| self.of_ports("add", card));
        self.without_tables() + &rules + &blocks.chain(ports).collect::<String>()
    }

    /// Those of one machine's ports, and of these blocks.
    fn elements(&self, verb: &str, card: &Card, blocks: impl IntoIterator<Item = Block>) -> String {
        let blocks = blocks.into_iter().map(|block| self.of_block(verb, block));
        blocks.collect::<String>() + &self.of_ports(verb, card)
    }

    /// Those of the cards that addresses of a block have, and of the bridge.
    fn of_block(&self, verb: &str, block: Block) -> String {
        let (name, bridge) = (self.name(), self.tag.name(BRIDGE, block.network.network()));
        let cards = block.addresses().map(|address| {
            format!(r#""{}" . {} . {address}"#, self.tag.name(CARD, address), MacAddress::of_ip(address))
        });
        let cards: Vec<String> = cards.collect();
        [
            ("bridge", "cards", cards.join(", ")),
            ("inet", "bridges", format!(r#""{bridge}""#)),
            ("inet", "within", format!(r#""{bridge}" . "{bridge}""#)),
        ]
        .map(|(family, set, elements)| format!("{verb} element {family} {name} {set} {{ {elements} }}\n"))
        .concat()
    }

    fn of_ports(&self, verb: &str, card: &Card) -> String {
        let (name, address, mut text) = (self.name(), card.address.addr(), String::new());
        for port in &card.publish {
            let (protocol, from, to) = (port.protocol, port.host, port.machine);
            let target = if verb == "add" { format!(" : {address} . {to}") } else { String::new() };
            let _into_memory =
                writeln!(text, "{verb} element inet {name} published {{ {protocol} . {from}{target} }}");
        }
        text
    }
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
        let block = Block::of(&card);
        let added = firewall.elements("add", &card, [block]);
        let wanted = [
            r#""nv012340a010207" . 52:54:0a:01:02:07 . 10.1.2.7"#,
            r#""nv012340a01023f" . 52:54:0a:01:02:3f . 10.1.2.63 }"#,
            "inet novacron_01234 published { tcp . 8080 : 10.1.2.7 . 80 }",
            r#"inet novacron_01234 bridges { "nb012340a010200" }"#,
            r#"inet novacron_01234 within { "nb012340a010200" . "nb012340a010200" }"#,
        ];
        assert!(wanted.iter().all(|part| added.contains(part)), "{added}");
        let deleted = firewall.elements("delete", &card, [block]);
        // Of a map, the key alone.
        assert_eq!(deleted, added.replace("add ", "delete ").replace(" : 10.1.2.7 . 80", ""));
        assert_eq!(firewall.elements("delete", &card, []).lines().count(), 1);
        assert_eq!(firewall.elements("add", &Card { publish: Vec::new(), ..card }, []), "");
    }

    #[test]
    fn a_block_has_the_neighbours_of_its_network_and_nobody_elses() {
        let (_, card) = firewall();
        let of = |address: &str| Block::of(&Card { address: address.parse().unwrap(), ..card.clone() });
        let all = |address: &str| of(address).addresses().map(|a| a.to_string()).collect::<Vec<_>>();
        assert_eq!(of("10.1.2.7/24"), of("10.1.2.63/24"));
        assert_ne!(of("10.1.2.7/24"), of("10.1.2.64/24"));
        assert_eq!(all("10.1.2.200/24").len(), 64);
        assert_eq!(all("10.1.2.9/30"), ["10.1.2.8", "10.1.2.9", "10.1.2.10", "10.1.2.11"]);
        assert_eq!(all("255.255.255.254/24").last().unwrap(), "255.255.255.255");
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
