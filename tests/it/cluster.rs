//! Many machines, played by one: three servers behind HAProxy, configured as docs/cluster.md has it, whose files lie
//! on JuiceFS.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::{Carafe, exchange, has_tool, pattern, reserved_port, skip, until};
use crate::proxied::Haproxy;
use crate::scrape::Page;
use crate::soaking::Soak;
use rustix::process::Signal;
use socket2::Socket;

const MACHINES: [&str; 3] = ["a", "b", "c"];
const FILES: u64 = 100;

/// What all machines have: a folder for each, of which all hold the same.
struct Store {
    roots: Vec<PathBuf>,
    mounts: Vec<Mount>,
}

impl Store {
    /// On JuiceFS, mounted once for each machine; where that can't be, said aloud, it is one folder.
    fn new(folder: &Path) -> Self {
        let mounts = if has_tool("juicefs") {
            Mount::all(folder)
        } else {
            Vec::new()
        };
        let one = folder.join("one");
        fs::create_dir(&one).unwrap();
        let roots = if mounts.is_empty() {
            MACHINES.map(|_| one.clone()).to_vec()
        } else {
            mounts.iter().map(|mount| mount.at.clone()).collect()
        };
        Self { roots, mounts }
    }

    fn is_shared(&self) -> bool {
        !self.mounts.is_empty()
    }
}

/// JuiceFS, mounted. Unmounted in the end.
struct Mount {
    at: PathBuf,
    child: Child,
}

impl Mount {
    /// One for each machine, or none.
    fn all(folder: &Path) -> Vec<Self> {
        let store = folder.join("store");
        let mut format = juicefs(folder, "format");
        format.args(["--storage", "file", "--bucket"]);
        // It wants the slash.
        format.arg(format!("{}/", store.display()));
        let status = format.arg(metadata(folder)).arg("shared").status().unwrap();
        assert!(status.success(), "juicefs format");
        let mounts = MACHINES.map(|machine| Self::new(folder, machine));
        mounts
            .into_iter()
            .collect::<Option<_>>()
            .unwrap_or_default()
    }

    /// A machine's; `None`, said aloud, where that can't be.
    fn new(folder: &Path, machine: &str) -> Option<Self> {
        let at = folder.join(machine);
        fs::create_dir(&at).unwrap();
        let mut command = juicefs(folder, "mount");
        // It tells nobody but this machine anything.
        command.args(["--no-usage-report", "--no-agent", "--no-syslog"]);
        command.args([
            "--no-bgjob",
            "--backup-meta",
            "0",
            "--metrics",
            "127.0.0.1:0",
        ]);
        command
            .arg("--cache-dir")
            .arg(folder.join("cache").join(machine));
        let child = command.arg(metadata(folder)).arg(&at).spawn().unwrap();
        let mut mount = Self { at, child };
        let of = |path: &Path| fs::metadata(path).map(|data| data.dev()).ok();
        let mut has_ended = false;
        until("it is mounted, or won't be", || {
            has_ended = mount.child.try_wait().unwrap().is_some();
            has_ended || of(&mount.at).is_some_and(|device| Some(device) != of(folder))
        });
        if has_ended {
            skip("fuse", "juicefs can't mount");
            return None;
        }
        Some(mount)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // It ends when nothing of it is mounted.
        let unmounted = Command::new("umount").arg(&self.at).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn juicefs(folder: &Path, what: &str) -> Command {
    let mut command = Command::new("juicefs");
    command.args([what, "--quiet"]).env("HOME", folder);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn metadata(folder: &Path) -> String {
    format!("sqlite3://{}/metadata", folder.display())
}

/// Where a server is, whenever it is there.
struct Machine {
    root: PathBuf,
    address: SocketAddr,
    metrics: SocketAddr,
    _reserved: [Socket; 2],
    carafe: Option<Carafe>,
}

impl Machine {
    fn new(root: &Path) -> Self {
        let (ports, kept): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| reserved_port())
            .map(|(socket, port)| (SocketAddr::from(([127, 0, 0, 1], port)), socket))
            .unzip();
        let mut machine = Self {
            root: root.to_owned(),
            address: ports[0],
            metrics: ports[1],
            _reserved: kept.try_into().unwrap(),
            carafe: None,
        };
        machine.start();
        machine
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command.arg("serve").arg(&self.root);
        command.args(["-b", "127.0.0.1", "-p", &self.address.port().to_string()]);
        command.args(["--metrics", &self.metrics.to_string()]);
        command.args(["--trusted-proxy", "127.0.0.1/32"]);
        self.carafe = Some(Carafe::start(command));
    }

    fn carafe(&self) -> &Carafe {
        self.carafe.as_ref().expect("it runs")
    }

    fn served(&self) -> f64 {
        Page::get(self.metrics).sum("carafe_replies_total")
    }

    fn wait_for_more(&self) {
        let before = self.served();
        until("it serves more", || self.served() >= before + 20.0);
    }
}

/// The page's, for these machines; it answers questions in the folder.
fn configuration(listen: SocketAddr, folder: &Path, machines: &[Machine]) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cluster.md");
    let page = fs::read_to_string(page).unwrap();
    let mut blocks = page.split("```");
    let block = blocks.find(|block| block.contains("balance uri")).unwrap();
    let mut text = block.replace("bind :80", &format!("bind {listen}"));
    for (number, machine) in (1..).zip(machines) {
        let (address, metrics) = (machine.address, machine.metrics.port());
        let here = format!("{address} port {metrics}");
        let written = format!("10.0.0.{number}:7890");
        assert!(text.contains(&written), "{text}");
        text = text.replace(&written, &here);
    }
    format!("global\n stats socket {}/ask\n{text}", folder.display())
}

/// Waits until HAProxy takes a machine for up or down.
fn wait_until(haproxy: &Haproxy, machine: &str, is_up: bool) {
    until("the balancer has seen it", || {
        let mut socket = UnixStream::connect(haproxy.folder().join("ask")).unwrap();
        socket.write_all(b"show stat -1 4 -1\n").unwrap();
        let mut table = String::new();
        socket.read_to_string(&mut table).unwrap();
        let mut rows = table.lines().map(|row| row.split(',').collect::<Vec<_>>());
        let heads = rows.next().unwrap();
        let status = heads.iter().position(|head| *head == "status").unwrap();
        let row = rows.find(|row| row[1] == machine).unwrap();
        // "UP 1/2" is one that is in doubt.
        row[status] == if is_up { "UP" } else { "DOWN" }
    });
}

#[test]
fn one_is_killed_one_drains_and_one_hangs_and_no_request_fails() {
    if !has_tool("haproxy") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let names: Vec<_> = (0..FILES).map(|number| format!("f{number}")).collect();
    for (number, name) in (0..).zip(&names) {
        let bytes = pattern(number, 1 + 83 * number as usize);
        fs::write(store.roots[0].join(name), bytes).unwrap();
    }
    let list = folder.path().join("names");
    fs::write(&list, names.join("\n")).unwrap();
    let mut machines: Vec<_> = store.roots.iter().map(|root| Machine::new(root)).collect();
    let haproxy = Haproxy::configured(|address, folder| configuration(address, folder, &machines));

    let target = format!("http://{}/f0", haproxy.addr());
    let words = "--verify --rate 200 -z 10m -t 60s --source 127.0.1.0/28 --names-from";
    let mut words: Vec<_> = words.split(' ').collect();
    words.extend([list.to_str().unwrap(), &target]);
    let load = Soak::start(&words);
    machines.iter().for_each(Machine::wait_for_more);

    // SIGKILL.
    machines[0].carafe = None;
    wait_until(&haproxy, "a", false);
    machines[1].wait_for_more();
    machines[0].start();
    wait_until(&haproxy, "a", true);
    machines[0].wait_for_more();

    // SIGTERM.
    let drained = machines[1].carafe.take().unwrap();
    drained.stop_clean();
    machines[2].wait_for_more();
    machines[1].start();
    wait_until(&haproxy, "b", true);
    machines[1].wait_for_more();

    let hung = machines[2].carafe();
    hung.signal(Signal::STOP);
    wait_until(&haproxy, "c", false);
    machines[0].wait_for_more();
    hung.signal(Signal::CONT);
    wait_until(&haproxy, "c", true);
    machines[2].wait_for_more();

    load.signal(Signal::INT);
    let soaked = load.wait();
    // Whether the load was offered is the machine's affair.
    soaked.assert_no_failure();
    assert_eq!(soaked.number("verification.corrupt"), 0);
    for machine in &mut machines {
        let carafe = machine.carafe.take().unwrap();
        let log = carafe.log();
        assert!(
            log.contains("] 127.0.1.") && log.contains(" via 127.0.0.1:"),
            "{log}"
        );
        carafe.stop_clean();
    }
}

#[test]
fn what_one_machine_writes_all_serve() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    if !store.is_shared() {
        return;
    }
    let machines: Vec<_> = store
        .roots
        .iter()
        .map(|root| Carafe::serve(root, &[]))
        .collect();
    for round in 0..3 {
        let bytes = pattern(round, 100_000);
        let writer = &store.roots[round as usize];
        fs::write(writer.join("new"), &bytes).unwrap();
        fs::rename(writer.join("new"), writer.join("file")).unwrap();
        for carafe in &machines {
            until("it has the new one", || {
                let reply = exchange(carafe.addr(), b"file\n").unwrap();
                let old = round.checked_sub(1).map(|round| pattern(round, 100_000));
                assert!(
                    reply == bytes || reply == old.unwrap_or_default(),
                    "old or new: {} bytes; {}",
                    reply.len(),
                    carafe.log()
                );
                reply == bytes
            });
        }
    }
    machines.into_iter().for_each(Carafe::stop_clean);
}
