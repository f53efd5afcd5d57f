//! Docker archives: those of real tools, and those that are none.

use std::path::Path;
use std::process::Command;

use crate::support::{client, noise, payload, push_image};
use draught_digest::Digest;
use draught_oci::{Descriptor, Location, Platform, Selector, media_type};
use draught_source::{Class, Client, Repository, Source as _, SourceError};
use draught_testkit::{Scratch, need, process};
use draught_tree::{Entry, EntryKind, Meta};
use serde_json::json;

pub(crate) async fn open(
    client: &Client,
    text: &str,
) -> Result<(Repository, Selector), SourceError> {
    client.open(&text.parse::<Location>().unwrap()).await
}

/// A tar with a file in it: a real layer.
pub(crate) fn layer(seed: u64) -> Vec<u8> {
    tar(&[("etc/noise", Ok(noise(seed, 300_000)))])
}

/// A tar of files and symbolic links.
pub(crate) fn tar(entries: &[(&str, Result<Vec<u8>, &str>)]) -> Vec<u8> {
    let mut writer = draught_tar::Writer::new(Vec::new());
    for (path, content) in entries {
        let kind = match content {
            Ok(content) => EntryKind::File {
                bytes: u64::try_from(content.len()).unwrap(),
                chunks: Box::default(),
            },
            Err(target) => EntryKind::Symlink(target.as_bytes().into()),
        };
        let meta = Meta {
            mode: 0o644,
            ..Meta::default()
        };
        let path = path.as_bytes().into();
        writer.entry(&Entry { path, meta, kind }).unwrap();
        if let Ok(content) = content {
            writer.data(content).unwrap();
        }
    }
    writer.finish().unwrap()
}

/// Reads an image whole.
pub(crate) async fn check(place: &Repository, selector: &Selector, layers: &[Vec<u8>]) {
    let manifest = place.image(selector, &Platform::host()).await.unwrap();
    let config = place.config(&manifest).await.unwrap();
    assert_eq!(config.diff_ids.len(), layers.len());
    assert_eq!(manifest.layers.len(), layers.len());
    for (found, expect) in manifest.layers.iter().zip(layers) {
        let stream = place.blob(found).await.unwrap();
        assert_eq!(stream.into_bytes(10 << 20).await.unwrap(), *expect);
        let read = place.read_range(&found.digest, 100..200).await.unwrap();
        assert_eq!(read, expect[100..200]);
    }
}

#[tokio::test]
async fn what_skopeo_writes_is_read() {
    let Some(skopeo) = need::tool("skopeo") else {
        return;
    };
    let scratch = Scratch::new();
    let client = client();
    let layout = format!("oci:{}:x", scratch.join("layout").display());
    let (place, tag) = client.create(&layout.parse().unwrap()).await.unwrap();
    push_image(&place, &tag, layer(1)).await;
    let archive = format!("docker-archive:{}", scratch.join("image.tar").display());
    let copy = |from: &str, to: &str| {
        process::run(Command::new(&skopeo).args(["--insecure-policy", "copy", "-q", from, to]));
    };
    copy(&layout, &format!("{archive}:example.com/some/image:tag"));

    for location in [&archive, &format!("{archive}:example.com/some/image:tag")] {
        let (place, selector) = open(&client, location).await.unwrap();
        check(&place, &selector, &[layer(1)]).await;
        check(&place, &Selector::Tag("tag".to_owned()), &[layer(1)]).await;
        assert_eq!(place.tags().await.unwrap(), ["tag"]);
    }
    let error = open(&client, &format!("{archive}:other"))
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::NotFound, "{error}");
    assert!(
        error.to_string().contains("example.com/some/image:tag"),
        "{error}"
    );

    // The other way round: skopeo reads the layout that was written here.
    let back = format!("oci:{}:y", scratch.join("back").display());
    copy(&layout, &back);
    let (place, selector) = open(&client, &back).await.unwrap();
    let image = place.image(&selector, &Platform::host()).await.unwrap();
    assert_eq!(image.layers.len(), 1);
}

#[tokio::test]
async fn layers_behind_links_and_in_gzip_are_read() {
    let scratch = Scratch::new();
    let (first, second) = (layer(2), layer(3));
    let zipped = process_gzip(&scratch, &second);
    let config = json!({
        "os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [
            Digest::sha256(&first).to_string(), Digest::sha256(&second).to_string(),
            Digest::sha256(&first).to_string()]},
    });
    let zipped_path = format!("blobs/sha256/{}", Digest::sha256(&zipped).hex());
    let list = json!([{"Config": "c.json", "RepoTags": null,
        "Layers": ["one/layer.tar", zipped_path, "three/layer.tar"]}]);
    let archive = tar(&[
        ("one/layer.tar", Ok(first.clone())),
        (&zipped_path, Ok(zipped.clone())),
        ("three/layer.tar", Err("../one/layer.tar")),
        ("c.json", Ok(config.to_string().into_bytes())),
        ("manifest.json", Ok(list.to_string().into_bytes())),
    ]);
    let file = scratch.join("image.tar");
    fs_err::write(&file, archive).unwrap();
    let client = client();
    let location = format!("docker-archive:{}", file.display());
    let (place, selector) = open(&client, &location).await.unwrap();
    check(&place, &selector, &[first.clone(), zipped, first]).await;
    let manifest = place.image(&selector, &Platform::host()).await.unwrap();
    assert_eq!(manifest.layers[1].media_type, media_type::LAYER_TAR_GZIP);
    let descriptor = Descriptor::of(media_type::LAYER_TAR, b"");
    let error = place
        .push_blob(&descriptor, &payload(b""), &[])
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Refused, "{error}");
}

fn process_gzip(scratch: &Scratch, bytes: &[u8]) -> Vec<u8> {
    let file = scratch.join("layer");
    fs_err::write(&file, bytes).unwrap();
    process::run(Command::new("gzip").arg("-n").arg(&file));
    fs_err::read(scratch.join("layer.gz")).unwrap()
}

#[tokio::test]
async fn a_layer_that_is_not_what_the_configuration_says_is_corrupt() {
    let scratch = Scratch::new();
    let config =
        json!({"rootfs": {"type": "layers", "diff_ids": [Digest::sha256(b"x").to_string()]}});
    let list = json!([{"Config": "c", "Layers": ["l"]}]);
    let archive = tar(&[
        ("manifest.json", Ok(list.to_string().into_bytes())),
        ("c", Ok(config.to_string().into_bytes())),
        ("l", Ok(layer(4))),
    ]);
    let file = scratch.join("image.tar");
    fs_err::write(&file, archive).unwrap();
    let client = client();
    let location = format!("docker-archive:{}", file.display());
    let (place, selector) = open(&client, &location).await.unwrap();
    let manifest = place.image(&selector, &Platform::host()).await.unwrap();
    let stream = place.blob(&manifest.layers[0]).await.unwrap();
    let error = stream.into_bytes(10 << 20).await.unwrap_err();
    assert!(matches!(error, SourceError::Mismatch { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_image_is_refused_by_name() {
    let scratch = Scratch::new();
    let client = client();
    let list = |value: serde_json::Value| Ok(value.to_string().into_bytes());
    let file = |name: &str, bytes: &[u8]| {
        let file = scratch.join(name);
        fs_err::write(&file, bytes).unwrap();
        format!("docker-archive:{}", file.display())
    };
    let ids = json!({"rootfs": {"type": "layers", "diff_ids": []}});
    for (location, expect) in [
        (file("noise", &noise(5, 5000)), "is not a docker archive"),
        (file("empty", b""), "no file \"manifest.json\""),
        (
            file("other", &tar(&[("a", Ok(vec![]))])),
            "no file \"manifest.json\"",
        ),
        (
            file("json", &tar(&[("manifest.json", Ok(vec![b'x']))])),
            "malformed",
        ),
        (
            file("none", &tar(&[("manifest.json", list(json!([])))])),
            "no image",
        ),
        (
            file(
                "loop",
                &tar(&[
                    ("manifest.json", list(json!([{"Config": "a"}]))),
                    ("a", Err("b")),
                    ("b", Err("a")),
                ]),
            ),
            "no file \"a\"",
        ),
        (
            file(
                "layers",
                &tar(&[
                    (
                        "manifest.json",
                        list(json!([{"Config": "c", "Layers": ["l"]}])),
                    ),
                    ("c", list(ids)),
                    ("l", Ok(vec![])),
                ]),
            ),
            "it has 1 layers, its configuration 0",
        ),
        (
            format!("docker-archive:{}", scratch.join("gone").display()),
            "local file",
        ),
        (
            format!("oci:{}", scratch.path().display()),
            "it has no file oci-layout",
        ),
        (
            format!("oci:{}", scratch.join("gone").display()),
            "it has no file oci-layout",
        ),
        (format!("dir:{}", scratch.path().display()), "not supported"),
    ] {
        let error = open(&client, &location).await.unwrap_err();
        assert!(error.to_string().contains(expect), "{location}: {error}");
    }
}

#[tokio::test]
async fn a_layout_names_its_images_when_none_was_named() {
    let scratch = Scratch::new();
    let client = client();
    let dir = scratch.join("layout");
    let layout = format!("oci:{}", dir.display());
    let (place, tag) = client.create(&layout.parse().unwrap()).await.unwrap();
    assert_eq!(tag, "latest");
    push_image(&place, "one", layer(6)).await;
    let (_, selector) = open(&client, &layout).await.unwrap();
    check(&place, &selector, &[layer(6)]).await;
    push_image(&place, "two", layer(7)).await;
    let error = open(&client, &layout).await.unwrap_err();
    assert!(error.to_string().contains("it has: one, two"), "{error}");
    let (_, selector) = open(&client, &format!("{layout}:two")).await.unwrap();
    check(&place, &selector, &[layer(7)]).await;
}

#[tokio::test]
async fn a_changed_file_of_a_layout_is_corrupt() {
    let scratch = Scratch::new();
    let client = client();
    let dir = scratch.join("layout");
    let (place, _) = client
        .create(&format!("oci:{}", dir.display()).parse().unwrap())
        .await
        .unwrap();
    let image = push_image(&place, "x", layer(8)).await;
    let path = |digest: &Digest| dir.join("blobs/sha256").join(digest.hex());
    let damage = |path: &Path| {
        let mut bytes = fs_err::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs_err::write(path, bytes).unwrap();
    };
    damage(&path(&image.layers[0].digest));
    let stream = place.blob(&image.layers[0]).await.unwrap();
    let error = stream.into_bytes(10 << 20).await.unwrap_err();
    assert_eq!(error.class(), Class::Corrupt, "{error}");
    damage(&path(&image.digest()));
    let error = place
        .manifest(&Selector::Tag("x".to_owned()))
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Corrupt, "{error}");
    fs_err::write(path(&image.config.digest), b"short").unwrap();
    let error = place.blob(&image.config).await.unwrap_err();
    assert!(matches!(error, SourceError::Size { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_of_one_layout_lose_no_tag() {
    let scratch = Scratch::new();
    let client = client();
    let location = format!("oci:{}", scratch.join("layout").display());
    let (place, _) = client.create(&location.parse().unwrap()).await.unwrap();
    let writers = (0..16).map(|number| {
        let place = place.clone();
        tokio::spawn(async move {
            push_image(&place, &format!("t{number:02}"), noise(number, 1000)).await;
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let expect: Vec<String> = (0..16).map(|number| format!("t{number:02}")).collect();
    assert_eq!(place.tags().await.unwrap(), expect);
    let left = fs_err::read_dir(scratch.join("layout/blobs/sha256")).unwrap();
    let temporary = left.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with('.')
    });
    assert_eq!(temporary.count(), 0);
    let descriptor = Descriptor::of(media_type::LAYER_TAR, b"");
    assert!(!place.has_blob(&descriptor.digest).await.unwrap());
}
