//! Layers applied one after the other, and what is seen afterwards.

use super::*;

fn entry(path: &str, kind: EntryKind) -> Entry {
    let meta = Meta {
        mode: 0o644,
        ..Meta::default()
    };
    Entry {
        path: path.as_bytes().into(),
        meta,
        kind,
    }
}

fn file(path: &str) -> Entry {
    entry(
        path,
        EntryKind::File {
            bytes: 0,
            chunks: Box::default(),
        },
    )
}

fn directory(path: &str) -> Entry {
    entry(path, EntryKind::Directory)
}

fn symlink(path: &str, target: &str) -> Entry {
    entry(path, EntryKind::Symlink(target.as_bytes().into()))
}

fn link(path: &str, target: &str) -> Entry {
    entry(path, EntryKind::HardLink(target.as_bytes().into()))
}

/// All names of the tree after the layers; directories end with a slash.
fn names(layers: Vec<Vec<Entry>>) -> Vec<String> {
    let tree = tree(layers).unwrap();
    tree.walk()
        .skip(1)
        .map(|(path, id)| {
            let slash = if tree.node(id).children().is_some() {
                "/"
            } else {
                ""
            };
            format!("{}{slash}", String::from_utf8_lossy(&path[1..]))
        })
        .collect()
}

fn tree(layers: Vec<Vec<Entry>>) -> Result<Tree, ApplyError> {
    let mut tree = Tree::new();
    for layer in layers {
        tree.begin_layer();
        for entry in layer {
            tree.apply(entry, &Limits::default())?;
        }
    }
    Ok(tree)
}

fn check(layers: Vec<Vec<Entry>>, expect: &[&str]) {
    assert_eq!(names(layers), expect);
}

#[test]
fn spellings_of_a_path_are_one_path() {
    check(
        vec![vec![file("./a/b"), file("/a/b"), file("a//./b/")]],
        &["a/", "a/b"],
    );
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    check(
        vec![
            vec![file("d/a"), file("d/b"), file("x")],
            vec![
                file("d/b"),
                file(".wh.x"),
                file("d/.wh.a"),
                file("d/.wh.b"),
                file("d/.wh.none"),
            ],
        ],
        &["d/", "d/b"],
    );
}

#[test]
fn verbatim_entries_keep_whiteouts_as_names() {
    let mut tree = Tree::new();
    tree.begin_layer();
    for path in ["d/a", "d/.wh.a", "d/.wh..wh..opq", ".wh..wh.plnk/1"] {
        let node = tree.apply_verbatim(file(path), &Limits::default());
        assert!(node.unwrap().is_some());
        assert!(tree.lookup(path.as_bytes()).is_some(), "{path}");
    }
}

#[test]
fn opaque_directories_keep_what_their_layer_brought_before_and_after() {
    check(
        vec![
            vec![
                file("d/old"),
                file("d/e/old"),
                file("d/f/old"),
                file("other"),
            ],
            vec![file("d/e/new"), file("d/.wh..wh..opq"), file("d/new")],
        ],
        &["d/", "d/e/", "d/e/new", "d/new", "other"],
    );
}

#[test]
fn a_whiteout_of_a_directory_keeps_what_its_layer_brought_below() {
    check(
        vec![vec![file("d/old")], vec![file("d/new"), file(".wh.d")]],
        &["d/", "d/new"],
    );
}

#[test]
fn a_file_replaces_a_directory_and_the_other_way_round() {
    check(
        vec![
            vec![file("a/b"), file("c")],
            vec![file("a"), directory("c"), file("c/d")],
        ],
        &["a", "c/", "c/d"],
    );
}

#[test]
fn a_directory_over_a_directory_keeps_its_children_and_takes_the_new_mode() {
    let mut newer = directory("a");
    newer.meta.mode = 0o700;
    let tree = tree(vec![vec![file("a/b")], vec![newer]]).unwrap();
    let a = tree.lookup(b"a").unwrap();
    assert_eq!(tree.node(a).meta.mode, 0o700);
    assert!(tree.lookup(b"a/b").is_some());
}

#[test]
fn a_directory_after_its_children_keeps_them() {
    check(vec![vec![file("a/b"), directory("a")]], &["a/", "a/b"]);
}

#[test]
fn symlinks_on_the_way_are_followed_inside_the_root() {
    check(
        vec![
            vec![
                directory("usr/lib"),
                symlink("lib", "usr/lib"),
                symlink("up", "../../usr"),
            ],
            vec![
                file("lib/x"),
                file("up/y"),
                symlink("abs", "/usr/z"),
                file("abs/q"),
            ],
        ],
        &[
            "abs",
            "lib",
            "up",
            "usr/",
            "usr/lib/",
            "usr/lib/x",
            "usr/y",
            "usr/z/",
            "usr/z/q",
        ],
    );
}

#[test]
fn a_directory_replaces_a_symlink() {
    check(
        vec![vec![symlink("a", "b")], vec![directory("a"), file("a/c")]],
        &["a/", "a/c"],
    );
}

#[test]
fn symlinks_have_the_mode_that_linux_gives_them() {
    let tree = tree(vec![vec![symlink("a", "b")]]).unwrap();
    let a = tree.lookup(b"a").unwrap();
    assert_eq!(tree.node(a).st_mode(), 0o120_777);
}

#[test]
fn hard_links_share_a_node_across_layers_and_count() {
    let tree = tree(vec![
        vec![file("a")],
        vec![
            link("b", "a"),
            link("c", "./b"),
            link("c", "/a"),
            file(".wh.a"),
        ],
    ])
    .unwrap();
    let b = tree.lookup(b"b").unwrap();
    assert_eq!(tree.lookup(b"c"), Some(b));
    assert_eq!(tree.lookup(b"a"), None);
    assert_eq!(tree.node(b).names, 2);
}

#[test]
fn removed_directories_take_link_counts_with_them() {
    let tree = tree(vec![
        vec![file("a"), link("d/e/b", "a")],
        vec![file(".wh.d")],
    ])
    .unwrap();
    assert_eq!(tree.node(tree.lookup(b"a").unwrap()).names, 1);
}

#[test]
fn aufs_bookkeeping_is_no_part_of_the_image() {
    check(
        vec![vec![
            file(".wh..wh.plnk/12"),
            file(".wh..wh.orph"),
            file("a"),
        ]],
        &["a"],
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let long = "n".repeat(256);
    let deep = "d/".repeat(2049);
    for (bad, expect) in [
        (file("a/../b"), "\"..\""),
        (file("../b"), "\"..\""),
        (link("l", "../x"), "\"..\""),
        (link("l", "none"), "does not exist"),
        (link("l", "dir"), "is a directory"),
        (file("plain/x"), "not a directory"),
        (file(".wh."), "no filesystem"),
        (file("a\0b"), "no filesystem"),
        (file("loop/x"), "symbolic links"),
        (file("."), "root"),
        (file(&long), "length of a name"),
        (file(&deep), "length of its path"),
        (symlink("s", &"t".repeat(4096)), "length of its target"),
    ] {
        let lower = vec![file("plain"), directory("dir"), symlink("loop", "loop")];
        let error = tree(vec![lower, vec![bad.clone()]])
            .unwrap_err()
            .to_string();
        assert!(error.contains(expect), "{bad:?}: {error}");
    }
}

#[test]
fn the_number_of_inodes_is_limited() {
    let mut tree = Tree::new();
    let limits = Limits {
        inodes_max: 3,
        ..Limits::default()
    };
    tree.begin_layer();
    tree.apply(file("a"), &limits).unwrap();
    tree.apply(file("b"), &limits).unwrap();
    assert!(matches!(
        tree.apply(file("c"), &limits),
        Err(ApplyError::TooLarge { .. })
    ));
}

#[test]
fn the_size_of_names_targets_and_attributes_is_limited_and_given_back() {
    let mut tree = Tree::new();
    let limits = Limits {
        text_bytes_max: 1000,
        ..Limits::default()
    };
    tree.begin_layer();
    let mut heavy = file("dir/heavy");
    heavy.meta.xattrs = vec![(b"user.x"[..].into(), vec![0; 500].into())];
    let target = "t".repeat(400);
    for _ in 0..3 {
        tree.apply(heavy.clone(), &limits).unwrap();
        tree.apply(link("dir/again", "dir/heavy"), &limits).unwrap();
        let error = tree.apply(heavy.clone(), &limits).unwrap_err();
        assert!(error.to_string().contains("all names"), "{error}");
        tree.apply(file("dir"), &limits).unwrap();
        tree.apply(symlink("l", &target), &limits).unwrap();
        tree.apply(symlink("l", &target), &limits).unwrap();
        tree.apply(directory("dir"), &limits).unwrap();
        tree.apply(file("l"), &limits).unwrap();
    }
    assert_eq!(tree.books.text_bytes, 4);
    let mut root = directory(".");
    root.meta.xattrs = heavy.meta.xattrs;
    for _ in 0..3 {
        tree.apply(root.clone(), &Limits::default()).unwrap();
    }
    assert_eq!(tree.books.text_bytes, 4 + 506);
}

#[test]
fn whiteouts_without_end_cost_no_more_than_one() {
    // Quadratic work would be 10^10 steps here, and take minutes.
    let many = 100_000;
    let mut tree = Tree::new();
    let limits = Limits::default();
    tree.begin_layer();
    for at in 0..many {
        tree.apply(file(&format!("d/e/{at}")), &limits).unwrap();
    }
    tree.begin_layer();
    for at in 0..many {
        tree.apply(file(&format!("d/e/new-{at}")), &limits).unwrap();
    }
    for _ in 0..many {
        tree.apply(file("d/e/.wh..wh..opq"), &limits).unwrap();
        tree.apply(file("d/.wh.e"), &limits).unwrap();
    }
    assert_eq!(tree.walk().count(), many + 3);
}

#[test]
fn what_a_layer_hid_stays_hidden_and_the_next_layer_hides_anew() {
    check(
        vec![
            vec![file("d/a"), file("d/e/a")],
            vec![
                file("d/.wh..wh..opq"),
                file("d/b"),
                file("d/e/b"),
                file("d/.wh..wh..opq"),
            ],
            vec![file("d/c"), file("d/.wh..wh..opq")],
        ],
        &["d/", "d/c"],
    );
}
