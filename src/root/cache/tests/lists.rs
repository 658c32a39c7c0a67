//! Lists that are kept: until anything changes that they show, and never one whose changes aren't told.

use super::*;
use crate::http::listing::entries::{Key, Sort};
use crate::http::listing::{Format, ListingStyle};
use crate::root::listing::Listings;

/// A folder with two files in a served folder, and what serves its list.
struct Scene {
    at: tempfile::TempDir,
    root: Root,
    listings: Listings,
}

const HTML: ListingStyle = ListingStyle {
    sort: Sort {
        key: Key::Name,
        is_descending: false,
    },
    format: Format::Html,
};

/// The list that a request for a folder gets, and whether it was made for it; what that begins is over then.
fn ask(
    root: &mut Root,
    listings: &mut Listings,
    folder: &[u8],
    style: &ListingStyle,
) -> (Option<Arc<List>>, bool) {
    let (list, is_made) = match listings.list(root, folder, style.clone(), &[]) {
        Ok(list) => (list, false),
        Err(task) => {
            let results = [task.run(MayBlock::OnDisk)];
            let made = listings.list(root, folder, style.clone(), &results);
            (made.unwrap(), true)
        }
    };
    root.cache().settle();
    (list.ok(), is_made)
}

impl Scene {
    fn set() -> Self {
        let at = tempfile::tempdir().unwrap();
        fs::create_dir_all(at.path().join("on/folder")).unwrap();
        for name in ["one", "two"] {
            fs::write(at.path().join("on/folder").join(name), name).unwrap();
        }
        let root = root(at.path());
        let listings = Listings::new();
        Self { at, root, listings }
    }

    /// What a request gets, and whether it was made for it.
    fn ask(&mut self, style: &ListingStyle) -> Option<(String, bool)> {
        let Self { root, listings, .. } = self;
        let (list, is_made) = ask(root, listings, b"on/folder/", style);
        let text = String::from_utf8(list?.bytes().to_vec()).unwrap();
        Some((text, is_made))
    }

    /// Asks until it is kept, if it can be.
    fn is_kept(&mut self) -> bool {
        (0..4).any(|_| !self.ask(&HTML).unwrap().1)
    }

    fn changed(&mut self, how: &str, change: fn(&Path)) {
        assert!(self.is_kept(), "{how}");
        change(self.at.path());
        if let Some((_, is_made)) = self.ask(&HTML) {
            assert!(is_made, "{how}");
        }
    }
}

/// Something that happens to the served folder, in words.
type Change = (&'static str, fn(&Path));

const CHANGES: [Change; 14] = [
    ("a file comes", |at| {
        fs::write(at.join("on/folder/new"), "").unwrap();
    }),
    ("a folder comes", |at| {
        fs::create_dir(at.join("on/folder/new")).unwrap();
    }),
    ("a link comes", |at| {
        symlink("one", at.join("on/folder/new")).unwrap();
    }),
    ("a file goes", |at| {
        fs::remove_file(at.join("on/folder/one")).unwrap();
    }),
    ("a file is renamed", |at| {
        fs::rename(at.join("on/folder/one"), at.join("on/folder/three")).unwrap();
    }),
    ("a file is moved away", |at| {
        fs::rename(at.join("on/folder/one"), at.join("one")).unwrap();
    }),
    ("a file is replaced", |at| {
        fs::write(at.join("other"), "longer").unwrap();
        fs::rename(at.join("other"), at.join("on/folder/one")).unwrap();
    }),
    ("bytes are appended", |at| {
        let mut file = File::options()
            .append(true)
            .open(at.join("on/folder/one"))
            .unwrap();
        std::io::Write::write_all(&mut file, b"more").unwrap();
    }),
    ("a file becomes shorter", |at| {
        let file = File::options()
            .write(true)
            .open(at.join("on/folder/one"))
            .unwrap();
        file.set_len(1).unwrap();
    }),
    ("a file's time is set", |at| {
        let file = File::options()
            .write(true)
            .open(at.join("on/folder/one"))
            .unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }),
    ("a file's mode is set", |at| {
        let path = at.join("on/folder/one");
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }),
    (
        "the folder is moved away, and another has its place",
        |at| {
            fs::rename(at.join("on/folder"), at.join("aside")).unwrap();
            fs::create_dir(at.join("on/folder")).unwrap();
        },
    ),
    (
        "the folder on the way is moved away, and another has its place",
        |at| {
            fs::rename(at.join("on"), at.join("aside")).unwrap();
            fs::create_dir_all(at.join("on/folder")).unwrap();
        },
    ),
    ("the folder goes", |at| {
        fs::remove_dir_all(at.join("on/folder")).unwrap();
    }),
];

#[test]
fn a_list_is_kept_until_anything_changes_that_it_shows() {
    for (how, change) in CHANGES {
        Scene::set().changed(how, change);
        // A look-up of a file in it watches the same folder, and takes nothing from that.
        let mut scene = Scene::set();
        assert!(scene.is_kept());
        for _ in 0..3 {
            look(&mut scene.root, "on/folder/two").unwrap();
        }
        scene.changed(how, change);
    }
}

#[test]
fn a_list_that_was_begun_before_a_change_is_not_kept() {
    let mut scene = Scene::set();
    for _ in 0..2 {
        assert!(scene.ask(&HTML).unwrap().1);
    }
    let folder = b"on/folder/";
    let begin = |scene: &mut Scene| {
        let task = scene.listings.list(&mut scene.root, folder, HTML, &[]);
        task.expect_err("it is not kept").run(MayBlock::OnDisk)
    };
    let folder_at = scene.at.path().join("on/folder");
    for (new, is_looked_up_between) in [("new", false), ("newer", true)] {
        // The one that is kept goes.
        fs::write(folder_at.join("before").with_extension(new), "").unwrap();
        scene.root.begin(Instant::now(), true);
        let late = begin(&mut scene);
        fs::write(folder_at.join(new), "").unwrap();
        if is_looked_up_between {
            // It takes in the event, in the turn in which the list was begun.
            scene.root.find_file(b"on/folder/one", &[]).unwrap();
        }
        let late = scene.listings.list(&mut scene.root, folder, HTML, &[late]);
        assert!(!late.unwrap().unwrap().bytes().is_empty());
        let (page, is_made) = scene.ask(&HTML).unwrap();
        assert!(is_made && page.contains(&format!(">{new}<")), "{new}");
        assert!(!scene.ask(&HTML).unwrap().1);
    }
}

#[test]
fn what_makes_no_event_in_the_folder_keeps_its_list_from_being_kept() {
    let contents: [Change; 3] = [
        ("a folder's time", |at| {
            fs::create_dir(at.join("on/folder/inner")).unwrap();
        }),
        ("what a link leads to", |at| {
            symlink("one", at.join("on/folder/link")).unwrap();
        }),
        ("a file with another name", |at| {
            fs::hard_link(at.join("on/folder/one"), at.join("other")).unwrap();
        }),
    ];
    for (what, make) in contents {
        let mut scene = Scene::set();
        make(scene.at.path());
        assert!(!scene.is_kept(), "{what}");
    }
}

#[test]
fn a_list_is_kept_in_the_style_that_was_asked_for_last_and_for_a_second() {
    let mut scene = Scene::set();
    assert!(scene.is_kept());
    let json = ListingStyle {
        format: Format::Json,
        ..HTML
    };
    for style in [json, HTML] {
        assert!(scene.ask(&style).unwrap().1);
        assert!(!scene.ask(&style).unwrap().1);
    }
    let (cache, later) = (scene.root.cache(), Instant::now() + CACHE_FRESH);
    assert!(cache.list(b"on/folder", &HTML, Instant::now()).is_some());
    assert!(cache.list(b"on/folder", &HTML, later).is_none());
    // Its memory is given back when nobody asks for anything.
    assert!(cache.bytes() > cache.watches.bytes());
    assert_eq!(cache.release_idle(later + CACHE_IDLE), None);
    assert_eq!(cache.bytes(), cache.watches.bytes() + cache.ghost_bytes);
}

#[test]
fn the_root_s_own_list_is_kept() {
    let mut scene = Scene::set();
    let folder = scene.at.path().join("on/folder");
    scene.root = super::root(&folder);
    let Scene { root, listings, .. } = &mut scene;
    let mut is_kept = false;
    for _ in 0..4 {
        let (list, is_made) = ask(root, listings, b"/", &HTML);
        assert!(list.is_some());
        is_kept = !is_made;
    }
    assert!(is_kept);
    fs::write(folder.join("new"), "").unwrap();
    assert!(ask(root, listings, b"/", &HTML).1);
}

#[test]
fn lists_are_forgotten_for_others_and_so_many_are_kept() {
    let at = tempfile::tempdir().unwrap();
    let mut root = root(at.path());
    let mut listings = Listings::new();
    let paths: Vec<_> = (0..=CACHE_FOLDERS_MAX)
        .map(|number| format!("{number}"))
        .collect();
    let mut is_kept = |root: &mut Root, path: &str| {
        let (list, is_made) = ask(root, &mut listings, path.as_bytes(), &HTML);
        assert!(list.is_some());
        !is_made
    };
    for path in &paths {
        fs::create_dir(at.path().join(path)).unwrap();
        for _ in 0..3 {
            assert!(!is_kept(&mut root, path));
        }
    }
    assert!(is_kept(&mut root, &paths[CACHE_FOLDERS_MAX]));
    assert!(!is_kept(&mut root, &paths[0]), "the oldest had to go");
    root.cache().forget_lists();
    assert_eq!(root.cache().folders.bytes(), 0);
    assert!(!is_kept(&mut root, &paths[CACHE_FOLDERS_MAX]));
}
