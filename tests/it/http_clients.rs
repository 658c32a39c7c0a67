//! Clients of HTTP that people have: curl, wget, wrk, Python's and carafe's own get and soak. What
//! isn't installed is skipped aloud.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use crate::common::{Carafe, ENDED, assert_same, count_lines, has_tool, pattern, root_with, shell};
use crate::soaking::{soak_words, word};
use crate::talk::{age_all, settle};
use tempfile::TempDir;

const BIG_BYTES: usize = 20 * 1024 * 1024;

fn big() -> Vec<u8> {
    pattern(0, BIG_BYTES)
}

fn server() -> (TempDir, Carafe) {
    let root = root_with(&[
        ("big", big()),
        ("small.txt", b"small bytes".to_vec()),
        ("empty", Vec::new()),
        ("d/index.html", b"<p>index</p>".to_vec()),
        ("d/odd name%.txt", b"odd".to_vec()),
    ]);
    age_all(root.path());
    let carafe = Carafe::serve(root.path(), &[]);
    (root, carafe)
}

/// Runs a script with the server's URL as `$1` in a folder of its own, which is `$2`.
#[track_caller]
fn run(carafe: &Carafe, folder: &Path, script: &str) -> String {
    let url = format!("http://{}", carafe.addr());
    let script = format!("set -e; cd \"$2\"; {script}");
    let args = [OsStr::new(&url), folder.as_os_str()];
    String::from_utf8(shell(&script, &args)).unwrap()
}

/// How many connections the server accepted and how many replies it logged.
fn counts(carafe: Carafe) -> (String, usize) {
    let log = carafe.stop_warned(&[]);
    let accepted = log.split("accepted ").nth(1).unwrap();
    let accepted = accepted.split(',').next().unwrap().to_owned();
    (accepted, count_lines(&log, ENDED))
}

#[test]
fn curl_resumes() {
    if !has_tool("curl") {
        return;
    }
    let (_root, carafe) = server();
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("part");
    for have in [1, 5_000_000, BIG_BYTES - 1] {
        fs::write(&part, &big()[..have]).unwrap();
        run(&carafe, folder.path(), "curl -sSf -C - -o part $1/big");
        assert_same("part", &fs::read(&part).unwrap(), &big());
    }
    // All of it is there: 416 says so, which curl takes for an end.
    let code = run(
        &carafe,
        folder.path(),
        "curl -sS -C - -o part -w '%{http_code}' $1/big",
    );
    assert_eq!(code, "416");
    assert_same("part", &fs::read(&part).unwrap(), &big());
    carafe.stop_clean();
}

#[test]
fn curl_asks_in_many_ways() {
    if !has_tool("curl") {
        return;
    }
    let (_root, carafe) = server();
    let folder = tempfile::tempdir().unwrap();
    let curl = |args: &str| run(&carafe, folder.path(), &format!("curl -sS {args}"));
    let code = |args: &str| curl(&format!("-o out -w '%{{http_code}}' {args}"));
    assert_eq!(curl("$1/small.txt"), "small bytes");
    assert_eq!(curl("--http1.0 $1/small.txt"), "small bytes");
    assert_eq!(curl("--http0.9 --range 1-2 $1/small.txt"), "ma");
    assert_eq!(curl("--range -5 $1/small.txt"), "bytes");
    let parts = curl("--range 0-1,6-7 $1/small.txt");
    assert!(parts.contains("\r\n\r\nsm\r\n--") && parts.contains("\r\n\r\nby\r\n--"));
    let head = curl("-I $1/big");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Length: 20971520\r\n"), "{head}");
    assert_eq!(curl("--compressed $1/small.txt"), "small bytes");
    assert_eq!(curl("-L $1/d"), "<p>index</p>");
    assert_eq!(
        curl("'$1/d/odd%20name%25.txt'".replace('\'', "\"").as_str()),
        "odd"
    );
    assert_eq!(curl("$1/empty"), "");
    assert_eq!(code("$1/missing"), "404");
    assert_eq!(code("--path-as-is $1/../small.txt"), "404");
    assert_eq!(code("-X DELETE $1/small.txt"), "405");
    assert_eq!(code("-X OPTIONS $1/small.txt"), "204");
    assert_eq!(code("-d some=body $1/small.txt"), "405");
    // curl asks first and may send all of it afterwards; it must see the answer.
    let upload = "head -c 3000000 /dev/zero > up";
    for way in [
        "-T up",
        "-H 'Expect: 100-continue' -T up",
        "--data-binary @up",
    ] {
        let script = format!("{upload}; curl -sS -o out -w '%{{http_code}}' {way} $1/small.txt");
        assert_eq!(run(&carafe, folder.path(), &script), "405", "{way}");
    }
    carafe.stop_clean();
}

#[test]
fn curl_asks_whether_something_has_changed() {
    if !has_tool("curl") {
        return;
    }
    let (root, carafe) = server();
    settle(root.path());
    let folder = tempfile::tempdir().unwrap();
    let code = |args: &str| {
        let script = format!("curl -sS -R -o out -w '%{{http_code}}' {args} $1/small.txt");
        run(&carafe, folder.path(), &script)
    };
    assert_eq!(code("-z '05 Nov 1994 00:00:00'"), "200");
    // -R gave it the server's time.
    assert_eq!(code("-z out"), "304");
    assert_eq!(code("-z '-05 Nov 1994 00:00:00'"), "412");
    assert_eq!(code("--etag-save tag"), "200");
    assert_eq!(code("--etag-compare tag"), "304");
    fs::write(root.path().join("small.txt"), "others").unwrap();
    assert_eq!(code("--etag-compare tag"), "200");
    assert_eq!(fs::read(folder.path().join("out")).unwrap(), b"others");
    carafe.stop_clean();
}

#[test]
fn curl_takes_several_files_over_one_connection() {
    if !has_tool("curl") {
        return;
    }
    let (_root, carafe) = server();
    let folder = tempfile::tempdir().unwrap();
    // -o belongs to the first URL.
    let urls = "-o big $1/big $1/small.txt $1/d/ $1/missing $1/empty $1/small.txt";
    let got = run(&carafe, folder.path(), &format!("curl -sS {urls}"));
    assert_eq!(got, "small bytes<p>index</p>404 Not Found\nsmall bytes");
    let brought = fs::read(folder.path().join("big")).unwrap();
    assert_same("big", &brought, &big());
    assert_eq!(counts(carafe), ("1".into(), 6));
}

#[test]
fn curl_takes_many_files_at_once() {
    if !has_tool("curl") {
        return;
    }
    let (_root, carafe) = server();
    let folder = tempfile::tempdir().unwrap();
    let script = "curl -sSf --parallel --parallel-max 8 '$1/{big,small.txt}?[1-8]' -o '#1-#2'";
    run(&carafe, folder.path(), &script.replace("'$1/", "\"$1\"'/"));
    for at in 1..=8 {
        let read = |name: &str| fs::read(folder.path().join(format!("{name}-{at}"))).unwrap();
        assert_same("big", &read("big"), &big());
        assert_eq!(read("small.txt"), b"small bytes");
    }
    carafe.stop_clean();
}

#[test]
fn wget_resumes() {
    if !has_tool("wget") {
        return;
    }
    let (root, carafe) = server();
    settle(root.path());
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("big");
    for have in [0, 1, 5_000_000, BIG_BYTES] {
        fs::write(&part, &big()[..have]).unwrap();
        run(&carafe, folder.path(), "wget -q -c $1/big");
        assert_same("big", &fs::read(&part).unwrap(), &big());
    }
    // One connection for all of these; the time stamp is the server's.
    run(
        &carafe,
        folder.path(),
        "wget -q -N $1/small.txt $1/d/index.html",
    );
    run(
        &carafe,
        folder.path(),
        "wget -q -N $1/small.txt; wget -q --spider $1/small.txt",
    );
    let got = fs::metadata(folder.path().join("small.txt")).unwrap();
    let served = fs::metadata(root.path().join("small.txt")).unwrap();
    assert_eq!(got.mtime(), served.ctime());
    run(&carafe, folder.path(), "! wget -q $1/missing");
    carafe.stop_clean();
}

/// zsync throws away what comes before the first line end of an answer with several parts.
#[test]
fn zsync_fetches_what_it_lacks() {
    if !has_tool("zsync") || !has_tool("zsyncmake") {
        return;
    }
    let (root, carafe) = server();
    let folder = tempfile::tempdir().unwrap();
    let mut old = big();
    for at in [100_000, 900_000, 5_000_000, 19_999_000] {
        old[at..at + 1000].fill(b'x');
    }
    fs::write(folder.path().join("old"), old).unwrap();
    let make = "zsyncmake -u big -o \"$1\"/big.zsync \"$1\"/big";
    shell(make, &[root.path().as_os_str()]);
    run(
        &carafe,
        folder.path(),
        "timeout 60 zsync -q -i old -o new $1/big.zsync >out 2>&1",
    );
    let new = fs::read(folder.path().join("new")).unwrap();
    assert_same("new", &new, &big());
    let log = carafe.stop();
    assert!(log.contains("\"GET /big HTTP/1.1\" 206"), "{log}");
}

#[test]
fn wrk_sees_no_error() {
    if !has_tool("wrk") {
        return;
    }
    let (_root, carafe) = server();
    let folder = tempfile::tempdir().unwrap();
    for path in ["small.txt", "big", "d/"] {
        let script = format!("wrk -t1 -c50 -d2s --timeout 60s $1/{path}");
        let report = run(&carafe, folder.path(), &script);
        assert!(!report.contains("Socket errors"), "{report}");
        assert!(!report.contains("Non-2xx"), "{report}");
        assert!(report.contains(" requests in "), "{report}");
    }
    let log = carafe.stop();
    assert!(!log.contains(" ERROR "), "{log}");
}

#[test]
fn python_keeps_its_connection() {
    const CLIENT: &str = "\
import http.client, sys
c = http.client.HTTPConnection(sys.argv[1].removeprefix('http://'))
for i in range(50):
    c.request('GET', '/small.txt')
    r = c.getresponse()
    assert (r.status, r.read()) == (200, b'small bytes'), r.status
    c.request('HEAD', '/big')
    r = c.getresponse()
    assert (r.status, r.headers['content-length'], r.read()) == (200, '20971520', b'')
    c.request('GET', '/missing')
    r = c.getresponse()
    assert (r.status, r.read()) == (404, b'404 Not Found\\n')
    c.request('GET', '/small.txt', headers={'If-None-Match': '*'})
    r = c.getresponse()
    assert (r.status, r.read()) == (304, b'')
    c.request('OPTIONS', '*')
    r = c.getresponse()
    assert (r.status, r.read()) == (204, b'')
c.request('GET', '/big')
assert len(c.getresponse().read()) == 20971520
c.close()
";
    if !has_tool("python3") {
        return;
    }
    let (_root, carafe) = server();
    let url = format!("http://{}", carafe.addr());
    shell("python3 -c \"$1\" \"$2\"", &[CLIENT.as_ref(), url.as_ref()]);
    assert_eq!(counts(carafe), ("1".into(), 251));
}

#[test]
fn soak_finds_no_wrong_byte() {
    let root = root_with(&[
        ("body", pattern(1, 60_000)),
        ("small.txt", b"small bytes".to_vec()),
        ("d/index.html", b"<p>index</p>".to_vec()),
    ]);
    // Those who say nothing wait for it.
    let carafe = Carafe::serve(root.path(), &["--request-timeout", "1s"]);
    let (addr, against) = (carafe.addr(), word(root.path()));
    let urls = ["body", "small.txt", "d/index.html"].map(|name| format!("http://{addr}/{name}"));
    let mix = "fast=50%,slow=10%,abort=10%,halfclose=10%,split=10%,idle=10%";
    for flags in ["", "--no-keep-alive"] {
        let words = format!(
            "{} --against {against} --slow-rate 60KiB --mix {mix} -n 500 -c 20 {flags}",
            urls.join(" ")
        );
        soak_words(&words).assert_pass();
    }
    carafe.stop_warned(&[]);
}

/// `carafe get` that the kernel kills when it has written a part of the file.
fn get_until_killed(folder: &Path, url: &str) {
    // SIGXFSZ; 512 or 1024 bytes a block, so 4 or 8 MiB.
    let script = "cd \"$2\"; ulimit -c 0; ulimit -f 8192; exec \"$0\" get -q -O \"$1\"";
    let status = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_carafe"), url])
        .arg(folder)
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(libc::SIGXFSZ), "{status}");
}

#[test]
fn get_resumes_what_is_the_same_and_nothing_else() {
    let (root, folder) = (root_with(&[("big", big())]), tempfile::tempdir().unwrap());
    let log = folder.path().join("log");
    age_all(root.path());
    // Without validators nothing is resumed.
    settle(root.path());
    let carafe = Carafe::serve(root.path(), &["--access-log", word(&log)]);
    let url = format!("http://{}/big", carafe.addr());
    let get = |folder: &Path| {
        let script = "cd \"$1\"; \"$2\" get -q -O \"$3\"";
        let program = OsStr::new(env!("CARGO_BIN_EXE_carafe"));
        shell(script, &[folder.as_os_str(), program, OsStr::new(&url)]);
        fs::read(folder.join("big")).unwrap()
    };
    let cut_here = |name: &str| {
        let place = folder.path().join(name);
        fs::create_dir(&place).unwrap();
        get_until_killed(&place, &url);
        let had = fs::metadata(place.join("big.part")).unwrap().len();
        assert!(had > 0 && had < BIG_BYTES as u64, "{had}");
        (place, had)
    };
    let (same, had) = cut_here("same");
    assert_same("continued", &get(&same), &big());
    let (changed, _) = cut_here("changed");
    // As long and as old as the first: its inode and its change time tell it apart.
    let other = pattern(7, BIG_BYTES);
    fs::write(root.path().join("new"), &other).unwrap();
    fs::rename(root.path().join("new"), root.path().join("big")).unwrap();
    age_all(root.path());
    assert_same("changed", &get(&changed), &other);
    for place in [same, changed] {
        let names = fs::read_dir(place)
            .unwrap()
            .map(|file| file.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["big"]);
    }
    let text = carafe.stop_warned(&[]);
    let lines = fs::read_to_string(log).unwrap();
    let replies = lines.lines().map(|line| line.split(' ').skip(8).take(2));
    let replies: Vec<_> = replies.map(|reply| reply.collect::<Vec<_>>()).collect();
    let rest = (BIG_BYTES as u64 - had).to_string();
    // The two that were cut may be logged later than what followed them.
    for expected in [["206", &rest], ["200", &BIG_BYTES.to_string()]] {
        let count = replies.iter().filter(|reply| reply[..] == expected).count();
        assert_eq!(count, 1, "{expected:?}: {lines}{text}");
    }
    assert_eq!(replies.len(), 4, "{lines}{text}");
}

#[test]
fn apt_reads_a_flat_repository() {
    if !has_tool("apt-get") {
        return;
    }
    // apt only looks at its length and its SHA-256.
    let package = b"as good as a package";
    let index = "Package: pour\nVersion: 1\nArchitecture: all\nMaintainer: nobody\n\
                 Filename: ./pour_1_all.deb\nSize: 20\nDescription: none\nSHA256: ";
    let root = root_with(&[("pour_1_all.deb", package.as_slice())]);
    let hash = shell(
        r#"sha256sum "$1" | cut -d' ' -f1"#,
        &[root.path().join("pour_1_all.deb").as_os_str()],
    );
    fs::write(
        root.path().join("Packages"),
        [index.as_bytes(), &hash].concat(),
    )
    .unwrap();
    let carafe = Carafe::serve(root.path(), &[]);
    let folder = tempfile::tempdir().unwrap();
    run(
        &carafe,
        folder.path(),
        r#"mkdir -p etc/apt/sources.list.d etc/apt/preferences.d dpkg downloads
        mkdir -p var/lib/apt/lists/partial var/cache/apt/archives/partial
        touch dpkg/status
        echo "deb [trusted=yes] $1/ ./" > etc/apt/sources.list
        printf '%s\n' "Dir \"$2\";" "Dir::State::status \"$2/dpkg/status\";" \
            'APT::Sandbox::User "root";' 'Acquire::http::Proxy "DIRECT";' > apt.conf
        export APT_CONFIG="$2/apt.conf"
        apt-get -q update >&2
        cd downloads
        apt-get -q download pour >&2"#,
    );
    let got = fs::read(folder.path().join("downloads/pour_1_all.deb")).unwrap();
    assert_same("the package", &got, package);
    carafe.stop_clean();
}

#[test]
fn who_sends_a_long_body_reads_why_nobody_wants_it() {
    if !has_tool("curl") || !has_tool("python3") {
        return;
    }
    let (_root, carafe) = server();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("body"), pattern(0, 60_000_000)).unwrap();
    for framing in [
        "",
        "-H Expect:",
        "-H Expect: -H 'Transfer-Encoding: chunked'",
    ] {
        let code = run(
            &carafe,
            folder.path(),
            &format!(
                "curl -sS -X POST --data-binary @body {framing} -o out -w '%{{http_code}}' $1/x"
            ),
        );
        assert_eq!(code, "405", "{framing}");
    }
    let code = run(
        &carafe,
        folder.path(),
        r#"python3 - "$1" <<'END'
import http.client, sys
server = http.client.HTTPConnection(sys.argv[1].removeprefix('http://'))
server.request('POST', '/x', body=open('body', 'rb'))
print(server.getresponse().status)
for _ in range(2):
    server.request('PUT', '/x', body=b'short')
    answer = server.getresponse()
    answer.read()
    print(answer.status, answer.will_close)
END"#,
    );
    assert_eq!(code, "405\n405 False\n405 False\n");
    carafe.stop_clean();
}
