//! Tables for heads, limits and the first line of the shared port, and that splits don't matter.

use proptest::prelude::*;

use super::*;
use crate::http::fields::NO_FIELD;
use crate::limits::HTTP_FIELDS_MAX;

fn parse(bytes: &[u8]) -> Parsed<'_> {
    super::parse(bytes, vec![NO_FIELD; HTTP_FIELDS_MAX].leak())
}

fn whole(head: &str) -> Request<'_> {
    match parse(head.as_bytes()) {
        Parsed::Whole { used, request } => {
            assert_eq!(used, head.len(), "{head:?}");
            request
        }
        other => panic!("{head:?}: {other:?}"),
    }
}

/// A GET of `/` in a version, with more field lines.
fn get(version: &str, fields: &str) -> String {
    format!("GET / HTTP/{version}\r\nHost: h\r\n{fields}\r\n")
}

#[test]
fn a_head_says_what_it_says() {
    let request = whole("GET /a%20b?c HTTP/1.1\r\nhOsT: h:80 \r\nX-Y:\tz\r\n\r\n");
    assert_eq!(request.line, b"GET /a%20b?c HTTP/1.1");
    assert_eq!(request.method_name, b"GET");
    assert_eq!(
        (request.method, request.version),
        (Method::Get, Version::Http11)
    );
    let (path, query) = (&b"/a%20b"[..], Some(&b"c"[..]));
    assert_eq!(request.target, Target::Resource { path, query });
    assert_eq!(request.host, Some(&b"h:80"[..]));
    assert_eq!(request.fields.only("x-y"), Some(&b"z"[..]));
    assert_eq!(request.body, RequestBody::None);
    assert_eq!(request.expectation, Expectation::None);
    assert!(request.keep_alive);
    assert_eq!(request.error(), None);
}

#[test]
fn what_follows_a_head_is_left() {
    let two = "\r\n\nGET /a HTTP/1.0\n\nGET /b HTTP/1.0\r\n\r\n";
    let Parsed::Whole { used, request } = parse(two.as_bytes()) else {
        panic!("it is whole");
    };
    assert_eq!(request.line, b"GET /a HTTP/1.0");
    assert_eq!(whole(&two[used..]).line, b"GET /b HTTP/1.0");
}

#[test]
fn methods() {
    use RequestError::{MethodNotAllowed, MethodUnknown};
    for (line, method, error) in [
        ("GET /", Method::Get, None),
        ("HEAD /", Method::Head, None),
        ("OPTIONS *", Method::Options, None),
        ("OPTIONS /", Method::Options, None),
        ("POST /", Method::Other, Some(MethodNotAllowed)),
        ("PUT /", Method::Other, Some(MethodNotAllowed)),
        ("DELETE /", Method::Other, Some(MethodNotAllowed)),
        ("PATCH /", Method::Other, Some(MethodNotAllowed)),
        ("TRACE /", Method::Other, Some(MethodNotAllowed)),
        ("CONNECT h:1", Method::Connect, Some(MethodNotAllowed)),
        ("BREW /", Method::Unknown, Some(MethodUnknown)),
        ("get /", Method::Unknown, Some(MethodUnknown)),
        ("GETS /", Method::Unknown, Some(MethodUnknown)),
    ] {
        let head = format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n");
        let request = whole(&head);
        assert_eq!((request.method, request.error()), (method, error), "{line}");
        assert!(error.is_none_or(|error| !error.closes()));
    }
    assert_eq!(MethodNotAllowed.status(), 405);
    assert_eq!(MethodUnknown.status(), 501);
}

#[test]
fn request_lines() {
    for (line, error, status) in [
        ("GET /", RequestError::Line, 400),
        ("GET  / HTTP/1.1", RequestError::Line, 400),
        ("GET /  HTTP/1.1", RequestError::Line, 400),
        ("GET / HTTP/1.1 ", RequestError::Line, 400),
        (" GET / HTTP/1.1", RequestError::Line, 400),
        ("GET\t/ HTTP/1.1", RequestError::Line, 400),
        ("GET /a b HTTP/1.1", RequestError::Line, 400),
        ("GET HTTP/1.1", RequestError::Line, 400),
        ("G(T / HTTP/1.1", RequestError::Line, 400),
        ("GET / http/1.1", RequestError::Line, 400),
        ("GET / HTTP/1.10", RequestError::Line, 400),
        ("GET / HTTP/1", RequestError::Line, 400),
        ("GET / HTTP/1.1\r", RequestError::Line, 400),
        ("\rGET / HTTP/1.1", RequestError::Line, 400),
        ("GET / HTTP/1.1\t", RequestError::Line, 400),
        ("GET /\tHTTP/1.1", RequestError::Line, 400),
        ("GET / FTP/1.1", RequestError::Line, 400),
        ("GET / HTTP/11.1", RequestError::Line, 400),
        ("GET / HTTP/1.x", RequestError::Line, 400),
        ("GET / HTTP/2.0", RequestError::Version, 505),
        ("GET / HTTP/9.9", RequestError::Version, 505),
        ("GET / HTTP/0.9", RequestError::Version, 505),
        ("PRI * HTTP/2.0", RequestError::Version, 505),
        ("GET * HTTP/1.1", RequestError::Target, 400),
        ("GET h:80 HTTP/1.1", RequestError::Target, 400),
        ("GET https://h/ HTTP/1.1", RequestError::Target, 400),
        ("CONNECT / HTTP/1.1", RequestError::Target, 400),
        ("GET /a\rb HTTP/1.1", RequestError::Target, 400),
        ("GET /\0 HTTP/1.1", RequestError::Target, 400),
    ] {
        let head = format!("{line}\r\nHost: h\r\n\r\n");
        assert_eq!(parse(head.as_bytes()), Parsed::Bad(error), "{line:?}");
        assert_eq!(error.status(), status);
        assert!(error.closes());
    }
}

#[test]
fn field_lines() {
    for fields in [
        "Name : x\r\n",
        " Folded: x\r\n",
        "A: b\r\n folded\r\n",
        "A: b\r\n\tfolded\r\n",
        "A: b\rc\r\n",
        "A: b\r\r\n",
        "A\r\n",
        ": x\r\n",
        "A: \0\r\n",
        "A: \x7f\r\n",
        "A(): x\r\n",
        "\r",
    ] {
        let head = get("1.1", fields);
        assert_eq!(
            parse(head.as_bytes()),
            Parsed::Bad(RequestError::Field),
            "{fields:?}"
        );
    }
    for fields in ["A:\r\n", "A: \t\r\n", "A: é\r\n", "A:b\n"] {
        let head = get("1.1", fields);
        assert!(
            matches!(parse(head.as_bytes()), Parsed::Whole { .. }),
            "{fields:?}"
        );
    }
    assert_eq!(RequestError::Field.status(), 400);
    assert!(RequestError::Field.closes());
}

#[test]
fn hosts() {
    #[rustfmt::skip]
    let cases = [
        ("GET / HTTP/1.1", "Host: h\r\n", Some(Some("h"))),
        ("GET / HTTP/1.1", "Host: [::1]:7890\r\n", Some(Some("[::1]:7890"))),
        ("GET / HTTP/1.1", "Host:\r\n", Some(Some(""))),
        ("GET / HTTP/1.1", "", None),
        ("GET / HTTP/1.1", "Host: h\r\nHost: h\r\n", None),
        ("GET / HTTP/1.1", "Host: h, h\r\n", None),
        ("GET / HTTP/1.1", "Host: a/b\r\n", None),
        ("GET / HTTP/1.1", "Host: u@h\r\n", None),
        ("GET / HTTP/1.0", "", Some(None)),
        ("GET / HTTP/1.0", "Host: h\r\n", Some(Some("h"))),
        ("GET / HTTP/1.0", "Host: h\r\nHost: i\r\n", None),
        ("GET / HTTP/1.0", "Host: a b\r\n", None),
        ("GET http://a/ HTTP/1.1", "Host: b\r\n", Some(Some("a"))),
        ("GET http://a/ HTTP/1.1", "", None),
    ];
    for (line, fields, expected) in cases {
        let head = format!("{line}\r\n{fields}\r\n");
        match expected {
            Some(host) => assert_eq!(
                whole(&head).host,
                host.map(|host: &str| host.as_bytes()),
                "{head:?}"
            ),
            None => assert_eq!(
                parse(head.as_bytes()),
                Parsed::Bad(RequestError::Host),
                "{head:?}"
            ),
        }
    }
    assert!(RequestError::Host.closes() && RequestError::Host.status() == 400);
}

#[test]
fn bodies() {
    use RequestBody::Chunked;
    use RequestError::{Coding, Length, TransferEncoding};
    let sized = RequestBody::Length;
    #[rustfmt::skip]
    let rows = [
        ("1.1", "", Ok(RequestBody::None)),
        ("1.1", "Content-Length: 0\r\n", Ok(RequestBody::None)),
        ("1.1", "Content-Length: 5\r\n", Ok(sized(5))),
        ("1.0", "Content-Length: 05\r\n", Ok(sized(5))),
        ("1.1", "Content-Length: 18446744073709551615\r\n", Ok(sized(u64::MAX))),
        ("1.1", "Content-Length: 18446744073709551616\r\n", Err(Length)),
        ("1.1", "Content-Length: 5\r\nContent-Length: 5\r\n", Err(Length)),
        ("1.1", "Content-Length: 5\r\nContent-Length: 6\r\n", Err(Length)),
        ("1.1", "Content-Length: 5, 5\r\n", Err(Length)),
        ("1.1", "Content-Length: +5\r\n", Err(Length)),
        ("1.1", "Content-Length: -5\r\n", Err(Length)),
        ("1.1", "Content-Length: 0x5\r\n", Err(Length)),
        ("1.1", "Content-Length: 5 5\r\n", Err(Length)),
        ("1.1", "Content-Length: five\r\n", Err(Length)),
        ("1.1", "Content-Length: 5.0\r\n", Err(Length)),
        ("1.1", "Content-Length:\r\n", Err(Length)),
        ("1.1", "Transfer-Encoding: chunked\r\n", Ok(Chunked)),
        ("1.1", "transfer-encoding: CHUNKED\r\n", Ok(Chunked)),
        ("1.1", "Transfer-Encoding: , chunked\r\n", Ok(Chunked)),
        ("1.1", "Transfer-Encoding: gzip, chunked\r\n", Err(Coding)),
        ("1.1", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Err(Coding)),
        ("1.1", "Transfer-Encoding: gzip\r\n", Err(TransferEncoding)),
        ("1.1", "Transfer-Encoding: identity\r\n", Err(TransferEncoding)),
        ("1.1", "Transfer-Encoding: chunked, gzip\r\n", Err(TransferEncoding)),
        ("1.1", "Transfer-Encoding: chunked, chunked\r\n", Err(TransferEncoding)),
        ("1.1", "Transfer-Encoding: \"chunked\"\r\n", Err(TransferEncoding)),
        ("1.1", "Transfer-Encoding: chunked;x=y\r\n", Err(TransferEncoding)),
        ("1.1", "Transfer-Encoding: xchunked\r\n", Err(TransferEncoding)),
        ("1.1", "Transfer-Encoding: \x0bchunked\r\n", Err(RequestError::Field)),
        ("1.1", "Transfer-Encoding:\r\n", Err(TransferEncoding)),
        ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(TransferEncoding)),
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(TransferEncoding)),
        ("1.1", "Content-Length: x\r\nTransfer-Encoding: gzip\r\n", Err(TransferEncoding)),
        ("1.0", "Transfer-Encoding: chunked\r\n", Err(TransferEncoding)),
    ];
    for (version, fields, expected) in rows {
        let head = get(version, fields);
        match expected {
            Ok(body) => assert_eq!(whole(&head).body, body, "{fields:?}"),
            Err(error) => {
                assert_eq!(parse(head.as_bytes()), Parsed::Bad(error), "{fields:?}");
                assert!(error.closes());
                let status = if error == Coding { 501 } else { 400 };
                assert_eq!(error.status(), status);
            }
        }
    }
}

#[test]
fn keeping_alive() {
    #[rustfmt::skip]
    let rows = [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: x, close ,y\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: x,keep-alive\r\n", true),
        ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.0", "Keep-Alive: timeout=5\r\n", false),
    ];
    for (version, fields, expected) in rows {
        assert_eq!(
            whole(&get(version, fields)).keep_alive,
            expected,
            "{version} {fields}"
        );
    }
}

#[test]
fn expectations() {
    use Expectation::{Continue, None, Unknown};
    for (version, fields, expected) in [
        ("1.1", "", None),
        ("1.1", "Expect: 100-continue\r\n", Continue),
        ("1.1", "Expect: 100-Continue\r\n", Continue),
        ("1.1", "Expect: 100-continue, tea\r\n", Unknown),
        ("1.1", "Expect: 100-continue\r\nExpect: tea\r\n", Unknown),
        ("1.1", "Expect: 200-ok\r\n", Unknown),
        ("1.0", "Expect: 100-continue\r\n", None),
        ("1.0", "Expect: tea\r\n", Unknown),
    ] {
        let head = get(version, fields);
        let request = whole(&head);
        assert_eq!(request.expectation, expected, "{version} {fields}");
        let error = (expected == Unknown).then_some(RequestError::Expectation);
        assert_eq!(request.error(), error);
    }
    assert_eq!(RequestError::Expectation.status(), 417);
}

#[test]
fn limits() {
    let line_of = |len: usize| {
        let path = "x".repeat(len - "GET / HTTP/1.0".len());
        format!("GET /{path} HTTP/1.0")
    };
    for end in ["\n", "\r\n"] {
        let longest = format!("{}{end}{end}", line_of(HTTP_LINE_BYTES_MAX));
        whole(&longest);
        let longer = format!("{}{end}{end}", line_of(HTTP_LINE_BYTES_MAX + 1));
        assert_eq!(
            parse(longer.as_bytes()),
            Parsed::Bad(RequestError::LineTooLong)
        );
    }
    assert_eq!(RequestError::LineTooLong.status(), 414);
    let endless = vec![b'x'; HTTP_LINE_BYTES_MAX + 1];
    assert_eq!(parse(&endless), Parsed::Bad(RequestError::LineTooLong));
    assert_eq!(parse(&endless[1..]), Parsed::Partial);

    let head_of = |len: usize| {
        let head = get("1.1", "X: \r\n");
        head.replace("X: ", &format!("X: {}", "x".repeat(len - head.len())))
    };
    whole(&head_of(HTTP_HEAD_BYTES_MAX));
    whole(&format!("\r\n{}", head_of(HTTP_HEAD_BYTES_MAX)));
    let longer = head_of(HTTP_HEAD_BYTES_MAX + 1);
    let too_large = Parsed::Bad(RequestError::HeadTooLarge);
    assert_eq!(parse(longer.as_bytes()), too_large);
    assert_eq!(parse(&longer.as_bytes()[..HTTP_HEAD_BYTES_MAX]), too_large);
    assert_eq!(
        parse(&longer.as_bytes()[..HTTP_HEAD_BYTES_MAX - 1]),
        Parsed::Partial
    );

    // One is Host.
    whole(&get("1.1", &"X: y\r\n".repeat(HTTP_FIELDS_MAX - 1)));
    let more = get("1.1", &"X: y\r\n".repeat(HTTP_FIELDS_MAX));
    assert_eq!(parse(more.as_bytes()), too_large);
    assert_eq!(RequestError::HeadTooLarge.status(), 431);

    let after = |lines: usize| "\r\n".repeat(lines) + "GET / HTTP/1.0\r\n\r\n";
    whole(&after(HTTP_EMPTY_LINES_MAX));
    let more = after(HTTP_EMPTY_LINES_MAX + 1);
    assert_eq!(parse(more.as_bytes()), Parsed::Bad(RequestError::Line));
}

#[test]
fn later_minor_versions_are_served_as_the_latest() {
    for (version, expected) in [
        ("1.0", Version::Http10),
        ("1.1", Version::Http11),
        ("1.2", Version::Http11),
        ("1.9", Version::Http11),
    ] {
        let head = get(version, "");
        let request = whole(&head);
        let keeps_alive = expected == Version::Http11;
        assert_eq!(
            (request.version, request.keep_alive),
            (expected, keeps_alive)
        );
    }
}

#[test]
fn what_begins_on_the_shared_port() {
    use Sniffed::{Http, Maybe, Name, Simple};
    const WHOLE: Sniffed<'_> = Maybe { whole_method: true };
    const BEGUN: Sniffed<'_> = Maybe {
        whole_method: false,
    };
    for (bytes, expected) in [
        ("GET / HTTP/1.1\r\n", Http),
        ("GET / HTTP/1.0\n", Http),
        ("BREW / HTTP/1.1\n", Http),
        ("get / HTTP/1.1\n", Http),
        ("notes on HTTP/1.1\n", Http),
        ("GET HTTP/1.1\n", Http),
        ("GET / HTTP/1.1\r\nHost", Http),
        (" / HTTP/1.1\n", Name),
        ("a(b) HTTP/1.1\n", Name),
        (" HTTP/1.1\n", Name),
        ("HTTP/1.1\n", Name),
        ("GET /x\r\n", Simple(b"/x")),
        ("GET /\n", Simple(b"/")),
        ("GET x\n", Name),
        ("GET x y\n", Name),
        ("GET ftp://h/ y\n", Name),
        ("GET\t$\n", Name),
        ("GETS / y\n", Name),
        ("get / y\n", Name),
        ("x HTTP/1.\n", Name),
        ("x HTTP/1.1x\n", Name),
        ("xHTTP/1.1\n", Name),
        ("GET \n", Name),
        ("GET\n", Name),
        ("HEAD /x\n", Name),
        ("get /x\n", Name),
        ("x\nGET / HTTP/1.1\n", Name),
        ("GET ", WHOLE),
        ("GET\t", WHOLE),
        ("GET /", WHOLE),
        ("GET /x\r", WHOLE),
        ("GET x HTTP/1.1", WHOLE),
        ("PATCH /", WHOLE),
        ("", BEGUN),
        ("G", BEGUN),
        ("GET", BEGUN),
        ("OPTION", BEGUN),
        ("GETS", Name),
        ("get", Name),
        ("BREW /", Name),
        ("x", Name),
    ] {
        assert_eq!(sniff(bytes.as_bytes()), expected, "{bytes:?}");
    }
    let long = "x".repeat(HTTP_LINE_BYTES_MAX);
    for end in ["", "\n", " HTTP/1.1\n"] {
        assert_eq!(sniff(format!("GET /{long}{end}").as_bytes()), Http);
        assert_eq!(sniff(format!("_{long}{end}").as_bytes()), Name);
    }
}

#[test]
fn what_only_a_request_line_can_be_is_http_well_formed_or_not() {
    for bytes in [
        "GET / HTTP/1.1\r\r\n",
        "GET / HTTP/1.1 \n",
        "GET / HTTP/1.2\n",
        "GET / HTTP/9.9\n",
        "GET / http/1.1\n",
        "GET / FTP/1.1\n",
        "GET / \n",
        "GET /x y\n",
        "GET  / FTP/1.1\n",
        "GET\t/ HTTP/1.1\n",
        "GET\t/\tHTTP/1.1\n",
        "GET /\tHTTP/1.1\n",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r",
        "GET / ",
        "OPTIONS * ",
        "HEAD HTTP://h/ ",
        "POST https://h/ ",
        "PRI * HTTP/2.0\n",
        "BREW / HTTP/2.0\t\n",
        "get / http/1.1\n",
        "CONNECT h:443 HTTP/9.9\n",
    ] {
        assert_eq!(sniff(bytes.as_bytes()), Sniffed::Http, "{bytes:?}");
    }
}

#[test]
fn empty_lines_are_a_requests_if_a_request_line_follows() {
    use Sniffed::{Empty, Http, Maybe, Name};
    for (bytes, expected) in [
        ("\r\nGET / HTTP/1.1\r\n", Http),
        ("\n\r\nGET / HTTP/2.0\n", Http),
        ("\r\n\r\n\r\n\r\nGET / ", Http),
        ("\r\nBREW / HTTP/1.1\n", Http),
        ("\r\nGET ", Maybe { whole_method: true }),
        ("\r\n", Empty),
        ("\n\r", Empty),
        ("\n\n\n\n", Empty),
        ("\n\n\n\n\r", Empty),
        ("\nG", Empty),
        ("\nBREW / HTTP/1.", Empty),
        ("\r", Name),
        ("\r\r\n", Name),
        ("\n\n\n\n\n", Name),
        ("\n\n\n\n\r\n", Name),
        ("\r\nx\n", Name),
        ("\r\nGET /x\n", Name),
    ] {
        assert_eq!(sniff(bytes.as_bytes()), expected, "{bytes:?}");
    }
    let name = "x".repeat(NAME_BYTES_MAX);
    for (rest, expected) in [("", Empty), ("\r", Empty), ("\r\n", Name), ("\rx", Name)] {
        let bytes = format!("\r\n{name}{rest}");
        assert_eq!(sniff(bytes.as_bytes()), expected, "{rest:?}");
    }
}

/// Bytes that come near to a head.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "GET ",
        "POST ",
        "BREW ",
        "/",
        "/a%20b",
        "*",
        "http://h/",
        " HTTP/1.1",
        " HTTP/1.0",
        " ",
        "\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        "Host: h\r\n",
        "Host: h\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Expect: 100-continue\r\n",
        "Connection: close\r\n",
        ":",
        "X: y\r\n",
        "\t",
        "\0",
    ]);
    let pieces = prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into());
    let valid =
        prop::collection::vec("[a-zA-Z-]{1,9}: ?[ -~]{0,20}\r\n", 0..8).prop_map(|fields| {
            let fields = fields.concat();
            format!("GET /x HTTP/1.1\r\nHost: h\r\n{fields}\r\nGET").into_bytes()
        });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..200), pieces, valid]
}

/// These bytes, perhaps with others in the place of a few.
fn changed(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (bytes, changes).prop_map(|(mut bytes, changes)| {
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes
    })
}

/// A request line as it is defined; its target is looked at elsewhere.
fn three_words(line: &[u8]) -> Result<(&[u8], Version), RequestError> {
    let words: Vec<_> = line.split(|&byte| byte == b' ').collect();
    let [method, _, version] = words[..] else {
        return Err(RequestError::Line);
    };
    match version.strip_prefix(b"HTTP/") {
        _ if !is_token(method) => Err(RequestError::Line),
        Some(b"1.0") => Ok((method, Version::Http10)),
        Some([b'1', b'.', b'1'..=b'9']) => Ok((method, Version::Http11)),
        Some([b'0'..=b'9', b'.', b'0'..=b'9']) => Err(RequestError::Version),
        _ => Err(RequestError::Line),
    }
}

proptest! {
    /// What is decided stays decided, whatever follows; until then it is partial.
    #[test]
    fn splits_do_not_matter(bytes in heads()) {
        let answer = parse(&bytes);
        for cut in 0..bytes.len() {
            let mut table = [NO_FIELD; HTTP_FIELDS_MAX];
            let before = super::parse(&bytes[..cut], &mut table);
            prop_assert!(before == Parsed::Partial || before == answer, "at {}", cut);
        }
        if let Parsed::Whole { used, .. } = answer {
            prop_assert!(used <= bytes.len());
            prop_assert_eq!(parse(&bytes[..used - 1]), Parsed::Partial);
            prop_assert_eq!(parse(&bytes[..used]), answer);
        }
    }

    #[test]
    fn a_request_line_is_three_words(bytes in changed(heads())) {
        let line = bytes.split(|&byte| byte == b'\n').next().unwrap();
        let head = [line, b"\nHost: h\n\n"].concat();
        let skipped = empty_lines(&head);
        let expected = three_words(line.strip_suffix(b"\r").unwrap_or(line));
        match (parse(&head), expected) {
            _ if skipped != Some(0) => {}
            (Parsed::Whole { request, .. }, Ok((method, version))) => {
                prop_assert_eq!((request.method_name, request.version), (method, version));
            }
            (Parsed::Bad(error), Ok(_)) => prop_assert_eq!(error, RequestError::Target),
            (parsed, Err(error)) => prop_assert_eq!(parsed, Parsed::Bad(error)),
            (parsed, _) => prop_assert!(false, "{:?}", parsed),
        }
    }

    #[test]
    fn the_first_line_is_judged_once(bytes in heads(), more in heads()) {
        let guess = sniff(&bytes);
        let is_named = guess == Sniffed::Name && bytes.contains(&b'\n');
        if is_named || matches!(guess, Sniffed::Http | Sniffed::Simple(_)) {
            let longer = [&bytes[..], &more].concat();
            prop_assert_eq!(sniff(&longer), guess);
        }
    }
}
