#!/usr/bin/env python3
"""How much there is to read: lines of code by room, and what is met on the way of a warm download.

A line of code is a line of a file in src/ that is neither empty nor only a comment, and stands in no
test: `tests.rs`, and whatever follows an inline `#[cfg(test)] mod tests {`, which ends its file. A room
is a file of src/ together with the folder of its name.

The types and files on the way are listed by hand. The list is checked: the script fails if a file is
gone, or no longer defines a type that is listed with it.
"""

import re
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parent.parent / "src"

# What moves bytes, without what they mean. Of the protocols only their seam (src/protocol.rs) counts.
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

# From the readiness of a connection that was accepted before to its close, for a file that is open in
# the cache. Types of the standard library and of crates are not counted, and neither are those of which
# a reader only sees that they are not at work: tasks of a disk, listings, the files that are opened anew,
# the line of those who wait.
COMMON = {
    "reactor.rs": ["Reactor"],
    "reactor/event.rs": ["Event", "Readiness", "Action", "StepContext"],
    "reactor/handler.rs": ["Handler", "Context", "Token"],
    "reactor/conn_slab.rs": ["ConnSlab", "Slot", "Schedule"],
    "reactor/timer_wheel.rs": ["Timers", "Deadline"],
    "serve/serving.rs": ["Serving"],
    "serve/conn_record.rs": ["ConnRecord", "Active"],
    "serve/telemetry.rs": ["Telemetry"],
    "conn.rs": ["Conn", "State"],
    "conn/step.rs": ["StepIo", "Step", "Timeouts"],
    "conn/transport.rs": ["Transport", "Socket"],
    "conn/input_buffer.rs": ["InputBuffer"],
    "conn/reading.rs": ["Reading"],
    "conn/sending.rs": ["Sending", "AfterReply"],
    "conn/body_source.rs": ["BodySource"],
    "conn/closing.rs": ["ReplyEnd", "OnTheWire", "Closing"],
    "protocol.rs": ["Protocol", "Request", "InputState", "Decision", "Reply", "RequestEnd", "Body"],
    "protocol/sniff.rs": ["SharedPort"],
    "http/request.rs": ["Sniffed"],
    "root.rs": ["Root"],
    "root/cache.rs": ["Cache"],
    "file/open_file.rs": ["OpenFile"],
    "file/piece.rs": ["Segment"],
    "telemetry/response.rs": ["Response", "Outcome"],
    "telemetry.rs": ["Reason", "Stats"],
}
WAYS = {
    "a warm bare download of 2 KiB": {
        **COMMON,
        "protocol/bare.rs": ["Bare"],
    },
    "a warm HTTP download of 2 KiB": {
        **COMMON,
        "conn/sending.rs": ["Sending", "AfterReply", "KeptAlive", "NextInput"],
        "protocol.rs": COMMON["protocol.rs"] + ["AfterResponse"],
        "protocol/http.rs": ["Http"],
        "http/request.rs": ["Sniffed", "Parsed", "Request", "Version"],
        "http/method.rs": ["Method"],
        "http/target.rs": ["Target", "Name"],
        "http/fields.rs": ["Fields"],
        "http/mime.rs": ["ContentTypes"],
        "http/date.rs": ["Clock", "Now"],
        "http/entity_tag.rs": ["TagKey"],
        "http/validators.rs": ["Validators", "Evaluation"],
        "http/range.rs": ["Ranges"],
        "http/head.rs": ["Head"],
        "telemetry/response.rs": ["Response", "Outcome", "HttpLogFields"],
    },
}

INLINE_TESTS = re.compile(r"^#\[cfg\(test\)\]\n(#\[.*\]\n)*mod tests \{", re.MULTILINE)


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
    sizes = {path.relative_to(SRC): code_lines(path) for path in SRC.rglob("*.rs") if path.name != "tests.rs"}
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
        print(f"\n{title}: {sum(map(len, way.values()))} types in {len(way)} files")
        for name, types in way.items():
            print(f"  {name:24} {', '.join(types)}")
        errors += missing(way)
    for error in dict.fromkeys(errors):
        print(f"size.py: {error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
