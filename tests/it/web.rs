//! What a web site asks of its server beyond files: fields of its own.

use crate::common::{Carafe, count_lines, root_with};
use crate::talk::{Answer, Talk, ask, get, settle};

/// The values of a field, which may stand several times.
fn values<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let lines = answer.head.lines().skip(1);
    let fields = lines.map(|line| line.split_once(": ").unwrap());
    let named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value).collect()
}

/// Which answers have which fields, warm and cold, by every way to an answer.
#[test]
fn fields_are_in_the_answers_that_they_are_for() {
    let root = root_with(&[
        ("a.js", "script"),
        ("d/a.js", "script"),
        ("d/index.html", "page"),
        ("plain", "plain"),
    ]);
    let flags = [
        "--listing",
        "--header",
        "X-All: 1",
        "--header",
        "X-Content-Type-Options: nosniff",
        "--header",
        "Expires: 0",
        "--header-for",
        "*.js=X-Script: 1",
        "--header-for",
        "d/*=X-All: d",
        "--cache-control",
        "*=no-cache",
        "--cache-control",
        "*.js=max-age=60",
    ];
    let carafe = Carafe::serve(root.path(), &flags);
    settle(root.path());
    let mut talk = Talk::to(carafe.addr());
    let etag = talk.get("/a.js").field("etag").unwrap().to_owned();
    let (same, other) = (
        format!("If-None-Match: {etag}\r\n"),
        "If-Match: \"x\"\r\n".to_owned(),
    );
    let part = |range: &str| format!("Range: bytes={range}\r\n");
    // X-All, X-Script, Cache-Control.
    let script = ["1", "1", "max-age=60"];
    let rows = [
        ("GET /a.js", String::new(), 200, script),
        ("HEAD /a.js", String::new(), 200, script),
        ("GET /a.js", same, 304, script),
        ("GET /a.js", part("0-1"), 206, script),
        ("GET /a.js", part("0-0,3-3"), 206, script),
        ("GET /a.js", part("9-"), 416, ["1", "", ""]),
        ("GET /a.js", other, 412, ["1", "", ""]),
        ("GET /plain", String::new(), 200, ["1", "", "no-cache"]),
        ("GET /d/a.js", String::new(), 200, ["d", "1", "max-age=60"]),
        ("GET /d/", String::new(), 200, ["d", "", "no-cache"]),
        ("GET /d", String::new(), 301, ["1", "", ""]),
        ("GET /", String::new(), 200, ["1", "", ""]),
        ("GET /none.js", String::new(), 404, ["1", "", ""]),
        ("GET /%zz", String::new(), 400, ["1", "", ""]),
        ("OPTIONS /a.js", String::new(), 204, ["1", "", ""]),
        ("PUT /a.js", String::new(), 405, ["1", "", ""]),
    ];
    // Files that are asked for again come from the cache.
    for _ in 0..3 {
        for (line, fields, status, expected) in &rows {
            let request = get("/", fields).replace("GET /", line);
            talk.say(request);
            let answer = if line.starts_with("HEAD") {
                talk.head()
            } else {
                talk.answer()
            };
            assert_eq!(answer.status, *status, "{line} {fields}");
            let found = ["x-all", "x-script", "cache-control"];
            let found = found.map(|name| answer.field(name).unwrap_or_default());
            assert_eq!(found, *expected, "{line} {fields}");
            assert_eq!(values(&answer, "x-content-type-options"), ["nosniff"]);
            let is_of_file = !expected[2].is_empty();
            assert_eq!(answer.field("expires"), is_of_file.then_some("0"), "{line}");
        }
    }
    drop(talk);
    let answer = ask(carafe.addr(), "GET / HTTP/9.9\r\n\r\n");
    assert_eq!((answer.status, answer.field("x-all")), (505, Some("1")));
    carafe.stop();
}

#[test]
fn pages_of_other_sites_may_read_what_they_are_let() {
    let root = root_with(&[("a", "content")]);
    for (flag, origin) in [
        ("--cors", "*"),
        ("--cors=https://app.example", "https://app.example"),
    ] {
        let carafe = Carafe::serve(root.path(), &[flag]);
        let mut talk = Talk::to(carafe.addr());
        let preflight = "OPTIONS /a HTTP/1.1\r\nHost: h\r\nOrigin: https://app.example\r\n\
                         Access-Control-Request-Method: GET\r\n\
                         Access-Control-Request-Headers: range,x-own\r\n\r\n";
        let answer = talk.ask(preflight);
        assert_eq!(answer.status, 204);
        for (name, value) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "GET, HEAD, OPTIONS"),
            ("access-control-allow-headers", "*, Authorization"),
            ("access-control-max-age", "7200"),
        ] {
            assert_eq!(answer.field(name), Some(value), "{flag}");
        }
        for (path, fields, status) in [
            ("/a", "Range: bytes=0-1\r\n", 206),
            ("/a", "Range: bytes=9-\r\n", 416),
            ("/none", "", 404),
        ] {
            let answer = talk.ask(&get(path, fields));
            assert_eq!(answer.status, status);
            assert_eq!(answer.field("access-control-allow-origin"), Some(origin));
            assert_eq!(answer.field("access-control-expose-headers"), Some("*"));
            assert_eq!(answer.field("access-control-allow-methods"), None);
        }
        drop(talk);
        carafe.stop_clean();
    }
    let carafe = Carafe::serve(root.path(), &[]);
    let head = ask(carafe.addr(), &get("/a", "Origin: https://app.example\r\n")).head;
    assert_eq!(count_lines(&head, "Access-Control-"), 0, "{head}");
    carafe.stop_clean();
}
