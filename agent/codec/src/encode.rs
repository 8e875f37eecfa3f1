//! QEMU's bytes in, frames out, on one thread.

use std::sync::Arc;

use crate::choice::{Means, Measured};
use crate::framer::{Framer, Settings};
use crate::pack::Packer;
use crate::parcel::Parcel;
use crate::parse::Channel;
use crate::stats::Stats;
use crate::stock::{Offered, PageObserver};

/// The encoder of one lane: a [`Framer`] and a [`Packer`].
pub struct Encoder {
    framer: Framer,
    packer: Packer,
    parcels: Vec<Parcel>,
}

impl Encoder {
    /// For a channel from its first byte.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::around(Framer::new(settings))
    }

    /// As [`Framer::resume`].
    #[must_use]
    pub fn resume(settings: Settings, saved: &[u8]) -> Option<Self> {
        Framer::resume(settings, saved).map(Self::around)
    }

    /// As [`Framer::with_offer`].
    #[must_use]
    pub fn with_offer(self, offered: Arc<Offered>) -> Self {
        Self { framer: self.framer.with_offer(offered), ..self }
    }

    /// As [`Framer::with_observer`].
    #[must_use]
    pub fn with_observer(self, observer: Box<dyn PageObserver>) -> Self {
        Self { framer: self.framer.with_observer(observer), ..self }
    }

    fn around(framer: Framer) -> Self {
        Self { framer, packer: Packer::new(), parcels: Vec::new() }
    }

    /// Takes in what QEMU wrote, and appends the frames that are full to `out`: at most as many bytes as were taken in
    /// since the last frame, and 2 % more.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.framer.push(bytes, &mut self.parcels);
        self.pack(out);
    }

    /// As [`Framer::flush`].
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        self.framer.flush(&mut self.parcels);
        self.pack(out);
    }

    /// As [`Framer::finish`].
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.framer.finish(&mut self.parcels);
        self.pack(out);
    }

    /// As [`Framer::new_generation`].
    pub fn new_generation(&mut self, out: &mut Vec<u8>) {
        self.framer.new_generation(&mut self.parcels);
        self.pack(out);
    }

    /// As [`Framer::suspend`].
    #[must_use]
    pub fn suspend(self, out: &mut Vec<u8>) -> Vec<u8> {
        let Self { framer, mut packer, mut parcels } = self;
        let saved = framer.suspend(&mut parcels);
        parcels.into_iter().for_each(|parcel| out.extend(parcel.pack(&mut packer).bytes));
        saved
    }

    /// As [`Framer::measured`].
    pub fn measured(&mut self, measured: Measured) {
        self.framer.measured(measured);
    }

    /// As [`Framer::stats`].
    #[must_use]
    pub fn stats(&self) -> &Stats {
        self.framer.stats()
    }

    /// As [`Framer::channel`].
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.framer.channel()
    }

    /// As [`Framer::means`].
    #[must_use]
    pub fn means(&self) -> Means {
        self.framer.means()
    }

    fn pack(&mut self, out: &mut Vec<u8>) {
        for parcel in self.parcels.drain(..) {
            let packed = parcel.pack(&mut self.packer);
            out.extend(packed.bytes);
            self.framer.sent(&packed.outcome);
        }
    }
}
