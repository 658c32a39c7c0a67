//! The shared port: looks at the first bytes of a connection and chooses between two protocols that don't
//! know each other, or waits until it can.

use std::time::Instant;

use super::bare::Bare;
use super::gopher;
use super::http::{Http, WITHOUT_TLS};
use super::{Body, Decision, InputState, Protocol, Reply, Request, RequestEnd};
use crate::file::{Notify, ThreadPool};
use crate::http::request::{Sniffed, sniff};
use crate::http::target;
use crate::root::{self, Root};

/// Serves a root's files to clients of either protocol.
#[derive(Debug)]
pub struct SharedPort {
    bare: Bare,
    http: Http,
}

impl SharedPort {
    /// The bare protocol has the root, which both serve.
    #[must_use]
    pub fn new(bare: Bare, http: Http) -> Self {
        Self { bare, http }
    }

    /// Where files are looked up.
    pub fn root_mut(&mut self) -> &mut Root {
        self.bare.root_mut()
    }

    /// Answers a name, or waits for its end. A directory's name is answered with a Gopher menu.
    fn name(&mut self, request: &Request<'_>, may_become_http: bool) -> Decision {
        let decision = self.bare.respond_or_wait(request, may_become_http);
        let Decision::Reply(Reply {
            refused: Some(why), ..
        }) = decision
        else {
            return decision;
        };
        if PROXY_LINES
            .iter()
            .any(|line| request.bytes.starts_with(line))
        {
            return refuse(request, UNTRUSTED_PROXY);
        }
        match (decision, self.http.listings()) {
            (Decision::Reply(reply), Some(folders))
                if matches!(why, root::NOT_REGULAR | root::EMPTY_NAME) =>
            {
                gopher::menu(reply, request, self.bare.root_mut(), folders)
            }
            (decision, _) => decision,
        }
    }

    /// Answers a request of HTTP/0.9: GET and a path come in, the file's bytes go out.
    fn simple(&mut self, request: &Request<'_>, path: &[u8]) -> Decision {
        let Some(name) = target::decode(path) else {
            return self.bare.respond(request);
        };
        let end = request.bytes.iter().position(|&byte| byte == b'\n');
        let used = end.map_or(request.bytes.len(), |end| end + 1);
        self.bare
            .answer(request, &name.bytes, used, RequestEnd::LineFeed)
    }
}

impl Protocol for SharedPort {
    fn reopen(&mut self, pool: &ThreadPool, notify: Notify) {
        self.bare.reopen(pool, notify);
    }

    fn reopened(&mut self) {
        self.bare.reopened();
    }

    fn release_idle(&mut self, now: Instant) -> Option<Instant> {
        self.bare.release_idle(now)
    }

    fn respond(&mut self, request: &Request<'_>) -> Decision {
        self.root_mut().begin(request.now, request.is_new);
        if request.is_keep_alive {
            return self.http.message(self.bare.root_mut(), request);
        }
        if request.bytes.starts_with(TLS_HANDSHAKE) {
            return refuse(request, "a TLS client");
        }
        if request.bytes.starts_with(PROXY_SIGNATURE) {
            return refuse(request, UNTRUSTED_PROXY);
        }
        if self.http.must_come_by_tls(request) {
            return match sniff(request.bytes) {
                Sniffed::Http => self.http.message(self.bare.root_mut(), request),
                Sniffed::Maybe { .. } | Sniffed::Empty => Decision::NeedMore {
                    speculative: false,
                    gap: None,
                },
                Sniffed::Simple(_) | Sniffed::Name => refuse(request, WITHOUT_TLS),
            };
        }
        let is_silent = matches!(
            request.input_state,
            InputState::IdleTimeout | InputState::Ended
        );
        match sniff(request.bytes) {
            Sniffed::Http => self.http.message(self.bare.root_mut(), request),
            Sniffed::Simple(path) => self.simple(request, path),
            // Its line may be longer than a name may be.
            Sniffed::Maybe { whole_method: true } if request.input_state != InputState::Ended => {
                Decision::NEED_MORE
            }
            Sniffed::Empty if !is_silent => Decision::NeedMore {
                speculative: false,
                gap: Some(self.bare.empty_name_gap()),
            },
            Sniffed::Maybe { .. } => self.name(request, true),
            Sniffed::Name | Sniffed::Empty => self.name(request, false),
        }
    }
}

/// How a TLS record of a handshake begins: its type, and the major version that all have (RFC 8446,
/// section 5.1). No name that begins so is served: a browser that was given `https://` would wait
/// until the name is taken to be whole, and its log line would be noise.
const TLS_HANDSHAKE: &[u8] = &[0x16, 0x03];

/// How a PROXY header of version 2 begins (proxy-protocol.txt, 2.2), and lines of version 1, which could be names.
/// Those of trusted proxies are taken before anything else is looked at.
const PROXY_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const PROXY_LINES: [&[u8]; 3] = [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN"];

/// What its sender has forgotten, or whoever runs this server.
const UNTRUSTED_PROXY: &str = "a PROXY header, and not of a --trusted-proxy";

/// Whoever speaks what is not served here sees the end at once, and the log says why.
fn refuse(request: &Request<'_>, why: &'static str) -> Decision {
    Decision::Reply(Reply::bare(
        Box::default(),
        Body::empty(),
        Some(why),
        request.bytes.len(),
        RequestEnd::Unread,
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::http::entity_tag::TagKey;
    use crate::http::mime::ContentTypes;
    use crate::limits::NAME_GAP;

    fn port(files: &[&str]) -> (tempfile::TempDir, SharedPort) {
        let folder = tempfile::tempdir().expect("a folder");
        for name in files {
            fs::write(folder.path().join(name), "content").expect("a file");
        }
        let mut root = Root::open(folder.path(), false).expect("it is there");
        root.assume(crate::file::FsClass::InMemory);
        let bare = Bare::new(root, Some(NAME_GAP));
        let http = Http::new(ContentTypes::new([]), None, None, TagKey::new(b""));
        (folder, SharedPort::new(bare, http))
    }

    fn judge(port: &mut SharedPort, bytes: &[u8], input_state: InputState) -> &'static str {
        let decision = port.respond(&Request::new(bytes, input_state));
        match decision {
            Decision::NeedMore { gap: None, .. } => "waits",
            Decision::NeedMore { gap: Some(_), .. } => "waits for the gap",
            Decision::Reply(reply) if reply.refused.is_none() => "served",
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_looks_like_http_waits_for_its_line() {
        let (_folder, mut port) = port(&["GE", "GET", "GET x", "POSTER"]);
        for (bytes, expected) in [
            (&b"GE"[..], "served"),
            (b"GET", "served"),
            (b"G", "waits"),
            (b"HEA", "waits"),
            (b"GET x", "waits"),
            (b"GET ", "waits"),
            (b"PATCH /", "waits"),
            (b"get x", "waits for the gap"),
            (b"GETS", "waits for the gap"),
            (b"POSTER", "served"),
        ] {
            assert_eq!(
                judge(&mut port, bytes, InputState::WouldBlock),
                expected,
                "{bytes:?}"
            );
        }
        assert_eq!(judge(&mut port, b"GET x\n", InputState::Arrived), "served");
        assert_eq!(judge(&mut port, b"GET x", InputState::Ended), "served");
    }
}
