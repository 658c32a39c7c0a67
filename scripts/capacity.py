"""`carafe soak --find` against a server whose capacity is known: `scripts/capacity.py target/release/carafe [RUNS]`.

The server has one thread and takes SERVICE for each request. While requests wait it counts from the end of the one
before, so that a sleep that is too long isn't added to the next: what comes evenly is held up to 1 / SERVICE.
"""

import collections
import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time

CARAFE = sys.argv[1]
RUNS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
SERVICE = 0.002
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.ready = selectors.DefaultSelector()
        self.ready.register(self.listener, selectors.EVENT_READ)
        self.waiting = collections.deque()

    def serve(self):
        while True:
            self.take(None)
            due = time.monotonic()
            while self.waiting:
                due += SERVICE
                time.sleep(max(0, due - time.monotonic()))
                with contextlib.suppress(OSError):
                    self.waiting.popleft().send(ANSWER)
                self.take(0)

    def take(self, longest):
        """Puts who asks into the line. A request is small, and comes whole."""
        for key, _ in self.ready.select(longest):
            if key.fileobj is self.listener:
                client, _ = self.listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.ready.register(client, selectors.EVENT_READ)
                continue
            try:
                asked = key.fileobj.recv(65536).count(b"\r\n\r\n")
            except ConnectionError:
                asked = 0
            self.waiting.extend([key.fileobj] * asked)
            if not asked:
                self.ready.unregister(key.fileobj)
                key.fileobj.close()


def main():
    server = Server()
    port = server.listener.getsockname()[1]
    child = os.fork()
    if child == 0:
        server.serve()
    truth = 1 / SERVICE
    print(f"it holds {truth:.0f}/s\n")
    print("| found | its interval | off by | held for longer | steps |\n|--:|---|--:|--:|--:|")
    try:
        for _ in range(RUNS):
            done = subprocess.run(
                [CARAFE, "soak", f"http://127.0.0.1:{port}/", "--find", "p90<5ms", "--rate", "50..5000", "-z", "1s",
                 "--quiet", "--json", "-"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            search = json.loads(done.stdout)["search"]
            steps, found = len(search["steps"]), search["capacity"]
            if not found:
                print(f"| {done.stderr.splitlines()[0]} | | | | {steps} |", flush=True)
                continue
            value, low, high = found["value"], found["low"], found["high"]
            print(f"| {value:.0f}/s | {low:.0f} to {high:.0f} | {100 * (value / truth - 1):+.1f} % "
                  f"| {search['held'] or 0:.0f}/s | {steps} |", flush=True)
    finally:
        os.kill(child, 15)
        os.waitpid(child, 0)


main()
