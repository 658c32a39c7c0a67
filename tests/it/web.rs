//! What a web site asks of its server beyond files: fields of its own, and pages that stand for others.

use std::ffi::OsStr;

use crate::common::{Carafe, count_lines, root_with, run_carafe};
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
