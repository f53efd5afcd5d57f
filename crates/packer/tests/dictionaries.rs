//! Images that point at chunks of others instead of storing them: nydus checks and serves them, the kernel
//! mounts them, whoever wrote the dictionary.
#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test that called it"
)]

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use draught_digest::{Algorithm, Digest};
use draught_importer::{Details, Estargz, Opened};
use draught_packer::{
    BlobOrigin, Dictionary, DictionaryError, Directory, ImagePacker, OptionsError, PackOptions,
    PackedImage,
};
use draught_rafs::blob::{TOC_TAIL_BYTES, Toc, TocLimits};
use draught_rafs::bootstrap::{Bootstrap, Limits, Reader};
use draught_testkit::facts::{self, FactsOfTree};
use draught_testkit::need::Nydus;
use draught_testkit::{Scratch, erofs, need};
use draught_tree::{Compression, Tree};

mod support;
use support::{copy, devices, unwrap_bootstrap};

/// What kernel and nydus can do here.
fn tools() -> Option<Nydus> {
    if !need::root() || !need::filesystem("erofs") {
        return None;
    }
    need::nydus()
}

/// Bytes that compress by about a half, others for every seed.
fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 16);
    while out.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(7);
        out.extend_from_slice(&(state >> 20).to_le_bytes());
        out.extend_from_slice(b"the same");
    }
    out.truncate(bytes);
    out
}

/// A directory of many small files and some large ones, all of which depend on `seed`.
fn source(dir: &Path, seed: u64) {
    for (at, bytes) in (0..).zip([3_300_000, 1 << 20, 200_000, 4096, 1]) {
        fs_err::write(dir.join(format!("large-{at}")), content(seed + at, bytes)).unwrap();
    }
    fs_err::create_dir_all(dir.join("small")).unwrap();
    for at in 0..100 {
        let bytes = usize::try_from(at * 37 + 1).unwrap();
        let path = dir.join(format!("small/{at}"));
        fs_err::write(path, content(seed + 100 + at, bytes)).unwrap();
    }
}

/// Images that share a directory for their blobs.
struct Images {
    scratch: Scratch,
    blobs: PathBuf,
    count: usize,
}

/// An image in a file.
struct Image {
    bootstrap: PathBuf,
    /// Bytes of the blobs that it brought, of the layer of that number.
    new_blobs: Vec<(usize, u64)>,
    packed: Option<PackedImage>,
}

impl Images {
    fn new() -> Self {
        let scratch = Scratch::new();
        Self {
            blobs: scratch.dir("blobs"),
            scratch,
            count: 0,
        }
    }

    fn next_dir(&mut self) -> PathBuf {
        self.count += 1;
        self.scratch.dir(format!("image-{}", self.count))
    }

    fn pack(&mut self, options: &PackOptions, layers: &[&Path]) -> Image {
        let out = self.next_dir();
        let mut packer = ImagePacker::new(options.clone()).unwrap();
        let mut new_blobs = Vec::new();
        for (at, layer) in layers.iter().enumerate() {
            let mut layer = Directory::open(layer).unwrap();
            let (_, blob) = packer.add_directory(&mut layer, &()).unwrap();
            if let Some(blob) = blob {
                new_blobs.push((at, blob.content.bytes()));
                let path = self.blobs.join(blob.content.digest().hex());
                copy(blob.content.into_file().unwrap(), &path);
            }
        }
        let mut packed = packer.finish().unwrap();
        let layer = std::mem::replace(&mut packed.bootstrap, empty_bootstrap());
        Image {
            bootstrap: unwrap_bootstrap(layer, &out),
            new_blobs,
            packed: Some(packed),
        }
    }

    /// What nydus' own tool makes.
    fn create(&mut self, nydus: &Nydus, source: &Path, args: &[&str]) -> Image {
        let out = self.next_dir();
        let created = nydus.create(source, &out, args);
        let mut new_blobs = Vec::new();
        for blob in fs_err::read_dir(&created.blobs).unwrap() {
            let blob = blob.unwrap();
            new_blobs.push((0, blob.metadata().unwrap().len()));
            fs_err::rename(blob.path(), self.blobs.join(blob.file_name())).unwrap();
        }
        Image {
            bootstrap: created.bootstrap,
            new_blobs,
            packed: None,
        }
    }

    fn read(&self, image: &Image) -> Bootstrap {
        let bytes = fs_err::read(&image.bootstrap).unwrap();
        let mut reader = Reader::open(&bytes, None, &Limits::default()).unwrap();
        for need in reader.needs().to_vec() {
            let len = usize::try_from(need.range.end - need.range.start).unwrap();
            let mut given = vec![0; len];
            let blob = fs_err::File::open(self.blobs.join(need.blob.hex())).unwrap();
            let blob = blob.into_file();
            blob.read_exact_at(&mut given, need.range.start).unwrap();
            reader.give(&need, given).unwrap();
        }
        let mut read = reader.finish().unwrap();
        for blob in &mut read.tree.map.blobs {
            // As the importer does, which has it from the manifest.
            let path = self.blobs.join(blob.digest.hex());
            blob.stored_bytes = fs_err::metadata(path).unwrap().len();
        }
        read
    }

    fn dictionary(&self, image: &Image) -> Arc<Dictionary> {
        let identity = Digest::sha256(&fs_err::read(&image.bootstrap).unwrap());
        let read = self.read(image);
        let dictionary =
            Dictionary::new(identity, read.tree.map, read.blobs, read.chunk_indexes).unwrap();
        Arc::new(dictionary)
    }

    /// Lets the kernel show an image.
    fn assert_mounted(&mut self, image: &Image, expected: &FactsOfTree) {
        let out = self.next_dir();
        let read = self.read(image);
        let devices = devices(&read.tree.map, &self.blobs, &out);
        let dir = out.join("mounted");
        fs_err::create_dir(&dir).unwrap();
        let mount = erofs::mount(&image.bootstrap, &devices, &dir).unwrap();
        facts::assert_same(&facts::of_directory(&dir), expected);
        drop(mount);
    }

    /// Lets nydus check an image and serve it, and the kernel show it.
    fn assert_right(&mut self, nydus: &Nydus, image: &Image, expected: &FactsOfTree) {
        nydus.check(&image.bootstrap);
        let out = self.next_dir();
        let (work, dir) = (out.join("work"), out.join("served"));
        fs_err::create_dir(&work).unwrap();
        fs_err::create_dir(&dir).unwrap();
        let served = nydus
            .serve(&image.bootstrap, &self.blobs, &work, &dir)
            .unwrap();
        let mut got = facts::of_directory(&dir);
        got.get_mut(&b"/"[..]).unwrap().mtime = expected[&b"/"[..]].mtime;
        facts::assert_same(&got, expected);
        drop(served);
        self.assert_mounted(image, expected);
    }
}

/// Something to put where a bootstrap was taken from.
fn empty_bootstrap() -> draught_packer::BootstrapLayer {
    let packer = ImagePacker::new(PackOptions::default()).unwrap();
    packer.finish().unwrap().bootstrap
}

fn with(options: &PackOptions, dictionaries: &[&Arc<Dictionary>]) -> PackOptions {
    PackOptions {
        dictionaries: dictionaries.iter().map(|it| Arc::clone(it)).collect(),
        ..options.clone()
    }
}

/// The origins of an image's blobs.
fn origins(image: &Image) -> Vec<BlobOrigin> {
    let blobs = &image.packed.as_ref().unwrap().blobs;
    blobs.iter().map(|blob| blob.origin).collect()
}

#[test]
fn an_image_that_is_its_dictionary_brings_no_blob() {
    let Some(nydus) = tools() else { return };
    let mut images = Images::new();
    let dir = images.scratch.dir("source");
    source(&dir, 1);
    let expected = facts::of_directory(&dir);
    let options = PackOptions::default();
    let first = images.pack(&options, &[&dir]);
    let dictionary = images.dictionary(&first);
    let second = images.pack(&with(&options, &[&dictionary]), &[&dir, &dir]);
    assert_eq!(second.new_blobs, []);
    assert_eq!(origins(&second), [BlobOrigin::Dictionary(0)]);
    images.assert_right(&nydus, &second, &expected);
    let bytes = |image: &Image| fs_err::read(&image.bootstrap).unwrap();
    assert!(bytes(&first) == bytes(&second), "it is the same image");

    // And what it became is as good a dictionary.
    let again = images.dictionary(&second);
    let third = images.pack(&with(&options, &[&again]), &[&dir]);
    assert_eq!(third.new_blobs, []);
    assert!(bytes(&first) == bytes(&third));
}

#[test]
fn a_changed_file_is_all_that_is_stored() {
    let Some(nydus) = tools() else { return };
    let mut images = Images::new();
    let dir = images.scratch.dir("source");
    source(&dir, 1);
    let options = PackOptions::default();
    let first = images.pack(&options, &[&dir]);
    let dictionary = images.dictionary(&first);
    fs_err::write(dir.join("small/50"), content(9999, 5000)).unwrap();
    fs_err::remove_file(dir.join("large-0")).unwrap();
    // Content within a file whose other chunks are known.
    let mut large = content(1, 3_300_000);
    large[1 << 20] ^= 1;
    fs_err::write(dir.join("large-9"), large).unwrap();
    let expected = facts::of_directory(&dir);
    let second = images.pack(&with(&options, &[&dictionary]), &[&dir]);
    let [(0, blob_bytes)] = second.new_blobs[..] else {
        panic!("{:?}", second.new_blobs);
    };
    // A chunk of a mebibyte that compresses by a half, a small file, and the layer's own bootstrap.
    assert!(blob_bytes < 900_000, "{blob_bytes} bytes");
    assert_eq!(
        origins(&second),
        [BlobOrigin::Dictionary(0), BlobOrigin::Layer(0)]
    );
    images.assert_right(&nydus, &second, &expected);
    let packed = second.packed.as_ref().unwrap();
    for blob in &packed.blobs {
        let path = images.blobs.join(blob.digest.hex());
        assert_eq!(fs_err::metadata(path).unwrap().len(), blob.stored_bytes);
    }
    let new = packed.tree.map.chunks.iter();
    let new = new.filter(|chunk| packed.tree.map.blob_of(chunk).unwrap().index() == 1);
    assert_eq!(new.count(), 2);
}

#[test]
fn of_several_dictionaries_the_first_that_has_a_chunk_counts() {
    let Some(nydus) = tools() else { return };
    let mut images = Images::new();
    let dirs: Vec<PathBuf> = (0..3)
        .map(|at| {
            let dir = images.scratch.dir(format!("source-{at}"));
            source(&dir, 1000 * at);
            dir
        })
        .collect();
    let options = PackOptions::default();
    let one = images.pack(&options, &[&dirs[0]]);
    let one = images.dictionary(&one);
    // The second has what the first has, and more: as a layer of the same image.
    let two = images.pack(&options, &[&dirs[0], &dirs[1]]);
    let two = images.dictionary(&two);
    let all = images.scratch.dir("all");
    for dir in &dirs {
        let name = dir.file_name().unwrap();
        fs_err::create_dir(all.join(name)).unwrap();
        let mut copy = std::process::Command::new("cp");
        draught_testkit::process::run(copy.arg("-a").arg(dir).arg(&all));
    }
    let expected = facts::of_directory(&all);
    let both = with(&options, &[&one, &two]);
    let packer = ImagePacker::new(both.clone()).unwrap();
    let uses = packer.dictionaries();
    assert_eq!(uses[0].chunks, u64::try_from(one.chunks()).unwrap());
    let more = u64::try_from(two.chunks() - one.chunks()).unwrap();
    assert!(uses[1].chunks < uses[0].chunks + more && uses[1].chunks > 0);
    let image = images.pack(&both, &[&all]);
    assert_eq!(
        origins(&image),
        [
            BlobOrigin::Dictionary(0),
            BlobOrigin::Dictionary(1),
            BlobOrigin::Layer(0)
        ]
    );
    images.assert_right(&nydus, &image, &expected);
    // What nobody needs is no part of the image: only the second layer of the second dictionary is.
    let image = images.pack(&both, &[&dirs[1]]);
    assert_eq!(image.new_blobs, []);
    images.assert_right(&nydus, &image, &facts::of_directory(&dirs[1]));
}

#[test]
fn dictionaries_of_other_sizes_compressions_and_batches_serve() {
    let Some(nydus) = tools() else { return };
    let mut images = Images::new();
    let dir = images.scratch.dir("source");
    source(&dir, 1);
    let expected = facts::of_directory(&dir);
    let base = PackOptions::default();
    for (options, is_all, has_batches) in [
        (
            PackOptions {
                compression: Compression::Lz4Block,
                ..base.clone()
            },
            true,
            false,
        ),
        (
            PackOptions {
                compression: Compression::None,
                chunk_bytes: 4 << 20,
                ..base.clone()
            },
            false,
            false,
        ),
        (
            PackOptions {
                chunk_bytes: 64 << 10,
                ..base.clone()
            },
            false,
            false,
        ),
        (
            PackOptions {
                batch_bytes: 128 << 10,
                ..base.clone()
            },
            true,
            true,
        ),
    ] {
        let dictionary = images.pack(&options, &[&dir]);
        let dictionary = images.dictionary(&dictionary);
        let image = images.pack(&with(&base, &[&dictionary]), &[&dir]);
        assert_eq!(image.new_blobs.is_empty(), is_all, "{options:?}");
        assert_eq!(origins(&image)[0], BlobOrigin::Dictionary(0));
        if has_batches {
            // nydus 2.2 does not know them.
            images.assert_mounted(&image, &expected);
        } else {
            images.assert_right(&nydus, &image, &expected);
        }
        // The other way round.
        let dictionary = images.pack(&base, &[&dir]);
        let dictionary = images.dictionary(&dictionary);
        let image = images.pack(&with(&options, &[&dictionary]), &[&dir]);
        assert_eq!(image.new_blobs.is_empty(), is_all, "{options:?}");
        if has_batches && !is_all {
            images.assert_mounted(&image, &expected);
        } else {
            images.assert_right(&nydus, &image, &expected);
        }
    }
}

#[test]
fn dictionaries_that_nydus_made_serve() {
    let Some(nydus) = tools() else { return };
    let mut images = Images::new();
    let dir = images.scratch.dir("source");
    source(&dir, 1);
    for (args, options) in [
        (&["--compressor", "zstd"][..], PackOptions::default()),
        (
            &["--compressor", "lz4_block", "--digester", "sha256"],
            PackOptions {
                digester: Algorithm::Sha256,
                ..PackOptions::default()
            },
        ),
        (
            &["--compressor", "none", "--chunk-size", "0x10000"],
            PackOptions::default(),
        ),
    ] {
        let made = images.create(&nydus, &dir, args);
        let dictionary = images.dictionary(&made);
        let image = images.pack(&with(&options, &[&dictionary]), &[&dir]);
        let is_all = !args.contains(&"0x10000");
        assert_eq!(image.new_blobs.is_empty(), is_all, "{args:?}");
        assert_eq!(origins(&image)[0], BlobOrigin::Dictionary(0));
        images.assert_right(&nydus, &image, &facts::of_directory(&dir));
    }
}

#[test]
fn nydus_uses_what_was_packed_here_as_a_dictionary() {
    let Some(nydus) = tools() else { return };
    let mut images = Images::new();
    let dir = images.scratch.dir("source");
    source(&dir, 1);
    let ours = images.pack(&PackOptions::default(), &[&dir]);
    fs_err::write(dir.join("new"), content(77, 10_000)).unwrap();
    let expected = facts::of_directory(&dir);
    let argument = format!("bootstrap={}", ours.bootstrap.display());
    let args = ["--compressor", "zstd", "--chunk-dict", &argument];
    let theirs = images.create(&nydus, &dir, &args);
    let read = images.read(&theirs);
    assert_eq!(read.blobs.len(), 2);
    let new: u64 = theirs.new_blobs.iter().map(|(_, bytes)| bytes).sum();
    assert!(new < 40_000, "{new} bytes");
    images.assert_mounted(&theirs, &as_nydus(&images, &theirs, expected));
}

/// Nydus keeps no times in its short inodes: takes from `expected` those that it did not keep.
fn as_nydus(images: &Images, image: &Image, mut expected: FactsOfTree) -> FactsOfTree {
    let read = images.read(image);
    let got = facts::of_tree_with(&read.tree, &|_| Digest::sha256(b""));
    for (path, fact) in &mut expected {
        if got.get(path).is_some_and(|got| got.mtime == (0, 0)) {
            fact.mtime = (0, 0);
        }
    }
    expected
}

#[test]
fn the_bootstrap_in_a_blob_points_into_the_dictionary_too() {
    let Some(nydus) = tools() else { return };
    let mut images = Images::new();
    let (lower, upper) = (images.scratch.dir("lower"), images.scratch.dir("upper"));
    source(&lower, 1);
    source(&upper, 1);
    let options = PackOptions::default();
    let dictionary = images.pack(&options, &[&lower]);
    let dictionary = images.dictionary(&dictionary);
    fs_err::write(upper.join("new"), content(88, 10_000)).unwrap();
    let expected = facts::of_directory(&upper);
    let image = images.pack(&with(&options, &[&dictionary]), &[&lower, &upper]);
    assert_eq!(
        origins(&image),
        [BlobOrigin::Dictionary(0), BlobOrigin::Layer(1)]
    );
    let own = image.packed.as_ref().unwrap().blobs[1].digest;
    let blob = fs_err::read(images.blobs.join(own.hex())).unwrap();
    let at = blob.len() - usize::try_from(TOC_TAIL_BYTES).unwrap().min(blob.len());
    let size = u64::try_from(blob.len()).unwrap();
    let toc = Toc::decode(&blob[at..], size, &TocLimits::default()).unwrap();
    let entry = toc.bootstrap().unwrap();
    let at = usize::try_from(entry.offset.0).unwrap();
    let stored = &blob[at..at + usize::try_from(entry.stored_bytes).unwrap()];
    let bootstrap = entry.decode(stored).unwrap();
    let path = images.scratch.join("layer.boot");
    fs_err::write(&path, &bootstrap).unwrap();
    nydus.check(&path);
    let reader = Reader::open(&bootstrap, Some(own), &Limits::default()).unwrap();
    let read = reader.finish().unwrap();
    assert_eq!(read.blobs.len(), 2);
    let out = images.next_dir();
    let devices = devices(&read.tree.map, &images.blobs, &out);
    let dir = out.join("mounted");
    fs_err::create_dir(&dir).unwrap();
    let mount = erofs::mount(&path, &devices, &dir).unwrap();
    facts::assert_same(&facts::of_directory(&dir), &expected);
    drop(mount);
}

#[test]
fn nydusd_reads_files_that_are_scattered_over_a_dictionary() {
    let Some(nydus) = tools() else { return };
    let mut images = Images::new();
    let (one, other) = (images.scratch.dir("one"), images.scratch.dir("other"));
    let mut state = 1_u64;
    let mut write = |dir: &Path, kinds: u64, pieces: usize| {
        let mut data = Vec::new();
        for _ in 0..pieces {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            data.extend_from_slice(&content(1 + (state >> 33) % kinds, 4096));
        }
        fs_err::write(dir.join(format!("{kinds}-{pieces}")), data).unwrap();
    };
    for pieces in 1..60 {
        write(&one, 100, pieces);
    }
    for pieces in 1..90 {
        write(&other, 130, pieces);
    }
    let expected = facts::of_directory(&other);
    for (compression, args) in [
        (Compression::None, ["--compressor", "none"]),
        (Compression::Zstd, ["--compressor", "zstd"]),
    ] {
        let options = PackOptions {
            compression,
            chunk_bytes: 4096,
            ..PackOptions::default()
        };
        let ours = images.pack(&options, &[&one]);
        let args = [&args[..], &["--chunk-size", "0x1000"]].concat();
        let theirs = images.create(&nydus, &one, &args);
        for dictionary in [ours, theirs] {
            let dictionary = images.dictionary(&dictionary);
            let image = images.pack(&with(&options, &[&dictionary]), &[&other]);
            assert_eq!(
                origins(&image),
                [BlobOrigin::Dictionary(0), BlobOrigin::Layer(0)]
            );
            images.assert_right(&nydus, &image, &expected);
        }
    }
}

#[test]
fn a_dictionary_that_is_of_no_use_is_refused_with_the_reason() {
    let scratch = Scratch::new();
    let dir = scratch.dir("source");
    source(&dir, 1);
    let mut images = Images::new();
    let made = images.pack(&PackOptions::default(), &[&dir]);
    let dictionary = images.dictionary(&made);
    let options = PackOptions {
        digester: Algorithm::Sha256,
        ..with(&PackOptions::default(), &[&dictionary])
    };
    let error = ImagePacker::new(options).unwrap_err();
    let OptionsError::Dictionary { index: 0, source } = error else {
        panic!("{error}");
    };
    assert!(matches!(source, DictionaryError::Digester { .. }));
    let text = source.to_string();
    assert!(
        text.contains("digested with blake3") && text.contains("with sha256"),
        "{text}"
    );

    let other = Opened {
        tree: Tree::new(),
        prefetch: Vec::new(),
        details: Details::Estargz(Estargz {
            toc_stored_bytes: 1,
            chunk_bytes_max: 1,
        }),
    };
    let error = Dictionary::of_image(Digest::sha256(b""), other).unwrap_err();
    assert!(matches!(error, DictionaryError::Format));
}

#[test]
fn a_forged_dictionary_is_refused_or_not_used() {
    let mut images = Images::new();
    let dir = images.scratch.dir("source");
    source(&dir, 1);
    let made = images.pack(&PackOptions::default(), &[&dir]);
    let identity = Digest::sha256(b"forged");
    let forged = |change: &dyn Fn(&mut Bootstrap)| {
        let mut read = images.read(&made);
        change(&mut read);
        Dictionary::new(identity, read.tree.map, read.blobs, read.chunk_indexes)
    };
    for change in [
        &(|read: &mut Bootstrap| read.blobs.clear()) as &dyn Fn(&mut Bootstrap),
        &|read| read.chunk_indexes.truncate(1),
        &|read| read.tree.map.chunks[3].extent.0 = u32::MAX,
        &|read| read.tree.map.extents[3].blob.0 = 1,
        &|read| read.chunk_indexes[3] = u32::MAX,
        &|read| read.blobs[0].digester = Algorithm::Sha256,
    ] {
        let error = forged(change).unwrap_err();
        assert!(matches!(error, DictionaryError::Map { .. }), "{error}");
    }
    // A chunk that says to be longer than what has its digest.
    let dictionary = forged(&|read| {
        for chunk in &mut read.tree.map.chunks {
            chunk.bytes += 1;
        }
    });
    let dictionary = Arc::new(dictionary.unwrap());
    let image = images.pack(&with(&PackOptions::default(), &[&dictionary]), &[&dir]);
    assert_eq!(origins(&image), [BlobOrigin::Layer(0)]);
}
