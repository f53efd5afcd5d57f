//! What a start needs comes first.

use draught_estargz::WriteOptions;
use draught_tree::{EntryKind, Tree};

use crate::support::{Archive, Layer, check, noise, options, write};

fn wanting(paths: &[&str]) -> WriteOptions {
    WriteOptions {
        prefetch: paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
        ..options()
    }
}

fn names(layer: &Layer) -> Vec<String> {
    let toc = layer.toc().into_iter();
    let entries = toc.filter(|entry| entry["type"] != "chunk");
    entries
        .map(|entry| entry["name"].as_str().unwrap().to_owned())
        .collect()
}

/// What the layer's reader says is wanted first.
fn found(layer: &Layer) -> Vec<String> {
    let mut tree = Tree::new();
    let applied = layer.apply(&mut tree);
    let mut paths = Vec::new();
    for node in applied.prefetch {
        let found = tree.walk().find(|(_, id)| *id == node);
        paths.push(String::from_utf8(found.unwrap().0).unwrap());
    }
    paths
}

fn system() -> Vec<u8> {
    let mut archive = Archive::new();
    archive
        .dir("./")
        .file("usr/.wh..wh..opq", b"")
        .dir("usr")
        .file("usr/.wh.bin", b"")
        .dir("usr/bin")
        .file("usr/bin/big", &noise(30_000, 1))
        .file("usr/bin/small", b"small")
        .file("usr/lib", b"a file")
        .link("usr/name", "usr/bin/big")
        .entry("usr/bin/alias", EntryKind::Symlink(b"small"[..].into()))
        .file("usr/bin/.wh.late", b"")
        .file("usr/bin/late", b"late")
        .file("usr/bin/.wh.late-hidden", b"");
    archive.finish()
}

#[test]
fn wanted_files_come_first_with_their_directories_and_targets() {
    let wanted = [
        "usr/bin/small",
        "/usr/name",
        "no/such/file",
        "./usr/bin/late",
    ];
    let layer = check(&[system()], &wanting(&wanted)).remove(0);
    assert_eq!(
        names(&layer)[..11],
        [
            "./",
            "usr/",
            "usr/.wh..wh..opq",
            "usr/.wh.bin",
            "usr/bin/",
            "usr/bin/small",
            "usr/bin/big",
            "usr/name",
            "usr/bin/.wh.late",
            "usr/bin/late",
            ".prefetch.landmark",
        ]
    );
    assert_eq!(
        names(&layer)[11..],
        ["usr/lib", "usr/bin/alias", "usr/bin/.wh.late-hidden"]
    );
    assert_eq!(layer.written.prefetch_found, 3);
    let mark = layer.toc_entry(".prefetch.landmark");
    assert_eq!(mark["offset"], layer.written.prefetch_stored_bytes);
    assert_eq!(mark.get("innerOffset"), None);
    assert_eq!(
        found(&layer),
        ["/usr/bin/small", "/usr/bin/big", "/usr/bin/late"]
    );
}

#[test]
fn a_landmark_shares_no_member_with_what_is_before_it() {
    let options = WriteOptions {
        pack_bytes: 1 << 20,
        ..wanting(&["usr/bin/small", "usr/bin/late"])
    };
    let layer = check(&[system()], &options).remove(0);
    let mark = layer.toc_entry(".prefetch.landmark");
    assert_eq!(mark["offset"], layer.written.prefetch_stored_bytes);
    assert_eq!(mark.get("innerOffset"), None);
    assert_eq!(found(&layer), ["/usr/bin/small", "/usr/bin/late"]);
    // All before it is in one, but for the first headers.
    assert_eq!(layer.written.members, 3);
}

#[test]
fn a_layer_that_has_nothing_of_it_says_so() {
    let streamed = write(&system(), &options()).unwrap();
    // Directories come with the files in them.
    let wanted = ["no/such/file", "usr/bin", "", "../x"];
    let layer = check(&[system()], &wanting(&wanted)).remove(0);
    assert_eq!(layer.written.prefetch_found, 0);
    assert_eq!(layer.written.prefetch_stored_bytes, 0);
    assert_eq!(names(&layer)[0], ".no.prefetch.landmark");
    assert_eq!(layer.blob, streamed.blob);
    assert_eq!(found(&layer), [""; 0]);
}

#[test]
fn links_to_lower_layers_keep_a_layer_in_its_order() {
    let mut lower = Archive::new();
    lower.dir("dir").file("dir/file", b"content");
    let mut upper = Archive::new();
    upper
        .link("name", "dir/file")
        .file("dir/.wh.file", b"")
        .file("dir/new", b"new");
    let layers = [lower.finish(), upper.finish()];
    let written = check(&layers, &wanting(&["dir/new", "dir/file"]));
    assert_eq!(found(&written[0]), ["/dir/file"]);
    assert_eq!(names(&written[1])[0], ".no.prefetch.landmark");
}
