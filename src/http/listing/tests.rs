//! Orders, what is cut, and the three formats with names that try to break out of them.

use std::time::{Duration, SystemTime};

use super::entries::{Entry, Key, Kind, by_name};
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

const SHOWN_MAX: usize = 1_000;

fn text(format: Format, path: &str, query: &str, entries: Vec<Entry>) -> String {
    cut_text(format, path, query, entries, SHOWN_MAX)
}

/// A listing that shows at most so many, of a root that is called `top`.
fn cut_text(
    format: Format,
    path: &str,
    query: &str,
    entries: Vec<Entry>,
    shown_max: usize,
) -> String {
    let mut read = Entries::new(Sort::from_query(Some(query.as_bytes())), shown_max);
    for entry in entries {
        read.push(entry);
    }
    let goes_on = |_| Ok::<_, ()>(());
    let bytes = super::render(&format, b"top", path.as_bytes(), read, goes_on).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn gopher() -> Format {
    Format::Gopher {
        host: "h".into(),
        port: 70,
        plus: false,
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
        let json = text(Format::Json, "/", query, entries);
        let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
        let names = rows.as_array().unwrap().iter();
        let names: Vec<_> = names.map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!(names.join(" "), expected, "{query}");
    }
}

#[test]
fn names_are_ordered_as_people_do_it() {
    let ordered = [
        "!",
        "007",
        "7",
        "7a",
        "8",
        "10",
        "a",
        "B",
        "c",
        "D1",
        "d01",
        "d1",
        "d1-2",
        "d1-10",
        "d2",
        "D10",
        "d10",
        "d10a",
        "d99999999999999999999999",
        "d100000000000000000000000",
        "e",
        "é",
    ];
    for seed in 0..10 {
        let mut names = ordered.to_vec();
        names.rotate_left(seed * 5 % ordered.len());
        names.swap(seed, 20 - seed);
        let entries = names.iter().map(|name| file(name, 1, 1)).collect();
        assert_eq!(names_in(&text(Format::Json, "/", "", entries)), ordered);
    }
    // Whatever is compared, it is an order.
    let names: Vec<_> = [
        "", "0", "00", "1", "a", "A", "a0", "a1b", "a01b", "a1B2", "1a",
    ]
    .into();
    for a in &names {
        for b in &names {
            let order = |a: &str, b: &str| by_name(&file(a, 1, 1), &file(b, 1, 1));
            assert_eq!(order(a, b), order(b, a).reverse());
            assert_eq!(order(a, b).is_eq(), a == b);
            for c in &names {
                let is_chain = order(a, b).is_lt() && order(b, c).is_lt();
                assert!(!is_chain || order(a, c).is_lt(), "{a} {b} {c}");
            }
        }
    }
}

fn names_in(json: &str) -> Vec<String> {
    let rows: serde_json::Value = serde_json::from_str(json).unwrap();
    let rows = rows.as_array().unwrap().iter();
    rows.filter_map(|row| row["name"].as_str().map(str::to_owned))
        .collect()
}

/// What is shown are the first ones of all, in any order, and all are counted.
#[test]
fn a_listing_that_is_cut_says_so() {
    let some = |count: u64| {
        let files = (0..count).map(|at| file(format!("f{}", at * 7919 % count), at, at));
        files.collect::<Vec<_>>()
    };
    for (count, is_cut) in [(10, false), (11, true), (21, true), (1_234, true)] {
        for query in ["", "sort=time&order=desc"] {
            let json = cut_text(Format::Json, "/", query, some(count), 10);
            let whole = cut_text(Format::Json, "/", query, some(count), 2_000);
            assert_eq!(names_in(&json), names_in(&whole)[..10]);
            let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
            let cut = serde_json::json!({"type": "cut", "shown": 10, "total": count});
            assert_eq!(rows.as_array().unwrap().contains(&cut), is_cut);
        }
    }
    let html = cut_text(Format::Html, "/", "", some(1_234), 10);
    assert!(html.contains("<p>1,234 files, "), "{html}");
    assert!(html.contains("These are the first 10 of 1,234 entries, in this order."));
    let menu = cut_text(gopher(), "/", "", some(1_234), 10);
    assert!(
        menu.contains("iThese are the first 10 of 1,234 entries"),
        "{menu}"
    );
    for format in [Format::Html, Format::Json, gopher()] {
        let whole = cut_text(format.clone(), "/", "", some(10), 10);
        assert_eq!(whole, cut_text(format, "/", "", some(10), 2_000));
    }
}

#[test]
fn a_listing_that_shall_not_go_on_does_not() {
    let mut entries = Entries::new(Sort::default(), SHOWN_MAX);
    for at in 0..500 {
        entries.push(file(at.to_string(), at, at));
    }
    assert!(entries.bytes() > 500 * 40);
    let mut asked = Vec::new();
    let goes_on = |bytes| {
        asked.push(bytes);
        if asked.len() < 3 {
            Ok(())
        } else {
            Err("enough")
        }
    };
    let rendered = super::render(&Format::Html, b"top", b"/", entries, goes_on);
    assert_eq!(rendered, Err("enough"));
    assert!(asked.is_sorted() && asked[2] < 100 * 1024);
}

/// The page, which is read as XML.
fn page(path: &str, query: &str, entries: Vec<Entry>, check: impl Fn(&roxmltree::Document<'_>)) {
    let text = text(Format::Html, path, query, entries);
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
        // Entries, nothing else.
        assert_eq!(links.len(), nasty().len());
        assert!(!page.descendants().any(|node| node.has_tag_name("script")));
    });
}

#[test]
fn links_lead_up_and_keep_the_order() {
    page("//pub/a b//", "", vec![], |page| {
        let expected = [("top", "../../"), ("pub", "../"), ("..", "../")];
        let expected = expected.map(|(text, href)| (text.to_owned(), href));
        assert_eq!(links(page), expected);
    });
    let entries = vec![folder("x", 1), file("y", 1, 1)];
    page("/pub/", "sort=size&order=desc", entries, |page| {
        let query = "?sort=size&order=desc";
        let hrefs: Vec<_> = links(page).iter().map(|&(_, href)| href).collect();
        let up = format!("../{query}");
        assert_eq!(hrefs, [&up, &up, &format!("x/{query}"), "y"]);
        let mut nodes = page.descendants();
        let sorted = nodes.find_map(|node| node.attribute("aria-sort"));
        assert_eq!(sorted, Some("descending"));
    });
    // The root has nothing above it.
    page("/", "", vec![], |page| assert!(links(page).is_empty()));
}

/// A form has no address of its own: the page's, with another query.
#[test]
fn columns_are_forms() {
    for (query, expected) in [
        ("", ["name desc", "size asc", "time desc"]),
        (
            "sort=name&order=desc",
            ["name asc", "size asc", "time desc"],
        ),
        ("sort=size", ["name asc", "size desc", "time desc"]),
        ("sort=time&order=desc", ["name asc", "size asc", "time asc"]),
    ] {
        page("/pub/", query, vec![], |page| {
            let forms = page.descendants().filter(|node| node.has_tag_name("form"));
            let forms = forms.map(|form| {
                assert_eq!(form.attribute("action"), None);
                assert_eq!(form.attribute("rel"), Some("nofollow"));
                let field = |tag, name| {
                    let mut nodes = form.children();
                    let node = nodes.find(|node| node.has_tag_name(tag)).unwrap();
                    assert_eq!(node.attribute("name"), Some(name));
                    node.attribute("value").unwrap()
                };
                format!("{} {}", field("button", "sort"), field("input", "order"))
            });
            assert_eq!(forms.collect::<Vec<_>>(), expected, "{query}");
        });
    }
}

/// Directory readers take links out of pages by patterns: an attribute, an equals sign, a quote.
#[test]
fn who_looks_for_a_pattern_finds_entries_alone() {
    let html = text(
        Format::Html,
        "/a/b/c/",
        "",
        vec![folder("x", 1), file("y", 1, 1)],
    );
    let found = html.split("<a ").skip(1).filter_map(|link| {
        let (_, rest) = link.split_once('>')?.0.split_once("href=\"")?;
        rest.split('"').next()
    });
    assert_eq!(found.collect::<Vec<_>>(), ["../", "x/", "y"]);
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
        (
            (0..1_000).map(|at| folder(&at.to_string(), 1)).collect(),
            Some("1,000 folders"),
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
    let html = text(Format::Html, "/", "", entries.clone());
    assert_eq!(html.matches("<time ").count(), 3);
    assert!(html.contains("<time datetime=\"1994-11-06T08:49:37Z\">1994-11-06 08:49</time>"));
    assert!(html.contains("<span title=\"1,536 bytes\">1.5 KiB</span>"));
    let html = text(Format::Html, "/", "", vec![file("one", 1, 1)]);
    assert!(html.contains("<span title=\"1 byte\">1 B</span>"));
    let json = text(Format::Json, "/", "", entries);
    assert_eq!(json.matches("\"mtime\":null").count(), 4);
}

#[test]
fn json() {
    let mut entries = nasty();
    entries.retain(|entry| entry.name.starts_with(b"not") || entry.kind == Kind::Folder);
    let json = text(Format::Json, "/", "", entries);
    let expected = concat!(
        "[\n{\"name\":\"f&g\",\"href\":\"f%26g/\",\"type\":\"folder\",",
        "\"mtime\":\"1970-01-01T00:00:01Z\"},\n",
        "{\"name\":\"not\u{fffd}utf8\",\"href\":\"not%FFutf8\",\"type\":\"file\",\"size\":1,",
        "\"mtime\":\"1970-01-01T00:00:01Z\"}\n]\n",
    );
    assert_eq!(json, expected);
    let rows = text(Format::Json, "/", "", nasty());
    let rows: serde_json::Value = serde_json::from_str(&rows).unwrap();
    let names = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap());
    let names: Vec<_> = names.collect();
    assert!(NASTY.iter().all(|name| names.contains(name)));
    assert_eq!(text(Format::Json, "/", "", vec![]), "[\n]\n");
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
    let menu = text(gopher(), "/p/", "", entries);
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
    assert_eq!(text(gopher(), "/p/", "", longer), ".\r\n");
    assert_eq!(text(gopher(), "/", "", vec![]), ".\r\n");
}
