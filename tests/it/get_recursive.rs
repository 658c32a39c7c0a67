//! `carafe get -r`: trees of the servers that people have are the same here, only what has changed is
//! fetched again, and nothing outside a folder is asked for or written, whatever its lists say.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::{TempDir, tempdir};

use crate::authority::{Authority, FAR};
use crate::common::{
    Carafe, exchange, has_tool, pattern, root_with, shell, until, with_default_interrupt,
};
use crate::fake::{Outcome, Untouched, carafe, run};
use crate::get_servers::Python;
use crate::origin::{Asked, Origin, Version, has_bytes, listing};
use crate::proxied::{Lister, Nginx};

/// Names that lists have to write in some other way.
const FILES: [&str; 12] = [
    "f1",
    "a/f1",
    "a/b/c/d/f1",
    "with space:/f 1",
    "100%/#?&",
    "接/收",
    "a+b=c@d,e;f!g*(h)",
    "[x]{y}|^`",
    "quote\"s '& <b>&amp;",
    "back\\slash",
    "x/~x~",
    "x..x/%2e%2e",
];

fn long_ago() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}

fn age(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(long_ago()).unwrap();
}

/// A root with a folder of these files, and an empty folder; all of the year 2001.
fn root() -> TempDir {
    let root = root_with(&FILES.map(|name| (format!("tree/{name}"), name)));
    let tree = root.path().join("tree");
    for name in FILES {
        age(&tree.join(name));
    }
    fs::create_dir(tree.join("a/empty")).unwrap();
    root
}

/// `carafe get -r` with these words, without rests between tries.
fn get(folder: &Path, words: &[&str]) -> Outcome {
    let mut command = carafe(folder);
    command.args(["get", "-r", "--retry-delay", "0s"]);
    run(command.args(words), b"")
}

/// The last line of a run with `-v`.
fn summary(outcome: &Outcome) -> &str {
    outcome.stderr.lines().last().unwrap_or_default()
}

fn assert_same_trees(one: &Path, other: &Path) {
    let differences = shell(
        "diff -r \"$1\" \"$2\" || true",
        &[one.as_ref(), other.as_ref()],
    );
    assert_eq!(String::from_utf8_lossy(&differences), "");
}

/// Mirrors the tree behind this URL, which ends with a slash, thrice: all of it, nothing, and what has
/// changed.
fn check(root: &Path, base: &str, modified: Option<SystemTime>) {
    let folder = tempdir().unwrap();
    let (there, here) = (root.join("tree"), folder.path().join("tree"));
    let mirror = |url: &str| {
        let outcome = get(folder.path(), &["-v", "-j", "4", url]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome
    };
    let bytes: usize = FILES.iter().map(|name| name.len()).sum();
    // Without its slash it is redirected.
    let outcome = mirror(&format!("{base}tree"));
    let expected = format!("carafe: 12 fetched, {bytes} bytes; 0 the same, 0 failed");
    assert_eq!(summary(&outcome), expected, "{base}");
    assert_same_trees(&there, &here);
    for name in FILES {
        let got = fs::metadata(here.join(name)).unwrap().modified().unwrap();
        assert_eq!(got, modified.unwrap_or(got), "{base}{name}");
    }
    let outcome = mirror(&format!("{base}tree/"));
    let expected = "carafe: 0 fetched, 0 bytes; 12 the same, 0 failed";
    assert_eq!(summary(&outcome), expected, "{base}: {outcome:?}");

    // As long as it was, and later; and one that is changed here.
    fs::write(there.join("f1"), "F1").unwrap();
    let later = long_ago() + Duration::from_secs(1);
    let changed = fs::File::options().write(true).open(there.join("f1"));
    changed.unwrap().set_modified(later).unwrap();
    fs::write(here.join("a/f1"), "a/F1").unwrap();
    let outcome = mirror(&format!("{base}tree/"));
    let expected = "carafe: 2 fetched, 6 bytes; 10 the same, 0 failed";
    assert_eq!(summary(&outcome), expected, "{base}: {outcome:?}");
    assert_same_trees(&there, &here);
}

// ---- servers that people have ----

#[test]
fn of_carafe_by_its_json_without_and_with_tls() {
    let root = root();
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    // The last file that was written: carafe tells no time that is so near.
    until("files have times", || {
        let head = b"HEAD /tree/x..x/%252e%252e HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let head = String::from_utf8(exchange(carafe.addr(), head).unwrap());
        head.unwrap().contains("\r\nLast-Modified: ")
    });
    // What it tells is when a file was last changed in any way.
    let base = format!("http://{}/", carafe.addr());
    check(root.path(), &base, None);
    carafe.stop();

    let authority = Authority::new();
    authority.sign("one", &["127.0.0.1"], FAR);
    let carafe = authority.serve(root.path(), &["one"], &["--listing"]);
    let trusted = authority.path();
    let flags = ["--cacert", trusted.to_str().unwrap()];
    let url = format!("https://127.0.0.1:{}/tree/", carafe.port());
    let folder = tempdir().unwrap();
    let words = [&[&*url], &flags[..]].concat();
    get(folder.path(), &words).is(0, "");
    assert_same_trees(&root.path().join("tree"), &folder.path().join("tree"));
    carafe.stop();
}

#[test]
fn of_nginx_by_its_pages_and_by_its_json() {
    if !has_tool("nginx") {
        return;
    }
    for form in ["html", "json"] {
        let root = root();
        let nginx = Nginx::with(
            "",
            &format!(
                "root {}; autoindex on; autoindex_format {form};",
                root.path().display()
            ),
        );
        let base = format!("http://{}/", nginx.addr());
        check(root.path(), &base, Some(long_ago()));
    }
}

#[test]
fn of_lighttpd_by_its_pages() {
    if !has_tool("lighttpd") {
        return;
    }
    let root = root();
    let lighttpd = Lister::lighttpd(root.path());
    let base = format!("http://{}/", lighttpd.addr());
    check(root.path(), &base, Some(long_ago()));
}

#[test]
fn of_apache_by_its_pages() {
    if !has_tool("apache2") {
        return;
    }
    let root = root();
    let apache = Lister::apache(root.path());
    let base = format!("http://{}/", apache.addr());
    check(root.path(), &base, Some(long_ago()));
}

#[test]
fn of_python_whose_page_of_an_empty_folder_has_no_link() {
    if !has_tool("python3") {
        return;
    }
    let root = root();
    let python = Python::serve(root.path());
    check(root.path(), &python.url(), Some(long_ago()));
}

// ---- lists that lie ----

/// An answer with a list in this form.
fn list(form: &str, text: &str) -> Vec<u8> {
    let length = text.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: {form}\r\nContent-Length: {length}\r\n\r\n{text}")
        .into()
}

/// A page with these links.
fn page<T: AsRef<str>>(links: &[T]) -> Vec<u8> {
    let link = |reference: &T| format!("<a href=\"{}\">it</a>", reference.as_ref());
    list("text/html", &links.iter().map(link).collect::<String>())
}

fn rows<T: AsRef<str>>(links: &[T]) -> Vec<u8> {
    let row = |reference: &T| serde_json::json!({ "href": reference.as_ref() });
    let rows: Vec<_> = links.iter().map(row).collect();
    list("application/json", &serde_json::to_string(&rows).unwrap())
}

fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into()
}

fn file(asked: &Asked) -> Vec<u8> {
    Version::new(asked.path.clone(), "\"a\"").answer(asked)
}

/// What was asked for, sorted.
fn paths(origin: &Origin) -> Vec<String> {
    let mut paths: Vec<_> = (origin.asked().into_iter())
        .map(|asked| asked.path)
        .collect();
    paths.sort();
    paths
}

/// Mirrors `/x/` of a server.
fn mirror(folder: &Path, origin: &Origin) -> Outcome {
    get(folder, &[&origin.url("/x/")])
}

#[test]
fn nothing_outside_the_folder_is_asked_for_or_written() {
    let other = Untouched::new();
    let there = other.address();
    let links = [
        "good",
        "../",
        "..",
        "/",
        "/etc/passwd",
        "../../../../etc/passwd",
        "/x/../y",
        "/xy",
        "%2e%2e/",
        "%2e%2e/y",
        "%2E%2e",
        ".%2e/",
        "..%2f..%2fy",
        "a%2f..%2f..%2fy",
        "%2fetc%2fpasswd",
        "a%00",
        "?C=N;O=D",
        "good?C=M",
        "#top",
        "deep/er/file",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "mailto:a@b",
        "gopher://127.0.0.1/9x",
        "http://[/",
        "%zz",
        "\\\\host\\share",
    ];
    let far = ["", "s", "127.0.0.1@"].map(|more| match more {
        "127.0.0.1@" => format!("http://{more}{there}/x/y"),
        more => format!("http{more}://{there}/x/y"),
    });
    let links: Vec<String> = links
        .iter()
        .map(|&link| link.to_owned())
        .chain(far)
        .collect();
    for answer in [page(&links), rows(&links)] {
        let folder = tempdir().unwrap();
        let origin = Origin::of(move |asked, _| match asked.path.as_str() {
            "/x/" => answer.clone(),
            _ => file(asked),
        });
        let outcome = mirror(folder.path(), &origin);
        assert_eq!(outcome.code, Some(3), "{outcome:?}");
        let unfit = outcome
            .stderr
            .lines()
            .filter(|line| line.ends_with("it is no name of a file"));
        assert_eq!(unfit.count(), 4, "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 4, "{outcome:?}");
        assert_eq!(paths(&origin), ["/x/", "/x/%5C%5Chost%5Cshare", "/x/good"]);
        assert_eq!(listing(folder.path()), ["x"]);
        assert_eq!(
            listing(&folder.path().join("x")),
            ["\\\\host\\share", "good"]
        );
    }
}

#[test]
fn no_redirect_leads_out_of_the_folder() {
    let other = Untouched::new();
    let there = format!("http://{}/x/f", other.address());
    let folder = tempdir().unwrap();
    let origin = Origin::of(move |asked, _| match asked.path.as_str() {
        "/x/" => page(&[
            "far", "above", "dots/", "off/", "up/", "aside/", "in", "list/", "good",
        ]),
        "/x/far" | "/x/off/" => redirect(&there),
        "/x/above" => redirect("/secret"),
        "/x/dots/" => redirect("/x/%2e%2e/y/"),
        "/x/up/" => redirect("/x/"),
        "/x/aside/" => redirect("/x/list/"),
        "/x/in" => redirect("/x/stored?version=1"),
        "/x/list/" => page(&["f"]),
        _ => file(asked),
    });
    let outcome = mirror(folder.path(), &origin);
    assert_eq!(outcome.code, Some(7), "{outcome:?}");
    let count = |what: &str| outcome.stderr.matches(what).count();
    assert_eq!(
        count("won't do: it leads out of the folder\n"),
        4,
        "{outcome:?}"
    );
    assert_eq!(
        count("redirects to the list of another folder\n"),
        2,
        "{outcome:?}"
    );
    let asked = paths(&origin);
    assert!(
        asked
            .iter()
            .all(|path| path.starts_with("/x/") && !path.contains("%2e")),
        "{asked:?}"
    );
    assert_eq!(listing(&folder.path().join("x")), ["good", "in", "list"]);
    assert_eq!(listing(&folder.path().join("x/list")), ["f"]);
}

#[test]
fn links_here_lead_no_file_out() {
    let (folder, outside) = (tempdir().unwrap(), tempdir().unwrap());
    let here = folder.path().join("x");
    fs::create_dir_all(here.join("real")).unwrap();
    fs::create_dir(here.join("folder")).unwrap();
    fs::write(outside.path().join("f"), "mine").unwrap();
    symlink(outside.path(), here.join("out")).unwrap();
    symlink("../..", here.join("up")).unwrap();
    symlink("real", here.join("in")).unwrap();
    symlink(outside.path().join("f"), here.join("f")).unwrap();
    symlink("nowhere", here.join("g")).unwrap();
    let origin = Origin::of(|asked, _| match asked.path.as_str() {
        "/x/" => page(&["out/", "up/", "in/", "f", "g", "folder"]),
        path if path.ends_with('/') => page(&["f"]),
        _ => file(asked),
    });
    let outcome = mirror(folder.path(), &origin);
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    for name in ["out", "up"] {
        let line = format!("cannot write x/{name}: a link leads out of the folder\n");
        assert!(outcome.stderr.contains(&line), "{outcome:?}");
    }
    assert!(
        outcome
            .stderr
            .contains("cannot write x/folder: it is a directory\n")
    );
    assert_eq!(outcome.stderr.lines().count(), 3, "{outcome:?}");
    assert_eq!(fs::read(outside.path().join("f")).unwrap(), b"mine");
    assert_eq!(listing(outside.path()), ["f"]);
    assert_eq!(listing(folder.path()), ["x"]);
    // A link is not a file; what is within may be one's own way to lay things out.
    for name in ["f", "g"] {
        assert!(fs::symlink_metadata(here.join(name)).unwrap().is_file());
    }
    assert_eq!(fs::read(here.join("real/f")).unwrap(), b"/x/in/f");
}

#[test]
fn what_could_not_be_a_name_here_is_told_in_a_few_lines() {
    let folder = tempdir().unwrap();
    let long = "l".repeat(10_000);
    let mut links: Vec<_> = (0..30).map(|n| format!("{long}{n}")).collect();
    links.extend(
        [
            "a%0Ab",
            "a%250Ab",
            "ok",
            "ok.part",
            "ok.part.1.meta",
            "ok.party",
            "ok",
        ]
        .map(String::from),
    );
    links.push("%1B]0;title%07%E2%80%AE".into());
    let origin = Origin::of(move |asked, _| match asked.path.as_str() {
        "/x/" => page(&links),
        _ => file(asked),
    });
    let outcome = mirror(folder.path(), &origin);
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 11, "{lines:?}");
    assert!(lines[10].ends_with(": 23 more are left out"), "{lines:?}");
    assert!(lines.iter().all(|line| line.len() < 400), "{lines:?}");
    let names = ["%1B]0;title%07%E2%80%AE", "a%0Ab", "ok", "ok.party"];
    assert_eq!(listing(&folder.path().join("x")), names);

    // Of few, each is told.
    let origin = Origin::of(|asked, _| match asked.path.as_str() {
        "/x/" => page(&["a%0Ab", "a%250Ab", "y", "y.part"]),
        _ => file(asked),
    });
    let outcome = mirror(folder.path(), &origin);
    let url = origin.url("/x/");
    let expected = format!(
        "carafe: {url}: 'a%0Ab' is left out: another one has its name here\n\
         carafe: {url}: 'y.part' is left out: it has the name of another one's part\n"
    );
    outcome.is(3, &expected);
}

#[test]
fn too_many_entries_are_left_out_and_the_others_fetched() {
    let folder = tempdir().unwrap();
    let origin = Origin::of(|asked, _| match asked.path.as_str() {
        "/x/" => page(&["many/", "good"]),
        "/x/many/" => {
            let links: String = (0..=1_000_000).map(|n| format!("<a href={n:x}>")).collect();
            list("text/html", &links)
        }
        _ => file(asked),
    });
    let line = "left out: there are more than 1000000 entries in all lists";
    let expected = format!("carafe: {}: {line}\n", origin.url("/x/many/"));
    mirror(folder.path(), &origin).is(7, &expected);
    assert_eq!(paths(&origin), ["/x/", "/x/good", "/x/many/"]);
}

#[test]
fn folders_without_an_end_have_one() {
    let folder = tempdir().unwrap();
    let origin = Origin::of(|asked, _| page(&[if asked.path.len() > 999 { "f" } else { "x/" }]));
    let outcome = mirror(folder.path(), &origin);
    assert_eq!(outcome.code, Some(7), "{outcome:?}");
    assert!(
        outcome
            .stderr
            .ends_with(": folders that are too deep are left out: 1\n"),
        "{outcome:?}"
    );
    assert_eq!(origin.asked().len(), 65);
}

#[test]
fn what_is_no_list_is_told_and_leaves_nothing() {
    for (answer, why) in [
        (
            list("text/plain", "<a href=x>"),
            "the server sends no list: it is neither a page nor JSON",
        ),
        (
            list("text/html", "Hello"),
            "the server sends no list: its page has no links",
        ),
        (list("application/json", "{}"), "the server sends no list: "),
        (
            list("text/html\r\nContent-Encoding: gzip", "x"),
            "it is neither a page nor JSON",
        ),
        (
            redirect("/x"),
            "the server sends no list: its address has no / at the end",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 99999999\r\n\r\n"
                .to_vec(),
            "the list broke off: the server closed the connection too early",
        ),
    ] {
        let folder = tempdir().unwrap();
        let origin = Origin::of(move |asked, _| match asked.path.as_str() {
            "/x/" => answer.clone(),
            _ => list("text/html", "<a href=y>"),
        });
        let outcome = get(folder.path(), &["-q", "--retries", "0", &origin.url("/x/")]);
        assert!(matches!(outcome.code, Some(4 | 7)), "{outcome:?}");
        assert!(outcome.stderr.contains(why), "{why}: {outcome:?}");
        assert!(listing(folder.path()).is_empty());
    }
}

#[test]
fn a_folder_whose_link_has_no_slash_is_one_all_the_same() {
    let folder = tempdir().unwrap();
    let origin = Origin::of(|asked, _| match asked.path.as_str() {
        "/x/" => page(&["f", "sub", "elsewhere"]),
        "/x/sub" => redirect("sub/"),
        "/x/sub/" => page(&["../", "g", "deep er"]),
        "/x/sub/deep%20er" => redirect("/x/sub/deep%20er/"),
        "/x/sub/deep%20er/" => page(&["h"]),
        "/x/elsewhere" | "/x/elsewhere/" => redirect("/x/sub/"),
        _ => file(asked),
    });
    let url = origin.url("/x/");
    let line = "the server redirects to the list of another folder";
    // Again, with folders in the files' places.
    for _ in 0..2 {
        let outcome = get(folder.path(), &["-v", &url]);
        assert_eq!(outcome.code, Some(7), "{outcome:?}");
        let told = format!("carafe: {url}elsewhere/: {line}\n");
        assert!(outcome.stderr.contains(&told), "{outcome:?}");
        let expected = "carafe: 3 fetched, 30 bytes; 0 the same, 0 failed";
        assert_eq!(summary(&outcome), expected);
        let here = folder.path().join("x");
        assert_eq!(listing(&here), ["f", "sub"]);
        assert_eq!(listing(&here.join("sub")), ["deep er", "g"]);
        let h = fs::read(here.join("sub/deep er/h")).unwrap();
        assert_eq!(h, b"/x/sub/deep%20er/h");
    }
}

#[test]
fn folders_that_are_no_folders_in_lists_have_an_end_too() {
    let folder = tempdir().unwrap();
    let origin = Origin::of(|asked, _| match asked.path.strip_suffix('/') {
        Some(_) => page(&["x"]),
        None => redirect(&format!("{}/", asked.path)),
    });
    let outcome = mirror(folder.path(), &origin);
    assert_eq!(outcome.code, Some(7), "{outcome:?}");
    let line = ": folders that are too deep are left out: 1\n";
    assert!(outcome.stderr.ends_with(line), "{outcome:?}");
}

#[test]
fn a_page_without_links_is_an_empty_folder_if_a_list_names_it() {
    let folder = tempdir().unwrap();
    let origin = Origin::of(|asked, _| match asked.path.as_str() {
        "/x/" => page(&["empty/", "f"]),
        "/x/empty/" => list("text/html", "<h1>Directory listing</h1><ul></ul>"),
        _ => file(asked),
    });
    mirror(folder.path(), &origin).is(0, "");
    assert_eq!(listing(&folder.path().join("x")), ["empty", "f"]);
    assert!(listing(&folder.path().join("x/empty")).is_empty());
}

#[test]
fn where_json_is_no_list_the_page_is_read() {
    let folder = tempdir().unwrap();
    let origin = Origin::of(|asked, _| {
        let wants_json = asked.field("accept").unwrap().contains("json");
        match (asked.path.as_str(), wants_json) {
            ("/x/", true) => list("application/json", "{\"files\":[{\"base\":\"f\"}]}"),
            ("/x/", false) => page(&["f"]),
            _ => file(asked),
        }
    });
    mirror(folder.path(), &origin).is(0, "");
    assert_eq!(listing(&folder.path().join("x")), ["f"]);
}

#[test]
fn a_list_that_is_cut_is_told() {
    let folder = tempdir().unwrap();
    let origin = Origin::of(|asked, _| match asked.path.as_str() {
        "/x/" => list(
            "application/json",
            "[{\"name\":\"a\",\"href\":\"a\",\"type\":\"file\"},{\"type\":\"cut\",\"shown\":1,\"total\":2}]",
        ),
        _ => file(asked),
    });
    let expected = format!(
        "carafe: {}: its list doesn't show all of its 2 entries\n",
        origin.url("/x/")
    );
    mirror(folder.path(), &origin).is(7, &expected);
    assert_eq!(listing(&folder.path().join("x")), ["a"]);
}

// ---- what happens meanwhile ----

#[test]
fn what_vanishes_is_told_and_the_others_are_fetched() {
    let folder = tempdir().unwrap();
    let origin = Origin::of(|asked, _| match asked.path.as_str() {
        "/x/" => page(&["a", "gone", "gone.d/", "b"]),
        path if path.starts_with("/x/gone") => b"HTTP/1.1 404 No\r\n\r\n".to_vec(),
        _ => file(asked),
    });
    let told = |path| {
        let url = origin.url(path);
        format!("carafe: {url}: the server says 404 Not Found\n")
    };
    let expected = told("/x/gone.d/") + &told("/x/gone");
    mirror(folder.path(), &origin).is(8, &expected);
    assert_eq!(listing(&folder.path().join("x")), ["a", "b"]);
}

#[test]
fn a_list_that_broke_is_asked_for_again() {
    let folder = tempdir().unwrap();
    let origin = Origin::of(|asked, count| match (asked.path.as_str(), count) {
        ("/x/", 0) => Vec::new(),
        ("/x/", 1) => b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ("/x/", _) => page(&["a"]),
        _ => file(asked),
    });
    let outcome = mirror(folder.path(), &origin);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(
        outcome.stderr.matches("; trying again in 0s (").count(),
        2,
        "{outcome:?}"
    );
    assert_eq!(paths(&origin), ["/x/", "/x/", "/x/", "/x/a"]);
}

#[test]
fn after_an_interrupt_it_goes_on_where_it_was() {
    let folder = tempdir().unwrap();
    let body = pattern(3, 300_000);
    let whole = body.clone();
    let version = move |asked: &Asked| {
        let body = match asked.path.as_str() {
            "/x/big" => body.clone(),
            path => path.into(),
        };
        let mut version = Version::new(body, "\"a\"");
        version.validators += "Last-Modified: Sun, 09 Sep 2001 01:46:40 GMT\r\n\
            Date: Sun, 09 Sep 2001 01:46:41 GMT\r\n";
        version
    };
    let origin = Origin::start({
        move |asked, _, mut stream| {
            use std::io::Write as _;
            let answer = match asked.path.as_str() {
                "/x/" => page(&["a", "big", "z"]),
                _ => version(asked).answer(asked),
            };
            let is_first = asked.path == "/x/big" && asked.from().is_none();
            let sent = if is_first && asked.method == "GET" {
                200_000
            } else {
                answer.len()
            };
            let _ = stream.write_all(&answer[..sent]);
            if is_first {
                // Until the client has gone.
                let _ = std::io::Read::read(&mut stream, &mut [0]);
            }
        }
    });
    let url = origin.url("/x/");
    let mut command = with_default_interrupt(env!("CARGO_BIN_EXE_carafe"));
    command.args(["get", "-r", &url]).current_dir(folder.path());
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let here = folder.path().join("x");
    until("some of it is there", || {
        has_bytes(&here.join("big.part"), 100_000)
    });
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("/x/big: interrupted; "), "{told}");
    assert!(told.contains(" bytes are kept in x/big.part\n"), "{told}");
    assert_eq!(listing(&here), ["a", "big.part", "big.part.meta"]);

    let outcome = get(folder.path(), &["-v", &url]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome
            .stderr
            .contains(" of them from an earlier download, in "),
        "{outcome:?}"
    );
    let expected = "carafe: 2 fetched, 300004 bytes; 1 the same, 0 failed";
    assert_eq!(summary(&outcome), expected);
    assert_eq!(listing(&here), ["a", "big", "z"]);
    assert!(fs::read(here.join("big")).unwrap() == whole);
}

// ---- the command line ----

#[test]
fn it_writes_where_it_is_told() {
    let origin = Origin::of(|asked, _| match asked.path.as_str() {
        path if path.ends_with('/') => page(&["../", "a"]),
        _ => file(asked),
    });
    for (flags, path, place) in [
        (&[][..], "/x/", "x/a"),
        (&["-P", "sub/dir"], "/x/", "sub/dir/x/a"),
        (&["-o", "sub/dir"], "/x/", "sub/dir/a"),
        (&["-o", "."], "/", "a"),
        (&[], "/%E6%8E%A5%0A/", "接%0A/a"),
    ] {
        let folder = tempdir().unwrap();
        let url = origin.url(path);
        let words = [&[&*url], flags].concat();
        get(folder.path(), &words).is(0, "");
        assert!(folder.path().join(place).is_file(), "{place}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_asked() {
    let other = Untouched::new();
    let there = other.address();
    let url = |path: &str| format!("http://{there}{path}");
    let (x, top, up) = (url("/x/"), url("/"), url("/x/%2e%2e/"));
    let no_name = |url: &str| format!("'{url}': no folder's name; -o DIR gives one");
    for (words, line) in [
        (&["h:1", "name"][..], "-r is for URLs"),
        (&["gopher://127.0.0.1/9x"], "-r is for http:// and https://"),
        (&["-o", "-", &x], "-o: -r writes a folder"),
        (&[&x, &x], "x: two names would be written to it"),
        (
            &["-o", "y", &x, &top],
            "y: two names would be written to it",
        ),
        (&[&top], &no_name(&top)),
        (&[&up], &no_name(&up)),
    ] {
        let folder = tempdir().unwrap();
        let outcome = get(folder.path(), words);
        outcome.is(2, &format!("carafe: {line}\n"));
        assert!(listing(folder.path()).is_empty());
    }
    let folder = tempdir().unwrap();
    let sha256 = "0".repeat(64);
    let outcome = get(folder.path(), &["--sha256", &sha256, &x]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
}
