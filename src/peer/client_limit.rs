//! How many connections one client may have, so that no address takes all places. A client is an IPv4
//! address, or the first half of an IPv6 address: a network's interfaces share it, and who has one has all
//! addresses in it (RFC 4291, 2.5.1).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv6Addr;
use std::sync::{Mutex, PoisonError};

use crate::limits::{CLIENT_CONNECTIONS_MIN, CLIENT_CONNECTIONS_SHARE, CLIENTS_KEPT};

/// The connections of each client, over all loops. Where there is no limit there is no such table.
#[derive(Debug)]
pub(crate) struct ClientLimit {
    most: u64,
    /// Clients on this machine count, too.
    counts_local: bool,
    open: Mutex<HashMap<ClientKey, u64>>,
}

/// Whether a connection is one of its client's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Nobody counts it.
    #[default]
    Uncounted,
    /// [`ClientLimit::leave`] is owed.
    Counted,
    /// Its client has as many as it may have.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ClientKey(u128);

impl ClientKey {
    /// An IPv4 address comes in IPv6's clothes.
    fn of(ip: Ipv6Addr) -> Self {
        const NETWORK: u128 = !0 << 64;
        match ip.to_ipv4_mapped() {
            Some(_) => Self(ip.to_bits()),
            None => Self(ip.to_bits() & NETWORK),
        }
    }
}

fn is_local(ip: Ipv6Addr) -> bool {
    ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
}

impl ClientLimit {
    /// As the flag says, of so many connections in all; `None` if nobody could have too many. By default
    /// clients on this machine may have all: they are proxies, behind which many others are, or its own
    /// user's tools.
    pub(crate) fn new(flag: Option<u64>, connections_max: u64) -> Option<Self> {
        let share = (connections_max / CLIENT_CONNECTIONS_SHARE).max(CLIENT_CONNECTIONS_MIN);
        let most = flag.unwrap_or(share);
        (1..connections_max).contains(&most).then(|| Self {
            most,
            counts_local: flag.is_some(),
            open: Mutex::default(),
        })
    }

    /// How many connections a client may have.
    pub(crate) fn most(&self) -> u64 {
        self.most
    }

    /// A connection has come.
    pub(crate) fn admit(&self, ip: Ipv6Addr) -> Admission {
        // A unix socket's client has none.
        if ip.is_unspecified() || (is_local(ip) && !self.counts_local) {
            return Admission::Uncounted;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(ClientKey::of(ip)).or_default();
        if *count >= self.most {
            return Admission::Refused;
        }
        *count += 1;
        Admission::Counted
    }

    /// A connection that was counted has ended.
    pub(crate) fn leave(&self, ip: Ipv6Addr) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut count) = open.entry(ClientKey::of(ip)) else {
            return;
        };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
        if open.capacity() > CLIENTS_KEPT && open.len() <= open.capacity() / 8 {
            open.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv6Addr {
        match text.parse().unwrap() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            std::net::IpAddr::V6(ip) => ip,
        }
    }

    #[test]
    fn a_client_is_an_address_or_half_of_one() {
        let limit = ClientLimit::new(Some(1), 100).unwrap();
        for first in [
            "192.0.2.1",
            "192.0.2.2",
            "2001:db8::1",
            "2001:db8:0:1::1",
            "::1",
        ] {
            assert_eq!(limit.admit(ip(first)), Admission::Counted, "{first}");
        }
        for second in ["192.0.2.1", "2001:db8::ffff:1", "2001:db8:0:1:1::"] {
            assert_eq!(limit.admit(ip(second)), Admission::Refused, "{second}");
        }
        limit.leave(ip("2001:db8::1"));
        assert_eq!(limit.admit(ip("2001:db8::2")), Admission::Counted);
        assert_eq!(limit.admit(ip("::")), Admission::Uncounted);
    }

    #[test]
    fn by_default_a_quarter_but_not_of_few_and_not_on_this_machine() {
        assert_eq!(ClientLimit::new(None, 1000).unwrap().most(), 250);
        assert_eq!(ClientLimit::new(None, 100).unwrap().most(), 64);
        assert!(ClientLimit::new(None, 64).is_none());
        assert!(ClientLimit::new(Some(0), 1000).is_none());
        assert!(ClientLimit::new(Some(1000), 1000).is_none());
        let limit = ClientLimit::new(None, 65).unwrap();
        for _ in 0..100 {
            for local in ["127.0.0.1", "127.3.2.1", "::1"] {
                assert_eq!(limit.admit(ip(local)), Admission::Uncounted);
            }
        }
    }

    #[test]
    fn clients_that_have_left_take_no_memory() {
        let limit = ClientLimit::new(None, 1 << 20).unwrap();
        let clients = || (0..1 << 16).map(|low| Ipv6Addr::from_bits((0x2001 << 112) + (low << 64)));
        for ip in clients() {
            assert_eq!(limit.admit(ip), Admission::Counted);
        }
        clients().for_each(|ip| limit.leave(ip));
        let open = limit.open.lock().unwrap();
        assert!(
            open.is_empty() && open.capacity() <= CLIENTS_KEPT,
            "{}",
            open.capacity()
        );
    }
}
