// SPDX-License-Identifier: GPL-2.0-only
//! An input, taken byte by byte. What is missing at its end is zero, so that every input means something.

pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl Input<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

/// Takes fields from a byte's low end upwards.
pub(crate) struct Bits(pub(crate) u8);

impl Bits {
    pub(crate) fn take(&mut self, bits: u32) -> u8 {
        let value = self.0 & ((1 << bits) - 1);
        self.0 = self.0.checked_shr(bits).unwrap_or(0);
        value
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.take(1) == 1
    }
}
