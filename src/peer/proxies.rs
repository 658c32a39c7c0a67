//! Proxies that are trusted to say for whom they speak: by a PROXY header in front of a connection (HAProxy's
//! proxy-protocol.txt), or over HTTP by X-Forwarded-For in each request. Nobody else is believed.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Instant;

use ipnet::IpNet;
use mio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::proxy_header::{Frame, NO_HEADER, SpeaksFor, frame, parse};
use super::{Client, Peer};
use crate::limits::PROXY_HEADER_BYTES_MAX;
use crate::sockopt;
use crate::telemetry::rate_limit::RateLimit;
use crate::telemetry::response::Response;
use crate::trace::record::{self, Call};

/// Who is trusted, as `--trusted-proxy` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Whoever has one of these addresses.
    Net(IpNet),
    /// Whoever comes by a unix socket.
    Unix,
}

impl FromStr for TrustedProxy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let net = net(text).ok_or("takes a network, such as 10.0.0.0/8 or ::1, or unix")?;
        Ok(Self::Net(net))
    }
}

/// A network, or an address alone. Leading zeros, which some read as octal, and which ipnet takes, are neither's.
fn net(text: &str) -> Option<IpNet> {
    let (address, prefix) = match text.split_once('/') {
        None => return text.parse().map(IpAddr::into).ok(),
        Some((address, prefix)) => (address.parse().ok()?, prefix.parse().ok()?),
    };
    let net = IpNet::new(address, prefix).ok()?;
    text.ends_with(&format!("/{prefix}")).then_some(net)
}

/// What is known of a connection that a trusted proxy has made.
#[derive(Debug)]
pub(crate) enum Origin {
    /// So much of its header has come.
    Partial(Vec<u8>),
    /// This is the proxy: it has said for whom it speaks.
    Proxy(Peer),
    /// It speaks for itself, or says in each request for whom.
    Itself,
}

impl Origin {
    /// What it holds of what was sent, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::Partial(bytes) => bytes.len(),
            Self::Proxy(_) | Self::Itself => 0,
        }
    }
}

/// What stands in front of a connection.
#[derive(Debug, PartialEq)]
pub(crate) enum Front {
    /// Not all of it has come. What follows is the connection's own.
    Awaited,
    /// Nothing, or nothing any more. It is known whose the connection is.
    Known,
    /// Something that it may not be, or nothing where something must be.
    Bad,
    /// The connection broke.
    Broken,
}

/// The proxies that are trusted.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    trusted: Vec<TrustedProxy>,
    /// Their faults are warned about.
    faults: RateLimit,
}

impl Proxies {
    pub(crate) fn new(trusted: &[TrustedProxy]) -> Self {
        Self {
            trusted: trusted.to_vec(),
            faults: RateLimit::default(),
        }
    }

    pub(crate) fn trusts(&self, peer: Peer) -> bool {
        self.trusted
            .iter()
            .any(|trusted| match (trusted, peer.address()) {
                (TrustedProxy::Net(net), Some(address)) => {
                    net.contains(&address.ip().to_canonical())
                }
                (TrustedProxy::Unix, None) => true,
                _ => false,
            })
    }

    /// Takes a header off the front of a connection whose peer is trusted; then `peer` is for whom it speaks.
    /// `scratch` is longer than a header.
    pub(crate) fn take_header(
        &mut self,
        (peer, origin): (&mut Peer, &mut Option<Box<Origin>>),
        socket: &TcpStream,
        scratch: &mut [u8],
        now: Instant,
    ) -> Front {
        match origin.as_deref() {
            Some(Origin::Proxy(_) | Origin::Itself) => return Front::Known,
            None if !self.trusts(*peer) => return Front::Known,
            None | Some(Origin::Partial(_)) => {}
        }
        let speaks_for = match read_header(origin, socket, scratch) {
            Ok(Some(speaks_for)) => speaks_for,
            Ok(None) => return Front::Awaited,
            Err(Fault::Broken(errno)) => {
                log::debug!("the connection broke: {errno}");
                return Front::Broken;
            }
            Err(Fault::Header(why)) => {
                if self.faults.allows(now) {
                    log::warn!("the trusted proxy {peer} is not understood: {why}");
                }
                return Front::Bad;
            }
        };
        *origin = match speaks_for {
            SpeaksFor::Nobody => None,
            SpeaksFor::Itself => Some(Box::new(Origin::Itself)),
            // As some do in their checks.
            SpeaksFor::Client(client) if client == peer.address() => Some(Box::new(Origin::Itself)),
            SpeaksFor::Client(client) => {
                let proxy = std::mem::replace(peer, Peer::new(client));
                Some(Box::new(Origin::Proxy(proxy)))
            }
        };
        Front::Known
    }

    /// Whether a connection is a trusted proxy's own.
    pub(crate) fn speaks_for_itself(&self, peer: Peer, origin: Option<&Origin>) -> bool {
        match origin {
            Some(Origin::Itself) => true,
            Some(Origin::Proxy(_) | Origin::Partial(_)) => false,
            None => self.trusts(peer),
        }
    }

    /// Whom a response was for.
    pub(crate) fn client_of(&self, whose: Client, response: &Response) -> Client {
        let forwarded_for = || response.http_log.as_ref()?.forwarded_for.as_deref();
        match forwarded_for().and_then(|field| self.forwarded(whose.peer, field)) {
            None => whose,
            Some(client) => Client {
                peer: Peer::new(Some(client)),
                proxy: whose.proxy.or(Some(whose.peer)),
            },
        }
    }

    /// Whom X-Forwarded-For names: each proxy adds the address that it sees behind the others, so the last
    /// one that isn't a trusted proxy's is the client's. What is further in front can be anybody's invention.
    fn forwarded(&self, peer: Peer, field: &[u8]) -> Option<SocketAddr> {
        let mut nearest = None;
        let mut is_trusted = self.trusts(peer);
        let mut members = field.rsplit(|&byte| byte == b',');
        while is_trusted && let Some(address) = members.next().and_then(forwarded_address) {
            nearest = Some(address);
            is_trusted = self.trusts(Peer::new(nearest));
        }
        nearest
    }
}

/// An address with or without a port, which is zero then.
fn forwarded_address(member: &[u8]) -> Option<SocketAddr> {
    let text = str::from_utf8(member).ok()?.trim();
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let alone = || Some(SocketAddr::new(bare.parse().ok()?, 0));
    text.parse().ok().or_else(alone)
}

#[derive(Debug)]
enum Fault {
    Broken(Errno),
    Header(String),
}

/// Reads a header and nothing beyond it. `None`: it hasn't come whole, and reads would block.
fn read_header(
    origin: &mut Option<Box<Origin>>,
    socket: &TcpStream,
    scratch: &mut [u8],
) -> Result<Option<SpeaksFor>, Fault> {
    loop {
        let mut came = 0;
        if let Some(Origin::Partial(bytes)) = origin.as_deref() {
            came = bytes.len();
            scratch[..came].copy_from_slice(bytes);
        }
        let room = &mut scratch[came..PROXY_HEADER_BYTES_MAX];
        let fresh = match receive(socket, room, RecvFlags::PEEK) {
            Ok(0) if came == 0 => return Ok(Some(SpeaksFor::Nobody)),
            Ok(0) => return Err(Fault::Header("it left within its PROXY header".into())),
            Ok(fresh) => fresh,
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(Fault::Broken(errno)),
        };
        // What belongs to the header leaves the socket.
        let frame = frame(&scratch[..came + fresh]).map_err(|why| Fault::Header(why.into()))?;
        let mut take = |until| receive(socket, &mut scratch[came..until], RecvFlags::empty());
        match frame {
            Frame::None => return Ok(Some(SpeaksFor::Itself)),
            // It stays where it is, so no read tells whether more will come.
            Frame::Unclear if has_finished(socket) => {
                return Err(Fault::Header(NO_HEADER.into()));
            }
            Frame::Unclear => return Ok(None),
            Frame::Partial => {
                let taken = take(came + fresh).map_err(Fault::Broken)?;
                let bytes = scratch[..came + taken].to_vec();
                *origin = Some(Box::new(Origin::Partial(bytes)));
            }
            Frame::Whole(length) => {
                take(length).map_err(Fault::Broken)?;
                return parse(&scratch[..length]).map(Some).map_err(Fault::Header);
            }
        }
    }
}

fn has_finished(socket: &TcpStream) -> bool {
    let finished = || sockopt::peer_has_finished(socket);
    record::call(Call::AskTcpInfo, finished).unwrap_or(true)
}

fn receive(socket: &TcpStream, room: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
    record::transfer(Call::Receive, room.len(), || {
        rustix::io::retry_on_intr(|| Ok(recv(socket, &mut *room, flags)?.0))
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use ppp::v2;

    use super::super::proxy_header::{VERSION_2_HEAD_BYTES, VERSION_2_LOCAL};
    use super::*;
    use crate::limits::SCRATCH_BYTES;
    use crate::telemetry::line_text::text_of;
    use crate::telemetry::response::HttpLogFields;

    fn proxies(trusted: &[&str]) -> Proxies {
        let trusted: Vec<_> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        Proxies::new(&trusted)
    }

    fn peer(text: &str) -> Peer {
        Peer::new(text.parse().ok())
    }

    /// A connection of a proxy's, of which the other end sends pieces.
    struct Connection {
        proxies: Proxies,
        peer: Peer,
        origin: Option<Box<Origin>>,
        socket: TcpStream,
        other: UnixStream,
    }

    impl Connection {
        fn new() -> Self {
            let (socket, other) = UnixStream::pair().unwrap();
            socket.set_nonblocking(true).unwrap();
            Self {
                proxies: proxies(&["10.0.0.0/8"]),
                peer: peer("10.1.2.3:4000"),
                origin: None,
                socket: OwnedFd::from(socket).into(),
                other,
            }
        }

        fn look(&mut self) -> Front {
            let mut scratch = vec![0; SCRATCH_BYTES];
            let whose = (&mut self.peer, &mut self.origin);
            let now = Instant::now();
            self.proxies
                .take_header(whose, &self.socket, &mut scratch, now)
        }

        fn send(&mut self, bytes: &[u8]) -> Front {
            self.other.write_all(bytes).unwrap();
            self.look()
        }

        /// What is left for the connection itself.
        fn rest(self) -> Vec<u8> {
            drop(self.other);
            let mut rest = Vec::new();
            (&self.socket).read_to_end(&mut rest).unwrap();
            rest
        }

        fn proxy(&self) -> Option<String> {
            match self.origin.as_deref() {
                Some(Origin::Proxy(proxy)) => Some(proxy.to_string()),
                _ => None,
            }
        }
    }

    const LOCAL: u8 = VERSION_2_LOCAL;
    const PROXY: u8 = 0x21;

    /// A header of version 2.
    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[command, family], &length, rest].concat()
    }

    /// 192.0.2.7:50000 has connected to 10.0.0.1:80.
    const IPV4: &[u8] = &[192, 0, 2, 7, 10, 0, 0, 1, 0xc3, 0x50, 0, 80];

    /// Some that HAProxy adds: ALPN, a unique id and one of an unknown type.
    const TLVS: &[u8] = b"\x01\x00\x02h2\x05\x00\x03abc\xf0\x00\x01x";

    /// Headers, and whose the connection is then.
    fn headers() -> Vec<(Vec<u8>, &'static str)> {
        let source = "2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap();
        let ipv6 = [&source.octets()[..], &[0; 16], &[0xc3, 0x50, 0, 80]].concat();
        let unix = [b'/'; 216];
        let v1 = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        let itself = "10.1.2.3:4000";
        vec![
            (v1("TCP4 192.0.2.7 10.0.0.1 50000 80"), "192.0.2.7:50000"),
            (v1("TCP6 2001:db8::7 ::1 50000 80"), "[2001:db8::7]:50000"),
            (v1("UNKNOWN"), itself),
            (v1("UNKNOWN what ever there is"), itself),
            (version_2(PROXY, 0x11, IPV4), "192.0.2.7:50000"),
            (
                version_2(PROXY, 0x11, &[IPV4, TLVS].concat()),
                "192.0.2.7:50000",
            ),
            (version_2(PROXY, 0x21, &ipv6), "[2001:db8::7]:50000"),
            (version_2(PROXY, 0x31, &unix), "unix:"),
            (version_2(PROXY, 0x00, b""), itself),
            (version_2(LOCAL, 0x00, b""), itself),
            (version_2(LOCAL, 0xff, b"?"), itself),
            (version_2(LOCAL, 0x11, &[IPV4, TLVS].concat()), itself),
        ]
    }

    #[test]
    fn a_header_is_taken_however_it_is_split_and_nothing_else() {
        for (header, whose) in headers() {
            for rest in [&b""[..], b"name\n", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n"] {
                let all = [&header[..], rest].concat();
                for split in 0..=all.len() {
                    let mut connection = Connection::new();
                    if split > 0 && split < header.len() {
                        assert_eq!(connection.send(&all[..split]), Front::Awaited, "{split}");
                        assert_eq!(connection.peer.to_string(), "10.1.2.3:4000");
                        // Looks that find nothing new change nothing.
                        assert_eq!(connection.look(), Front::Awaited);
                        assert_eq!(connection.send(&all[split..]), Front::Known, "{split}");
                    } else {
                        assert_eq!(connection.send(&all), Front::Known);
                    }
                    assert_eq!(connection.look(), Front::Known);
                    assert_eq!(connection.peer.to_string(), whose);
                    let proxy = (whose != "10.1.2.3:4000").then(|| "10.1.2.3:4000".to_owned());
                    assert_eq!(connection.proxy(), proxy);
                    assert_eq!(connection.rest(), rest);
                }
            }
        }
    }

    #[test]
    fn a_header_may_come_byte_by_byte() {
        for (header, whose) in headers() {
            let mut connection = Connection::new();
            let (last, before) = header.split_last().unwrap();
            for byte in before {
                assert_eq!(connection.send(&[*byte]), Front::Awaited);
            }
            assert_eq!(connection.send(&[*last]), Front::Known);
            assert_eq!(connection.peer.to_string(), whose);
            assert_eq!(connection.rest(), b"");
        }
    }

    #[test]
    fn http_and_tls_need_no_header() {
        let requests: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\n",
            b"POST / HTTP/1.1\r\n",
            b"OPTIONS / HTTP/1.0\r\n\r\n",
            b"\r\n\r\nHEAD / HTTP/1.0\r\n\r\n",
            b"\x16\x03\x01\x02",
        ];
        for bytes in requests {
            for split in 1..bytes.len() {
                let mut connection = Connection::new();
                let first = connection.send(&bytes[..split]);
                assert!(matches!(first, Front::Awaited | Front::Known));
                assert_eq!(connection.send(&bytes[split..]), Front::Known);
                assert_eq!(connection.proxy(), None);
                assert_eq!(connection.rest(), bytes, "nothing was taken");
            }
        }
    }

    #[test]
    fn what_is_neither_a_header_nor_http_is_bad() {
        let long_line = [b"PROXY UNKNOWN ", &[b'x'; 100][..]].concat();
        let mut too_long = version_2(PROXY, 0x11, IPV4);
        too_long[VERSION_2_HEAD_BYTES - 2] = 0xff;
        for bytes in [
            b"name\n".to_vec(),
            b"PROXYING\n".to_vec(),
            b"PROXY \r\n".to_vec(),
            b"PROXY TCP5 1 2 3 4\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 ::1 5 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 50000\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +50000 80\r\n".to_vec(),
            b"PROXY TCP6 2001:db8::7 ::1 50000 +80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 80\n".to_vec(),
            b"PROXY UNKNOWN \xff\r\n".to_vec(),
            long_line,
            too_long,
            // A version, a command, a family and a protocol that nobody knows, and too little.
            version_2(0x31, 0x11, IPV4),
            version_2(0x22, 0x11, IPV4),
            version_2(PROXY, 0x41, IPV4),
            version_2(PROXY, 0x13, IPV4),
            version_2(PROXY, 0x21, IPV4),
        ] {
            let mut connection = Connection::new();
            assert_eq!(connection.send(&bytes), Front::Bad, "{bytes:?}");
            assert_eq!(connection.peer.to_string(), "10.1.2.3:4000");
        }
    }

    #[test]
    fn one_that_leaves_before_a_header_is_whole_is_bad_and_one_without_a_byte_is_not() {
        for (bytes, expected) in [
            (&b""[..], Front::Known),
            (b"P", Front::Bad),
            (b"GE", Front::Bad),
            (b"\r\n", Front::Bad),
            (b"PROXY TCP4 1", Front::Bad),
            (&v2::PROTOCOL_PREFIX[..6], Front::Bad),
        ] {
            for looks_between in [false, true] {
                let mut connection = Connection::new();
                connection.other.write_all(bytes).unwrap();
                if looks_between {
                    connection.look();
                }
                connection
                    .other
                    .shutdown(std::net::Shutdown::Write)
                    .unwrap();
                assert_eq!(connection.look(), expected, "{bytes:?}");
            }
        }
    }

    #[test]
    fn nobody_else_is_believed() {
        let header = b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 80\r\n";
        for stranger in ["11.0.0.1:1", "[::1]:1", "unix:"] {
            let mut connection = Connection::new();
            connection.peer = peer(stranger);
            assert_eq!(connection.send(header), Front::Known);
            assert_eq!(connection.peer.to_string(), stranger);
            assert_eq!(connection.rest(), header);
        }
        let mut connection = Connection::new();
        (connection.peer, connection.proxies) = (Peer::new(None), proxies(&["unix"]));
        assert_eq!(connection.send(header), Front::Known);
        assert_eq!(connection.proxy().as_deref(), Some("unix:"));
        // IPv4 in IPv6's clothes, as a socket for both families has it.
        let mut connection = Connection::new();
        connection.peer = peer("[::ffff:10.9.9.9]:1");
        assert_eq!(connection.send(header), Front::Known);
        assert_eq!(connection.peer.to_string(), "192.0.2.7:50000");
    }

    #[test]
    fn the_last_address_that_is_no_proxys_is_the_clients() {
        let proxies = proxies(&["10.0.0.0/8", "2001:db8::/32"]);
        let near = Client {
            peer: peer("10.0.0.1:4000"),
            proxy: None,
        };
        for (field, expected) in [
            ("192.0.2.7", "192.0.2.7 via 10.0.0.1:4000"),
            ("192.0.2.7:50000", "192.0.2.7:50000 via 10.0.0.1:4000"),
            ("6.6.6.6, 192.0.2.7", "192.0.2.7 via 10.0.0.1:4000"),
            (
                "6.6.6.6,192.0.2.7 , 10.2.2.2,[2001:db8::1]:9",
                "192.0.2.7 via 10.0.0.1:4000",
            ),
            ("[2001:db9::7]", "2001:db9::7 via 10.0.0.1:4000"),
            ("10.2.2.2", "10.2.2.2 via 10.0.0.1:4000"),
            ("192.0.2.7, unknown, 10.2.2.2", "10.2.2.2 via 10.0.0.1:4000"),
            ("unknown", "10.0.0.1:4000"),
            ("", "10.0.0.1:4000"),
            ("\u{1b}[2J", "10.0.0.1:4000"),
        ] {
            let http_log = HttpLogFields {
                forwarded_for: Some(field.as_bytes().into()),
                ..HttpLogFields::default()
            };
            let response = Response {
                target: Box::default(),
                offset: 0,
                body_len: 0,
                refused: None,
                asked_at: Instant::now(),
                status: None,
                http_log: Some(Box::new(http_log)),
            };
            let shown = |near| text_of(|line| proxies.client_of(near, &response).push_to(line));
            assert_eq!(shown(near), expected, "{field}");
            // Who isn't trusted can say what they want.
            let stranger = Client {
                peer: peer("192.0.2.1:1"),
                ..near
            };
            assert_eq!(shown(stranger), "192.0.2.1:1", "{field}");
            // One behind the other: by a header, then in a request.
            let behind = Client {
                proxy: Some(peer("10.9.9.9:1")),
                ..near
            };
            assert!(shown(behind).ends_with(" via 10.9.9.9:1"), "{field}");
        }
    }
}
