//! The main channel: header, configuration, commands and the sections of RAM, up to the first section of a device.
//!
//! Device state has no lengths, so from there everything is bytes. In post-copy device state comes inside a package of
//! known length, and pages go on behind it.

use super::blocks::Blocks;
use super::ram::{Ram, Record};
use super::reader::{Reader, Stop};
use super::{HEAD, Piece};
use crate::wire::varint;

pub const MAGIC: &[u8] = b"QEVM";
const VERSION: u32 = 3;

// `migration/savevm.h`: QEMU_VM_*.
const SECTION_START: u8 = 0x01;
const SECTION_PART: u8 = 0x02;
const SECTION_END: u8 = 0x03;
const CONFIGURATION: u8 = 0x07;
const COMMAND: u8 = 0x08;
const SECTION_FOOTER: u8 = 0x7e;

/// `MIG_CMD_PACKAGED`: its argument is the length of what follows it.
const PACKAGED: u16 = 7;
const MACHINE_NAME_MAX: usize = 256;

#[derive(Clone, Copy)]
enum At {
    Magic,
    Top,
    /// In a section of RAM.
    Records,
    /// So many bytes of a package are still to come.
    Package(usize),
}

pub struct MainChannel {
    at: At,
    /// The number of the section `ram`, once it has started.
    ram_section: Option<u32>,
    ram: Ram,
}

impl Default for MainChannel {
    fn default() -> Self {
        Self { at: At::Magic, ram_section: None, ram: Ram::default() }
    }
}

impl MainChannel {
    pub fn next(&mut self, bytes: &[u8], blocks: &mut Blocks) -> Result<Piece, Stop> {
        match self.at {
            At::Magic => self.magic(Reader::new(bytes)),
            At::Top => self.top(Reader::new(bytes)),
            At::Package(left) => Ok(self.package(left, bytes.len())),
            At::Records => match self.ram.next(bytes, blocks)? {
                Record::Piece(piece) => Ok(piece),
                Record::End => {
                    self.at = At::Top;
                    Ok(Piece::Bytes(HEAD))
                }
            },
        }
    }

    fn magic(&mut self, mut reader: Reader<'_>) -> Result<Piece, Stop> {
        reader.take(MAGIC.len())?;
        if reader.u32()? != VERSION {
            return Err(Stop::Lost);
        }
        self.at = At::Top;
        Ok(Piece::Bytes(reader.used()))
    }

    fn top(&mut self, mut reader: Reader<'_>) -> Result<Piece, Stop> {
        let next = match reader.u8()? {
            CONFIGURATION => configuration(&mut reader)?,
            COMMAND => command(&mut reader)?,
            SECTION_START => self.started(&mut reader)?,
            SECTION_PART | SECTION_END => self.section_of_ram(reader.u32()?)?,
            SECTION_FOOTER => {
                reader.u32()?;
                At::Top
            }
            _ => return Err(Stop::Lost),
        };
        self.at = next;
        Ok(Piece::Bytes(reader.used()))
    }

    /// A section that comes in parts begins. RAM is the only one whose parts have a known form.
    fn started(&mut self, reader: &mut Reader<'_>) -> Result<At, Stop> {
        let number = reader.u32()?;
        let is_ram = reader.name()? == b"ram";
        let _instance_and_version = (reader.u32()?, reader.u32()?);
        self.ram_section = is_ram.then_some(number);
        self.section_of_ram(number)
    }

    fn section_of_ram(&self, number: u32) -> Result<At, Stop> {
        if self.ram_section == Some(number) { Ok(At::Records) } else { Err(Stop::Lost) }
    }

    fn package(&mut self, left: usize, arrived: usize) -> Piece {
        let now = left.min(arrived);
        self.at = if now == left { At::Top } else { At::Package(left - now) };
        Piece::Bytes(now)
    }
}

impl MainChannel {
    pub fn save(&self, out: &mut Vec<u8>) {
        let (code, left) = match self.at {
            At::Magic => (0, 0),
            At::Top => (1, 0),
            At::Records => (2, 0),
            At::Package(left) => (3, left),
        };
        varint::put(out, code);
        varint::put(out, left as u64);
        varint::put_option(out, self.ram_section.map(u64::from));
        self.ram.save(out);
    }

    pub fn restore(bytes: &mut &[u8]) -> Option<Self> {
        let at = match (varint::take(bytes)?, usize::try_from(varint::take(bytes)?).ok()?) {
            (0, _) => At::Magic,
            (1, _) => At::Top,
            (2, _) => At::Records,
            (3, left) if left > 0 => At::Package(left),
            _ => return None,
        };
        let ram_section = varint::take_option(bytes)?.map(u32::try_from).transpose().ok()?;
        Some(Self { at, ram_section, ram: Ram::restore(bytes)? })
    }
}

fn configuration(reader: &mut Reader<'_>) -> Result<At, Stop> {
    let length = usize::try_from(reader.u32()?).map_err(|_| Stop::Lost)?;
    if length > MACHINE_NAME_MAX {
        return Err(Stop::Lost);
    }
    reader.take(length)?;
    Ok(At::Top)
}

fn command(reader: &mut Reader<'_>) -> Result<At, Stop> {
    let (command, length) = (reader.u16()?, usize::from(reader.u16()?));
    let argument = reader.take(length)?;
    match <[u8; 4]>::try_from(argument) {
        Ok(length) if command == PACKAGED && length != [0; 4] => {
            usize::try_from(u32::from_be_bytes(length)).map(At::Package).map_err(|_| Stop::Lost)
        }
        _ => Ok(At::Top),
    }
}
