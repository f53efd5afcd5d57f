//! Images as the deployed converters make them: a blob a layer by `nydus-image create`, their bootstraps taken
//! out of the blobs, `nydus-image merge`, and a layer with the result.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use draught_codec::Decoder;
use draught_digest::Digest;
use draught_importer::{
    BLOB_BACKEND, Import, ImportError, Limits, NYDUS_BLOB, NYDUS_BLOB_MEDIA_TYPE, NYDUS_BOOTSTRAP,
    NYDUS_FS_VERSION, Opened, Step,
};
use draught_oci::{Descriptor, Manifest, media_type};
use draught_rafs::blob::{TOC_TAIL_BYTES, Toc, TocLimits};
use draught_tar::Writer;
use draught_testkit::compare::Applied;
use draught_testkit::need::Nydus;
use draught_testkit::{Scratch, facts, need, process};
use draught_tree::{Entry, EntryKind, Meta, Tree};

/// An image: manifest and blobs by digest.
struct Image {
    manifest: Manifest,
    blobs: BTreeMap<Digest, Vec<u8>>,
}

fn entry(path: &str, mode: u16, kind: EntryKind) -> Entry {
    let meta = Meta {
        mode,
        uid: 11,
        gid: 12,
        mtime: 1_234_567_890,
        ..Meta::default()
    };
    Entry {
        path: path.as_bytes().into(),
        meta,
        kind,
    }
}

/// An archive of directories (names that end in a slash) and files with that content.
fn archive(entries: &[(&str, &[u8])], more: Vec<Entry>) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, content) in entries {
        let kind = if path.ends_with('/') {
            EntryKind::Directory
        } else {
            EntryKind::File {
                bytes: u64::try_from(content.len()).unwrap(),
                chunks: Box::default(),
            }
        };
        let mode = if path.ends_with('/') { 0o755 } else { 0o640 };
        writer.entry(&entry(path, mode, kind)).unwrap();
        writer.data(content).unwrap();
    }
    for entry in more {
        writer.entry(&entry).unwrap();
    }
    writer.finish().unwrap()
}

fn layers() -> Vec<Vec<u8>> {
    let big: Vec<u8> = (0..3_000_000_u32)
        .flat_map(|n| n.to_le_bytes())
        .take(3 << 20)
        .collect();
    let lower = archive(
        &[
            ("bin/", b""),
            ("bin/tool", &big),
            ("etc/", b""),
            ("etc/gone", b"gone"),
            ("etc/kept", b"kept"),
            ("opaque/", b""),
            ("opaque/old", b"old"),
            ("same", b"same content"),
        ],
        vec![
            entry(
                "bin/hard",
                0o640,
                EntryKind::HardLink(b"bin/tool"[..].into()),
            ),
            entry("link", 0o777, EntryKind::Symlink(b"bin/tool"[..].into())),
            entry("null", 0o666, EntryKind::CharDevice { major: 1, minor: 3 }),
        ],
    );
    let upper = archive(
        &[
            ("etc/", b""),
            ("etc/.wh.gone", b""),
            ("etc/new", b"new"),
            ("opaque/", b""),
            ("opaque/.wh..wh..opq", b""),
            ("opaque/new", b"same content"),
            ("empty", b""),
        ],
        Vec::new(),
    );
    vec![lower, upper]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn described(kind: &str, bytes: &[u8], annotations: &[(&str, &str)]) -> Descriptor {
    let size = u64::try_from(bytes.len()).unwrap();
    let mut descriptor = Descriptor::new(kind, Digest::sha256(bytes), size);
    for (name, value) in annotations {
        descriptor
            .annotations
            .insert((*name).to_owned(), (*value).to_owned());
    }
    descriptor
}

/// A blob with its own bootstrap, as `nydus-image create` makes it of a layer.
fn pack_layer(nydus: &Nydus, layer: &[u8], dir: &Path, dictionary: Option<&Path>) -> Vec<u8> {
    fs_err::create_dir_all(dir).unwrap();
    fs_err::write(dir.join("layer.tar"), layer).unwrap();
    let mut command = Command::new(&nydus.image);
    command.args([
        "create",
        "--log-level",
        "warn",
        "--type",
        "tar-rafs",
        "--fs-version",
        "6",
    ]);
    command.args([
        "--blob-inline-meta",
        "--features",
        "blob-toc",
        "--whiteout-spec",
        "none",
    ]);
    if let Some(dictionary) = dictionary {
        let bootstrap = format!("bootstrap={}", dictionary.display());
        command.arg("--chunk-dict").arg(bootstrap);
    }
    command
        .arg("--blob")
        .arg(dir.join("blob"))
        .arg(dir.join("layer.tar"));
    process::run(&mut command);
    fs_err::read(dir.join("blob")).unwrap()
}

/// The table of contents of a blob, and the bootstrap that it holds.
fn unpack_blob(blob: &[u8]) -> (Toc, Vec<u8>) {
    let tail = blob
        .len()
        .saturating_sub(usize::try_from(TOC_TAIL_BYTES).unwrap());
    let bytes = u64::try_from(blob.len()).unwrap();
    let toc = Toc::decode(&blob[tail..], bytes, &TocLimits::default()).unwrap();
    let entry = toc.bootstrap().unwrap();
    let start = usize::try_from(entry.offset.0).unwrap();
    let stored = &blob[start..start + usize::try_from(entry.stored_bytes).unwrap()];
    let bootstrap = entry.decode(stored).unwrap();
    (toc, bootstrap)
}

fn convert(nydus: &Nydus, layers: &[Vec<u8>], scratch: &Scratch) -> Image {
    convert_over(nydus, layers, scratch, None)
}

/// Converts with a dictionary: its bootstrap. The image then needs the dictionary's blobs too.
fn convert_over(
    nydus: &Nydus,
    layers: &[Vec<u8>],
    scratch: &Scratch,
    dictionary: Option<&Path>,
) -> Image {
    let mut blobs = BTreeMap::new();
    let mut descriptors = Vec::new();
    let mut lists: [Vec<String>; 4] = Default::default();
    let mut sources = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let blob = pack_layer(
            nydus,
            layer,
            &scratch.join(format!("layer{at}")),
            dictionary,
        );
        let (toc, bootstrap) = unpack_blob(&blob);
        let descriptor = described(NYDUS_BLOB_MEDIA_TYPE, &blob, &[(NYDUS_BLOB, "true")]);
        let digest = descriptor.digest;
        let source = scratch.join(digest.hex());
        fs_err::write(&source, bootstrap).unwrap();
        sources.push(source);
        let toc_digest = Digest::new(digest.algorithm(), toc.sha256);
        let facts = [
            digest.hex(),
            descriptor.size.to_string(),
            toc_digest.hex(),
            toc.bytes.to_string(),
        ];
        for (list, fact) in lists.iter_mut().zip(facts) {
            list.push(fact);
        }
        blobs.insert(digest, blob);
        descriptors.push(descriptor);
    }
    let merged = scratch.join("merged");
    let mut command = Command::new(&nydus.image);
    command
        .args(["merge", "--log-level", "warn", "--bootstrap"])
        .arg(&merged);
    if let Some(dictionary) = dictionary {
        command.arg("--chunk-dict").arg(dictionary);
    }
    let names = [
        "--blob-digests",
        "--blob-sizes",
        "--blob-toc-digests",
        "--blob-toc-sizes",
    ];
    for (name, list) in names.iter().zip(&lists) {
        command.arg(name).arg(list.join(","));
    }
    process::run(command.args(&sources));

    let bootstrap = fs_err::read(&merged).unwrap();
    let layer = gzip(&archive(
        &[("image/", b""), ("image/image.boot", &bootstrap)],
        Vec::new(),
    ));
    let annotations = [(NYDUS_BOOTSTRAP, "true"), (NYDUS_FS_VERSION, "6")];
    descriptors.push(described(media_type::LAYER_TAR_GZIP, &layer, &annotations));
    blobs.insert(Digest::sha256(&layer), layer);
    let config = described(media_type::CONFIG, b"{}", &[]);
    Image {
        manifest: Manifest::new(config, descriptors),
        blobs,
    }
}

/// Opens an image; counts the bytes that were read.
fn open(image: &Image) -> Result<(Opened, u64), ImportError> {
    let mut read_bytes = 0;
    let mut import = Import::new(&image.manifest, &Limits::default())?;
    loop {
        match import.step()? {
            Step::Done(opened) => return Ok((*opened, read_bytes)),
            Step::Sizes(blobs) => {
                for blob in blobs {
                    let bytes = u64::try_from(image.blobs[&blob].len()).unwrap();
                    import.give_size(&blob, bytes);
                }
            }
            Step::Read(reads) => {
                for read in reads {
                    let start = usize::try_from(read.range.start).unwrap();
                    let end = usize::try_from(read.range.end).unwrap();
                    let bytes = image.blobs[&read.blob][start..end].to_vec();
                    read_bytes += read.range.end - read.range.start;
                    import.give(&read, bytes)?;
                }
            }
        }
    }
}

fn facts_of(image: &Image, tree: &Tree) -> facts::FactsOfTree {
    facts::of_tree(tree, &|chunk| {
        let extent = tree.map.extent(chunk.extent).unwrap();
        let blob = tree.map.blob(extent.blob).unwrap();
        let start = usize::try_from(extent.offset.0).unwrap();
        let end = start + usize::try_from(extent.stored_bytes).unwrap();
        let mut decoded = Vec::new();
        Decoder::new()
            .decode(
                extent.compression,
                &image.blobs[&blob.digest][start..end],
                extent.decoded_bytes,
                &mut decoded,
            )
            .unwrap();
        let start = usize::try_from(chunk.offset.0).unwrap();
        let bytes = &decoded[start..start + usize::try_from(chunk.bytes).unwrap()];
        assert!(chunk.digest.verifies(bytes));
        bytes.to_vec()
    })
}

#[test]
fn an_image_of_the_deployed_converters_opens_as_its_layers_unpack() {
    let Some(nydus) = need::nydus() else { return };
    let scratch = Scratch::new();
    let layers = layers();
    let image = convert(&nydus, &layers, &scratch);
    let (opened, read_bytes) = open(&image).unwrap();
    let got = facts_of(&image, &opened.tree);
    let mut expected = Applied::default();
    for layer in &layers {
        expected.layer(layer.as_slice()).unwrap();
    }
    let mut expected = expected.snapshot();
    for (path, fact) in &mut expected {
        if let Some(got) = got.get(path) {
            // Nydus keeps no times in its short inodes, and counts no names across layers.
            fact.mtime = got.mtime;
        }
    }
    facts::assert_same(&got, &expected);
    // Nothing but the layer with the metadata.
    assert_eq!(read_bytes, image.manifest.layers.last().unwrap().size);
    for (blob, layer) in opened.tree.map.blobs.iter().zip(&image.manifest.layers) {
        assert_eq!((blob.digest, blob.stored_bytes), (layer.digest, layer.size));
    }
}

#[test]
fn an_image_over_a_dictionary_opens_when_its_manifest_names_the_dictionarys_blobs() {
    let Some(nydus) = need::nydus() else { return };
    let (lower, scratch) = (Scratch::new(), Scratch::new());
    let layers = layers();
    let dictionary = convert(&nydus, &layers[..1], &lower);
    let bootstrap = lower.join("merged");
    let mut image = convert_over(&nydus, &layers, &scratch, Some(&bootstrap));
    let blob = dictionary.manifest.layers[0].clone();
    let error = open(&image).unwrap_err();
    assert!(
        matches!(error, ImportError::ForeignBlob { blob: missing, .. } if missing == blob.digest),
        "{error}"
    );
    image
        .blobs
        .insert(blob.digest, dictionary.blobs[&blob.digest].clone());
    image.manifest.layers.insert(0, blob);
    let (opened, _) = open(&image).unwrap();
    let plain = Scratch::new();
    let plain = convert(&nydus, &layers, &plain);
    let (expected, _) = open(&plain).unwrap();
    facts::assert_same(
        &facts_of(&image, &opened.tree),
        &facts_of(&plain, &expected.tree),
    );
}

#[test]
fn blobs_that_the_manifest_does_not_name_are_refused() {
    let Some(nydus) = need::nydus() else { return };
    let scratch = Scratch::new();
    let mut image = convert(&nydus, &layers(), &scratch);
    let removed = image.manifest.layers.remove(0);
    let error = open(&image).unwrap_err();
    assert!(
        error.to_string().contains(&removed.digest.to_string()),
        "{error}"
    );
}

#[test]
fn blobs_elsewhere_are_taken_with_leave_and_their_size() {
    let Some(nydus) = need::nydus() else { return };
    let scratch = Scratch::new();
    let whole = convert(&nydus, &layers(), &scratch);
    let (mut bootstrap, mut blobs) = (whole.manifest.layers.clone(), BTreeMap::new());
    let bootstrap = bootstrap.pop().unwrap();
    for layer in whole.manifest.layers.iter().rev().skip(1) {
        blobs.insert(layer.digest, layer.size);
    }
    let bootstrap = bootstrap.with_annotation(BLOB_BACKEND, "s3://bucket/images/");
    let manifest = Manifest::new(whole.manifest.config.clone(), vec![bootstrap]);
    let image = Image {
        manifest,
        blobs: whole.blobs.clone(),
    };
    let error = open(&image).unwrap_err().to_string();
    for word in ["--blob-backend", "s3://bucket/images/"] {
        assert!(error.contains(word), "{error}");
    }
    let elsewhere = |cut: u64| {
        let import = Import::new(&image.manifest, &Limits::default()).unwrap();
        let mut import = import.with_blobs_elsewhere();
        loop {
            match import.step()? {
                Step::Done(opened) => return Ok::<_, ImportError>(opened.tree),
                Step::Sizes(asked) => {
                    for blob in asked {
                        import.give_size(&blob, blobs[&blob] - cut);
                    }
                }
                Step::Read(reads) => {
                    for read in reads {
                        import.give(&read, image.blobs[&read.blob].clone())?;
                    }
                }
            }
        }
    };
    facts::assert_same(
        &facts_of(&image, &elsewhere(0).unwrap()),
        &facts_of(&whole, &open(&whole).unwrap().0.tree),
    );
    let least = blobs.values().min().unwrap();
    let error = elsewhere(*least - 1).unwrap_err();
    assert!(matches!(error, ImportError::BlobEnd { .. }), "{error}");
}

#[test]
fn a_blob_that_is_shorter_than_its_chunks_is_refused() {
    let Some(nydus) = need::nydus() else { return };
    let scratch = Scratch::new();
    let mut image = convert(&nydus, &layers(), &scratch);
    image.manifest.layers[0].size = 10;
    let error = open(&image).unwrap_err().to_string();
    assert!(
        error.contains("a chunk beyond the 10 bytes of blob"),
        "{error}"
    );
}
