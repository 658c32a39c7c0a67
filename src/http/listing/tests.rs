//! Orders, slices, and the three formats with names that try to break out of them.

use std::time::Duration;

use super::*;

fn entry(name: impl AsRef<[u8]>, kind: Kind, size: u64, seconds: Option<u64>) -> Entry {
    Entry {
        name: name.as_ref().to_vec(),
        kind,
        size,
        mtime: seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
    }
}

fn file(name: impl AsRef<[u8]>, size: u64, seconds: u64) -> Entry {
    entry(name, Kind::File, size, Some(seconds))
}

fn folder(name: &str, seconds: u64) -> Entry {
    entry(name, Kind::Folder, 4096, Some(seconds))
}

fn render(format: Format, path: &str, query: &str, entries: Vec<Entry>, slice: usize) -> String {
    String::from_utf8(joined(format, path, query, entries, slice)).unwrap()
}

/// All slices, joined.
fn joined(format: Format, path: &str, query: &str, entries: Vec<Entry>, slice: usize) -> Vec<u8> {
    let sort = Sort::from_query(Some(query.as_bytes()));
    let mut renderer = Renderer::new(format, path.as_bytes(), sort, entries);
    let mut all = Vec::new();
    while let Some(chunk) = renderer.next_chunk(slice) {
        all.extend_from_slice(&chunk);
    }
    assert_eq!(renderer.next_chunk(slice), None);
    all
}

fn gopher() -> Format {
    Format::Gopher {
        host: "h".into(),
        port: 70,
    }
}

/// Names that mean something to HTML, URLs, JSON or Gopher.
const NASTY: [&str; 9] = [
    "<script>alert(1)</script>",
    "\"onclick='x'&amp;.txt",
    "javascript:alert(1)",
    "a b?c#d%20.txt",
    "line\nfeed\ttab\x1b[2J",
    "right\u{202e}txt.exe",
    "接收 файл é",
    "]]>--><!--",
    "\\backslash",
];

fn nasty() -> Vec<Entry> {
    let mut entries: Vec<_> = NASTY.iter().map(|name| file(name, 1, 1)).collect();
    entries.push(file(b"not\xffutf8", 1, 1));
    entries.push(folder("f&g", 1));
    entries
}

#[test]
fn queries() {
    let sort = |key, is_descending| Sort { key, is_descending };
    for (query, expected) in [
        ("", sort(Key::Name, false)),
        ("sort=size", sort(Key::Size, false)),
        ("sort=time&order=desc", sort(Key::Time, true)),
        ("order=desc", sort(Key::Name, true)),
        (
            "order=desc&order=asc&sort=size&sort=name",
            sort(Key::Name, false),
        ),
        ("sort=owner&order=random&x&=&&", sort(Key::Name, false)),
        ("sort=size&sort=owner", sort(Key::Size, false)),
        ("xsort=size&sort=SIZE", sort(Key::Name, false)),
    ] {
        assert_eq!(
            Sort::from_query(Some(query.as_bytes())),
            expected,
            "{query}"
        );
    }
    assert_eq!(Sort::from_query(None), Sort::default());
    for key in Key::ALL {
        for is_descending in [false, true] {
            let sort = sort(key, is_descending);
            let query = sort.query();
            assert_eq!(
                Sort::from_query(query.strip_prefix('?').map(str::as_bytes)),
                sort
            );
        }
    }
}

#[test]
fn orders() {
    for (query, expected) in [
        ("", "Docs src A b c"),
        ("order=desc", "src Docs c b A"),
        ("sort=size", "Docs src c A b"),
        ("sort=size&order=desc", "Docs src A b c"),
        ("sort=time", "src Docs c b A"),
        ("sort=time&order=desc", "Docs src A b c"),
    ] {
        let entries = vec![
            file("b", 20, 20),
            file("A", 20, 30),
            entry("c", Kind::File, 10, None),
            folder("src", 1),
            folder("Docs", 2),
        ];
        let json = render(Format::Json, "/", query, entries, 10);
        let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
        let names = rows.as_array().unwrap().iter();
        let names: Vec<_> = names.map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!(names.join(" "), expected, "{query}");
    }
}

#[test]
fn slices_join_to_the_same() {
    for format in [Format::Html, Format::Json, gopher()] {
        let whole = joined(format.clone(), "/a/", "", nasty(), 100);
        for slice in [0, 1, 2, 10, 11, 12] {
            assert_eq!(joined(format.clone(), "/a/", "", nasty(), slice), whole);
        }
    }
    let mut renderer = Renderer::new(Format::Html, b"/", Sort::default(), nasty());
    for left in [7, 3, 0] {
        assert!(renderer.next_chunk(4).is_some());
        assert_eq!(renderer.entries.len(), left);
    }
    assert!(renderer.next_chunk(4).is_none());
}

/// The page, which is read as XML.
fn page(path: &str, query: &str, entries: Vec<Entry>, check: impl Fn(&roxmltree::Document<'_>)) {
    let text = render(Format::Html, path, query, entries, 3);
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    check(&roxmltree::Document::parse_with_options(&text, options).unwrap());
}

fn links<'a>(page: &'a roxmltree::Document<'_>) -> Vec<(String, &'a str)> {
    let links = page.descendants().filter(|node| node.has_tag_name("a"));
    let text = |node: roxmltree::Node<'_, '_>| {
        let texts = node.descendants().filter(|node| node.is_text());
        texts
            .filter_map(|node| node.text().map(str::to_owned))
            .collect()
    };
    links
        .map(|node| (text(node), node.attribute("href").unwrap()))
        .collect()
}

#[test]
fn names_stay_names_on_the_page() {
    page("/", "", nasty(), |page| {
        let links = links(page);
        for (shown, href) in [
            (
                "<script>alert(1)</script>",
                "%3Cscript%3Ealert%281%29%3C%2Fscript%3E",
            ),
            (
                "\"onclick='x'&amp;.txt",
                "%22onclick%3D%27x%27%26amp%3B.txt",
            ),
            ("javascript:alert(1)", "javascript%3Aalert%281%29"),
            ("a b?c#d%20.txt", "a%20b%3Fc%23d%2520.txt"),
            ("line\\x0afeed\\x09tab\\x1b[2J", "line%0Afeed%09tab%1B%5B2J"),
            ("right\\xe2\\x80\\xaetxt.exe", "right%E2%80%AEtxt.exe"),
            ("not\u{fffd}utf8", "not%FFutf8"),
            ("f&g/", "f%26g/"),
        ] {
            assert!(
                links.contains(&(shown.to_owned(), href)),
                "{shown}: {links:?}"
            );
        }
        // Columns and entries, nothing else.
        assert_eq!(links.len(), 3 + nasty().len());
        assert!(!page.descendants().any(|node| node.has_tag_name("script")));
    });
}

#[test]
fn links_lead_up_and_keep_the_order() {
    page("//pub/a b//", "", vec![], |page| {
        let links = links(page);
        let expected = [
            ("root", "/"),
            ("pub", "/pub/"),
            ("Name", "?sort=name&order=desc"),
            ("Size", "?sort=size&order=asc"),
            ("Modified UTC", "?sort=time&order=asc"),
            ("..", "/pub/"),
        ];
        assert_eq!(links, expected.map(|(text, href)| (text.to_owned(), href)));
    });
    page(
        "/pub/",
        "sort=size&order=desc",
        vec![folder("x", 1), file("y", 1, 1)],
        |page| {
            let links = links(page);
            let query = "?sort=size&order=desc";
            let hrefs: Vec<_> = links.iter().map(|&(_, href)| href).collect();
            let expected = [
                &format!("/{query}"),
                "?sort=name&order=asc",
                "?sort=size&order=asc",
                "?sort=time&order=asc",
                &format!("/{query}"),
                &format!("x/{query}"),
                "y",
            ];
            assert_eq!(hrefs, expected);
            let sorted = page
                .descendants()
                .find_map(|node| node.attribute("aria-sort"));
            assert_eq!(sorted, Some("descending"));
        },
    );
}

#[test]
fn what_there_is_in_words() {
    for (entries, expected) in [
        (vec![], None),
        (vec![folder("a", 1)], Some("1 folder")),
        (vec![folder("a", 1), folder("b", 1)], Some("2 folders")),
        (vec![file("a", 1, 1)], Some("1 file, 1 B")),
        (
            vec![file("a", 1024, 1), file("b", 512, 1)],
            Some("2 files, 1.5 KiB"),
        ),
        (
            vec![folder("a", 1), file("b", 0, 1)],
            Some("1 folder, 1 file, 0 B"),
        ),
    ] {
        page("/", "", entries, |page| {
            let header = page
                .descendants()
                .find(|node| node.has_tag_name("header"))
                .unwrap();
            let words = header.children().find(|node| node.has_tag_name("p"));
            assert_eq!(words.and_then(|words| words.text()), expected);
        });
    }
}

#[test]
fn times_that_cannot_be_written_are_left_out() {
    let seconds = [0, 784_111_777, 253_402_300_799, 253_402_300_800, 1 << 55];
    let mut entries: Vec<_> = seconds
        .map(|seconds| file(seconds.to_string(), 1536, seconds))
        .into();
    entries.push(entry("none", Kind::File, u64::MAX, None));
    let early = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    entries.push(Entry {
        mtime: Some(early),
        ..file("early", 0, 0)
    });
    let html = render(Format::Html, "/", "", entries.clone(), 100);
    assert_eq!(html.matches("<time ").count(), 3);
    assert!(html.contains("<time datetime=\"1994-11-06T08:49:37Z\">1994-11-06 08:49</time>"));
    assert!(html.contains("<span title=\"1536 bytes\">1.5 KiB</span>"));
    let json = render(Format::Json, "/", "", entries, 100);
    assert_eq!(json.matches("\"mtime\":null").count(), 4);
}

#[test]
fn json() {
    let mut entries = nasty();
    entries.retain(|entry| entry.name.starts_with(b"not") || entry.kind == Kind::Folder);
    let json = render(Format::Json, "/", "", entries, 100);
    let expected = concat!(
        "[\n{\"name\":\"f&g\",\"href\":\"f%26g/\",\"type\":\"folder\",",
        "\"mtime\":\"1970-01-01T00:00:01Z\"},\n",
        "{\"name\":\"not\u{fffd}utf8\",\"href\":\"not%FFutf8\",\"type\":\"file\",\"size\":1,",
        "\"mtime\":\"1970-01-01T00:00:01Z\"}\n]\n",
    );
    assert_eq!(json, expected);
    let rows = render(Format::Json, "/", "", nasty(), 2);
    let rows: serde_json::Value = serde_json::from_str(&rows).unwrap();
    let names = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap());
    let names: Vec<_> = names.collect();
    assert!(NASTY.iter().all(|name| names.contains(name)));
    assert_eq!(render(Format::Json, "/", "", vec![], 1), "[\n]\n");
}

#[test]
fn gopher_menus() {
    let entries = vec![
        folder("sub", 1),
        file("a.txt", 1, 1),
        file("b.html", 1, 1),
        file("c.gif", 1, 1),
        file("d.png", 1, 1),
        file("e.ogg", 1, 1),
        file("f", 1, 1),
        file("tab\there", 1, 1),
        file("line\nfeed", 1, 1),
        file("x".repeat(1020), 1, 1),
    ];
    let menu = render(gopher(), "/p/", "", entries, 2);
    let expected = [
        "1sub\t/p/sub/\th\t70",
        "0a.txt\t/p/a.txt\th\t70",
        "hb.html\t/p/b.html\th\t70",
        "gc.gif\t/p/c.gif\th\t70",
        "Id.png\t/p/d.png\th\t70",
        "se.ogg\t/p/e.ogg\th\t70",
        "9f\t/p/f\th\t70",
        ".",
    ];
    let long = format!("9{0}\t/p/{0}\th\t70", "x".repeat(1020));
    let lines: Vec<_> = menu
        .split_terminator("\r\n")
        .filter(|&line| line != long)
        .collect();
    assert_eq!(lines, expected);
    assert!(menu.contains(&long));
    let longer = vec![file("x".repeat(1022), 1, 1)];
    assert_eq!(render(gopher(), "/p/", "", longer, 1), ".\r\n");
    assert_eq!(render(gopher(), "/", "", vec![], 1), ".\r\n");
}

#[test]
fn who_gets_json() {
    for (accept, expected) in [
        ("application/json", true),
        ("Application/JSON", true),
        ("application/json; charset=utf-8", true),
        ("application/json, */*", true),
        ("application/json, text/plain, */*", true),
        ("*/*, application/json;q=1", true),
        ("text/html;q=0.5, application/json", true),
        ("text/html;q=0, application/json;q=0.1", true),
        ("application/json;q=0.5, */*;q=0.1", true),
        ("text/html, application/json", false),
        ("text/html, application/json;q=0.9", false),
        ("application/json;q=0.5, */*", false),
        ("application/json;q=0.5, text/*", false),
        ("application/json;q=0", false),
        ("application/json; q=0.000", false),
        ("application/json;q=x", false),
        ("application/json;q=NaN", false),
        ("application/json;q=2", false),
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            false,
        ),
        ("*/*", false),
        ("application/*", false),
        ("application/jsonp", false),
        ("", false),
        (";;q=,,", false),
    ] {
        assert_eq!(accepts_json(accept.as_bytes()), expected, "{accept}");
    }
    assert!(!accepts_json(b"\xff;q=\xff"));
}

#[test]
fn ten_thousand_entries_come_in_slices() {
    let entries = (0..10_000)
        .map(|at| file(format!("file {at}"), at, at))
        .collect();
    let mut renderer = Renderer::new(Format::Html, b"/", Sort::default(), entries);
    let mut chunks = 0;
    while let Some(chunk) = renderer.next_chunk(100) {
        assert!(chunk.len() < 100 * 1024);
        chunks += 1;
    }
    assert_eq!(chunks, 100);
}
