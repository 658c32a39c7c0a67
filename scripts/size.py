#!/usr/bin/env python3
"""How much there is to read: lines of code by room, and what is met on the way of a warm download.

A line of code is a line of a file in src/ that is neither empty nor only a comment, and that a program
without tests is compiled from: not what follows an inline `#[cfg(test)] mod tests {`, which ends its file,
and no file of a module that stands behind `#[cfg(test)]`, nor of a module in it. A room is a file of src/
together with the folder of its name.

The types and files on the way are listed by hand. The list is checked: the script fails if a file is
gone, or no longer defines a type that is listed with it.
"""

import re
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parent.parent / "src"

# What moves bytes, without what they mean: the loop, a connection, files that may be waited for, and the
# application that wires them. Of the protocols only their seam (src/protocol.rs) counts. What a process
# needs around its loops (daemon), who a client is (peer), TLS and traces are rooms of their own, which one
# can know the core without.
CORE_ROOMS = ("reactor", "conn", "file", "serve")
CORE_FILES = ("protocol.rs",)

# The files of ARCHITECTURE's first reading.
FIRST_READING = (
    "../examples/pour.rs",
    "reactor/event.rs",
    "reactor.rs",
    "conn.rs",
    "conn/reading.rs",
    "conn/sending.rs",
    "conn/closing.rs",
    "protocol.rs",
    "protocol/bare.rs",
)

# From the readiness of a connection that was accepted before to its close, for a file that is in the cache
# with its contents, asked for a second time. Types of the standard library and of crates are not counted,
# and neither are those of which a reader only sees that they are not at work: tasks of a disk, files that
# are opened anew, lists, who lingers or waits in a line, trusted proxies, TLS, traces, times of phases. A file
# without a type is one whose functions are on the way.
COMMON = {
    "reactor.rs": ["Reactor"],
    "reactor/event.rs": ["Event", "Readiness", "Action", "StepContext"],
    "reactor/handler.rs": ["Handler", "Context", "LoopHandle", "Token"],
    "reactor/conn_slab.rs": ["ConnSlab", "Slot", "Schedule"],
    "reactor/timer_wheel.rs": ["Timers", "Deadline"],
    "reactor/shutdown.rs": [],
    "serve/serving.rs": ["Serving"],
    "serve/conn_record.rs": ["ConnRecord", "Active", "Role"],
    "serve/telemetry.rs": ["Telemetry"],
    "peer.rs": ["Peer", "Client"],
    "conn.rs": ["Conn", "State"],
    "conn/step.rs": ["StepIo", "Step", "Timeouts"],
    "conn/transport.rs": ["Transport", "Socket"],
    "conn/input_buffer.rs": ["InputBuffer"],
    "conn/reading.rs": ["Reading"],
    "conn/sending.rs": ["Sending", "Leftover"],
    "conn/progress.rs": ["Progress"],
    "conn/closing.rs": ["Extra", "OnTheWire"],
    "protocol.rs": ["Protocol", "Request", "InputState", "Decision", "Reply", "RequestEnd", "Body"],
    "protocol/sniff.rs": ["SharedPort"],
    "http/request.rs": ["Sniffed"],
    "root.rs": ["Root"],
    "root/cache.rs": ["Cache"],
    "file/open_file.rs": ["OpenFile"],
    "file/piece.rs": ["Segment"],
    "telemetry/response.rs": ["Response"],
    "telemetry.rs": ["Reason", "Stats"],
}
WAYS = {
    "a warm bare download of 2 KiB": {
        **COMMON,
        "protocol/bare.rs": ["Bare"],
    },
    "a warm HTTP download of 2 KiB": {
        **COMMON,
        "conn/sending.rs": COMMON["conn/sending.rs"] + ["AfterReply", "KeptAlive", "NextInput"],
        "protocol/http.rs": ["Http", "Asked"],
        "protocol/http/answer.rs": ["Answer"],
        "protocol/http/representation.rs": [],
        "http/request.rs": ["Sniffed", "Parsed", "Request", "RequestBody", "Version"],
        "http/method.rs": ["Method"],
        "http/target.rs": ["Target", "Name"],
        "http/fields.rs": ["Fields"],
        "http/custom_fields.rs": ["CustomFields"],
        "http/date.rs": ["Clock", "Now"],
        "http/head.rs": ["Head"],
    },
}

INLINE_TESTS = re.compile(r"^#\[cfg\(test\)\]\n(#\[.*\]\n)*mod tests \{", re.MULTILINE)
TEST_MODULE = re.compile(r"^#\[cfg\(test\)\]\n(?:#\[.*\]\n)*(?:pub(?:\([a-z: ]+\))? )?mod (\w+);", re.MULTILINE)


def test_modules():
    """The paths, without .rs, of the modules that only tests compile."""
    for path in SRC.rglob("*.rs"):
        folder = path.parent if path.name in ("lib.rs", "main.rs", "mod.rs") else path.with_suffix("")
        yield from (folder / name for name in TEST_MODULE.findall(path.read_text()))


def code_lines(path):
    """The lines of code of a file, without its tests."""
    text = INLINE_TESTS.split(path.read_text())[0]
    lines = (line.strip() for line in text.splitlines())
    return sum(1 for line in lines if line and not line.startswith("//"))


def defines(text, name):
    """Whether a file's text defines a type or trait of this name."""
    return re.search(rf"^\s*(pub(\([a-z: ]+\))? )?(struct|enum|trait|type) {name}\b", text, re.MULTILINE)


def missing(way):
    """What a way lists and the source doesn't have."""
    for name, types in way.items():
        path = SRC / name
        if not path.is_file():
            yield f"src/{name} is gone"
            continue
        text = path.read_text()
        yield from (f"src/{name} defines no {kind}" for kind in types if not defines(text, kind))


def main():
    tests = set(test_modules())
    files = [path for path in SRC.rglob("*.rs") if tests.isdisjoint([path.with_suffix(""), *path.parents])]
    sizes = {path.relative_to(SRC): code_lines(path) for path in files}
    rooms = {}
    for path, lines in sizes.items():
        room = path.parts[0].removesuffix(".rs")
        rooms[room] = rooms.get(room, 0) + lines
    core = sum(rooms[room] for room in CORE_ROOMS) + sum(sizes[Path(name)] for name in CORE_FILES)

    print("lines of code, without tests, comments and empty lines:")
    for room, lines in sorted(rooms.items(), key=lambda row: -row[1]):
        print(f"{lines:7}  {room}")
    print(f"{sum(sizes.values()):7}  in all")
    print(f"{core:7}  the core: {', '.join(CORE_ROOMS + CORE_FILES)}")

    first_reading = sum(code_lines(SRC / name) for name in FIRST_READING)
    print(f"{first_reading:7}  ARCHITECTURE's first reading, of {len(FIRST_READING)} files")

    errors = []
    for title, way in WAYS.items():
        lines = sum(sizes[Path(name)] for name in way)
        print(f"\n{title}: {sum(map(len, way.values()))} types in {len(way)} files of {lines} lines")
        for name, types in way.items():
            print(f"  {name:24} {', '.join(types)}")
        errors += missing(way)
    for error in dict.fromkeys(errors):
        print(f"size.py: {error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
