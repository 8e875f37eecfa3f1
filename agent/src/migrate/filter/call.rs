//! The bodies of the calls that are looked into. Structures and limits are `src/remote/remote_protocol.x`'s of
//! libvirt 11; typed parameters are `struct remote_typed_param`.

use super::xdr::{BadXdr, Xdr};

/// `REMOTE_DOMAIN_MIGRATE_PARAM_LIST_MAX`.
const PARAMETERS_MAX: u32 = 64;

/// One value of a typed parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Any of the number types, as its bits.
    Number(u64),
    /// Text.
    Text(&'a str),
}

/// `remote_connect_open_args`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open<'a> {
    /// The URI.
    pub name: Option<&'a str>,
    /// `virConnectFlags`.
    pub flags: u32,
}

/// `remote_domain_migrate_prepare3_params_args`, and the part of `…_finish3_params_args` that is alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Handover<'a> {
    /// In the order of the message.
    pub parameters: Vec<(&'a str, Value<'a>)>,
    /// The source's migration cookie: XML, often with a NUL behind it.
    pub cookie: &'a [u8],
    /// `virDomainMigrateFlags`.
    pub flags: u32,
}

/// Reads an open call.
///
/// # Errors
/// [`BadXdr`].
pub fn open(payload: &[u8]) -> Result<Open<'_>, BadXdr> {
    let mut xdr = Xdr::new(payload);
    let open = Open { name: xdr.optional_text()?, flags: xdr.u32()? };
    xdr.end()?;
    Ok(open)
}

/// Reads a Prepare.
///
/// # Errors
/// [`BadXdr`].
pub fn prepare(payload: &[u8]) -> Result<Handover<'_>, BadXdr> {
    let mut xdr = Xdr::new(payload);
    let prepare = handover(&mut xdr)?;
    xdr.end()?;
    Ok(prepare)
}

/// Reads a Finish, and whether it says that the migration was cancelled.
///
/// # Errors
/// [`BadXdr`].
pub fn finish(payload: &[u8]) -> Result<(Handover<'_>, bool), BadXdr> {
    let mut xdr = Xdr::new(payload);
    let finish = handover(&mut xdr)?;
    let cancelled = xdr.u32()? != 0;
    xdr.end()?;
    Ok((finish, cancelled))
}

fn handover<'a>(xdr: &mut Xdr<'a>) -> Result<Handover<'a>, BadXdr> {
    let count = xdr.count(PARAMETERS_MAX)?;
    let parameters = (0..count).map(|_| parameter(xdr)).collect::<Result<_, _>>()?;
    Ok(Handover { parameters, cookie: xdr.bytes()?, flags: xdr.u32()? })
}

fn parameter<'a>(xdr: &mut Xdr<'a>) -> Result<(&'a str, Value<'a>), BadXdr> {
    let name = xdr.text()?;
    let value = match xdr.u32()? {
        1 | 2 | 6 => Value::Number(u64::from(xdr.u32()?)),
        3..=5 => Value::Number(xdr.u64()?),
        7 => Value::Text(xdr.text()?),
        _ => return Err(BadXdr::Unknown),
    };
    Ok((name, value))
}
