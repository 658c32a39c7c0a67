//! The architecture as a test: who may know whom, as ARCHITECTURE.md's table has it, and no circle
//! among the files of src/. What is read are the paths in the code: `use`, `crate::…`, `super::…`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::docs::code_beneath;

const ARCHITECTURE: &str = include_str!("../../ARCHITECTURE.md");

/// Crates that only some rooms may know.
const WATCHED_CRATES: [&str; 2] = ["mio", "slab"];

/// Files by their module's path, such as `conn/sending`, and the modules and watched crates that each
/// names.
struct Code {
    uses: BTreeMap<String, BTreeSet<String>>,
}

impl Code {
    fn read() -> Self {
        let texts = modules();
        let modules: BTreeSet<String> = texts.keys().cloned().collect();
        let uses = texts
            .iter()
            .map(|(module, text)| (module.clone(), uses(module, text, &modules)))
            .collect();
        Self { uses }
    }

    /// Whether a module names another, by itself or through others.
    fn reaches(&self, from: &str, to: &str) -> bool {
        let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(module) = left.pop() {
            for next in self.uses.get(module).into_iter().flatten() {
                if next == to {
                    return true;
                }
                if seen.insert(next) {
                    left.push(next);
                }
            }
        }
        false
    }
}

/// The code of src/ by module, without comments and tests.
fn modules() -> BTreeMap<String, String> {
    let tests = Regex::new(r"(?s)\n#\[cfg\(test\)\]\n(pub )?mod tests? \{.*").unwrap();
    let comment = Regex::new("//.*").unwrap();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let module = |(path, text): (PathBuf, String)| {
        let path = path.strip_prefix(&src).unwrap().with_extension("");
        let path = path.to_str().unwrap();
        let module = path.strip_suffix("/mod").unwrap_or(path).to_owned();
        let code = comment
            .replace_all(&tests.replace(&text, ""), "")
            .into_owned();
        (!path.ends_with("tests")).then_some((module, code))
    };
    code_beneath(&src).into_iter().filter_map(module).collect()
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d` and `a::c::e`.
fn expand(tree: &str) -> Vec<String> {
    let Some((head, body)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().trim().to_owned()];
    };
    let body = body.trim_end().strip_suffix('}').expect("a whole tree");
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for letter in body.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(letter);
    }
    let is_there = |part: &&String| !part.trim().is_empty();
    let whole = |part: &String| expand(&format!("{}{}", head.trim(), part.trim()));
    parts.iter().filter(is_there).flat_map(whole).collect()
}

/// The modules that a module's code names.
fn uses(module: &str, text: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let tree = Regex::new(r"(?m)^\s*(?:pub(?:\([a-z]+\))? )?use ([^;]+);").unwrap();
    let inline = Regex::new(r"(?-u)\b[a-z]\w*(?:::\w+)+").unwrap();
    let trees = tree.captures_iter(text).flat_map(|found| expand(&found[1]));
    let visibility = Regex::new(r"pub\(in [^)]*\)").unwrap();
    let rest = tree.replace_all(text, "");
    let rest = visibility.replace_all(&rest, "");
    let inline = inline
        .find_iter(&rest)
        .map(|found| found.as_str().to_owned());
    let named = trees.chain(inline).filter_map(|path| {
        let mut parts: Vec<&str> = path.split("::").collect();
        let mut base: Vec<&str> = module.split('/').collect();
        match parts[0] {
            "crate" => {
                base.clear();
                parts.remove(0);
            }
            "super" => {
                while parts.first() == Some(&"super") {
                    base.pop();
                    parts.remove(0);
                }
            }
            "self" => {
                parts.remove(0);
            }
            child if modules.contains(&format!("{module}/{child}")) => {}
            first => {
                let is_watched = WATCHED_CRATES.contains(&first);
                return is_watched.then(|| first.to_owned());
            }
        }
        base.extend(parts);
        // What it names is in the innermost file on the path.
        let lengths = (1..=base.len()).rev();
        let mut files = lengths.map(|length| base[..length].join("/"));
        files.find(|file| modules.contains(file))
    });
    named.filter(|named| named != module).collect()
}

/// The table beneath "Arrows point down only": who may name whom.
fn table() -> Vec<(Vec<String>, Vec<String>)> {
    let (_, block) = ARCHITECTURE
        .split_once("Arrows point down only:\n\n```\n")
        .unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let names = |list: &str| list.split(',').map(|name| name.trim().to_owned()).collect();
    let row = |line: &str| {
        let (who, whom) = line.split_once("──>").unwrap();
        // What comes after two spaces is a remark.
        let whom = whom.trim().split("  ").next().unwrap();
        (names(who), names(whom))
    };
    block.lines().map(row).collect()
}

/// Whether a module is the one that a table's name means, or in that room.
fn is_in(module: &str, name: &str) -> bool {
    module == name
        || module
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('/'))
}

/// Which row is a module's, and its innermost name there.
fn row_of<'a>(module: &str, table: &'a [(Vec<String>, Vec<String>)]) -> Option<(usize, &'a str)> {
    let rows = table.iter().enumerate();
    rows.flat_map(|(row, (who, _))| who.iter().map(move |name| (row, name.as_str())))
        .filter(|(_, name)| is_in(module, name))
        .max_by_key(|(_, name)| name.len())
}

#[test]
fn who_knows_whom_is_as_the_architecture_says() {
    let (code, table) = (Code::read(), table());
    let mut wrong = Vec::new();
    for (index, (who, whom)) in table.iter().enumerate() {
        let is_up = |name: &&String| row_of(name, &table).is_some_and(|(row, _)| row <= index);
        let upward = whom.iter().filter(is_up);
        wrong.extend(upward.map(|name| format!("the table's {who:?} ──> {name} points up")));
    }
    for (module, uses) in &code.uses {
        let Some((row, who)) = row_of(module, &table) else {
            wrong.push(format!("{module} is in no row"));
            continue;
        };
        let whom = &table[row].1;
        let room = who.split('/').next().unwrap();
        let may = |used: &str| {
            let is_named = whom
                .iter()
                .any(|name| name == "everything" || is_in(used, name));
            is_named || is_in(used, room)
        };
        let upward = uses.iter().filter(|used| !may(used));
        wrong.extend(upward.map(|used| format!("{module} knows {used}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_files_know_each_other_in_a_circle() {
    let code = Code::read();
    let is_in_circle = |module: &&String| code.reaches(module, module);
    let circles: Vec<_> = code.uses.keys().filter(is_in_circle).collect();
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn every_path_that_the_architecture_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = Regex::new(r"`((?:src|examples|tests|docs|benches)/[\w./*]*)`|\]\((docs/[\w./]+)\)")
        .unwrap();
    let mut named = 0;
    for found in path.captures_iter(ARCHITECTURE) {
        let path = found.get(1).or(found.get(2)).unwrap().as_str();
        let path = path.trim_end_matches('*');
        let exists = root.join(path).exists() || root.join(format!("{path}.rs")).exists();
        assert!(exists, "{path}");
        named += 1;
    }
    assert!(named > 10);
}
