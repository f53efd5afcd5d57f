//! Conversions that end before their time, and what the next one does again.

use std::path::Path;

use draught_digest::Digest;
use draught_oci::{Location, Platform};
use draught_packer::{ArchiveFormat, ArchiveOptions, ConvertOptions, EstargzOptions, Output};
use draught_testkit::fault_proxy::{Fault, Rule};
use draught_testkit::{Scratch, TestRegistry, registry};

use crate::support::*;

fn noise(seed: u8) -> Vec<u8> {
    let blocks = (0..2000_u32).flat_map(|at| {
        let mut text = [seed; 8];
        text[..4].copy_from_slice(&at.to_le_bytes());
        *Digest::sha256(&text).as_bytes()
    });
    blocks.collect()
}

/// An image of four layers in a registry, and the digests of its layers.
async fn source(registry: &TestRegistry) -> (Location, Vec<Digest>) {
    let built = Built::new();
    let contents: Vec<Vec<u8>> = (0..4)
        .map(|at| archive(&[(&format!("file{at}"), &noise(at))]))
        .collect();
    let layers: Vec<_> = contents.iter().map(|it| (TAR, &it[..], &it[..])).collect();
    let image = built.image(false, ("linux", Platform::host().architecture()), &layers);
    let at = remote(registry, "source:1");
    push_plain(&built.tag(image), &at).await;
    (at, contents.iter().map(|it| Digest::sha256(it)).collect())
}

/// The blobs that a registry has, of whatever repository.
fn blobs_of(registry: &TestRegistry) -> Vec<Digest> {
    let shards = fs_err::read_dir(registry.dir().join("blobs/sha256")).unwrap();
    let names = shards.flat_map(|shard| fs_err::read_dir(shard.unwrap().path()).unwrap());
    let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| format!("sha256:{name}").parse().ok())
        .collect()
}

fn files(dir: &Path) -> usize {
    if !dir.exists() {
        return 0;
    }
    let places = fs_err::read_dir(dir).unwrap();
    let files = places.map(|place| fs_err::read_dir(place.unwrap().path()).unwrap().count());
    files.sum()
}

/// The third layer can't be read; then it can.
async fn interrupted(options: &ConvertOptions, what: &str) {
    let (registry, scratch) = (registry(), Scratch::new());
    let (from, layers) = source(&registry).await;
    let to = remote(&registry, "lazy:1");
    let journal = scratch.join("journal");
    let options = ConvertOptions {
        journal: Some(journal.clone()),
        ..options.clone()
    };
    let rule = Rule::new(Fault::Status(403))
        .on_method("GET")
        .on_path(layers[2]);
    let id = registry.proxy().inject(rule);
    let error = run_with(&from, &to, &options).await.unwrap_err();
    assert!(chain(&error).contains("layer 3"), "{}", chain(&error));
    assert!(open_tag(&to).await.is_none(), "{what}: nothing has a tag");
    registry.proxy().lift(id);
    assert_eq!(files(&journal), 2, "{what}: two layers are done");
    let before = registry.proxy().counts();
    let converted = run_with(&from, &to, &options).await.unwrap();
    let made = registry.proxy().counts().since(&before);
    let read = layers
        .iter()
        .map(|layer| made.matching("GET", &layer.to_string()).requests);
    assert_eq!(read.collect::<Vec<_>>(), [0, 0, 1, 1], "{what}");
    assert!(
        converted.cache.is_none(),
        "{what}: nobody asked for a cache"
    );
    assert_eq!(files(&journal), 0, "{what}: all is done");
    // The same as in one go.
    let plain = ConvertOptions {
        journal: None,
        ..options
    };
    let whole = run_with(&from, &layout(&scratch.join("whole")), &plain)
        .await
        .unwrap();
    assert_eq!(whole.digest, converted.digest, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_finished_before_an_interruption_is_not_done_again() {
    interrupted(&ConvertOptions::default(), "nydus").await;
    let estargz = ArchiveFormat::Estargz(EstargzOptions::default());
    let options = ConvertOptions {
        output: Output::Archives(ArchiveOptions::new(estargz)),
        ..ConvertOptions::default()
    };
    interrupted(&options, "eStargz").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_of_no_use_costs_nothing_but_the_work() {
    let (registry, scratch) = (registry(), Scratch::new());
    let (from, layers) = source(&registry).await;
    let to = remote(&registry, "lazy:1");
    let journal = scratch.join("journal");
    let options = ConvertOptions {
        journal: Some(journal.clone()),
        ..ConvertOptions::default()
    };
    let rule = || {
        Rule::new(Fault::Status(403))
            .on_method("GET")
            .on_path(layers[3])
    };
    for damage in ["torn", "blob gone", "no directory"] {
        let id = registry.proxy().inject(rule());
        run_with(&from, &to, &options).await.unwrap_err();
        registry.proxy().lift(id);
        match damage {
            "torn" => {
                let place = fs_err::read_dir(&journal).unwrap().next().unwrap().unwrap();
                for file in fs_err::read_dir(place.path()).unwrap() {
                    let path = file.unwrap().path();
                    let bytes = fs_err::read(&path).unwrap();
                    fs_err::write(&path, &bytes[..bytes.len() / 2]).unwrap();
                }
            }
            "blob gone" => {
                let (repository, _) = client().open(&to).await.unwrap();
                let mut gone = 0;
                for digest in blobs_of(&registry) {
                    // What the source's repository alone has stays.
                    if repository.has_blob(&digest).await.unwrap() {
                        repository.delete_blob(&digest).await.unwrap();
                        gone += 1;
                    }
                }
                assert_eq!(gone, 3, "the blobs of the layers that were done");
            }
            _ => {
                fs_err::remove_dir_all(&journal).unwrap();
                fs_err::write(&journal, b"in the way").unwrap();
            }
        }
        let force = ConvertOptions {
            force: true,
            ..options.clone()
        };
        let before = registry.proxy().counts();
        let converted = run_with(&from, &to, &force).await.unwrap();
        let made = registry.proxy().counts().since(&before);
        for layer in &layers {
            let read = made.matching("GET", &layer.to_string()).requests;
            assert_eq!(read, 1, "{damage}: nothing of the journal is of use");
        }
        assert!(converted.images[0].layers.iter().all(|layer| !layer.cached));
        compare_with(&to, &from).await;
        let (repository, tag) = client().create(&to).await.unwrap();
        let tag = draught_oci::Selector::Tag(tag);
        repository.delete_manifest(&tag).await.unwrap();
        // Else the next round finds there what this one sent.
        for digest in blobs_of(&registry) {
            if repository.has_blob(&digest).await.unwrap() {
                repository.delete_blob(&digest).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_another_place_is_not_believed() {
    let (registry, scratch) = (registry(), Scratch::new());
    let (from, layers) = source(&registry).await;
    let options = ConvertOptions {
        journal: Some(scratch.join("journal")),
        ..ConvertOptions::default()
    };
    let rule = Rule::new(Fault::Status(403))
        .on_method("GET")
        .on_path(layers[2]);
    let id = registry.proxy().inject(rule);
    let first = remote(&registry, "first:1");
    run_with(&from, &first, &options).await.unwrap_err();
    registry.proxy().lift(id);
    let before = registry.proxy().counts();
    let second = layout(&scratch.join("second"));
    run_with(&from, &second, &options).await.unwrap();
    let made = registry.proxy().counts().since(&before);
    for layer in layers {
        assert_eq!(made.matching("GET", &layer.to_string()).requests, 1);
    }
}
