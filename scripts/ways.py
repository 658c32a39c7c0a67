#!/usr/bin/env python3
"""Measures the ways to wait that examples/ has, and writes the figures into docs/guide/ways.md.

    cargo build --release --examples --bin carafe
    scripts/ways.py           # prints; --write puts them on the page

All of it is on 127.0.0.1. Needs strace, and 12,000 descriptors for one process.
"""

import errno
import json
import os
import pathlib
import re
import resource
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
BUILD = TOP / "target/release"
PAGE = TOP / "docs/guide/ways.md"
WAYS = ["blocking", "threads", "busy", "level", "pour", "handler"]
LARGE_BYTES = 1 << 30
MEMORY_BYTES = 256 << 20
IDLE = 10_000
SLOW = 20
NAME = b"a-name-of-24-characters\n"
TICK = os.sysconf("SC_CLK_TCK")


class Server:
    """One way, serving a folder; or carafe itself."""

    def __init__(self, way, root, before=(), limit=None, flags=()):
        if way == "carafe":
            command = [BUILD / "carafe", "serve", root, "-p", "0", "-b", "127.0.0.1", "-q"]
            command += ["--name-gap", "1m", "--request-timeout", "10m", *flags]
        else:
            command = [BUILD / "examples" / way, root, "127.0.0.1:0", "60000"]

        def bound():
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            if limit:
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        self.child = subprocess.Popen(
            [*before, *command], stderr=subprocess.PIPE, text=True, preexec_fn=bound
        )
        for line in self.child.stderr:
            if line.startswith("listening on "):
                self.port = int(line.rsplit(":", 1)[1])
                break
        threading.Thread(target=self.child.stderr.read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()

    def ask(self, name=b"", timeout=30):
        client = socket.create_connection(("127.0.0.1", self.port), timeout)
        client.sendall(name)
        return client

    def status(self, field):
        text = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+)", text, re.M)[1])

    def cpu_percent(self, seconds):
        def ticks():
            stat = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text()
            fields = stat.rsplit(") ", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        before = ticks()
        time.sleep(seconds)
        return 100 * (ticks() - before) / TICK / seconds

    def soak(self, clients=10, seconds=3):
        """Downloads of a small file in a second, by `carafe soak`."""
        command = [BUILD / "carafe", "soak", f"127.0.0.1:{self.port}", "small"]
        command += ["-c", str(clients), "-z", f"{seconds}s", "-t", "2s", "--json", "-"]
        done = subprocess.run(command, capture_output=True, text=True)
        report = json.loads(done.stdout)
        classes = report["outcomes"]["classes"]
        complete = [row["count"] for row in classes if row["class"] == "complete"]
        return sum(complete) / seconds


def receive(client):
    """How many bytes come, and whether they end in order."""
    count, buffer = 0, bytearray(1 << 20)
    try:
        while got := client.recv_into(buffer):
            count += got
        return count, "in order"
    except OSError as error:
        return count, error.__class__.__name__


def never_reads(way, root):
    with Server(way, root) as server:
        before = server.soak()
        client = server.ask(b"large\n")
        time.sleep(0.5)
        after = server.soak()
        client.close()
    return {"alone": before, "beside": after}


def many_idle(way, root):
    with Server(way, root) as server:
        clients = []
        for _ in range(IDLE):
            try:
                clients.append(server.ask(timeout=5))
            except OSError:
                break
        time.sleep(1)
        cpu = server.cpu_percent(3)
        memory, threads = server.status("VmRSS"), server.status("Threads")
        rate = server.soak()
        for client in clients:
            client.close()
    return {"connected": len(clients), "cpu": cpu, "kib": memory, "threads": threads, "rate": rate}


def byte_by_byte(way, root):
    """How long one download takes beside those who send a byte each 50 ms."""
    with Server(way, root) as server:
        def one():
            client = server.ask(timeout=60)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for index in range(len(NAME)):
                client.sendall(NAME[index : index + 1])
                time.sleep(0.05)
            receive(client)

        clients = [threading.Thread(target=one) for _ in range(SLOW)]
        for client in clients:
            client.start()
        time.sleep(0.2)
        began = time.monotonic()
        receive(server.ask(b"small\n"))
        seconds = time.monotonic() - began
        for client in clients:
            client.join()
        return {"seconds": seconds}


def larger_than_memory(way, root):
    # carafe reserves address space for threads that it may need.
    limit = MEMORY_BYTES if way != "carafe" else 2 * MEMORY_BYTES
    with Server(way, root, limit=limit) as server:
        count, end = receive(server.ask(b"large\n"))
        return {"bytes": count, "end": end, "peak_kib": server.status("VmHWM")}


def ask_in_two_parts(server):
    client = server.ask(b"sma")
    time.sleep(0.1)
    client.sendall(b"ll\n")
    receive(client)
    client.close()
    time.sleep(0.2)


def own_trace(root):
    """The calls of the same download as carafe's own trace has them."""
    with tempfile.TemporaryDirectory() as folder:
        trace = pathlib.Path(folder) / "trace.json"
        with Server("carafe", root, flags=["--trace", trace]) as server:
            ask_in_two_parts(server)
            server.child.terminate()
            server.child.wait()
        events = json.loads(trace.read_text())["traceEvents"]
    calls = sorted((event for event in events if "result" in event.get("args", {})), key=lambda event: event["ts"])
    accepted = next(index for index, event in enumerate(calls) if event["name"] == "accept4")
    closed = next(index for index, event in enumerate(calls) if event["name"] == "close" and event["cat"] == "other")
    return fold([told(event) for event in calls[accepted : closed + 1]])


def told(event):
    """As `brief`, of an event of a trace."""
    name, asked, result = event["name"], event["args"]["asked"], event["args"]["result"]
    if result < 0:
        return f"{name} {errno.errorcode[-result]}"
    return f"{name} {result}" if asked else name


def trace(way, root):
    """The calls of one download whose name comes in two parts."""
    with tempfile.NamedTemporaryFile("r") as log:
        calls = "network,poll,ppoll,epoll_wait,epoll_ctl,clone3"
        before = ["strace", "-D", "-f", "-qq", "-o", log.name, "-e", "signal=none", "-e", f"trace={calls}"]
        with Server(way, root, before) as server:
            time.sleep(0.3)
            start = pathlib.Path(log.name).read_text().count("\n")
            ask_in_two_parts(server)
        lines = pathlib.Path(log.name).read_text(errors="replace").splitlines()[start:]
    return fold([call for call in map(brief, lines) if call])


def brief(line):
    """A call and what comes of it: `recvfrom 3`."""
    found = re.match(r"\d+\s+(?:<\.\.\. )?(\w+).*?(?: resumed>.*)?\s=\s(-?\d+)(?: (E\w+))?", line)
    if not found or "unfinished" in line:
        return None
    name, result, error = found.groups()
    if name == "setsockopt":
        return None
    # Which descriptor, process or option it was doesn't matter here.
    result = {"accept4": "", "epoll_ctl": "", "clone3": ""}.get(name, f" {result}")
    return f"{name} {error}" if error else f"{name}{result}"


def fold(names):
    """Calls and pairs of calls that repeat are told once."""
    text, index = [], 0
    while index < len(names):
        for width in (1, 2):
            pattern, times = names[index : index + width], 1
            while names[index + times * width : index + (times + 1) * width] == pattern:
                times += 1
            if times > 3:
                break
        else:
            width, times = 1, 1
            pattern = names[index : index + 1]
        text.append(", ".join(pattern) if times == 1 else f"{times:,} times {' and '.join(pattern)}")
        index += width * times
    return text


def rows(figures):
    out = ["| | " + " | ".join(f"`{way}`" for way in figures) + " |"]
    out.append("|---" * (len(figures) + 1) + "|")

    def row(title, cell):
        out.append(f"| {title} | " + " | ".join(cell(figure) for figure in figures.values()) + " |")

    row("downloads a second, ten clients", lambda f: f"{f['never_reads']['alone']:,.0f}")
    row("… beside one that never reads", lambda f: f"{f['never_reads']['beside']:,.0f}")
    row(f"… beside {IDLE:,} that say nothing", lambda f: f"{f['idle']['rate']:,.0f}")
    row("memory with these, MiB", lambda f: f"{f['idle']['kib'] / 1024:,.0f}")
    row("threads with these", lambda f: f"{f['idle']['threads']:,}")
    row("CPU while nobody says anything", lambda f: f"{f['idle']['cpu']:.0f} %")
    row(
        f"a download beside {SLOW} that send a byte each 50 ms, ms",
        lambda f: f"{f['slow']['seconds'] * 1000:,.1f}",
    )
    row(
        f"1 GiB with {MEMORY_BYTES >> 20} MiB of memory",
        lambda f: "whole" if f["large"]["bytes"] == LARGE_BYTES else "reset",
    )
    row("… the most memory it held, MiB", lambda f: f"{f['large']['peak_kib'] / 1024:,.0f}")
    return out


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    figures, traces = {}, {}
    with tempfile.TemporaryDirectory() as root:
        (pathlib.Path(root) / "small").write_bytes(b"x" * 1024)
        (pathlib.Path(root) / NAME.decode().strip()).write_bytes(b"x" * 1024)
        with open(f"{root}/large", "wb") as large:
            large.truncate(LARGE_BYTES)
        for way in [*WAYS, "carafe"]:
            figures[way] = {
                "never_reads": never_reads(way, root),
                "idle": many_idle(way, root),
                "slow": byte_by_byte(way, root),
                "large": larger_than_memory(way, root),
            }
            print(way, json.dumps(figures[way]), file=sys.stderr)
        for way in WAYS:
            traces[way] = trace(way, root)
        traces["carafe"] = own_trace(root)
    blocks = {"figures": rows(figures)}
    for way, calls in traces.items():
        lines = textwrap.wrap(" → ".join(call.replace(" ", "\0") for call in calls), 96)
        blocks[f"calls {way}"] = ["```", *(line.replace("\0", " ") for line in lines), "```"]
    if "--write" not in sys.argv:
        for name, lines in blocks.items():
            print(f"== {name}", *lines, sep="\n")
        return
    text = PAGE.read_text()
    for name, lines in blocks.items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        head, rest = text.split(begin)
        text = head + begin + "\n".join(lines) + "\n" + rest[rest.index(end) :]
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
