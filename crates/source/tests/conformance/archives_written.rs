//! Docker archives that were written here, read again by us and by real tools.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use draught_codec::{LayerDecoder, LayerLimits};
use draught_digest::Digest;
use draught_oci::{
    Any, Descriptor, Document, ImageConfig, Index, Limits, Manifest, Platform, Selector,
    annotation, media_type,
};
use draught_source::{Class, Client, Payload, Pushed, Repository};
use draught_testkit::{Scratch, need, process};
use serde_json::Value;

use crate::archives::{check, layer, open, tar};
use crate::support::{client, noise, payload, push, push_image};

async fn create(client: &Client, text: &str) -> (Repository, String) {
    client.create(&text.parse().unwrap()).await.unwrap()
}

fn location(file: &Path) -> String {
    format!("docker-archive:{}", file.display())
}

/// A file of an archive, as tar finds it.
fn member(file: &Path, name: &str) -> Vec<u8> {
    let out = Command::new("tar")
        .args(["--extract", "--to-stdout", "--file"])
        .arg(file)
        .arg(name)
        .output()
        .unwrap();
    assert!(out.status.success(), "{name}: {out:?}");
    out.stdout
}

fn list(file: &Path) -> Value {
    serde_json::from_slice(&member(file, "manifest.json")).unwrap()
}

/// The files in a directory, by name.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(dir).unwrap();
    let name = |entry: Result<fs_err::DirEntry, _>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// An image with what an archive of older tools has no place for.
async fn push_lazy(place: &Repository, platform: &Platform, seed: u64) -> Document<Manifest> {
    let (data, boot) = (noise(seed, 70_000), noise(seed + 1, 3000));
    let data_type = "application/vnd.oci.image.layer.nydus.blob.v1";
    let data = push(place, data_type, data)
        .await
        .with_annotation("lazy", "data");
    let boot = push(place, media_type::LAYER_TAR_GZIP, boot)
        .await
        .with_annotation("lazy", "boot");
    let config = ImageConfig::new(platform.clone(), vec![data.digest, boot.digest]);
    let config = Document::write(config).into_bytes();
    let config = push(place, media_type::CONFIG, config).await;
    let mut manifest = Manifest::new(config, vec![data, boot]);
    manifest
        .annotations
        .insert("made".to_owned(), "here".to_owned());
    Document::write(manifest)
}

/// Two platforms and an attestation about one.
async fn push_index(place: &Repository, tag: &str) -> (Document<Index>, Vec<Document<Manifest>>) {
    let vax: Platform = "linux/vax".parse().unwrap();
    let mut images = Vec::new();
    let mut entries = Vec::new();
    for (platform, seed) in [(Platform::host(), 20), (vax, 30)] {
        let image = push_lazy(place, &platform, seed).await;
        let document = Any::Manifest(image.clone());
        place.put_manifest(None, &document).await.unwrap();
        entries.push(image.descriptor().with_platform(platform));
        images.push(image);
    }
    let empty = push(place, media_type::EMPTY, b"{}".to_vec()).await;
    let note = Document::write(Manifest::new(empty, Vec::new()));
    let document = Any::Manifest(note.clone());
    place.put_manifest(None, &document).await.unwrap();
    entries.push(note.descriptor().with_annotation(
        annotation::DOCKER_REFERENCE_TYPE,
        annotation::DOCKER_ATTESTATION,
    ));
    images.push(note);
    let index = Document::write(Index::new(entries));
    let document = Any::Index(index.clone());
    place.put_manifest(Some(tag), &document).await.unwrap();
    (index, images)
}

/// Every document and blob of an index, as stored.
async fn contents(
    place: &Repository,
    selector: &Selector,
    images: &[Document<Manifest>],
) -> BTreeMap<Digest, Vec<u8>> {
    let top = place.manifest(selector).await.unwrap();
    let mut all = BTreeMap::from([(top.digest(), top.bytes().to_vec())]);
    for image in images {
        let found = place.manifest(&Selector::Digest(image.digest())).await;
        assert_eq!(found.unwrap(), Any::Manifest(image.clone()));
        all.insert(image.digest(), image.bytes().to_vec());
        for blob in image.blobs() {
            let stream = place.blob(blob).await.unwrap();
            let bytes = stream.into_bytes(1 << 20).await.unwrap();
            all.insert(blob.digest, bytes.to_vec());
        }
    }
    all
}

#[tokio::test]
async fn nothing_of_an_index_is_lost() {
    let (client, scratch) = (client(), Scratch::new());
    let file = scratch.join("image.tar");
    let named = format!("{}:example.com/lazy/app:1", location(&file));
    let (place, tag) = create(&client, &named).await;
    let (index, images) = push_index(&place, &tag).await;
    let layout = format!("oci:{}:1", scratch.join("layout").display());
    let (layout, tag) = create(&client, &layout).await;
    push_index(&layout, &tag).await;
    let tag = Selector::Tag(tag);
    let expect = contents(&layout, &tag, &images).await;
    for text in [&location(&file), &named] {
        let (place, selector) = open(&client, text).await.unwrap();
        assert_eq!(selector, Selector::Digest(index.digest()));
        assert_eq!(contents(&place, &selector, &images).await, expect);
        assert_eq!(contents(&place, &tag, &images).await, expect);
        let image = place.image(&selector, &Platform::host()).await.unwrap();
        assert_eq!(image, images[0]);
        assert_eq!(image.layers[0].annotation("lazy"), Some("data"));
    }
    // Older readers see both images, and the name once.
    let list = list(&file);
    assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
    assert_eq!(list[0]["RepoTags"][0], "example.com/lazy/app:1");
    assert_eq!(list[1]["RepoTags"], Value::Null);
    let config = format!("blobs/sha256/{}", images[1].config.digest.hex());
    assert_eq!(list[1]["Config"], *config);
}

#[tokio::test]
async fn the_same_pushes_give_the_same_bytes_and_tar_agrees() {
    let (client, scratch) = (client(), Scratch::new());
    let mut written = Vec::new();
    for name in ["one", "two"] {
        let file = scratch.join(name);
        let (place, tag) = create(&client, &location(&file)).await;
        assert_eq!(tag, "latest");
        push_index(&place, &tag).await;
        let mode = fs_err::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o444, 0o444);
        written.push(fs_err::read(&file).unwrap());
    }
    assert!(written[0] == written[1]);
    let out = process::run(
        Command::new("tar")
            .args(["-tvf"])
            .arg(scratch.join("one"))
            .env("TZ", "UTC"),
    );
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3 + 11 + 2, "{out}");
    for line in &lines {
        assert!(
            line.contains(" 0/0 ") && line.contains("1970-01-01 00:00"),
            "{line}"
        );
    }
    assert!(lines[0].ends_with(" oci-layout"));
    assert!(lines[14].ends_with(" index.json"));
    assert!(lines[15].ends_with(" manifest.json"));
}

#[tokio::test]
async fn an_archive_appears_whole_and_only_once_it_has_a_tag() {
    let (client, scratch) = (client(), Scratch::new());
    let dir = scratch.dir("out");
    let file = dir.join("image.tar");
    fs_err::write(&file, b"what was there").unwrap();
    let (place, _) = create(&client, &location(&file)).await;
    push(&place, media_type::LAYER_TAR, noise(1, 5000)).await;
    assert_eq!(names(&dir).len(), 2);
    drop(place);
    assert_eq!(names(&dir), ["image.tar"]);
    assert_eq!(fs_err::read(&file).unwrap(), b"what was there");

    let (place, _) = create(&client, &location(&file)).await;
    let image = push_image(&place, "one", layer(1)).await;
    assert_eq!(names(&dir), ["image.tar"]);
    let before = fs_err::read(&file).unwrap();
    // A reader keeps what it opened, whatever is written later.
    let (opened, selector) = open(&client, &location(&file)).await.unwrap();
    let wrong = Descriptor::of(media_type::LAYER_TAR, &noise(2, 400_000));
    place
        .push_blob(&wrong, &payload(&noise(3, 400_000)), &[])
        .await
        .unwrap_err();
    assert!(fs_err::read(&file).unwrap() == before);
    push_image(&place, "two", layer(2)).await;
    check(&opened, &selector, &[layer(1)]).await;
    let (opened, _) = open(&client, &format!("{}:two", location(&file)))
        .await
        .unwrap();
    check(&opened, &Selector::Tag("two".to_owned()), &[layer(2)]).await;
    let (opened, selector) = open(&client, &format!("{}:one", location(&file)))
        .await
        .unwrap();
    assert_eq!(selector, Selector::Digest(image.digest()));
    check(&opened, &selector, &[layer(1)]).await;
    let error = open(&client, &location(&file)).await.unwrap_err();
    assert!(error.to_string().contains("it has: one, two"), "{error}");
    drop(place);
    assert_eq!(names(&dir), ["image.tar"]);
    process::run(Command::new("tar").arg("-tf").arg(&file));
}

#[tokio::test]
async fn a_blob_is_written_once() {
    let (client, scratch) = (client(), Scratch::new());
    let file = scratch.join("image.tar");
    let (place, tag) = create(&client, &location(&file)).await;
    let content = noise(4, 1 << 20);
    let blob = Descriptor::of(media_type::LAYER_TAR, &content);
    let source = scratch.join("blob");
    fs_err::write(&source, &content).unwrap();
    let first = place.push_blob(&blob, &Payload::File(source), &[]).await;
    assert_eq!(first.unwrap(), Pushed::Written);
    let second = place.push_blob(&blob, &payload(&content), &[]).await;
    assert_eq!(second.unwrap(), Pushed::Existed);
    push_image(&place, &tag, content).await;
    assert!(fs_err::metadata(&file).unwrap().len() < (1 << 20) + 20_000);
}

#[tokio::test]
async fn where_no_archive_can_be_written_that_is_said_at_once() {
    let (client, scratch) = (client(), Scratch::new());
    let digest = Digest::sha256(b"x");
    for (text, expect) in [
        (location(scratch.path()), "no regular file"),
        (location(Path::new("/dev/null")), "no regular file"),
        (location(&scratch.join("gone/image.tar")), "local file"),
        (
            format!("{}:app@{digest}", location(&scratch.join("x"))),
            "digest",
        ),
    ] {
        let error = client.create(&text.parse().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains(expect), "{text}: {error}");
    }
    assert_eq!(names(scratch.path()), Vec::<String>::new());
}

#[tokio::test]
async fn skopeo_reads_what_is_written() {
    let Some(skopeo) = need::tool("skopeo") else {
        return;
    };
    let (client, scratch) = (client(), Scratch::new());
    let skopeo =
        |args: &[&str]| process::run(Command::new(&skopeo).arg("--insecure-policy").args(args));
    let file = scratch.join("plain.tar");
    let named = format!("{}:example.com/plain/app:2", location(&file));
    let (place, tag) = create(&client, &named).await;
    assert_eq!(tag, "2");
    push_image(&place, &tag, layer(5)).await;
    for text in [&location(&file), &named] {
        let shown: Value = serde_json::from_str(&skopeo(&["inspect", text])).unwrap();
        assert_eq!(shown["Architecture"], Platform::host().architecture());
        assert_eq!(shown["Layers"][0], Digest::sha256(&layer(5)).to_string());
        let dir = scratch.join("layout");
        let to = format!("oci:{}:x", dir.display());
        skopeo(&["copy", "-q", text, &to]);
        let (place, selector) = open(&client, &to).await.unwrap();
        let image = place.image(&selector, &Platform::host()).await.unwrap();
        assert_eq!(image.layers.len(), 1);
        let stream = place.blob(&image.layers[0]).await.unwrap();
        let stored = stream.into_bytes(1 << 20).await.unwrap();
        // It compresses on the way.
        let mut unpacked = Vec::new();
        LayerDecoder::new(&*stored, LayerLimits::default())
            .unwrap()
            .read_to_end(&mut unpacked)
            .unwrap();
        assert!(unpacked == layer(5));
    }
    // As an OCI layout in a tar, nothing is lost on the way.
    let file = scratch.join("lazy.tar");
    let (place, tag) = create(&client, &location(&file)).await;
    let (index, images) = push_index(&place, &tag).await;
    let to = scratch.join("pushed");
    let from = format!("oci-archive:{}", file.display());
    let layout = format!("oci:{}:x", to.display());
    skopeo(&["copy", "-q", "--all", "--preserve-digests", &from, &layout]);
    let (place, selector) = open(&client, &layout).await.unwrap();
    let copied = place.manifest(&selector).await.unwrap();
    assert_eq!(copied.digest(), index.digest());
    contents(&place, &selector, &images).await;
    // And the other way: what skopeo writes as such is read, without a list for older readers.
    let back = scratch.join("back.tar");
    skopeo(&[
        "copy",
        "-q",
        "--all",
        "--preserve-digests",
        &layout,
        &format!("oci-archive:{}:y", back.display()),
    ]);
    for text in [location(&back), format!("{}:y", location(&back))] {
        let (place, selector) = open(&client, &text).await.unwrap();
        assert_eq!(selector, Selector::Digest(index.digest()));
        contents(&place, &selector, &images).await;
    }
}

#[tokio::test]
async fn compressed_archives_are_read() {
    let (client, scratch) = (client(), Scratch::new());
    for (program, suffix) in [("gzip", "gz"), ("zstd", "zst")] {
        let file = scratch.join("image.tar");
        let (place, tag) = create(&client, &location(&file)).await;
        push_image(&place, &tag, layer(6)).await;
        drop(place);
        process::run(Command::new(program).args(["-q", "-f"]).arg(&file));
        let packed = scratch.join(format!("image.tar.{suffix}"));
        let (place, selector) = open(&client, &location(&packed)).await.unwrap();
        check(&place, &selector, &[layer(6)]).await;
    }
    let broken = scratch.join("broken.tar.gz");
    let bytes = fs_err::read(scratch.join("image.tar.gz")).unwrap();
    fs_err::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    let error = open(&client, &location(&broken)).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused, "{error}");
    assert!(error.to_string().contains("truncated"), "{error}");
}

#[tokio::test]
async fn damaged_archives_are_refused_by_name() {
    let (client, scratch) = (client(), Scratch::new());
    let file = scratch.join("image.tar");
    let text = location(&file);
    let index = |digest: &Digest, bytes: u64| {
        let manifest = Descriptor::new(media_type::MANIFEST, *digest, bytes);
        Document::write(Index::new(vec![manifest])).into_bytes()
    };
    let manifest = Document::write(Manifest::new(
        Descriptor::of(media_type::CONFIG, b"{}"),
        Vec::new(),
    ));
    let digest = manifest.digest();
    let path = format!("blobs/sha256/{}", digest.hex());
    for (entries, expect) in [
        (vec![("index.json", b"x".to_vec())], "not usable"),
        (
            vec![
                ("index.json", index(&digest, 9)),
                ("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec()),
            ],
            "version is \"2.0.0\"",
        ),
        (
            vec![("index.json", index(&digest, 9))],
            "has no blob sha256:",
        ),
        (
            vec![
                ("index.json", index(&digest, 9)),
                (&*path, b"other".to_vec()),
            ],
            "was asked for, and 5 bytes",
        ),
        (
            vec![(
                "index.json",
                Document::write(Index::new(Vec::new())).into_bytes(),
            )],
            "no image",
        ),
    ] {
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(name, bytes)| (name, Ok(bytes)))
            .collect();
        fs_err::write(&file, tar(&entries)).unwrap();
        let error = match open(&client, &text).await {
            Err(error) => error,
            Ok((place, selector)) => place.manifest(&selector).await.unwrap_err(),
        };
        assert!(error.to_string().contains(expect), "{expect}: {error}");
    }
    let limit = vec![b' '; Limits::default().document_bytes_max + 1];
    fs_err::write(&file, tar(&[("index.json", Ok(limit))])).unwrap();
    let error = open(&client, &text).await.unwrap_err();
    assert!(error.to_string().contains("over the limit"), "{error}");
}
