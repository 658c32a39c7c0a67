//! Numbers and the words between them, put together on the stack: a formatter takes one piece of text in a
//! fraction of the time that it takes for many small ones, and very many lines are written.

use std::fmt;
use std::net::Ipv4Addr;

/// Text of at most `N` bytes, a multiple of sixteen. What doesn't fit is a mistake, and panics.
#[derive(Clone, Copy, Debug)]
// In this order, so that the bytes are aligned.
#[repr(C)]
pub(crate) struct ShortText<const N: usize> {
    len: usize,
    bytes: [u8; N],
}

impl<const N: usize> ShortText<N> {
    pub(crate) fn new() -> Self {
        const { assert!(N.is_multiple_of(16)) };
        Self {
            len: 0,
            bytes: [0; N],
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, text: &'static str) {
        self.bytes[self.len..][..text.len()].copy_from_slice(text.as_bytes());
        self.len += text.len();
    }

    /// A number in decimal.
    pub(crate) fn number(&mut self, number: impl Into<u64>) {
        let number = number.into();
        let digits = number.checked_ilog10().map_or(1, |log| log as usize + 1);
        self.digits(number, digits);
    }

    /// The last so many digits of a number.
    pub(crate) fn digits(&mut self, mut number: u64, digits: usize) {
        for place in self.bytes[self.len..][..digits].iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.len += digits;
    }

    pub(crate) fn ipv4(&mut self, ip: Ipv4Addr) {
        let [first, others @ ..] = ip.octets();
        self.octet(first);
        for octet in others {
            self.push(".");
            self.octet(octet);
        }
    }

    #[inline]
    fn octet(&mut self, octet: u8) {
        if octet >= 100 {
            self.digit(octet / 100);
        }
        if octet >= 10 {
            self.digit(octet / 10 % 10);
        }
        self.digit(octet % 10);
    }

    #[inline]
    fn digit(&mut self, digit: u8) {
        self.bytes[self.len] = b'0' + digit;
        self.len += 1;
    }
}

impl<const N: usize> fmt::Display for ShortText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The zeros behind it are ASCII, too, and sixteen bytes at once are found to be so in the time of two alone.
        let all = str::from_utf8(&self.bytes).expect("whole texts and digits");
        f.write_str(&all[..self.len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_number_and_the_least_are_written() {
        let mut text = ShortText::<32>::new();
        text.number(u64::MAX);
        text.push(" ");
        text.number(0_u8);
        text.digits(1_002, 2);
        assert_eq!(text.to_string(), "18446744073709551615 002");
    }

    proptest! {
        #[test]
        fn numbers_and_addresses_are_as_everybody_writes_them(number: u64, address: [u8; 4], port: u16) {
            let address = Ipv4Addr::from(address);
            let mut text = ShortText::<48>::new();
            text.number(number);
            text.push(" ");
            text.ipv4(address);
            text.push(":");
            text.number(port);
            prop_assert_eq!(text.to_string(), format!("{number} {address}:{port}"));
        }
    }
}
