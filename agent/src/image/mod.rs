//! Images and disks of one host.
//!
//! * [`store`] keeps images by their content (SHA-256) and gets those that lack: from other agents, from an
//!   http(s) address, from a local folder;
//! * [`url`], [`http`] and [`local`] are the rules and means of fetching; [`qcow2`] the rules for the format, [`clusters`]
//!   where its data lies, [`digest`] what an overlay holds;
//! * [`disks`] makes a machine's own folder, with a copy-on-write overlay and its [`seed`];
//! * [`rootfs`] unpacks archives into the layers that namespace machines share.
//!
//! What a template names comes from a user. It never chooses a format by its content, never reaches the host's
//! own network, and never leaves the folders that agent.toml lists.

pub mod clusters;
pub mod digest;
pub mod disks;
mod error;
pub mod http;
pub mod local;
pub mod qcow2;
pub mod rootfs;
pub mod seed;
pub mod store;
pub mod url;

pub use disks::{DiskError, Disks, LocalImages};
pub use error::ImageError;
pub use store::{FetchProgress, ImageStore, PeerImage, PeerImages, StoreOptions};
