//! What a web site asks of its server beyond files: fields of its own, pages that stand for others, and
//! compressed siblings.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::time::Instant;

use crate::common::{
    Carafe, assert_same, count_lines, exchange, has_tool, root_with, run_carafe, shell, until,
};
use crate::proxied::Nginx;
use crate::talk::{Answer, Talk, age, ask, get, settle};
use rustix::process::Signal;
use tempfile::{NamedTempFile, TempDir};

/// The values of a field, which may stand several times.
fn values<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let lines = answer.head.lines().skip(1);
    let fields = lines.map(|line| line.split_once(": ").unwrap());
    let named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value).collect()
}

/// Two names share what is open, and may share what is kept, but not what is said of it.
#[test]
fn two_names_of_one_file_have_each_its_own_type() {
    let root = tempfile::tempdir().unwrap();
    for (index, length) in [10, 100_000].into_iter().enumerate() {
        let names = ["html", "js"].map(|extension| format!("{index}.{extension}"));
        std::fs::write(root.path().join(&names[0]), vec![b'x'; length]).unwrap();
        age(&root.path().join(&names[0]));
        std::fs::hard_link(root.path().join(&names[0]), root.path().join(&names[1])).unwrap();
    }
    let carafe = Carafe::serve(root.path(), &[]);
    settle(root.path());
    let mut talk = Talk::to(carafe.addr());
    for _ in 0..5 {
        for name in ["/0.html", "/0.js", "/1.html", "/1.js"] {
            let expected = if name.ends_with("js") {
                "text/javascript"
            } else {
                "text/html"
            };
            let answer = talk.get(name);
            let said = answer.field("content-type").unwrap_or_default();
            assert!(said.starts_with(expected), "{name}: {said}");
        }
    }
    carafe.stop_clean();
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

#[test]
fn of_several_other_sites_each_is_told_that_it_may_read() {
    let root = root_with(&[("a", "content")]);
    let flags =
        ["https://a.example", "http://b.example:1"].map(|origin| format!("--cors={origin}"));
    let carafe = Carafe::serve(root.path(), &[&flags[0], &flags[1], "--precompressed"]);
    let mut talk = Talk::to(carafe.addr());
    for (origin, allowed) in [
        (Some("https://a.example"), true),
        (Some("http://b.example:1"), true),
        (Some("http://b.example"), false),
        (Some("https://A.example"), false),
        (Some("null"), false),
        (None, false),
    ] {
        let line = origin.map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
        let allowed = origin.filter(|_| allowed);
        for (path, more, status, vary) in [
            ("/a", "", 200, &["Accept-Encoding", "Origin"][..]),
            (
                "/a",
                "Range: bytes=0-1\r\n",
                206,
                &["Accept-Encoding", "Origin"],
            ),
            ("/none", "", 404, &["Accept", "Origin"]),
        ] {
            let answer = talk.ask(&get(path, &format!("{line}{more}")));
            assert_eq!(answer.status, status);
            assert_eq!(
                answer.field("access-control-allow-origin"),
                allowed,
                "{origin:?}"
            );
            assert_eq!(answer.field("access-control-expose-headers"), Some("*"));
            assert_eq!(values(&answer, "vary"), vary, "{path}");
        }
        let preflight = format!(
            "OPTIONS /a HTTP/1.1\r\nHost: h\r\n{line}Access-Control-Request-Method: GET\r\n\r\n"
        );
        let answer = talk.ask(&preflight);
        assert_eq!(
            answer.field("access-control-allow-origin"),
            allowed,
            "{origin:?}"
        );
        assert_eq!(values(&answer, "vary"), ["Origin"]);
    }
    drop(talk);
    let head = ask(carafe.addr(), "GET / HTTP/9.9\r\n\r\n").head;
    assert!(head.contains("\r\nVary: Origin\r\n"), "{head}");
    carafe.stop();
}

// ---- pages ----

/// Says who asks, as browsers do.
const NAVIGATION: &str = "Accept: text/html,application/xhtml+xml;q=0.9\r\n";
const SCRIPT: &str = "Accept: */*\r\nSec-Fetch-Mode: cors\r\n";

#[test]
fn errors_have_pages_of_their_own() {
    let root = root_with(&[
        ("404.html", "<p>not here</p>"),
        ("errors/method.txt", "no"),
        ("a", "content"),
    ]);
    let flags = [
        "--error-page",
        "404=errors/method.txt",
        "--error-page",
        "405=/errors/method.txt",
        "--error-page",
        "404=404.html",
    ];
    let carafe = Carafe::serve(root.path(), &flags);
    settle(root.path());
    let mut talk = Talk::to(carafe.addr());
    // What it is for counts, not who asks; ranges and conditions are for what was asked for.
    for fields in [
        "",
        NAVIGATION,
        "Range: bytes=0-1\r\n",
        "If-None-Match: *\r\n",
    ] {
        let answer = talk.ask(&get("/none", fields));
        assert_eq!((answer.status, &*answer.text()), (404, "<p>not here</p>"));
        let kind = Some("text/html; charset=utf-8");
        assert_eq!(answer.field("content-type"), kind);
        for name in ["etag", "last-modified", "accept-ranges", "vary"] {
            assert_eq!(answer.field(name), None, "{name}");
        }
    }
    talk.say(get("/none", "").replace("GET", "HEAD"));
    let head = talk.head();
    assert_eq!(
        (head.status, head.field("content-length")),
        (404, Some("15"))
    );
    let answer = talk.ask(&get("/a", "").replace("GET", "PUT"));
    assert_eq!((answer.status, &*answer.text()), (405, "no"));
    assert_eq!(answer.field("allow"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(talk.ask(&get("/a", "If-Match: \"x\"\r\n")).status, 412);
    // By its own address it is a file like others.
    let answer = talk.get("/404.html");
    assert_eq!((answer.status, answer.field("etag").is_some()), (200, true));
    // Without it, this server's own.
    std::fs::remove_file(root.path().join("404.html")).unwrap();
    assert_eq!(talk.get("/none").text(), "404 Not Found\n");
    drop(talk);
    let log = carafe.stop();
    assert!(log.contains("refused: no such file"), "{log}");
}

#[test]
fn routes_of_a_script_bring_its_page() {
    let root = root_with(&[
        ("app/index.html", "<p>app</p>"),
        ("app/real.js", "script"),
        ("404.html", "<p>not here</p>"),
        ("folder/x", "x"),
    ]);
    let spa = ["--spa", "app/index.html", "--header-for", "app/*=X-App: 1"];
    let carafe = Carafe::serve(root.path(), &spa);
    settle(root.path());
    let mut talk = Talk::to(carafe.addr());
    let image = "Accept: image/*,*/*;q=0.8\r\n";
    let by_fetch = format!("{NAVIGATION}Sec-Fetch-Mode: cors\r\n");
    let by_address =
        format!("{NAVIGATION}Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n");
    for (path, fields, status) in [
        ("/users/7", NAVIGATION, 200),
        ("/users/7", &by_address, 200),
        ("/users/john.doe?x=1", NAVIGATION, 200),
        ("/users/7/", NAVIGATION, 200),
        ("/folder", NAVIGATION, 200),
        ("/folder/", NAVIGATION, 200),
        ("/", NAVIGATION, 200),
        ("/users/7", "", 404),
        ("/users/7", SCRIPT, 404),
        ("/users/7", &by_fetch, 404),
        ("/lost.png", image, 404),
        ("/%zz", NAVIGATION, 400),
    ] {
        let answer = talk.ask(&get(path, fields));
        assert_eq!(answer.status, status, "{path} {fields}");
        assert_eq!(answer.text() == "<p>app</p>", status == 200, "{path}");
        assert_eq!(answer.field("x-app").is_some(), status == 200);
        let varies = values(&answer, "vary").join(", ");
        assert_eq!(
            varies.contains("Sec-Fetch-Mode"),
            status != 400,
            "{path} {varies}"
        );
    }
    // What is there comes as it is, and what a script sends isn't answered with a page.
    let answer = talk.ask(&get("/app/real.js", NAVIGATION));
    assert_eq!((&*answer.text(), answer.field("vary")), ("script", None));
    let answer = talk.ask(&get("/users/7", NAVIGATION).replace("GET", "POST"));
    assert_eq!(answer.status, 405);
    // It has validators, which hold for every route.
    let etag = talk
        .ask(&get("/a/b", NAVIGATION))
        .field("etag")
        .unwrap()
        .to_owned();
    let again = format!("{NAVIGATION}If-None-Match: {etag}\r\n");
    assert_eq!(talk.ask(&get("/c/d", &again)).status, 304);
    drop(talk);
    carafe.stop();
    let flags = [&spa[..], &["--error-page", "404=404.html"]].concat();
    let carafe = Carafe::serve(root.path(), &flags);
    let mut talk = Talk::to(carafe.addr());
    let answer = talk.ask(&get("/users/7", SCRIPT));
    assert_eq!((answer.status, &*answer.text()), (404, "<p>not here</p>"));
    assert_eq!(answer.field("vary"), Some("Accept, Sec-Fetch-Mode"));
    assert_eq!(talk.ask(&get("/users/7", NAVIGATION)).text(), "<p>app</p>");
    drop(talk);
    carafe.stop();
}

#[test]
fn clean_paths_lead_to_pages_and_pages_to_clean_paths() {
    let root = root_with(&[
        ("x.html", "x"),
        ("index.html", "first"),
        ("d/index.html", "d"),
        ("d/a b.html", "a b"),
        ("d.html", "beside the folder"),
        ("both", "both"),
        ("both.html", "both, a page"),
        ("twice.html.html", "twice"),
        ("list.json", "{}"),
        ("e/f", "f"),
    ]);
    let carafe = Carafe::serve(root.path(), &["--clean-urls", "--listing"]);
    let mut talk = Talk::to(carafe.addr());
    // Each brings what it says, or leads there.
    for (path, expected) in [
        ("/x", Ok("x")),
        ("/x.html", Err("x")),
        ("/x.html?q=1&r=%20", Err("x?q=1&r=%20")),
        ("/", Ok("first")),
        ("/index.html", Err("./")),
        ("/index?q", Err("./?q")),
        ("/d/", Ok("d")),
        ("/d/index.html", Err("./")),
        ("/d", Ok("beside the folder")),
        ("/d.html", Err("d")),
        ("/d/a%20b", Ok("a b")),
        ("/d/a%20b.html", Err("a%20b")),
        ("/both", Ok("both")),
        ("/both.html", Ok("both, a page")),
        ("/twice.html", Ok("twice")),
        ("/twice.html.html", Err("twice.html")),
        ("/list.json", Ok("{}")),
        ("/e", Err("e/")),
        // From here no relative path leads to the same folder.
        ("//x.html", Ok("x")),
        ("/d%2fa%20b.html", Ok("a b")),
    ] {
        let answer = talk.get(path);
        match expected {
            Ok(text) => {
                assert_eq!((answer.status, &*answer.text()), (200, text), "{path}");
                let kind = answer.field("content-type").unwrap();
                let is_page = kind == "text/html; charset=utf-8";
                assert_eq!(is_page, !["both", "{}"].contains(&text), "{path} {kind}");
            }
            Err(location) => {
                assert_eq!(answer.status, 301, "{path}");
                assert_eq!(answer.field("location"), Some(location), "{path}");
            }
        }
    }
    for path in ["/none", "/x/", "/list", "/.html", "/d/.html", "/x.htm"] {
        assert_eq!(talk.get(path).status, 404, "{path}");
    }
    drop(talk);
    carafe.stop();
    let carafe = Carafe::serve(root.path(), &[]);
    let mut talk = Talk::to(carafe.addr());
    assert_eq!(
        (talk.get("/x").status, talk.get("/x.html").status),
        (404, 200)
    );
    drop(talk);
    carafe.stop();
}

/// What is missing is told before anything is bound; a type for the unknown is like the one of `*`.
#[test]
fn pages_must_be_there_when_the_server_starts() {
    let root = root_with(&[("page.html", "a page"), ("d/x", "x"), (".hidden", "h")]);
    for (flag, value, why) in [
        (
            "--spa",
            "none.html",
            "'none.html' won't do: it takes a file beneath ROOT (no such file)",
        ),
        (
            "--spa",
            "d",
            "'d' won't do: it takes a file beneath ROOT (not a regular file)",
        ),
        (
            "--spa",
            ".hidden",
            "'.hidden' won't do: it takes a file beneath ROOT (a component begins with a dot)",
        ),
        (
            "--error-page",
            "404=../x",
            "'../x' won't do: it takes a file beneath ROOT (a component is ..)",
        ),
    ] {
        let args = [
            OsStr::new("serve"),
            root.path().as_os_str(),
            flag.as_ref(),
            value.as_ref(),
        ];
        let output = run_carafe(&args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), &*stderr),
            (Some(2), &*format!("carafe: {flag}: {why}\n"))
        );
    }
    let carafe = Carafe::serve(
        root.path(),
        &["--default-type", "text/x-log", "--spa", "/page.html"],
    );
    let mut talk = Talk::to(carafe.addr());
    assert_eq!(
        talk.get("/d/x").field("content-type"),
        Some("text/x-log; charset=utf-8")
    );
    assert_eq!(
        talk.get("/page.html").field("content-type"),
        Some("text/html; charset=utf-8")
    );
    drop(talk);
    carafe.stop();
}

// ---- compressed siblings ----

/// What lies beside `page.html`, 300 bytes of text, in brotli, Zstandard and gzip.
pub(crate) const BR: &[u8] =
    b"\xa1\x58\x09\xc0\x6f\xa4\x74\xf3\x26\xaa\x32\xb4\x64\x03\x79\x8b\xd9\xe2\x00\xe0\x38";
const ZST: &[u8] =
    b"\x28\xb5\x2f\xfd\x64\x2c\x00\x6d\x00\x00\x30\x68\x65\x6c\x6c\x6f\x20\x01\x00\x23\x51\x4b\x11\
      \xdc\xdd\x7e\xcc";
const GZ: &[u8] =
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\x48\xcd\xc9\xc9\x57\xc8\x18\x25\x89\x20\x01\xc1\x48\
      \x42\x59\x2c\x01\x00\x00";

pub(crate) fn text() -> String {
    "hello ".repeat(50)
}

/// The text, with siblings and without; one sibling is older than its file, one has none.
fn site() -> TempDir {
    let text = text().into_bytes();
    let root = root_with(&[
        ("page.html", &text[..]),
        ("page.html.br", BR),
        ("page.html.zst", ZST),
        ("page.html.gz", GZ),
        ("d/index.html", &text),
        ("d/index.html.gz", GZ),
        ("alone.txt", &text),
        ("stale.txt", &text),
        ("stale.txt.gz", GZ),
        ("lost.txt.gz", GZ),
    ]);
    age(&root.path().join("stale.txt.gz"));
    root
}

fn ask_for(talk: &mut Talk, path: &str, codings: &str, fields: &str) -> Answer {
    let fields = match codings {
        "" => fields.to_owned(),
        codings => format!("Accept-Encoding: {codings}\r\n{fields}"),
    };
    talk.ask(&get(path, &fields))
}

const BROWSER: &str = "gzip, deflate, br, zstd";

#[test]
fn what_a_client_takes_is_sent() {
    let root = site();
    settle(root.path());
    let text = text().into_bytes();
    let flags = [
        "--precompressed",
        "--clean-urls",
        "--header-for",
        "*.html=X-Page: 1",
    ];
    let carafe = Carafe::serve(root.path(), &flags);
    let mut talk = Talk::to(carafe.addr());
    let (html, plain) = ("text/html; charset=utf-8", "text/plain; charset=utf-8");
    let rows = [
        ("/page", BROWSER, "br", BR, html),
        ("/page", "zstd, gzip", "zstd", ZST, html),
        ("/page", "gzip", "gzip", GZ, html),
        ("/page", "br;q=0.1, gzip;q=0.2", "gzip", GZ, html),
        ("/page", "*", "br", BR, html),
        ("/page", "", "", &*text, html),
        ("/page", "deflate", "", &text, html),
        ("/page", "identity;q=0, gzip", "gzip", GZ, html),
        ("/d/", BROWSER, "gzip", GZ, html),
        ("/d/", "br", "", &text, html),
        ("/alone.txt", BROWSER, "", &text, plain),
        ("/stale.txt", BROWSER, "", &text, plain),
        ("/page.html.gz", BROWSER, "", GZ, "application/gzip"),
    ];
    // What is asked for again comes from the cache.
    for _ in 0..4 {
        let mut tags = BTreeMap::new();
        for &(path, codings, coding, body, kind) in &rows {
            let answer = ask_for(&mut talk, path, codings, "");
            assert_same(&format!("{path} {codings}"), &answer.body, body);
            assert_eq!(answer.status, 200);
            let expected = Some(coding).filter(|coding| !coding.is_empty());
            assert_eq!(
                answer.field("content-encoding"),
                expected,
                "{path} {codings}"
            );
            assert_eq!(answer.field("content-type"), Some(kind));
            assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
            assert_eq!(answer.field("x-page").is_some(), kind == html);
            assert_eq!(answer.field("accept-ranges"), Some("bytes"));
            let tag = answer.field("etag").unwrap().to_owned();
            let known = tags.entry((path, coding)).or_insert_with(|| tag.clone());
            assert_eq!(*known, tag, "{path} {codings}");
        }
        let different: BTreeSet<_> = tags.values().collect();
        // The sibling has one tag under both of its addresses.
        assert_eq!(different.len(), tags.len() - 1);
    }
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn where_no_form_is_taken_or_none_is_asked_for() {
    let root = site();
    let text = text().into_bytes();
    let carafe = Carafe::serve(root.path(), &["--precompressed"]);
    let mut talk = Talk::to(carafe.addr());
    assert_eq!(ask_for(&mut talk, "/lost.txt", BROWSER, "").status, 404);
    // Without anything that is taken.
    for codings in ["identity;q=0", "*;q=0", "identity;q=0, br;q=0"] {
        let answer = ask_for(&mut talk, "/alone.txt", codings, "");
        assert_eq!(
            (answer.status, &*answer.text()),
            (406, "406 Not Acceptable\n")
        );
        assert_eq!(values(&answer, "vary"), ["Accept-Encoding", "Accept"]);
    }
    drop(talk);
    // Names know nothing of it, nor does who hasn't asked for it.
    assert_same(
        "by name",
        &exchange(carafe.addr(), b"page.html\n").unwrap(),
        &text,
    );
    carafe.stop();
    // Who has a descriptor for the file alone sends it as it is.
    let flags = ["--precompressed", "--open-files", "1", "--cache", "0"];
    let carafe = Carafe::serve(root.path(), &flags);
    let answer = ask_for(&mut Talk::to(carafe.addr()), "/page.html", BROWSER, "");
    assert_same("one descriptor", &answer.body, &text);
    carafe.stop();
    let carafe = Carafe::serve(root.path(), &[]);
    let mut talk = Talk::to(carafe.addr());
    let answer = ask_for(&mut talk, "/page.html", BROWSER, "");
    assert_same("without the flag", &answer.body, &text);
    assert_eq!(
        (answer.field("vary"), answer.field("content-encoding")),
        (None, None)
    );
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn conditions_and_ranges_are_for_what_is_sent() {
    let root = site();
    settle(root.path());
    let carafe = Carafe::serve(root.path(), &["--precompressed"]);
    let mut talk = Talk::to(carafe.addr());
    let mut ask = |codings: &str, fields: &str| ask_for(&mut talk, "/page.html", codings, fields);
    let tag = |answer: &Answer| answer.field("etag").unwrap().to_owned();
    let (own, br) = (tag(&ask("", "")), tag(&ask(BROWSER, "")));
    for (fields, codings, status) in [
        (format!("If-None-Match: {br}\r\n"), BROWSER, 304),
        (format!("If-None-Match: {own}\r\n"), BROWSER, 200),
        (format!("If-None-Match: {br}\r\n"), "", 200),
        (format!("If-None-Match: {own}\r\n"), "", 304),
        (format!("If-Match: {own}\r\n"), "br", 412),
        (format!("If-Match: {own}\r\n"), "", 200),
    ] {
        let answer = ask(codings, &fields);
        assert_eq!(answer.status, status, "{codings} {fields}");
        assert_eq!(values(&answer, "vary")[0], "Accept-Encoding");
        let is_coded = codings == BROWSER && status == 200;
        assert_eq!(answer.field("content-encoding"), is_coded.then_some("br"));
    }
    let part = "Range: bytes=2-5\r\n";
    let (same, other) = (
        format!("{part}If-Range: {br}\r\n"),
        format!("{part}If-Range: {own}\r\n"),
    );
    for fields in [part, &same] {
        let answer = ask("br", fields);
        assert_eq!((answer.status, &answer.body[..]), (206, &BR[2..6]));
        assert_eq!(answer.field("content-range"), Some("bytes 2-5/21"));
        assert_eq!(answer.field("content-encoding"), Some("br"));
        assert_eq!(answer.field("etag"), Some(&*br));
    }
    // Another form's tag is no ground for a part; several parts of a coded one come as a whole.
    for fields in [&*other, "Range: bytes=0-0,9-9\r\n"] {
        let answer = ask("br", fields);
        assert_eq!((answer.status, &answer.body[..]), (200, BR));
    }
    assert_eq!(ask("", "Range: bytes=0-0,9-9\r\n").status, 206);
    let answer = ask("br", "Range: bytes=21-\r\n");
    assert_eq!(
        (answer.status, answer.field("content-range")),
        (416, Some("bytes */21"))
    );
    let request = get("/page.html", "Accept-Encoding: zstd\r\n").replace("GET", "HEAD");
    talk.say(request);
    let head = talk.head();
    assert_eq!(head.field("content-encoding"), Some("zstd"));
    assert_eq!(head.field("content-length"), Some("27"));
    drop(talk);
    carafe.stop();
}

/// Each request is sent after the change, and sees it, however warm the cache is.
#[test]
fn whoever_asks_after_a_sibling_changed_sees_the_change() {
    let root = root_with(&[("a.txt", "content")]);
    let (file, sibling) = (root.path().join("a.txt"), root.path().join("a.txt.gz"));
    let carafe = Carafe::serve(root.path(), &["--precompressed"]);
    let mut talk = Talk::to(carafe.addr());
    for round in 0..60 {
        for asks in 0..=round % 6 {
            let answer = ask_for(&mut talk, "/a.txt", BROWSER, "");
            assert_eq!(answer.text(), "content", "{round} {asks}");
        }
        std::fs::write(&sibling, "as if it were gzip").unwrap();
        for asks in 0..=round % 5 {
            let answer = ask_for(&mut talk, "/a.txt", BROWSER, "");
            assert_eq!(answer.text(), "as if it were gzip", "{round} {asks}");
        }
        if round % 2 == 0 {
            std::fs::remove_file(&sibling).unwrap();
        } else {
            age(&sibling);
        }
    }
    std::fs::write(&file, "other").unwrap();
    assert_eq!(ask_for(&mut talk, "/a.txt", BROWSER, "").text(), "other");
    drop(talk);
    carafe.stop();
}

#[test]
fn a_warm_answer_with_a_sibling_costs_no_call_more() {
    const ASKED: usize = 400;
    if !has_tool("strace") {
        return;
    }
    let root = site();
    settle(root.path());
    let calls = NamedTempFile::new().unwrap();
    let options = [
        "-e",
        "trace=openat2,read,recvfrom,sendto,preadv2,statx,inotify_add_watch",
    ];
    let flags = ["-q", "--precompressed"];
    let carafe = Carafe::serve_traced(root.path(), calls.path(), &options, &flags);
    let mut talk = Talk::to(carafe.addr());
    // Two codings aren't there, and the third is.
    let mut ask = || assert_eq!(ask_for(&mut talk, "/d/index.html", BROWSER, "").body, GZ);
    let count = |call: &str| {
        let trace = std::fs::read_to_string(calls.path()).unwrap();
        trace.lines().filter(|line| line.starts_with(call)).count()
    };
    until("all of it is kept", || {
        let before = count("openat2(");
        (0..20).for_each(|_| ask());
        count("openat2(") == before
    });
    let names = ["openat2(", "preadv2(", "recvfrom(", "sendto(", "read("];
    let before = names.map(count);
    let began = Instant::now();
    (0..ASKED).for_each(|_| ask());
    let seconds = began.elapsed().as_secs() as usize + 1;
    let mut costs = names.map(count);
    for (cost, before) in costs.iter_mut().zip(before) {
        *cost -= before;
    }
    let [opened, read, received, sent, inotify] = costs;
    assert_eq!((sent, received >= ASKED), (ASKED, true));
    assert!(
        inotify <= ASKED + seconds,
        "{inotify}: one look for both names"
    );
    // Once a second the file and its three siblings are looked at anew, and two are seen to be missing.
    assert!(
        opened <= 6 * seconds && read <= 2 * seconds,
        "{costs:?} in {seconds} s"
    );
    drop(talk);
    carafe.signal(Signal::TERM);
    assert_eq!(carafe.wait().0.code(), Some(0));
}

#[test]
fn clients_decode_what_they_asked_for() {
    if !has_tool("curl") || !has_tool("wget") {
        return;
    }
    let root = site();
    let carafe = Carafe::serve(root.path(), &["--precompressed"]);
    let url = format!("http://{}/page.html", carafe.addr());
    let run = |script: &str| String::from_utf8(shell(script, &[url.as_ref()])).unwrap();
    // A curl that lacks a coding says that it can't decode it.
    let features = run("curl -V");
    for (coding, feature, bytes) in [
        ("br", "brotli", 21),
        ("zstd", "zstd", 27),
        ("gzip", "libz", 30),
    ] {
        if !features.contains(feature) {
            continue;
        }
        let ask = format!("-sSf --compressed -H 'Accept-Encoding: {coding}'");
        assert_eq!(run(&format!("curl {ask} \"$1\"")), text(), "{coding}");
        let size = run(&format!(
            "curl {ask} -o /dev/null -w '%{{size_download}}' \"$1\""
        ));
        assert_eq!(size, bytes.to_string(), "{coding}");
    }
    assert_eq!(run("curl -sSf \"$1\""), text());
    assert_eq!(run("wget -qO- \"$1\""), text());
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("page");
    let args = ["get", "-o"].map(OsStr::new);
    let args = [args[0], args[1], output.as_os_str(), url.as_ref()];
    assert!(run_carafe(&args).status.success());
    assert_eq!(std::fs::read(&output).unwrap(), text().as_bytes());
    carafe.stop();
}

/// A cache in front keeps a form for each kind of client, and asks again for each.
#[test]
fn a_cache_in_front_keeps_the_forms_apart() {
    if !has_tool("nginx") {
        return;
    }
    let root = site();
    settle(root.path());
    let flags = ["--precompressed", "--cache-control", "*=max-age=1000"];
    let carafe = Carafe::serve(root.path(), &flags);
    let nginx = Nginx::caching(&carafe);
    let mut talk = Talk::to(nginx.addr());
    let text = text();
    for round in ["MISS", "HIT"] {
        for (codings, body) in [(BROWSER, BR), ("gzip", GZ), ("", text.as_bytes())] {
            let answer = ask_for(&mut talk, "/files/page.html", codings, "");
            assert_same(&format!("{codings} {round}"), &answer.body, body);
            assert_eq!(answer.field("x-cache"), Some(round), "{codings}");
        }
    }
    drop(talk);
    drop(nginx);
    carafe.stop();
}
