//! HTTP on the shared port, by the byte: what is answered, with what status, and what is not
//! answered at all.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::common::{
    Carafe, ENDED, PATIENT, assert_same, count_lines, exchange, exchange_half_closed, pattern,
    root_with, skip,
};
use crate::talk::{Answer, Talk, age_all, ask, get};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

const PAGE: &str = "<p>the index</p>\n";

/// Files of all kinds, and their server.
fn server(flags: &[&str]) -> (TempDir, Carafe) {
    let root = root_with(&[
        ("www/a.txt", "content of a\n"),
        ("www/empty", ""),
        ("www/with-index/index.html", PAGE),
        ("www/with-index/home.txt", "home\n"),
        ("www/without/x", "x\n"),
        ("www/.hidden", "secret\n"),
        ("www/.well-known/security.txt", "well known\n"),
        ("www/.well-known/.hidden", "secret\n"),
        ("www/without/.well-known/x", "secret\n"),
        ("www/without/.hidden", "secret\n"),
        ("www/接 收%.txt", "odd name\n"),
        ("www/GET", "a file named GET\n"),
        ("www/GETx", "a file named GETx\n"),
        ("www/HEAD", "a file named HEAD\n"),
        ("www/GET it", "a file named GET it\n"),
        ("outside", "outside\n"),
    ]);
    let www = root.path().join("www");
    age_all(&www);
    symlink(root.path().join("outside"), www.join("absolute")).unwrap();
    symlink("../outside", www.join("climbing")).unwrap();
    symlink("a.txt", www.join("inside")).unwrap();
    mknodat(CWD, www.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let carafe = Carafe::serve(&www, flags);
    (root, carafe)
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.field("allow")
}

#[test]
fn methods() {
    let (root, carafe) = server(&[]);
    crate::talk::settle(root.path());
    let mut talk = Talk::to(carafe.addr());
    let answer = talk.get("/a.txt");
    assert_eq!((answer.status, &*answer.text()), (200, "content of a\n"));
    assert_eq!(answer.field("accept-ranges"), Some("bytes"));
    let changed = crate::talk::changed(&root.path().join("www/a.txt"));
    assert_eq!(answer.field("last-modified"), Some(&*changed));
    assert!(answer.field("date").unwrap().ends_with(" GMT"));
    assert!(answer.field("connection").is_none());

    // HEAD is GET without the body: on the same connection, the next answer follows its head.
    talk.say("HEAD /a.txt HTTP/1.1\r\nHost: h\r\n\r\n");
    let head = talk.head();
    let undated = |answer: &Answer| crate::talk::without_dates(answer.head.as_bytes());
    assert_eq!(undated(&head), undated(&answer));

    for target in ["*", "/a.txt", "/missing", "http://h"] {
        let answer = talk.ask(&format!("OPTIONS {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(answer.status, 204, "{target}");
        assert_eq!(allowed(&answer), Some("GET, HEAD, OPTIONS"));
    }
    for method in ["POST", "PUT", "DELETE", "TRACE", "PATCH"] {
        let answer = talk.ask(&format!("{method} /a.txt HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(allowed(&answer), Some("GET, HEAD, OPTIONS"));
    }
    let answer = talk.ask("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n");
    assert_eq!(answer.status, 405);
    for method in ["BREW", "get", "GETx", "!"] {
        let answer = talk.ask(&format!("{method} /a.txt HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(answer.status, 501, "{method}");
        assert_eq!(answer.text(), "501 Not Implemented\n");
        let first = ask(
            carafe.addr(),
            &format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n"),
        );
        assert_eq!(first.status, 501, "{method} as the first line");
    }
    carafe.stop_clean();
}

#[test]
fn what_is_not_served_is_missing() {
    let (_root, carafe) = server(&[]);
    let mut talk = Talk::to(carafe.addr());
    for path in [
        "/missing",
        "/.hidden",
        "/without/.hidden",
        "/%2ehidden",
        "/../outside",
        "/%2e%2e/outside",
        "/..%2foutside",
        "/without/../../a.txt",
        "/a.txt/../.hidden",
        "/.well-known/.hidden",
        "/without/.well-known/x",
        "/.well-known",
        "/.well-known/",
        "/.well-knownx",
        "/absolute",
        "/climbing",
        "/fifo",
        "/a.txt/",
        "/a.txt/x",
        "/without",
        "/without/",
        "/",
        "/接",
        "/a.txt%20",
        "/a.txt%0a",
        &format!("/{}", "x".repeat(300)),
        &format!("/{}", "x/".repeat(3000)),
    ] {
        let answer = talk.get(path);
        let text = answer.text();
        let first = text.lines().next();
        assert_eq!((answer.status, first), (404, Some("404 Not Found")));
        // What to do about it is the operator's.
        assert_eq!(text.contains("--listing"), path == "/", "{text}");
        assert!(answer.field("etag").is_none() && answer.field("last-modified").is_none());
    }
    for path in ["/%", "/%0", "/%zz", "/a.txt%00", "/%00"] {
        assert_eq!(talk.get(path).status, 400, "{path}");
    }
    for (path, expected) in [
        ("/inside", "content of a\n"),
        ("//a.txt", "content of a\n"),
        ("/%61%2E%74xt?a=b", "content of a\n"),
        ("/%E6%8E%A5%20%e6%94%b6%25.txt", "odd name\n"),
        ("/接%20收%25.txt", "odd name\n"),
        ("/without//x", "x\n"),
        ("/./a.txt", "content of a\n"),
        ("/without/../a.txt", "content of a\n"),
        ("/no/%2e%2e/%2e/a.txt", "content of a\n"),
        ("/.hidden/../a.txt", "content of a\n"),
        ("/.well-known/security.txt", "well known\n"),
        ("/without/../.well-known/./security.txt", "well known\n"),
        ("/without%2Fx", "x\n"),
        ("http://other.example:1/a.txt?q", "content of a\n"),
        ("HTTP://h/without/x", "x\n"),
    ] {
        let answer = talk.get(path);
        assert_eq!((answer.status, &*answer.text()), (200, expected), "{path}");
    }
    carafe.stop_clean();
}

/// Browsers get a page, others a line; to both it has its length.
#[test]
fn an_error_is_read_by_who_asked() {
    let (_root, carafe) = server(&[]);
    let mut talk = Talk::to(carafe.addr());
    let browser = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    for (path, links) in [
        ("/", None),
        ("/missing", Some("./")),
        ("/a/b/%3Cb%3E/x", Some("../../../")),
        ("/with-index", Some("./")),
        ("/a.txt/x", Some("../")),
    ] {
        for (accept, is_page) in [(browser, true), ("", false), ("Accept: */*\r\n", false)] {
            let answer = talk.ask(&get(path, accept));
            let content_type = answer.field("content-type").unwrap();
            assert_eq!(content_type.starts_with("text/html"), is_page, "{path}");
            assert_eq!(answer.field("vary"), Some("Accept"));
            let text = answer.text();
            assert!(!text.contains("<b>") && !text.contains("<script"));
            if is_page {
                let link = links.map(|href| format!("<a href=\"{href}\">"));
                assert_eq!(text.contains("<a "), links.is_some());
                assert!(text.contains(&link.unwrap_or_default()), "{path}: {text}");
            } else {
                assert!(text.starts_with(&answer.head[9..12]), "{text}");
            }
            let head = get(path, accept).replacen("GET", "HEAD", 1);
            talk.say(head);
            assert_eq!(
                talk.head().field("content-length"),
                answer.field("content-length")
            );
        }
    }
    let page = ask(
        carafe.addr(),
        &format!("DELETE / HTTP/1.1\r\nHost: h\r\n{browser}\r\n"),
    );
    assert!(page.status == 405 && page.text().contains("gives out files"));
    carafe.stop_clean();
}

#[test]
fn folders_and_their_index() {
    let (_root, carafe) = server(&[]);
    let mut talk = Talk::to(carafe.addr());
    for (path, location) in [
        ("/with-index", "with-index/"),
        ("/with-index?a=b&c", "with-index/?a=b&c"),
        ("//with-index", "../with-index/"),
    ] {
        let answer = talk.get(path);
        assert_eq!(answer.status, 301, "{path}");
        assert_eq!(answer.field("location"), Some(location));
    }
    for path in ["/with-index/", "//with-index//", "/with-index/index.html"] {
        let answer = talk.get(path);
        assert_eq!((answer.status, &*answer.text()), (200, PAGE), "{path}");
    }
    carafe.stop_clean();

    let (_root, carafe) = server(&["--index", "home.txt"]);
    assert_eq!(
        ask(carafe.addr(), &get("/with-index/", "")).text(),
        "home\n"
    );
    carafe.stop_clean();
    let (_root, carafe) = server(&["--index", ""]);
    assert_eq!(ask(carafe.addr(), &get("/with-index/", "")).status, 404);
    carafe.stop_clean();
}

#[test]
fn what_would_not_be_shown_is_not_told() {
    // An index that can't be served: a link that leads out, as good as one without permission.
    let prepare = |root: &TempDir| {
        fs::create_dir(root.path().join("www/covered")).unwrap();
        symlink("../../outside", root.path().join("www/covered/index.html")).unwrap();
        fs::create_dir_all(root.path().join("www/odd/index.html")).unwrap();
    };
    for (flags, rows) in [
        (
            &[][..],
            [
                ("/without", 404),
                ("/covered", 404),
                ("/odd", 404),
                ("/with-index", 301),
            ],
        ),
        (
            &["--listing"],
            [
                ("/without", 301),
                ("/covered", 404),
                ("/odd", 301),
                ("/with-index", 301),
            ],
        ),
        (
            &["--listing", "--index", ""],
            [
                ("/without", 301),
                ("/covered", 301),
                ("/odd", 301),
                ("/with-index", 301),
            ],
        ),
        (
            &["--index", ""],
            [
                ("/without", 404),
                ("/covered", 404),
                ("/odd", 404),
                ("/with-index", 404),
            ],
        ),
    ] {
        let (root, carafe) = server(flags);
        prepare(&root);
        let mut talk = Talk::to(carafe.addr());
        for (path, status) in rows {
            assert_eq!(talk.get(path).status, status, "{path} {flags:?}");
            let shown = if status == 404 { 404 } else { 200 };
            assert_eq!(
                talk.get(&format!("{path}/")).status,
                shown,
                "{path}/ {flags:?}"
            );
        }
        drop(talk);
        carafe.stop_clean();
    }
}

#[test]
fn a_selector_ends_at_its_tab_if_nothing_has_that_name() {
    let (root, carafe) = server(&["--listing"]);
    fs::write(root.path().join("www/with\ttab"), "a tab\n").unwrap();
    fs::create_dir(root.path().join("www/folder\t$")).unwrap();
    let menu = |name: &str| exchange(carafe.addr(), format!("{name}\r\n").as_bytes()).unwrap();
    let text = |name: &str| String::from_utf8(menu(name)).unwrap();
    // Gopher+, and search terms.
    assert_eq!(text("a.txt\t$"), "content of a\n");
    assert_eq!(text("/a.txt\t+\t1"), "content of a\n");
    assert_eq!(text("a.txt\tsearch terms"), "content of a\n");
    assert_eq!(text("GET\t$"), "a file named GET\n");
    assert_eq!(text("with\ttab"), "a tab\n");
    assert_eq!(text("with\ttab\t$"), "");
    assert_eq!(text("missing\t$"), "");
    assert_eq!(text(".hidden\t$"), "");
    let top = text("/");
    assert!(
        top.contains("0a.txt\ta.txt\t") || top.contains("0a.txt\t/a.txt\t"),
        "{top}"
    );
    assert_eq!(text("\tterms"), top);
    assert_eq!(text("./without/..\tterms"), top);
    // Gopher+ asks for information on the items; its clients take no menu for it.
    let plus = |menu: &str| {
        let items = menu.strip_suffix(".\r\n").unwrap().lines();
        let items: String = items.map(|item| format!("+INFO: {item}\r\n")).collect();
        format!("+-1\r\n{items}.\r\n")
    };
    assert_eq!(text("\t$"), plus(&top));
    assert_eq!(text("/\t$"), plus(&top));
    assert_eq!(text("without\t$"), plus(&text("without")));
    assert!(text("without/\tterms").starts_with("9x\t"));
    assert_eq!(text("folder\t$"), ".\r\n", "it has that name");
    carafe.stop_clean();
}

#[test]
fn menus_name_the_address_that_each_client_has_connected_to_or_the_one_given() {
    let root = root_with(&[("a.txt", "content of a\n")]);
    let on_all_addresses = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command.arg("serve").arg(root.path());
        command.args(["-p", "0", "--listing"]).args(flags);
        Carafe::start(command)
    };
    let carafe = on_all_addresses(&[]);
    let port = carafe.addr().port();
    let mut hosts = vec!["127.0.0.1", "127.0.0.2"];
    match TcpStream::connect((Ipv6Addr::LOCALHOST, port)) {
        Ok(_) => hosts.push("::1"),
        Err(_) => skip("ipv6", "there is no ::1 here"),
    }
    // Together, so that lists might be shared.
    let asked = hosts.iter().map(|host| {
        let mut talk = Talk::to(SocketAddr::new(host.parse().unwrap(), port));
        talk.say("/\n");
        (host, talk)
    });
    for (host, mut talk) in asked.collect::<Vec<_>>() {
        let menu = String::from_utf8(talk.rest()).unwrap();
        assert_eq!(menu, format!("0a.txt\t/a.txt\t{host}\t{port}\r\n.\r\n"));
    }
    carafe.stop_clean();
    let carafe = on_all_addresses(&["--gopher-host", "files.example:70"]);
    let menu = exchange_half_closed((Ipv4Addr::LOCALHOST, carafe.addr().port()).into(), b"/");
    let menu = String::from_utf8(menu.unwrap()).unwrap();
    assert_eq!(menu, "0a.txt\t/a.txt\tfiles.example\t70\r\n.\r\n");
    carafe.stop_clean();
}

/// A selector can't be escaped, so what needs it has none.
#[test]
fn no_menu_carries_a_control_character() {
    let mut files = vec!["plain".to_owned(), "\u{1b}[2Jfolder/x".to_owned()];
    for control in ('\0'..='\u{9f}').filter(|c| c.is_control()) {
        if control != '\0' {
            files.push(format!("d/a{control}b"));
        }
    }
    files.push("d/plain".to_owned());
    let files: Vec<_> = files.iter().map(|name| (name, "content")).collect();
    let root = root_with(&files);
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    let (host, port) = (carafe.addr().ip(), carafe.addr().port());
    for (selector, expected) in [
        (
            "/\n",
            format!("1d\t/d/\t{host}\t{port}\r\n9plain\t/plain\t{host}\t{port}\r\n.\r\n"),
        ),
        (
            "/d/\n",
            format!("9plain\t/d/plain\t{host}\t{port}\r\n.\r\n"),
        ),
        (
            "/d\t$\n",
            format!("+-1\r\n+INFO: 9plain\t/d/plain\t{host}\t{port}\r\n.\r\n"),
        ),
        ("/\u{1b}[2Jfolder/\n", ".\r\n".to_owned()),
    ] {
        let menu = exchange(carafe.addr(), selector.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(menu).unwrap(), expected, "{selector:?}");
    }
    carafe.stop_clean();
}

#[test]
fn browsers_guess_no_type_of_the_servers_own_pages() {
    let (_root, carafe) = server(&["--listing"]);
    for (path, accept, status, expected) in [
        ("/", "text/html", 200, Some("nosniff")),
        ("/", "application/json", 200, Some("nosniff")),
        ("/", "*/*", 200, Some("nosniff")),
        ("/missing", "text/html", 404, Some("nosniff")),
        ("/missing", "*/*", 404, Some("nosniff")),
        ("/%zz", "text/html", 400, Some("nosniff")),
        ("/a.txt", "text/html", 200, None),
        ("/with-index/", "text/html", 200, None),
    ] {
        let request = get(path, &format!("Accept: {accept}\r\n"));
        let answer = ask(carafe.addr(), &request);
        let got = (answer.status, answer.field("x-content-type-options"));
        assert_eq!(got, (status, expected), "{path} {accept}");
    }
    carafe.stop_clean();
}

#[test]
fn names_and_http_0_9_beside() {
    let (_root, carafe) = server(&PATIENT);
    for (request, expected) in [
        ("GET /a.txt\n", "content of a\n"),
        ("GET /a.txt\r\n", "content of a\n"),
        ("GET /%61.txt\n", "content of a\n"),
        ("GET /missing\n", ""),
        ("GET /.hidden\n", ""),
        ("GET /with-index/\n", ""),
        ("GET it\n", "a file named GET it\n"),
        ("GET\n", "a file named GET\n"),
        ("GETx\n", "a file named GETx\n"),
        ("HEAD\r\n", "a file named HEAD\n"),
        ("/a.txt\n", "content of a\n"),
        ("GET x y\n", ""),
        ("\r\na.txt\n", ""),
        ("\r\nGET /a.txt\n", ""),
        // Served as they stand: they name files and are no method with its space.
        ("GET", "a file named GET\n"),
        ("GETx", "a file named GETx\n"),
        ("HEAD", "a file named HEAD\n"),
    ] {
        let got = exchange(carafe.addr(), request.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), expected, "{request:?}");
    }
    // A method and its space are left to LF and FIN.
    let mut talk = Talk::to(carafe.addr());
    talk.say_and_see_read("GET it");
    talk.waits();
    talk.say("\n");
    assert_eq!(talk.rest(), b"a file named GET it\n");
    drop(talk);
    let got = exchange_half_closed(carafe.addr(), b"GET it").unwrap();
    assert_eq!(got, b"a file named GET it\n");
    // A later request on a connection is HTTP, whatever it looks like.
    let mut talk = Talk::to(carafe.addr());
    assert_eq!(talk.get("/a.txt").status, 200);
    assert_eq!(talk.ask("a.txt\n").status, 400);
    talk.ends();
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn whatever_only_a_request_line_can_be_is_answered() {
    let (_root, carafe) = server(&PATIENT);
    for (line, status) in [
        ("GET /a.txt HTTP/1.2", 200),
        ("GET /a.txt HTTP/1.9", 200),
        ("GET http://h/a.txt HTTP/1.2", 200),
        ("OPTIONS * HTTP/1.3", 204),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/9.9", 505),
        ("GET / HTTP/0.9", 505),
        ("PRI * HTTP/2.0", 505),
        ("BREW /pot HTTP/3.0", 505),
        ("CONNECT h:443 HTTP/2.0", 505),
        ("GET /a.txt HTTP/1.1 ", 400),
        ("GET /a.txt HTTP/1.1\t", 400),
        ("GET /a.txt HTTP/1.1\r", 400),
        ("GET /a.txt ", 400),
        ("GET  /a.txt HTTP/1.1", 400),
        ("GET /a.txt\tHTTP/1.1", 400),
        ("GET\t/a.txt HTTP/1.1", 400),
        ("GET /a.txt http/1.1", 400),
        ("get /a.txt http/1.1", 400),
        ("GET /a.txt FTP/1.1", 400),
        ("GET /a b.txt HTTP/1.1", 400),
        ("GET https://h/a.txt ICY", 400),
        ("a.txt HTTP/1.2", 400),
    ] {
        // As the first line, and as a later one; with an empty line before it, and without.
        for before in ["", "\r\n", "\n\r\n"] {
            let mut later = Talk::to(carafe.addr());
            assert_eq!(later.get("/a.txt").status, 200);
            for mut talk in [Talk::to(carafe.addr()), later] {
                let answer = talk.ask(&format!("{before}{line}\r\nHost: h\r\n\r\n"));
                let is_last = status >= 400;
                let seen = (answer.status, answer.is_last());
                assert_eq!(seen, (status, is_last), "{before:?} {line:?}");
                if is_last {
                    talk.ends()
                } else {
                    assert_eq!(talk.get("/a.txt").status, 200)
                }
            }
        }
    }
    carafe.stop_clean();
}

#[test]
fn empty_lines_are_a_name_if_no_request_line_follows() {
    let patient = ["--listing", "--request-timeout", "60s", "--name-gap", "5s"];
    let (_root, carafe) = server(&patient);
    let menu = exchange_half_closed(carafe.addr(), b"\r\n").unwrap();
    assert!(menu.starts_with(b"1"), "{}", menu.escape_ascii());
    // So it is when nothing more comes, whatever else begins, and when there are too many of them.
    for request in ["\r\n", "\n\r\n", "\r\nx", "\r\nx\r\n", "\n\n\n\n\n"] {
        let got = exchange(carafe.addr(), request.as_bytes()).unwrap();
        assert_eq!(got, menu, "{request:?}");
    }
    // A method behind it has all the time that a request has.
    let mut talk = Talk::to(carafe.addr());
    talk.say_and_see_read("\r\nGET ");
    talk.say("/a.txt HTTP/1.0\r\n\r\n");
    assert_eq!(talk.answer().status, 200);
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn versions_and_connections() {
    let (_root, carafe) = server(&[]);
    let rows = [
        ("1.1", "", None),
        ("1.1", "Connection: close\r\n", Some("close")),
        ("1.1", "Connection: x, CLOSE\r\n", Some("close")),
        ("1.1", "Connection: keep-alive\r\n", None),
        ("1.0", "", Some("close")),
        ("1.0", "Connection: keep-alive\r\n", Some("keep-alive")),
        ("1.0", "Connection: Keep-Alive\r\n", Some("keep-alive")),
        ("1.0", "Connection: keep-alive, close\r\n", Some("close")),
    ];
    for (version, fields, connection) in rows {
        let request = format!("GET /a.txt HTTP/{version}\r\nHost: h\r\n{fields}\r\n");
        let mut talk = Talk::to(carafe.addr());
        let answer = talk.ask(&request);
        assert_eq!(answer.field("connection"), connection, "{version} {fields}");
        assert_eq!(answer.body, b"content of a\n");
        match connection {
            Some("close") => talk.ends(),
            _ => assert_eq!(talk.ask(&request).body, b"content of a\n"),
        }
    }
    carafe.stop_clean();
}

#[test]
fn hosts() {
    let (_root, carafe) = server(&[]);
    for (request, status) in [
        ("GET /a.txt HTTP/1.1\r\n\r\n", 400),
        ("GET /a.txt HTTP/1.0\r\n\r\n", 200),
        ("GET /a.txt HTTP/1.1\r\nHost:\r\n\r\n", 200),
        ("GET /a.txt HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
        ("GET /a.txt HTTP/1.0\r\nHost: h\r\nhost: i\r\n\r\n", 400),
        ("GET /a.txt HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET /a.txt HTTP/1.1\r\nHost: u@h\r\n\r\n", 400),
        ("GET /a.txt HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200),
        ("GET http://h/a.txt HTTP/1.1\r\n\r\n", 400),
        ("GET http://h/a.txt HTTP/1.1\r\nHost: i\r\n\r\n", 200),
        ("GET https://h/a.txt HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET a.txt HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ] {
        let answer = ask(carafe.addr(), request);
        assert_eq!(answer.status, status, "{request}");
        assert_eq!(answer.is_last(), status == 400 || request.contains("/1.0"));
    }
    carafe.stop_clean();
}

#[test]
fn a_body_that_nobody_wants_costs_no_byte_of_the_answer() {
    let (_root, carafe) = server(&[]);
    let length = format!("Content-Length: {}\r\n", 300_000);
    for (method, status) in [("GET", 200), ("POST", 405), ("BREW", 501), ("OPTIONS", 204)] {
        for framing in [
            &*length,
            "Transfer-Encoding: chunked\r\n",
            "Content-Length: 300000\r\nExpect: 100-continue\r\n",
        ] {
            let head = format!("{method} /a.txt HTTP/1.1\r\nHost: h\r\n{framing}\r\n");
            // At once, and after the answer: the server has closed its side by then.
            let mut eager = Talk::to(carafe.addr());
            eager.say([head.as_bytes(), &[b'x'; 300_000]].concat());
            let mut polite = Talk::to(carafe.addr());
            polite.say(&head);
            let answers = [eager.answer(), {
                let answer = polite.answer();
                polite.say([b'x'; 300_000]);
                answer
            }];
            for (talk, answer) in [eager, polite].iter_mut().zip(answers) {
                assert_eq!(answer.status, status, "{head}");
                assert!(answer.is_last());
                talk.ends();
            }
        }
    }
    let mut talk = Talk::to(carafe.addr());
    let none = "GET /a.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(talk.ask(none).body, b"content of a\n");
    let answer = talk.ask(&get("/a.txt", "Expect: 100-continue\r\n"));
    assert_eq!((answer.status, answer.is_last()), (200, false));
    let answer = talk.ask(&get("/a.txt", "Expect: the unexpected\r\n"));
    assert_eq!((answer.status, answer.is_last()), (417, false));
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn a_short_body_is_skipped_and_the_connection_goes_on() {
    let (_root, carafe) = server(&PATIENT);
    let mut talk = Talk::to(carafe.addr());
    for (method, status) in [("GET", 200), ("POST", 405), ("BREW", 501), ("OPTIONS", 204)] {
        for length in [1, 4, 16 * 1024] {
            let head =
                format!("{method} /a.txt HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
            let body = "GET /x HTTP/1.1\r\n".repeat(1000);
            talk.say_and_see_read(&head);
            talk.waits();
            talk.say(&body[..length]);
            let answer = talk.answer();
            assert_eq!((answer.status, answer.is_last()), (status, false), "{head}");
        }
    }
    // What follows the body is the next request, in the same write, too.
    let post = "POST /a.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    talk.say(format!("{post}{post}{}", get("/a.txt", "")));
    assert_eq!(talk.answer().status, 405);
    assert_eq!(talk.answer().status, 405);
    assert_eq!(talk.answer().text(), "content of a\n");
    // A client that ends within its body has its answer.
    talk.say(&post[..post.len() - 1]);
    talk.half_close();
    let answer = talk.answer();
    assert_eq!((answer.status, answer.is_last()), (405, true));
    talk.ends();
    drop(talk);
    carafe.stop_clean();
    // So has one that leaves it out, after a second.
    let (_root, carafe) = server(&[]);
    let mut talk = Talk::to(carafe.addr());
    let answer = talk.ask(&post[..post.len() - 3]);
    assert_eq!((answer.status, answer.is_last()), (405, true));
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn a_long_body_breaks_off_no_client_before_it_reads_its_answer() {
    let (_root, carafe) = server(&PATIENT);
    let mut talk = Talk::to(carafe.addr());
    let length = 60_000_000;
    talk.say(format!(
        "POST /a.txt HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
    ));
    for _ in 0..length / 1_000_000 {
        talk.say(vec![b'x'; 1_000_000]);
    }
    let answer = talk.answer();
    assert_eq!((answer.status, answer.is_last()), (405, true));
    talk.half_close();
    talk.ends();
    drop(talk);
    carafe.stop_clean();
}

/// Neither side's buffers hold what the other sends.
#[test]
fn who_reads_nothing_before_the_whole_body_is_sent_gets_a_large_file() {
    let big = pattern(0, 20_000_000);
    let root = root_with(&[("big", &big)]);
    let carafe = Carafe::serve(root.path(), &[]);
    let (count, chunk) = (60, vec![b'x'; 1_000_000]);
    let whole = format!("Content-Length: {}\r\n", count * chunk.len());
    for (field, before, after, end) in [
        (&*whole, "", "", ""),
        (
            "Transfer-Encoding: chunked\r\n",
            "f4240\r\n",
            "\r\n",
            "0\r\n\r\n",
        ),
    ] {
        let mut talk = Talk::to(carafe.addr());
        talk.say(get("/big", field));
        for _ in 0..count {
            talk.say([before.as_bytes(), &chunk, after.as_bytes()].concat());
        }
        talk.say(end);
        let answer = talk.answer();
        assert_eq!((answer.status, answer.is_last()), (200, true));
        assert_same(field, &answer.body, &big);
        talk.ends();
    }
    carafe.stop_clean();
}

#[test]
fn whatever_can_be_read_in_two_ways_is_refused_and_hides_no_request() {
    let (_root, carafe) = server(&[]);
    let hidden = get("/a.txt", "X-Smuggled: yes\r\n");
    for (fields, status) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", 400),
        ("Content-Length: 0\r\nContent-Length: 0\r\n", 400),
        ("Content-Length: 0, 0\r\n", 400),
        ("Content-Length: +0\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: 0x0\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 99999999999999999999\r\n", 400),
        ("Content-Length : 0\r\n", 400),
        ("Transfer-Encoding: identity\r\n", 400),
        ("Transfer-Encoding: chunked, identity\r\n", 400),
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        ("Transfer-Encoding:\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: chunked\r\n", 200),
        ("Content-Length: 16385\r\n", 200),
        (" folded: x\r\n", 400),
        ("A: b\r\n folded\r\n", 400),
        ("A: b\r\n\tContent-Length: 5\r\n", 400),
        ("A: b\rContent-Length: 5\r\n", 400),
        ("A: b\r\r\n", 400),
        ("A\r: b\r\n", 400),
        ("A: b\0c\r\n", 400),
        ("A b: c\r\n", 400),
        (": c\r\n", 400),
        ("no colon\r\n", 400),
    ] {
        let request = get("/missing?first", fields).replace("/missing?first", "/a.txt");
        for later in [false, true] {
            let mut talk = Talk::to(carafe.addr());
            if later {
                assert_eq!(talk.get("/empty").status, 200);
            }
            talk.say([request.as_bytes(), b"0\r\n\r\n", hidden.as_bytes()].concat());
            let answer = talk.answer();
            assert_eq!(
                (answer.status, answer.is_last()),
                (status, true),
                "{fields}"
            );
            talk.ends();
        }
    }
    let log = carafe.stop_warned(&[]);
    assert!(!log.contains("Smuggled"), "{log}");
}

#[test]
fn lines_and_heads_have_limits() {
    let (_root, carafe) = server(&[]);
    let many = |count| "A: b\r\n".repeat(count);
    let long = |bytes| format!("A: {}\r\n", "b".repeat(bytes));
    let path = |bytes| format!("/a.txt?{}", "q".repeat(bytes));
    for (request, status) in [
        (get("/a.txt", &many(127)), 200),
        (get("/a.txt", &many(128)), 431),
        (get("/a.txt", &long(16_000)), 200),
        (get("/a.txt", &long(17_000)), 431),
        (get("/a.txt", &long(200_000)), 431),
        (get(&path(8_000), ""), 200),
        (get(&path(8_192), ""), 414),
        (get(&path(200_000), ""), 414),
        (format!("GET {}", path(200_000)), 414),
    ] {
        let answer = ask(carafe.addr(), &request);
        let shown = &request[..request.len().min(40)];
        assert_eq!(
            (answer.status, answer.is_last()),
            (status, status != 200),
            "{shown}"
        );
    }
    carafe.stop_clean();
}

#[test]
fn an_error_in_answer_to_head_has_no_body() {
    let (_root, carafe) = server(&[]);
    for request in [
        "HEAD /missing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "HEAD /with-index HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "HEAD /a.txt HTTP/1.1\r\n\r\n",
        "HEAD /a.txt HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
    ] {
        let mut talk = Talk::to(carafe.addr());
        talk.say(request);
        let answer = talk.head();
        assert!(answer.status >= 300 && answer.is_last(), "{request}");
        talk.ends();
    }
    carafe.stop_clean();
}

#[test]
fn a_hundred_requests_in_one_write_are_answered_in_order() {
    let (_root, carafe) = server(&[]);
    let paths = ["/a.txt", "/missing", "/without/x", "/empty", "/with-index/"];
    let requests: String = (0..100).map(|at| get(paths[at % 5], "")).collect();
    // With the FIN behind them, which must cost none its answer, and without.
    for half_closes in [false, true] {
        let mut talk = Talk::to(carafe.addr());
        talk.say(&requests);
        if half_closes {
            talk.half_close();
        }
        for at in 0..100 {
            let answer = talk.answer();
            let expected = ["content of a\n", "404 Not Found\n", "x\n", "", PAGE][at % 5];
            assert_eq!(answer.text(), expected, "{at}");
            assert!(!answer.is_last());
        }
        if half_closes {
            talk.ends()
        } else {
            assert_eq!(talk.get("/a.txt").status, 200)
        }
    }
    let log = carafe.stop_warned(&[]);
    assert!(log.contains("accepted 2, closed 2;"), "{log}");
    assert_eq!(count_lines(&log, ENDED), 201, "a line for each reply");
}
