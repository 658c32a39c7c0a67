"""carafe soak beside wrk, oha and h2load: `scripts/generators.py target/release/carafe [SECONDS [ROUNDS]]`.

A server on one core and one generator after the other on another one, round by round; the medians of the rounds are
told. CPU time is the generator's alone, of all its requests. Who is not installed is left out. The last server takes a
time that is known, each connection by itself: there the times of all can be compared with the truth.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time

CARAFE = sys.argv[1]
SECONDS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
SERVER_CORE, LOAD_CORE = sorted(os.sched_getaffinity(0))[:2]
CONNECTIONS = 10
RATE = 2000
SLEEPERS = 4
SERVICE = 0.005
UNITS = {"us": 1, "ms": 1e3, "s": 1e6}


def run(words):
    """What a command writes, and the CPU time that it takes, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, used


def soak(url, connections, keeps, rate):
    load = ["--rate", str(rate), "-c", "100"] if rate else ["-c", str(connections)]
    keeping = [] if keeps else ["--no-keep-alive"]
    text, used = run([CARAFE, "soak", url, *load, *keeping, "-z", f"{SECONDS}s", "--quiet", "--json", "-"])
    report = json.loads(text)
    times = report["latency"]["corrected" if rate else "total"]
    done = sum(entry["count"] for entry in report["outcomes"]["classes"] if entry["class"] == "complete")
    return done / report["load"]["seconds"], times["p50"], times["p99"], used / done * 1e6


def wrk(url, connections, keeps, rate):
    if rate:
        return None
    close = [] if keeps else ["-H", "Connection: close"]
    words = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", *close, url]
    text, used = run(words)
    done = int(re.search(r"(\d+) requests in", text)[1])
    per_second = float(re.search(r"Requests/sec: *([\d.]+)", text)[1])

    def at(percent):
        number, unit = re.search(rf"{percent}% +([\d.]+)(us|ms|s)", text).groups()
        return float(number) * UNITS[unit]

    return per_second, at(50), at(99), used / done * 1e6


def oha(url, connections, keeps, rate):
    load = ["-q", str(rate), "--latency-correction"] if rate else []
    keeping = [] if keeps else ["--disable-keepalive"]
    connections = 100 if rate else connections
    text, used = run([
        "oha", "--no-tui", "--output-format", "json", "-c", str(connections), "-z", f"{SECONDS}s",
        *load, *keeping, url,
    ])
    report = json.loads(text)
    done = report["statusCodeDistribution"]["200"]
    times = report["latencyPercentiles"]
    return done / report["summary"]["total"], times["p50"] * 1e6, times["p99"] * 1e6, used / done * 1e6


def h2load(url, connections, keeps, rate):
    """With a rate by one connection: the timers of several run out at the same time, and its requests come together."""
    return h2load_timed(url, 1 if rate else connections, keeps, rate, lambda times: times)


def corrected(url, connections, keeps, rate):
    """h2load, its times corrected as wrk corrects its own."""
    def correct(times):
        if not times:
            return times
        apart = SECONDS * 1e6 // (len(times) // connections)
        return sorted(times + [missed for time in times for missed in missing(time, apart)])

    return None if rate else h2load_timed(url, connections, keeps, rate, correct)


def missing(time, apart):
    """What wrk (stats_correct in its stats.c) believes that a connection would have measured meanwhile."""
    while time >= 2 * apart:
        time -= apart
        if time > apart:
            yield time


def h2load_timed(url, connections, keeps, rate, correct):
    if not keeps:
        return None
    with tempfile.NamedTemporaryFile() as log:
        load = ["--rps", str(rate)] if rate else []
        _, used = run([
            "h2load", "--h1", "-t1", f"-c{connections}", f"-D{SECONDS}", f"--log-file={log.name}", *load, url,
        ])
        times = sorted(int(line.split("\t")[2]) for line in open(log.name))
    done = len(times)
    times = correct(times)
    return done / SECONDS, times[len(times) // 2], times[len(times) * 99 // 100], used / done * 1e6


class Sleeper(socketserver.StreamRequestHandler):
    """Answers each request when SERVICE is over."""

    disable_nagle_algorithm = True

    def handle(self):
        with contextlib.suppress(ConnectionError):
            while self.rfile.readline():
                due = time.monotonic() + SERVICE
                while self.rfile.readline().strip():
                    pass
                time.sleep(max(0, due - time.monotonic()))
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class Sleepers(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 100


def serving(folder):
    words = [CARAFE, "serve", "-q", "-b", "127.0.0.1", "-p", "0", folder]
    server = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE})
    )
    address = re.search(r"listening on (\S+)", server.stderr.readline())[1]
    return server, f"http://{address}/k1"


def compare(title, url, connections, keeps=True, rate=None):
    """Measures one kind of load with each of them, and prints a table."""
    generators = [soak, *(one for one in (wrk, oha, h2load) if shutil.which(one.__name__))]
    if wrk in generators and h2load in generators:
        generators.append(corrected)
    seen = {one: [] for one in generators}
    for _ in range(ROUNDS):
        for one in generators:
            seen[one].append(one(url, connections, keeps, rate))
            time.sleep(0.2)
    print(f"\n| {title} | requests a second | p50 | p99 | CPU time a request |\n|---|--:|--:|--:|--:|")
    for one, rounds in seen.items():
        if rounds[0] is None:
            continue
        per_second, p50, p99, cpu = (statistics.median(column) for column in zip(*rounds))
        name = "h2load, corrected as wrk does" if one is corrected else one.__name__
        print(f"| {name} | {per_second:,.0f} | {p50:,.0f} µs | {p99:,.0f} µs | {cpu:.1f} µs |", flush=True)


def main():
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "k1"), "wb") as file:
            file.write(os.urandom(1000))
        server, url = serving(folder)
        try:
            compare(f"{CONNECTIONS} connections, kept", url, CONNECTIONS)
            compare(f"{CONNECTIONS} at once, one connection a request", url, CONNECTIONS, keeps=False)
            compare(f"{RATE:,} arrivals a second, connections kept", url, CONNECTIONS, rate=RATE)
        finally:
            server.terminate()
            server.wait()
    os.sched_setaffinity(0, {SERVER_CORE})
    with Sleepers(("127.0.0.1", 0), Sleeper) as sleepers:
        threading.Thread(target=sleepers.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{sleepers.server_address[1]}/"
        compare(f"{SLEEPERS} connections, kept, {SERVICE * 1e3:.0f} ms each", url, SLEEPERS)
        sleepers.shutdown()


main()
