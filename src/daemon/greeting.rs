//! What a person at a terminal is told when a server starts: what to open, what is there, and how to
//! stop it. Programs read the lines `listening on ...`, which are the same everywhere.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::address::ListenAddress;
use crate::escape::Escaped;
use crate::limits::GREETING_ADDRESSES_MAX;

/// For who serves a folder.
pub(crate) fn of_files(
    bound: &[ListenAddress],
    by_tls: bool,
    root: &Path,
    lists_folders: bool,
) -> String {
    let root = Escaped(root.as_os_str().as_encoded_bytes());
    let folders = if lists_folders {
        "listed"
    } else {
        "not listed (--listing does that): ask for files by name"
    };
    let mut rows = vec![
        ("serving", format!("\"{root}\"")),
        ("folders", folders.to_owned()),
    ];
    let scheme = if by_tls { "https" } else { "http" };
    let urls = urls(scheme, bound, &own_addresses());
    rows.extend(urls.into_iter().enumerate().map(|(index, url)| {
        let label = if index == 0 { "open" } else { "" };
        (label, url)
    }));
    let unix = bound.iter().filter(|at| at.ip().is_none());
    rows.extend(unix.map(|at| ("socket", at.to_string())));
    block(&rows)
}

/// The greeting of `thank`.
pub(crate) fn of_texts(bound: &[ListenAddress]) -> String {
    let port = bound
        .iter()
        .find_map(ListenAddress::ip)
        .map_or(0, |at| at.port());
    block(&[("say", format!("carafe say localhost:{port} TEXT"))])
}

/// The rows one beneath the other, with room around them, and how to stop the server.
fn block(rows: &[(&str, String)]) -> String {
    let stop = "Ctrl-C ends it when everyone has been served, twice at once".to_owned();
    let mut text = String::from("\n");
    for (label, what) in rows.iter().chain(&[("stop", stop)]) {
        let _ = writeln!(text, "  {label:<9}{what}");
    }
    text
}

/// What a browser opens: this machine by name, and the addresses by which others reach it, as far as
/// they are bound.
fn urls(scheme: &str, bound: &[ListenAddress], own: &[IpAddr]) -> Vec<String> {
    let mut places = Vec::new();
    for at in bound.iter().filter_map(ListenAddress::ip) {
        if !at.ip().is_unspecified() {
            places.push(at.to_string());
            continue;
        }
        places.push(format!("localhost:{}", at.port()));
        // A socket on all of IPv6's takes IPv4's too, or there is another one for them.
        let reachable = own.iter().filter(|ip| at.is_ipv6() || ip.is_ipv4());
        places.extend(reachable.map(|&ip| SocketAddr::new(ip, at.port()).to_string()));
    }
    let mut urls: Vec<_> = Vec::new();
    for url in places.iter().map(|place| format!("{scheme}://{place}/")) {
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    let more = urls.len().saturating_sub(GREETING_ADDRESSES_MAX);
    if more > 0 {
        urls.truncate(GREETING_ADDRESSES_MAX);
        urls.push(format!("and {more} more"));
    }
    urls
}

/// This machine's addresses, IPv4 first. Left out are those that lead back to it, and IPv6's
/// link-local ones, which no browser takes.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    let up = interfaces.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP));
    let mut addresses: Vec<IpAddr> = up
        .filter_map(|interface| {
            let address = interface.address?;
            let ipv4 = address.as_sockaddr_in().map(|ipv4| IpAddr::V4(ipv4.ip()));
            ipv4.or_else(|| address.as_sockaddr_in6().map(|ipv6| IpAddr::V6(ipv6.ip())))
        })
        .filter(|ip| match ip {
            IpAddr::V4(ipv4) => !ipv4.is_loopback(),
            IpAddr::V6(ipv6) => !ipv6.is_loopback() && !ipv6.is_unicast_link_local(),
        })
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls_of(bound: &[&str], own: &[&str]) -> Vec<String> {
        let bound = bound
            .iter()
            .map(|at| ListenAddress::Ip(at.parse().unwrap()));
        let bound: Vec<_> = bound.collect();
        let own: Vec<IpAddr> = own.iter().map(|ip| ip.parse().unwrap()).collect();
        urls("http", &bound, &own)
    }

    #[test]
    fn what_is_bound_can_be_opened() {
        let own = ["192.0.2.1", "2001:db8::1"];
        let cases: [(&[&str], &[&str]); 4] = [
            (
                &["[::]:80"],
                &["localhost:80", "192.0.2.1:80", "[2001:db8::1]:80"],
            ),
            (&["0.0.0.0:80"], &["localhost:80", "192.0.2.1:80"]),
            (
                &["0.0.0.0:80", "[::]:80"],
                &["localhost:80", "192.0.2.1:80", "[2001:db8::1]:80"],
            ),
            (&["127.0.0.1:80", "[::1]:80"], &["127.0.0.1:80", "[::1]:80"]),
        ];
        for (bound, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|at| format!("http://{at}/")).collect();
            assert_eq!(urls_of(bound, &own), expected);
        }
    }

    #[test]
    fn a_machine_of_many_addresses_fills_no_screen() {
        let own: Vec<_> = (1..=20).map(|host| format!("192.0.2.{host}")).collect();
        let own: Vec<_> = own.iter().map(String::as_str).collect();
        let urls = urls_of(&["0.0.0.0:80"], &own);
        assert_eq!(urls.len(), GREETING_ADDRESSES_MAX + 1);
        assert_eq!(urls[GREETING_ADDRESSES_MAX], "and 15 more");
    }

    #[test]
    fn a_greeting_fits_a_terminal_and_says_how_to_list_and_to_stop() {
        let bound = [ListenAddress::Ip("127.0.0.1:65535".parse().unwrap())];
        let text = of_files(&bound, false, Path::new("a\x1b[2J"), false);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        for part in ["\n  serving  \"a\\x1b[2J\"\n", "--listing", "Ctrl-C"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!of_files(&bound, false, Path::new("a"), true).contains("--listing"));
        assert!(of_texts(&bound).contains("carafe say localhost:65535 TEXT\n"));
    }
}
