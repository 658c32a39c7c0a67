//! The part of docs/performance.md that a run writes.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::bench::Bench;
use crate::picture::picture;
use crate::plots::Picture;
use crate::processes::find_program;
use crate::table::Table;

/// The part's limits; what stands outside is written by people.
const BEGIN: &str = "<!-- peers: begin -->";
const END: &str = "<!-- peers: end -->";

/// Writes tables and pictures, and the names of the rows that could not be measured.
pub fn write(bench: &Bench, tables: &[Table], failed: &[&str], pictures: &[Picture]) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = docs.join("performance.md");
    let text = fs::read_to_string(&page)?;
    let (head, rest) = text.split_once(BEGIN).ok_or("the page has no beginning")?;
    let (_, tail) = rest.split_once(END).ok_or("the page has no end")?;
    let mut part = machine(bench);
    for table in tables {
        part.push_str(&table.markdown());
        part.push('\n');
    }
    if !failed.is_empty() {
        part.push_str(&format!(
            "Not measured in this run: {}.\n\n",
            failed.join(", ")
        ));
    }
    fs::create_dir_all(docs.join("performance"))?;
    for (file, plot) in pictures {
        let svg = picture(plot).into_string();
        fs::write(docs.join("performance").join(file), svg)?;
        part.push_str(&format!("![{}](performance/{file})\n\n", plot.title));
    }
    fs::write(&page, format!("{head}{BEGIN}\n\n{part}{END}{tail}"))?;
    println!("{} is written", page.display());
    Ok(())
}

/// Where and how the figures came about.
fn machine(bench: &Bench) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": "));
    let model = model.map_or("a processor without a name", |(_, model)| model);
    // Not those that this process may use: it has pinned itself to one.
    let cores = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let versions: Vec<_> = ["nginx", "lighttpd", "darkhttpd"]
        .into_iter()
        .filter_map(version)
        .collect();
    format!(
        "Linux {kernel}, {model}, {cores} cores; {}. {} rounds, turns of {} s.\n\n",
        versions.join(", "),
        bench.rounds,
        bench.turn.as_secs_f64()
    )
}

fn version(name: &str) -> Option<String> {
    let flag = match name {
        "darkhttpd" => "--version",
        _ => "-v",
    };
    let output = Command::new(find_program(name)?).arg(flag).output().ok()?;
    // nginx says it on stderr.
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let word = said
        .split_ascii_whitespace()
        .find(|word| word.contains('/'));
    Some(word.unwrap_or(name).replace('/', " "))
}
