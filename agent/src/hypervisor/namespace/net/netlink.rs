//! Requests to the kernel's routing socket (`rtnetlink(7)`), one at a time and without a runtime: the supervisor and the first
//! process of a tree have one thread and must stay so.

use crate::hypervisor::namespace::observe;
use rtnetlink::{
    LinkUnspec,
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use std::io;

/// A connection to the kernel, in the network namespace of whoever opens it.
pub struct Netlink(Socket);

impl Netlink {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Makes something that must not be there yet.
    ///
    /// # Errors
    /// The kernel's; `AlreadyExists` if it is there.
    pub fn create(&self, what: RouteNetlinkMessage) -> io::Result<()> {
        self.ask(what, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK).map(drop)
    }

    /// Makes something, unless it is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ensure(&self, what: RouteNetlinkMessage) -> io::Result<()> {
        match self.create(what) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }

    /// Changes a link.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set(&self, link: LinkMessage) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::SetLink(link), NLM_F_ACK).map(drop)
    }

    /// The number of the link with this name.
    ///
    /// # Errors
    /// The kernel's; if there is none, its `ENODEV`.
    pub fn index(&self, link: &str) -> io::Result<u32> {
        let named = LinkUnspec::new_with_name(link).build();
        let found = self.ask(RouteNetlinkMessage::GetLink(named), 0)?;
        let index = found.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link.header.index),
            _ => None,
        });
        index.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// Removes a link, if it is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self, link: &str) -> io::Result<()> {
        let named = LinkUnspec::new_with_name(link).build();
        match self.ask(RouteNetlinkMessage::DelLink(named), NLM_F_ACK) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            done => done.map(drop),
        }
    }

    /// The names of all links.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links(&self) -> io::Result<Vec<String>> {
        let found = self.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        let names = found.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => link.attributes.into_iter().find_map(|a| match a {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            }),
            _ => None,
        });
        Ok(names.collect())
    }

    /// Sends a request and collects what comes until it is answered.
    fn ask(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        observe::taken("ask the routing socket");
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.0.recv_from_full()?;
            if take(&datagram, &mut answers)? == Answer::Whole || flags == 0 {
                return Ok(answers);
            }
        }
    }
}

/// Whether more is to come.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Whole,
    MoreFollows,
}

/// Reads one datagram of the kernel's, which may hold several messages.
fn take(mut datagram: &[u8], answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<Answer> {
    while !datagram.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram)
            .map_err(|cause| io::Error::new(io::ErrorKind::InvalidData, cause.to_string()))?;
        // Messages begin at multiples of four bytes.
        let length = (message.header.length as usize).next_multiple_of(4).max(4);
        match message.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(Answer::Whole),
            NetlinkPayload::InnerMessage(inner) => answers.push(inner),
            _ => {}
        }
        datagram = datagram.get(length..).unwrap_or_default();
    }
    Ok(Answer::MoreFollows)
}
