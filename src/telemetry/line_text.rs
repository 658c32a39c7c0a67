//! Numbers and addresses appended to a line that is being made: a formatter takes several times as long, and
//! very many lines are written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A line that is being made.
pub(crate) trait LineText {
    /// A number in decimal.
    fn push_number(&mut self, number: impl itoa::Integer);

    /// The last three digits of a number.
    fn push_thousandths(&mut self, number: u32);

    /// As [`IpAddr`] is shown.
    fn push_ip(&mut self, ip: IpAddr);

    /// As [`SocketAddr`] is shown.
    fn push_address(&mut self, address: SocketAddr);
}

impl LineText for String {
    fn push_number(&mut self, number: impl itoa::Integer) {
        self.push_str(itoa::Buffer::new().format(number));
    }

    fn push_thousandths(&mut self, number: u32) {
        for unit in [100, 10, 1] {
            self.push(digit(number / unit));
        }
    }

    fn push_ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => push_ipv4(self, ip),
            IpAddr::V6(ip) => self.push_str(&ip.to_string()),
        }
    }

    fn push_address(&mut self, address: SocketAddr) {
        match address {
            SocketAddr::V4(address) => {
                push_ipv4(self, *address.ip());
                self.push(':');
                self.push_number(address.port());
            }
            SocketAddr::V6(address) => self.push_str(&address.to_string()),
        }
    }
}

/// What is pushed, alone.
pub(crate) fn text_of(push: impl FnOnce(&mut String)) -> String {
    let mut text = String::new();
    push(&mut text);
    text
}

fn push_ipv4(line: &mut String, ip: Ipv4Addr) {
    for (place, octet) in ip.octets().into_iter().enumerate() {
        if place > 0 {
            line.push('.');
        }
        if octet >= 100 {
            line.push(digit(octet / 100));
        }
        if octet >= 10 {
            line.push(digit(octet / 10));
        }
        line.push(digit(octet));
    }
}

/// The last digit of a number.
fn digit(number: impl Into<u32>) -> char {
    char::from(b'0' + (number.into() % 10) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_and_addresses_are_as_everybody_shows_them(number: u64, address: SocketAddr) {
            let mut line = String::new();
            line.push_number(number);
            line.push(' ');
            line.push_ip(address.ip());
            line.push(' ');
            line.push_address(address);
            prop_assert_eq!(line, format!("{number} {} {address}", address.ip()));
        }

        #[test]
        fn thousandths_are_three_digits(number in 0..2_000_u32) {
            let mut line = String::new();
            line.push_thousandths(number);
            prop_assert_eq!(line, format!("{:03}", number % 1_000));
        }
    }
}
