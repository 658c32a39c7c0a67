//! Who a connection's client is: where they are, and the proxy that speaks for them.

pub(crate) mod client_limit;
pub mod proxies;
mod proxy_header;

use std::fmt::{self, Display};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::telemetry::access_log::LOCAL_CLIENT;
use crate::telemetry::line_text::{LineText as _, text_of};

/// The other end's address and port, as logs show them: an IPv4 address in IPv6's clothes is shown
/// without them. By a unix socket a client has none, and its port is zero. Every slot holds one, so it is
/// packed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    ip: [u8; 16],
    port: [u8; 2],
    /// The interface of a link-local address (RFC 4007, 11).
    scope: [u8; 4],
}

impl Peer {
    pub(crate) fn new(address: Option<SocketAddr>) -> Self {
        let (ip, scope) = match address {
            None => (Ipv6Addr::UNSPECIFIED, 0),
            Some(SocketAddr::V4(address)) => (address.ip().to_ipv6_mapped(), 0),
            Some(SocketAddr::V6(address)) => (*address.ip(), address.scope_id()),
        };
        Self {
            ip: ip.octets(),
            port: address.map_or(0, |address| address.port()).to_ne_bytes(),
            scope: scope.to_ne_bytes(),
        }
    }

    /// An IPv4 address in IPv6's clothes; unspecified by a unix socket.
    pub(crate) fn ip(self) -> Ipv6Addr {
        Ipv6Addr::from(self.ip)
    }

    /// `None` by a unix socket.
    pub(crate) fn address(self) -> Option<SocketAddr> {
        let (ip, port) = (Ipv6Addr::from(self.ip), u16::from_ne_bytes(self.port));
        match ip.to_ipv4_mapped() {
            _ if ip.is_unspecified() && port == 0 => None,
            Some(ip) => Some(SocketAddr::from((ip, port))),
            None => {
                let scope = u32::from_ne_bytes(self.scope);
                Some(SocketAddrV6::new(ip, port, 0, scope).into())
            }
        }
    }

    /// Appends it as it is displayed.
    pub(crate) fn push_to(self, line: &mut String) {
        match self.address() {
            // As X-Forwarded-For has it.
            Some(address) if address.port() == 0 => line.push_ip(address.ip()),
            Some(address) => line.push_address(address),
            None => line.push_str(LOCAL_CLIENT),
        }
    }
}

impl Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text_of(|text| self.push_to(text)))
    }
}

/// Whom a log is told of: a client, and the proxy that speaks for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) peer: Peer,
    pub(crate) proxy: Option<Peer>,
}

impl Client {
    /// Appends both as they are displayed.
    pub(crate) fn push_to(self, line: &mut String) {
        self.peer.push_to(line);
        if let Some(proxy) = self.proxy {
            line.push_str(" via ");
            proxy.push_to(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_was_but_for_mapped_ones() {
        for (given, shown) in [
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[::ffff:192.0.2.1]:65535", "192.0.2.1:65535"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
            ("[fe80::1%4294967295]:1", "[fe80::1%4294967295]:1"),
        ] {
            let address = given.parse().expect("an address");
            assert_eq!(Peer::new(Some(address)).to_string(), shown);
        }
        assert_eq!(Peer::new(None).to_string(), "unix:");
    }
}
