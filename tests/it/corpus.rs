//! The seeds of the fuzz targets, and what fuzzing found, as ordinary tests.

use std::fs;
use std::path::Path;

fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut seeds = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let seed = fs::read(&path).unwrap();
        println!("{}", path.display());
        target(&seed);
        // Cut anywhere, it is an input, too.
        for end in 0..seed.len().min(200) {
            target(&seed[..end]);
        }
        seeds += 1;
    }
    assert!(seeds > 0, "there are seeds");
}

#[test]
fn names() {
    run("names", crate::targets::names);
}

#[test]
fn heads() {
    run("heads", crate::targets::heads);
}

#[test]
fn connections() {
    run("connection", crate::targets::connection);
}

#[test]
fn records() {
    run("records", crate::targets::records);
}
