//! The host's bridge for machines, made by the agent if it is missing.

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, LinkBridge, LinkUnspec,
    packet_route::link::{BridgeStpState, InfoKind, LinkAttribute, LinkInfo, LinkMessage},
};
use std::io;

/// Why there is no bridge.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// No netlink socket.
    #[error("could not open a netlink socket")]
    Socket(#[source] io::Error),
    /// A device of that name exists and is something else.
    #[error("{0} exists and is not a bridge: choose another network.bridge in agent.toml")]
    NotABridge(String),
    /// The uplink does not exist.
    #[error("{0} does not exist: correct network.uplink in agent.toml")]
    NoUplink(String),
    /// The uplink belongs to another bridge.
    #[error("{0} is attached to another bridge already")]
    UplinkTaken(String),
    /// The kernel refused.
    #[error("could not {doing} {device}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// To which device.
        device: String,
        /// The kernel's error.
        #[source]
        cause: rtnetlink::Error,
    },
}

/// Has the bridge there and up, with the uplink attached if one is given. What is so already is left as it is;
/// addresses are never touched.
///
/// # Errors
/// [`BridgeError`].
pub async fn ensure(bridge: &str, uplink: Option<&str>) -> Result<(), BridgeError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(BridgeError::Socket)?;
    let connection = tokio::spawn(connection);
    let outcome = ensure_with(&handle, bridge, uplink).await;
    connection.abort();
    outcome
}

/// Whether there is a bridge of that name.
///
/// # Errors
/// [`BridgeError`].
pub async fn exists(bridge: &str) -> Result<bool, BridgeError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(BridgeError::Socket)?;
    let connection = tokio::spawn(connection);
    let found = find(&handle, bridge).await;
    connection.abort();
    Ok(found?.as_ref().is_some_and(is_bridge))
}

async fn ensure_with(handle: &Handle, bridge: &str, uplink: Option<&str>) -> Result<(), BridgeError> {
    if find(handle, bridge).await?.is_none() {
        create(handle, bridge).await?;
    }
    let found = find(handle, bridge).await?.filter(is_bridge);
    let index = found.ok_or_else(|| BridgeError::NotABridge(bridge.to_owned()))?.header.index;
    set_up(handle, bridge, index, None).await?;
    match uplink {
        Some(uplink) => attach(handle, uplink, index).await,
        None => Ok(()),
    }
}

/// Without spanning tree and forward delay: a guest that arrives by a move must be heard at once.
async fn create(handle: &Handle, bridge: &str) -> Result<(), BridgeError> {
    let link = LinkBridge::new(bridge).stp_state(BridgeStpState::Disabled).forward_delay(0).up().build();
    match handle.link().add(link).execute().await {
        // Somebody else was faster.
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::EEXIST => Ok(()),
        outcome => outcome.map_err(refused("create", bridge)),
    }
}

async fn attach(handle: &Handle, uplink: &str, bridge: u32) -> Result<(), BridgeError> {
    let found = find(handle, uplink).await?.ok_or_else(|| BridgeError::NoUplink(uplink.to_owned()))?;
    let controller = found.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) if *index != 0 => Some(*index),
        _ => None,
    });
    match controller {
        Some(index) if index != bridge => Err(BridgeError::UplinkTaken(uplink.to_owned())),
        attached => {
            let to = attached.is_none().then_some(bridge);
            set_up(handle, uplink, found.header.index, to).await
        }
    }
}

async fn set_up(
    handle: &Handle,
    device: &str,
    index: u32,
    controller: Option<u32>,
) -> Result<(), BridgeError> {
    let message = LinkUnspec::new_with_index(index).up();
    let message = match controller {
        Some(bridge) => message.controller(bridge),
        None => message,
    };
    handle.link().set(message.build()).execute().await.map_err(refused("set up", device))
}

async fn find(handle: &Handle, device: &str) -> Result<Option<LinkMessage>, BridgeError> {
    let mut found = handle.link().get().match_name(device.to_owned()).execute();
    match found.try_next().await {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(None),
        outcome => outcome.map_err(refused("look for", device)),
    }
}

fn is_bridge(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Bridge)),
        _ => false,
    })
}

fn refused(doing: &'static str, device: &str) -> impl FnOnce(rtnetlink::Error) -> BridgeError {
    let device = device.to_owned();
    move |cause| BridgeError::Refused { doing, device, cause }
}
