//! Files of images.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::io::ErrorKind;

use common::open;
use draught_testkit::Scratch;

#[test]
fn files_of_images_are_replaced_and_removed_whole() {
    let scratch = Scratch::new();
    let name = "registry.example:5000/a/b@sha256:0/..";
    {
        let store = open(scratch.path(), "boot");
        assert!(store.images().is_empty());
        let missing = store.read_image_file(name, "meta").unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        store.put_image_file(name, "meta", b"one").unwrap();
        store.put_image_file(name, "meta", b"two").unwrap();
        store.put_image_file(name, "../meta", b"three").unwrap();
        store.put_image_file("other", "meta", b"four").unwrap();
    }
    let store = open(scratch.path(), "other boot");
    assert_eq!(store.images(), ["other", name]);
    assert_eq!(store.read_image_file(name, "meta").unwrap(), b"two");
    assert_eq!(store.read_image_file(name, "../meta").unwrap(), b"three");
    assert_eq!(
        fs_err::read(store.image_file(name, "meta")).unwrap(),
        b"two"
    );
    assert_eq!(
        store.image_file(name, "meta").parent(),
        Some(&*store.image_dir(name))
    );
    assert_eq!(
        store.image_dir(name).parent(),
        Some(&*scratch.join("images"))
    );
    store.remove_image(name).unwrap();
    store.remove_image(name).unwrap();
    assert_eq!(store.images(), ["other"]);
    assert_eq!(store.read_image_file("other", "meta").unwrap(), b"four");
}

#[test]
fn what_a_crash_left_unfinished_is_swept_away() {
    let scratch = Scratch::new();
    {
        let store = open(scratch.path(), "boot");
        store.put_image_file("image", "meta", b"whole").unwrap();
    }
    // A removal and two replacements that were cut short.
    fs_err::create_dir(scratch.join("images/.unfinished-gone")).unwrap();
    fs_err::write(scratch.join("images/.unfinished-gone/meta"), "x").unwrap();
    fs_err::write(scratch.join("images/image/.unfinished-meta"), "ha").unwrap();
    fs_err::write(scratch.join(".unfinished-version"), "dr").unwrap();
    let store = open(scratch.path(), "boot");
    assert_eq!(store.images(), ["image"]);
    assert_eq!(store.read_image_file("image", "meta").unwrap(), b"whole");
    assert!(!scratch.join("images/.unfinished-gone").exists());
    assert!(!scratch.join(".unfinished-version").exists());
    // The next replacement uses the name again.
    store.put_image_file("image", "meta", b"new").unwrap();
    assert!(!scratch.join("images/image/.unfinished-meta").exists());
    assert_eq!(store.read_image_file("image", "meta").unwrap(), b"new");
}
