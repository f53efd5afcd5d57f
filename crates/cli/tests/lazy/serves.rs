//! What a mount shows, and what it fetches for that.

use std::collections::BTreeMap;
use std::path::Path;

use draught_testkit::images::{Layer, Packing, write_layout};
use draught_testkit::need;
use draught_tree::{Entry, EntryKind, Meta};

use crate::harness::{Numbers, Stage, UNREAD, succeed};

#[test]
fn every_file_is_as_it_was_and_nothing_is_fetched_twice() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    let before = stage.registry.proxy().counts();
    succeed(&stage.mount());
    stage.assert_all_right();
    let drawn = stage.registry.proxy().counts().since(&before);
    // Gone from the page cache, but not from this node.
    stage.assert_all_right();
    let again = stage.registry.proxy().counts().since(&before);
    assert_eq!(again.total().requests, drawn.total().requests);
    // Nor after the daemon was stopped and started.
    succeed(&stage.draught(&["daemon", "--stop"]));
    stage.start(&[]);
    succeed(&stage.mount());
    let mounted = stage.registry.proxy().counts();
    stage.assert_all_right();
    assert_eq!(
        stage
            .registry
            .proxy()
            .counts()
            .since(&mounted)
            .total()
            .requests,
        0
    );
    need::say(&format!("{drawn:?}"));
}

#[test]
fn mounting_fetches_metadata_only_and_reading_a_file_only_what_covers_it() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    let (blob, _) = stage.data_blob();
    let data = format!("/blobs/{blob}");
    stage.registry.proxy().reset_counts();
    succeed(&stage.mount());
    // Names and attributes are metadata.
    let names = draught_testkit::process::run(
        std::process::Command::new("find")
            .arg(&stage.mountpoint)
            .arg("-ls"),
    );
    assert!(names.lines().count() > stage.files.len());
    let counts = stage.registry.proxy().counts();
    assert_eq!(counts.matching("GET", &data).requests, 0, "{counts:?}");
    assert!(counts.total().requests <= 4, "{counts:?}");
    assert!(counts.total().sent_bytes < 100_000, "{counts:?}");
    // What a file needs is its own chunks, compressed: never more than it has bytes, and a little.
    for (name, content) in stage
        .files
        .iter()
        .filter(|(name, _)| name.as_str() != UNREAD)
        .step_by(13)
    {
        stage.registry.proxy().reset_counts();
        assert!(stage.read(name).unwrap(), "{name}");
        let drawn = stage.registry.proxy().counts().matching("GET", &data);
        let most = content.len() as u64 + 1024;
        assert!(
            drawn.sent_bytes <= most,
            "{name} of {} bytes drew {drawn:?}",
            content.len()
        );
        assert_eq!(drawn.requests == 0, content.is_empty(), "{name}: {drawn:?}");
    }
}

#[test]
fn an_image_of_sixty_layers_is_one_mount_of_sixty_devices() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let layers: Vec<BTreeMap<String, Vec<u8>>> = (0..60_u8)
        .map(|layer| {
            let content = Numbers::new(u64::from(layer) + 500).bytes(10_000 + usize::from(layer));
            let own = (format!("layer-{layer}"), content);
            // Each hides what the one before had there.
            let shared = ("shared".to_owned(), vec![layer; 5000 + usize::from(layer)]);
            BTreeMap::from([own, shared])
        })
        .collect();
    let plain = stage.scratch.join("plain");
    write_layers(&plain, &layers);
    let reference = stage.registry.reference("sixty:latest");
    succeed(&stage.draught(&["convert", &format!("oci:{}", plain.display()), &reference]));
    stage.start(&[]);
    let dir = stage.scratch.dir("sixty");
    succeed(&stage.draught(&["mount", &reference, dir.to_str().unwrap()]));
    for layer in &layers {
        for (name, content) in layer.iter().filter(|(name, _)| name.as_str() != "shared") {
            assert!(fs_err::read(dir.join(name)).unwrap() == *content, "{name}");
        }
    }
    let shared = &layers.last().unwrap()["shared"];
    assert!(fs_err::read(dir.join("shared")).unwrap() == *shared);
    let mounts = draught_testkit::mounted::below(&dir);
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    succeed(&stage.draught(&["check", &reference]));
    succeed(&stage.draught(&["umount", dir.to_str().unwrap()]));
}

/// Writes an image whose layers hold these files.
fn write_layers(layout: &Path, layers: &[BTreeMap<String, Vec<u8>>]) {
    let archives = layers.iter().map(|files| {
        let mut writer = draught_tar::Writer::new(Vec::new());
        for (name, content) in files {
            let bytes = content.len() as u64;
            let entry = Entry {
                path: name.as_bytes().into(),
                meta: Meta {
                    mode: 0o644,
                    ..Meta::default()
                },
                kind: EntryKind::File {
                    bytes,
                    chunks: Box::default(),
                },
            };
            writer.entry(&entry).unwrap();
            writer.data(content).unwrap();
        }
        writer.finish().unwrap()
    });
    let archives: Vec<Vec<u8>> = archives.collect();
    let layers = archives.iter().map(|archive| Layer {
        archive: Box::new(archive.as_slice()),
        packing: Packing::Gzip,
    });
    write_layout(layout, layers.collect()).unwrap();
}
