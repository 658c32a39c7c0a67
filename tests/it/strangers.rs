//! Programs that want more of a server than a file: who takes it in pieces, who keeps packages or revisions
//! in files, and a cache in front. What isn't installed is skipped aloud.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::common::{Carafe, assert_same, count_lines, has_tool, pattern, root_with, shell};
use crate::proxied::Varnish;
use crate::talk::{age_all, settle};
use tempfile::{TempDir, tempdir};

const BIG_BYTES: usize = 20 * 1024 * 1024;

fn big() -> Vec<u8> {
    pattern(5, BIG_BYTES)
}

fn root() -> TempDir {
    let root = root_with(&[
        ("big", big()),
        ("small.txt", b"small bytes".to_vec()),
        ("d/a b+c%.txt", b"odd".to_vec()),
    ]);
    age_all(root.path());
    root
}

/// Runs a script in a folder, which is its home, with this URL as `$1` and what is there as `$2`.
#[track_caller]
fn run(folder: &Path, url: &str, there: &Path, script: &str) -> String {
    let script = format!("set -eu; cd \"$3\"; export HOME=\"$3\" no_proxy='*'; {script}");
    let args = [OsStr::new(url), there.as_os_str(), folder.as_os_str()];
    String::from_utf8(shell(&script, &args)).unwrap()
}

fn url(carafe: &Carafe) -> String {
    format!("http://{}", carafe.addr())
}

#[test]
fn aria2_takes_a_file_in_eight_pieces_and_goes_on() {
    if !has_tool("aria2c") {
        return;
    }
    let root = root();
    let carafe = Carafe::serve(root.path(), &[]);
    let folder = tempdir().unwrap();
    let aria2 = |script: &str| {
        let script = format!("get() {{ aria2c --no-conf -q -x8 -s8 -k1M \"$@\"; }}; {script}");
        run(folder.path(), &url(&carafe), root.path(), &script);
    };
    aria2(
        "sum=$(sha256sum < \"$2/big\" | cut -c-64); get --checksum=sha-256=$sum -o one \"$1/big\"",
    );
    assert_same("one", &fs::read(folder.path().join("one")).unwrap(), &big());
    // Another file is told by its digest: exit code 32.
    aria2("get --checksum=sha-256=$(printf %064d 0) -o no \"$1/small.txt\" || [ $? = 32 ]");
    fs::write(folder.path().join("part"), &big()[..3_000_000]).unwrap();
    aria2("get -c -o part \"$1/big\"");
    assert_same(
        "part",
        &fs::read(folder.path().join("part")).unwrap(),
        &big(),
    );
    let log = carafe.stop_warned(&[]);
    assert!(
        count_lines(&log, "\"GET /big HTTP/1.1\" 206 ") >= 8,
        "{log}"
    );
}

#[test]
fn busybox_has_clients_of_both_protocols() {
    if !has_tool("busybox") {
        return;
    }
    let root = root();
    let carafe = Carafe::serve(root.path(), &[]);
    let folder = tempdir().unwrap();
    let script = "head -c 1000 \"$2/big\" > big; busybox wget -q -c \"$1/big\"; cmp big \"$2/big\"
        busybox wget -q -O - \"$1/d/a%20b+c%25.txt\"; busybox wget -q --spider \"$1/small.txt\"
        authority=${1#http://}; printf small.txt | busybox nc ${authority%:*} ${authority#*:}
        ! busybox wget -q -O - \"$1/none\" 2> /dev/null";
    let got = run(folder.path(), &url(&carafe), root.path(), script);
    assert_eq!(got, "oddsmall bytes");
    carafe.stop_clean();
}

#[test]
fn git_clones_and_pulls_from_plain_files() {
    if !has_tool("git") {
        return;
    }
    let (root, folder) = (tempdir().unwrap(), tempdir().unwrap());
    let carafe = Carafe::serve(root.path(), &[]);
    let git = |script: &str| {
        let script = format!(
            "export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@localhost
            export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@localhost GIT_TERMINAL_PROMPT=0
            publish() {{
                git -C mine add -A; git -C mine commit -qm \"$1\"; git -C mine push -q \"$2/r.git\" HEAD
                git -C \"$2/r.git\" update-server-info
            }}
            {script}"
        );
        run(folder.path(), &url(&carafe), root.path(), &script)
    };
    git("git init -q --bare \"$2/r.git\"; git init -q mine; mkdir mine/d; echo one > 'mine/d/a b'
        publish first \"$2\"; git -C \"$2/r.git\" repack -qad; git -C \"$2/r.git\" update-server-info
        git -C \"$2/r.git\" symbolic-ref HEAD $(git -C mine symbolic-ref HEAD)
        git clone -q \"$1/r.git\" theirs; cmp mine/d/a\\ b theirs/d/a\\ b");
    // A pack was cloned; now objects one by one.
    git(
        "echo two > mine/two; publish second \"$2\"; git -C theirs pull -q; cmp mine/two theirs/two
        git -C theirs fsck --strict --no-progress
        ! git clone -q \"$1/none.git\" none 2> /dev/null",
    );
    carafe.stop_clean();
}

/// Makes a repository of Debian packages at `$2`, and says in `apt` how it is asked, with nothing of this
/// machine's own.
const APT: &str = "
    repository() {
        mkdir -p \"$1/pool\"
        for n in 1 2 3 4 5 6; do
            mkdir -p p/DEBIAN p/usr/share; seq $((n * 30000)) > p/usr/share/carafe-$n
            printf 'Package: carafe-t%s\\nVersion: 1:%s+b~rc1\\nArchitecture: all\\nMaintainer: a <a@localhost>\\nDescription: t\\n' \
                $n \"$2\" > p/DEBIAN/control
            dpkg-deb -Znone --root-owner-group -b p \"$1/pool/carafe-t${n}_1%3a$2+b~rc1_all.deb\" > /dev/null; rm -r p
        done
        for deb in \"$1\"/pool/*_1%3a$2*.deb; do
            dpkg-deb -f \"$deb\"; echo \"Filename: pool/${deb##*/}\"; echo \"Size: $(stat -c %s \"$deb\")\"
            echo \"SHA256: $(sha256sum < \"$deb\" | cut -c-64)\"; echo
        done > \"$1/Packages\"
        printf 'Suite: s\\nDate: %s\\nSHA256:\\n %s %s Packages\\n' \"$(date -Ru)\" \"$(sha256sum < \"$1/Packages\" | cut -c-64)\" \
            $(stat -c %s \"$1/Packages\") > \"$1/Release\"
    }
    apt() {
        apt-get -o Dir=\"$PWD\" -o Dir::Etc=etc -o Dir::Etc::parts=none -o Dir::State=state \
            -o Dir::State::status=\"$PWD/status\" -o Dir::Cache=cache -o Dir::Log=log -o Debug::NoLocking=true \
            -o APT::Sandbox::User= -o Acquire::http::Proxy=DIRECT -o Acquire::Languages=none \
            -o APT::Architecture=all -o APT::Architectures::=all -y \"$@\"
    }";

#[test]
fn apt_updates_and_fetches_packages() {
    if !has_tool("apt-get") {
        return;
    }
    let (root, folder) = (tempdir().unwrap(), tempdir().unwrap());
    let carafe = Carafe::serve(root.path(), &[]);
    let apt = |script: &str| {
        let script = format!("export APT_CONFIG=/dev/null\n{APT}\n{script}");
        run(folder.path(), &url(&carafe), root.path(), &script)
    };
    let install = "apt -qq update; apt -qq -d install carafe-t1 carafe-t2 carafe-t3 carafe-t4 carafe-t5 carafe-t6
        for deb in \"$2\"/pool/*; do cmp \"$deb\" \"cache/archives/${deb##*/}\"; done";
    apt("repository \"$2\" 1; mkdir -p etc state/lists/partial cache/archives/partial log; : > status
        echo \"deb [trusted=yes] $1 ./\" > etc/sources.list");
    settle(root.path());
    apt(install);
    // What is unchanged doesn't come again; a new version does.
    let told = apt("apt update 2>&1");
    assert!(told.contains("Hit:"), "{told}");
    apt(&format!(
        "rm \"$2\"/pool/* cache/archives/*.deb; repository \"$2\" 2; {install}"
    ));
    let log = carafe.stop_warned(&[]);
    assert_eq!(count_lines(&log, "_all.deb HTTP/1.1\" 200 "), 12, "{log}");
}

#[test]
fn cargo_takes_crates_from_a_registry_of_files() {
    let (root, folder) = (tempdir().unwrap(), tempdir().unwrap());
    let carafe = Carafe::serve(root.path(), &[]);
    // A crate is a tar of its folder; the index has a line for each version.
    let script = "mkdir -p carat-0.1.0/src \"$2/ca/ra\" \"$2/dl\" use/src use/.cargo
        printf '[package]\\nname=\"carat\"\\nversion=\"0.1.0\"\\nedition=\"2021\"\\n' > carat-0.1.0/Cargo.toml
        : > carat-0.1.0/src/lib.rs; tar -czf \"$2/dl/carat-0.1.0.crate\" carat-0.1.0
        printf '{\"name\":\"carat\",\"vers\":\"0.1.0\",\"deps\":[],\"cksum\":\"%s\",\"features\":{},\"yanked\":false}\\n' \
            $(sha256sum < \"$2/dl/carat-0.1.0.crate\" | cut -c-64) > \"$2/ca/ra/carat\"
        echo \"{\\\"dl\\\":\\\"$1/dl/{crate}-{version}.crate\\\"}\" > \"$2/config.json\"
        touch -d '2001-09-09' \"$2\"/config.json \"$2\"/ca/ra/carat
        printf '[package]\\nname=\"use\"\\nversion=\"0.1.0\"\\nedition=\"2021\"\\n[dependencies]\\ncarat={version=\"0.1\",registry=\"files\"}\\n' > use/Cargo.toml
        echo 'fn main() {}' > use/src/main.rs
        printf '[registries.files]\\nindex=\"sparse+%s/\"\\n' \"$1\" > use/.cargo/config.toml
        cd use; \"$CARGO\" -q fetch; ls ../cargo/registry/src/*/; rm Cargo.lock; \"$CARGO\" -q fetch";
    // Its own home, but the toolchains of this one.
    let home = std::env::var("HOME").unwrap_or_default();
    let rustup = std::env::var("RUSTUP_HOME").unwrap_or(format!("{home}/.rustup"));
    let script = format!(
        "export CARGO=\"{}\" RUSTUP_HOME=\"{rustup}\" CARGO_HOME=\"$PWD/cargo\"; {script}",
        env!("CARGO")
    );
    let got = run(folder.path(), &url(&carafe), root.path(), &script);
    assert_eq!(got, "carat-0.1.0\n");
    let log = carafe.stop_warned(&[]);
    assert!(log.contains("\"GET /ca/ra/carat HTTP/1.1\" 304 "), "{log}");
    assert_eq!(
        count_lines(&log, "\"GET /dl/carat-0.1.0.crate HTTP/1.1\" 200 "),
        1
    );
}

#[test]
fn varnish_keeps_what_it_may_and_outlives_closed_connections() {
    if !has_tool("varnishd") || !has_tool("curl") {
        return;
    }
    let root = root();
    let carafe = Carafe::serve(root.path(), &["--keep-alive", "100ms"]);
    // What has a query is asked for each time.
    let varnish = Varnish::before(&carafe, "if (req.url ~ \"\\?\") { return (pass); }");
    let folder = tempdir().unwrap();
    let url = format!("http://{}", varnish.addr());
    let curl = |script: &str| run(folder.path(), &url, root.path(), script);
    curl("for n in 1 2; do curl -sSf \"$1/big\" -o big; cmp big \"$2/big\"; done
        curl -sSf -r 1000000-1999999 \"$1/big\" -o part; tail -c +1000001 \"$2/big\" | head -c 1000000 | cmp - part
        curl -sSf --etag-save tag \"$1/small.txt\" -o small.txt");
    let code = "curl -sS -o out -w '%{http_code}'";
    assert_eq!(
        curl(&format!("{code} --etag-compare tag \"$1/small.txt\"")),
        "304"
    );
    assert_eq!(curl(&format!("{code} \"$1/none\"")), "404");
    assert_eq!(
        curl(&format!("{code} -T small.txt \"$1/small.txt\"")),
        "405"
    );
    // Whatever varnish has kept is closed by then, or just now.
    for _ in 0..10 {
        assert_eq!(curl(&format!("sleep 0.1; {code} \"$1/small.txt?\"")), "200");
    }
    let log = carafe.stop_warned(&[]);
    assert_eq!(count_lines(&log, "\"GET /big HTTP/1.1\" 200 "), 1, "{log}");
}
