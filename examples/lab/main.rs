//! The laboratory: a core like `pour.rs`, in which one rule of non-blocking I/O can be broken. All that can happen to
//! two clients is tried, shortest first, until a download is lost, cut, hangs or is starved; that run is drawn.
//!
//!     cargo run --example lab                       # the rules
//!     cargo run --example lab -- short-write        # the shortest run in which a rule matters
//!     cargo run --example lab -- short-write --svg
//!     cargo run --example lab -- short-write --play   # on real sockets
//!     cargo run --example lab -- none 12            # with all rules kept there is none
//!     cargo run --example lab -- --write docs/guide/lab
//!
//! Read `core.rs` beside `pour.rs`; `world.rs` is the kernel and the clients.

mod chart;
mod core;
mod play;
mod rules;
mod search;
mod world;

use std::io::{self, Write as _};
use std::path::Path;
use std::{env, fs, process};

use chart::Chart;
use core::Rules;
use rules::{ALL, Text};
use search::{Found, search};

/// The longest runs that are tried.
const DEPTH: usize = 12;

fn main() -> io::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let text = match words[..] {
        [] => list(),
        ["none"] => none(DEPTH),
        ["none", depth] => depth.parse().map_or_else(|_| usage(), none),
        ["--write", folder] => return write(Path::new(folder)),
        [name] => picture(named(name)).text(),
        [name, "--play"] => {
            let (text, found) = (named(name), find(named(name)));
            let rules = Rules(Some(text.rule));
            play::play(rules, text.descriptors, &found.moves, found.client)?
        }
        [name, "--svg"] => picture(named(name)).svg(),
        _ => usage(),
    };
    io::stdout().write_all(text.as_bytes())
}

fn usage() -> ! {
    let _ = writeln!(
        io::stderr(),
        "usage: lab [RULE [--svg | --play] | none [DEPTH] | --write FOLDER]"
    );
    process::exit(2);
}

fn named(name: &str) -> &'static Text {
    ALL.iter()
        .find(|text| text.name == name)
        .unwrap_or_else(|| usage())
}

fn find(text: &Text) -> Found {
    let search = search(Rules(Some(text.rule)), text.descriptors, DEPTH);
    search.found.unwrap_or_else(|| {
        let _ = writeln!(
            io::stderr(),
            "{}: no run of {DEPTH} moves shows it",
            text.name
        );
        process::exit(1);
    })
}

fn picture(text: &Text) -> Chart {
    Chart::of(Rules(Some(text.rule)), text.descriptors, &find(text))
}

fn list() -> String {
    ALL.iter()
        .map(|text| format!("{:<24}{}\n", text.name, text.title))
        .collect()
}

/// All rules are kept.
fn none(depth: usize) -> String {
    let mut states = 0;
    for descriptors in [1, 2] {
        let search = search(Rules(None), descriptors, depth);
        if let Some(found) = search.found {
            let chart = Chart::of(Rules(None), descriptors, &found);
            return format!("a fault with all rules kept:\n{}", chart.text());
        }
        states += search.states;
    }
    format!(
        "no fault in any run of {depth} moves; they reach {} states\n",
        thousands(states)
    )
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// The guide's pages, one a rule, and the list of them.
fn write(folder: &Path) -> io::Result<()> {
    let mut rows = String::new();
    for (index, text) in ALL.iter().enumerate() {
        let found = find(text);
        let chart = Chart::of(Rules(Some(text.rule)), text.descriptors, &found);
        fs::write(folder.join(format!("{}.svg", text.name)), chart.svg())?;
        fs::write(
            folder.join(format!("{}.md", text.name)),
            page(index, text, &found, &chart),
        )?;
        let what = found.fault;
        rows += &format!(
            "| {} | [{}]({}.md) | {} | {what} |\n",
            index + 1,
            text.title,
            text.name,
            found.moves.len(),
        );
    }
    fs::write(
        folder.join("README.md"),
        format!(
            "{}{rows}{}",
            include_str!("head.md"),
            include_str!("foot.md")
        ),
    )
}

/// What the pages' texts have from the glossary, the longer before what is in them.
const TERMS: [&str; 10] = [
    "WouldBlock",
    "bare protocol",
    "run queue",
    "backlog",
    "deadline",
    "generation",
    "budget",
    "reset",
    "edge",
    "step",
];

/// A text in which each term is a link where it comes first.
fn linked(mut text: String) -> String {
    for term in TERMS {
        let is_apart = |at: usize| {
            let (before, after) = (&text[..at], &text[at + term.len()..]);
            !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric)
        };
        let first = text
            .match_indices(term)
            .map(|(at, _)| at)
            .find(|&at| is_apart(at));
        if let Some(at) = first {
            let link = format!("[{term}](../../../ARCHITECTURE.md#glossary)");
            text.replace_range(at..at + term.len(), &link);
        }
    }
    text
}

fn page(index: usize, text: &Text, found: &Found, chart: &Chart) -> String {
    let Text {
        name,
        title,
        mistake,
        why,
        pour,
        carafe,
        manual,
        ..
    } = text;
    let beside = |index: usize, word: &str| {
        ALL.get(index)
            .map(|text| format!(" · [{word}: {}]({}.md)", text.title, text.name))
            .unwrap_or_default()
    };
    let told = format!("**The mistake.** {mistake}\n\n**What comes of it.** {why}");
    format!(
        "# {}. {title}\n\n{}\n\n\
         The shortest run in which it matters has {} moves:\n\n\
         ![{title}: a run in which the rule is broken]({name}.svg)\n\n\
         The same as text, by `cargo run --example lab -- {name}`:\n\n```\n{}```\n\n\
         | the rule is kept | |\n|---|---|\n| in `examples/pour.rs` | {} |\n| in carafe | [{carafe}](../../../{carafe}) |\n\
         | read on | {manual} |\n\n[All rules](README.md){}\n",
        index + 1,
        linked(told),
        found.moves.len(),
        chart.text(),
        if pour.starts_with(char::is_uppercase) {
            format!("`{pour}`")
        } else {
            (*pour).to_owned()
        },
        beside(index + 1, "next"),
    )
}
