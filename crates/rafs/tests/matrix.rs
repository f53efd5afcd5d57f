//! Images as nydus' own tool writes them, whatever it was told: every compression, digest and size of chunks,
//! with and without a dictionary, from a directory and layer by layer as the deployed converters do. We read all,
//! and every file is the same.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use draught_digest::{Algorithm, Digest};
use draught_rafs::blob::{TOC_TAIL_BYTES, Toc, TocLimits};
use draught_testkit::compare::Applied;
use draught_testkit::facts::{self, FactsOfTree};
use draught_testkit::need::Nydus;
use draught_testkit::nydus::Created;
use draught_testkit::{Scratch, need, process};
use draught_tree::Compression;

mod support;
use support::{Blobs, bytes, forget_what_nydus_forgets};

/// The sizes of chunks: the smallest, a common one, the default, and the largest.
const CHUNK_BYTES: [u32; 4] = [4 << 10, 64 << 10, 1 << 20, 16 << 20];

/// What all images of the matrix are made from.
struct Sources {
    scratch: Scratch,
    /// What is packed as a whole.
    directory: PathBuf,
    expected: FactsOfTree,
    /// What is packed layer by layer: archives in gzip.
    layers: Vec<PathBuf>,
    expected_of_layers: FactsOfTree,
    /// What dictionaries are made from: has some of the content of both.
    dictionary: PathBuf,
}

impl Sources {
    fn new() -> Self {
        let scratch = Scratch::new();
        let [directory, upper, dictionary] =
            ["lower", "upper", "dictionary"].map(|name| scratch.dir(name));
        for dir in [&directory, &upper] {
            fs_err::create_dir_all(dir.join("dir/many")).unwrap();
        }
        let write = |path: PathBuf, seed: u64, len: usize| {
            fs_err::write(path, bytes(seed, len)).unwrap();
        };
        let sizes = [0, 1, 4095, 4096, 4097, 65_537, 700_001, (1 << 20) + 1];
        for (seed, len) in (0..).zip(sizes) {
            write(directory.join(format!("dir/file-{len}")), seed, len);
            write(dictionary.join(format!("file-{len}")), seed + seed % 2, len);
        }
        // More than the largest chunk, and cheap to pack.
        fs_err::write(directory.join("zeros"), vec![0; (16 << 20) + 5]).unwrap();
        for at in 0..50 {
            write(directory.join(format!("dir/many/{at}")), 100 + at, 300);
            write(upper.join(format!("dir/many/new-{at}")), 200 + at, 300);
            write(dictionary.join(format!("many-{at}")), 190 + at, 300);
        }
        fs_err::hard_link(directory.join("dir/file-4097"), directory.join("hard")).unwrap();
        std::os::unix::fs::symlink("dir/file-1", directory.join("link")).unwrap();
        write(upper.join("dir/file-4096"), 77, 4096);
        write(upper.join("same"), 5, 65_537);
        write(upper.join("dir/.wh.file-4095"), 0, 0);
        let mut layers = Vec::new();
        let mut applied = Applied::default();
        for dir in [&directory, &upper] {
            let plain = scratch.join(format!("layer{}.tar", layers.len()));
            let mut tar = Command::new("tar");
            tar.args(["--numeric-owner", "-cf"]).arg(&plain);
            process::run(tar.arg("-C").arg(dir).arg("."));
            applied.layer(fs_err::File::open(&plain).unwrap()).unwrap();
            process::run(Command::new("gzip").arg("-1").arg(&plain));
            layers.push(plain.with_extension("tar.gz"));
        }
        Self {
            expected: facts::of_directory(&directory),
            directory,
            expected_of_layers: applied.snapshot(),
            layers,
            dictionary,
            scratch,
        }
    }
}

/// What the tool is told.
#[derive(Debug, Clone, Copy)]
struct How {
    compression: Compression,
    digester: Algorithm,
    chunk_bytes: u32,
}

impl How {
    fn args(self, dictionary: Option<&Path>) -> Vec<String> {
        let compressor = match self.compression {
            Compression::None => "none",
            Compression::Lz4Block => "lz4_block",
            _ => "zstd",
        };
        let mut args = vec![
            format!("--compressor={compressor}"),
            format!("--digester={}", self.digester.name()),
            format!("--chunk-size={:#x}", self.chunk_bytes),
        ];
        args.extend(
            dictionary.map(|dictionary| format!("--chunk-dict=bootstrap={}", dictionary.display())),
        );
        args
    }
}

fn create(nydus: &Nydus, source: &Path, out: &Path, args: &[String]) -> Created {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    nydus.create(source, out, &args)
}

/// Reads an image, compares it, and gives the number of its blobs.
fn read(bootstrap: &Path, blobs: &Path, how: How, expected: &FactsOfTree) -> usize {
    let blobs = Blobs::new(blobs);
    let read = blobs.open(&fs_err::read(bootstrap).unwrap());
    assert_eq!(read.chunk_bytes, how.chunk_bytes);
    let got = blobs.facts(&read);
    let mut expected = expected.clone();
    forget_what_nydus_forgets(&mut expected, &got);
    facts::assert_same(&got, &expected);
    let chunk = |chunk: &draught_tree::Chunk| chunk.digest.algorithm() == how.digester;
    assert!(read.tree.map.chunks.iter().all(chunk));
    read.tree.map.blobs.len()
}

/// Packs a layer as the deployed converters do: a blob with everything in it. Gives its bootstrap, its
/// digest, and what is to be said of it.
fn pack_layer(
    nydus: &Nydus,
    layer: &Path,
    blobs: &Path,
    args: &[String],
) -> (Vec<u8>, [String; 4]) {
    let blob = blobs.join("new");
    let mut command = Command::new(&nydus.image);
    command.args(["create", "--log-level=warn", "--type=targz-rafs"]);
    command.args([
        "--fs-version=6",
        "--blob-inline-meta",
        "--features=blob-toc",
    ]);
    command.arg("--whiteout-spec=none").args(args);
    process::run(command.arg("--blob").arg(&blob).arg(layer));
    let stored = fs_err::read(&blob).unwrap();
    let digest = Digest::sha256(&stored);
    fs_err::rename(blob, blobs.join(digest.hex())).unwrap();
    let tail = usize::try_from(TOC_TAIL_BYTES).unwrap().min(stored.len());
    let size = u64::try_from(stored.len()).unwrap();
    let limits = TocLimits::default();
    let toc = Toc::decode(&stored[stored.len() - tail..], size, &limits).unwrap();
    let entry = toc.bootstrap().unwrap();
    let start = usize::try_from(entry.offset.0).unwrap();
    let end = start + usize::try_from(entry.stored_bytes).unwrap();
    let facts = [
        digest.hex(),
        size.to_string(),
        Digest::new(Algorithm::Sha256, toc.sha256).hex(),
        toc.bytes.to_string(),
    ];
    (entry.decode(&stored[start..end]).unwrap(), facts)
}

/// Packs all layers and merges them.
fn merge(
    nydus: &Nydus,
    sources: &Sources,
    out: &Path,
    how: How,
    dictionary: Option<&Path>,
) -> PathBuf {
    let blobs = out.join("blobs");
    let mut command = Command::new(&nydus.image);
    let merged = out.join("merged");
    command.args(["merge", "--log-level=warn", "--bootstrap"]);
    command.arg(&merged);
    if let Some(dictionary) = dictionary {
        command.arg("--chunk-dict").arg(dictionary);
    }
    let mut lists: [Vec<String>; 4] = Default::default();
    let mut bootstraps = Vec::new();
    for layer in &sources.layers {
        let (bootstrap, facts) = pack_layer(nydus, layer, &blobs, &how.args(dictionary));
        let path = out.join(&facts[0]);
        fs_err::write(&path, bootstrap).unwrap();
        bootstraps.push(path);
        for (list, fact) in lists.iter_mut().zip(facts) {
            list.push(fact);
        }
    }
    let names = [
        "blob-digests",
        "blob-sizes",
        "blob-toc-digests",
        "blob-toc-sizes",
    ];
    for (name, list) in names.iter().zip(&lists) {
        command.arg(format!("--{name}={}", list.join(",")));
    }
    process::run(command.args(&bootstraps));
    merged
}

/// All images with that compression and digest.
fn check(compression: Compression, digester: Algorithm) {
    let Some(nydus) = need::nydus() else { return };
    let sources = Sources::new();
    for chunk_bytes in CHUNK_BYTES {
        let how = How {
            compression,
            digester,
            chunk_bytes,
        };
        let out = sources.scratch.dir(format!("out-{chunk_bytes}"));
        // All blobs are in one directory: those of the dictionary are needed too.
        let dictionary = create(&nydus, &sources.dictionary, &out, &how.args(None));
        let dictionary_path = out.join("dictionary");
        fs_err::rename(&dictionary.bootstrap, &dictionary_path).unwrap();
        for dictionary in [None, Some(dictionary_path.as_path())] {
            let args = how.args(dictionary);
            let of_dictionary = usize::from(dictionary.is_some());
            let created = create(&nydus, &sources.directory, &out, &args);
            let blobs = read(&created.bootstrap, &created.blobs, how, &sources.expected);
            assert_eq!(blobs, 1 + of_dictionary, "{how:?}");
            let merged = merge(&nydus, &sources, &out, how, dictionary);
            let blobs = read(&merged, &created.blobs, how, &sources.expected_of_layers);
            assert_eq!(blobs, 2 + of_dictionary, "{how:?}");
        }
    }
}

#[test]
fn plain_and_blake3() {
    check(Compression::None, Algorithm::Blake3);
}

#[test]
fn plain_and_sha256() {
    check(Compression::None, Algorithm::Sha256);
}

#[test]
fn lz4_and_blake3() {
    check(Compression::Lz4Block, Algorithm::Blake3);
}

#[test]
fn lz4_and_sha256() {
    check(Compression::Lz4Block, Algorithm::Sha256);
}

#[test]
fn zstd_and_blake3() {
    check(Compression::Zstd, Algorithm::Blake3);
}

#[test]
fn zstd_and_sha256() {
    check(Compression::Zstd, Algorithm::Sha256);
}
