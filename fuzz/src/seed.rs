//! Inputs that are well-formed.

use std::io::{Read as _, Write as _};

use draught_codec::Encoder;
use draught_digest::Digest;
use draught_erofs::{Options, Placement};
use draught_packer::{ImagePacker, LayerInput, PackOptions};
use draught_profile::{Profile, Touch};
use draught_rafs::bootstrap;
use draught_tar::Writer;
use draught_tree::{Compression, Entry, EntryKind, Limits, Meta, Tree};

/// One entry of every kind.
fn entries() -> Vec<(Entry, Vec<u8>)> {
    let xattrs = vec![(Box::from(&b"user.note"[..]), Box::from(&b"value"[..]))];
    let meta = Meta {
        mode: 0o4755,
        uid: 1000,
        gid: 70_000,
        mtime: 1_700_000_000,
        mtime_nsec: 5,
        xattrs,
    };
    let plain = Meta {
        mode: 0o644,
        ..Meta::default()
    };
    let content = b"some content, some content, some content".repeat(40);
    let file = |bytes: &[u8]| EntryKind::File {
        bytes: bytes.len() as u64,
        chunks: Box::default(),
    };
    let long = format!("dir/{}", "long-name/".repeat(30));
    let table: Vec<(&str, &Meta, EntryKind, &[u8])> = vec![
        ("dir", &meta, EntryKind::Directory, &[]),
        ("dir/file", &meta, file(&content), &content),
        ("dir/empty", &plain, file(&[]), &[]),
        (
            "dir/again",
            &plain,
            EntryKind::HardLink(Box::from(&b"dir/file"[..])),
            &[],
        ),
        (
            "dir/link",
            &plain,
            EntryKind::Symlink(Box::from(&b"../dir/file"[..])),
            &[],
        ),
        (
            "dir/null",
            &plain,
            EntryKind::CharDevice { major: 1, minor: 3 },
            &[],
        ),
        (
            "dir/disk",
            &plain,
            EntryKind::BlockDevice {
                major: 259,
                minor: 70_000,
            },
            &[],
        ),
        ("dir/pipe", &plain, EntryKind::Fifo, &[]),
        (&long, &plain, EntryKind::Directory, &[]),
        ("dir/.wh.empty", &plain, file(&[]), &[]),
    ];
    let entry = |(path, meta, kind, content): (&str, &Meta, EntryKind, &[u8])| {
        let path = path.as_bytes().into();
        (
            Entry {
                path,
                meta: meta.clone(),
                kind,
            },
            content.to_vec(),
        )
    };
    table.into_iter().map(entry).collect()
}

fn tar() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries() {
        writer.entry(&entry).expect("a good entry");
        writer.data(&content).expect("its content");
    }
    writer.finish().expect("a whole archive")
}

pub(crate) fn tars() -> Vec<Vec<u8>> {
    vec![tar()]
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder
        .write_all(data)
        .and_then(|()| encoder.finish())
        .expect("memory")
}

pub(crate) fn layers() -> Vec<Vec<u8>> {
    let tar = tar();
    let zstd = zstd::bulk::compress(&tar, 3).expect("memory");
    let two_members = [gzip(&tar[..1000]), gzip(&tar[1000..])].concat();
    vec![gzip(&tar), two_members, zstd, tar]
}

pub(crate) fn extents() -> Vec<Vec<u8>> {
    let data = b"some content, some content, some content".repeat(40);
    let mut seeds = Vec::new();
    for (kind, compression) in [
        (0, Compression::None),
        (1, Compression::Lz4Block),
        (2, Compression::Zstd),
    ] {
        let [low, high, ..] = data.len().to_le_bytes();
        let mut seed = vec![kind, low, high];
        let mut encoder = Encoder::new(compression, 3).expect("a level");
        encoder.encode(&data, &mut seed).expect("memory");
        seeds.push(seed);
    }
    let [low, high, ..] = data.len().to_le_bytes();
    seeds.push([vec![3, low, high], gzip(&data)].concat());
    seeds
}

pub(crate) fn documents() -> Vec<Vec<u8>> {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":7}},
        "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{digest}","size":1,
        "annotations":{{"a":"b"}},"urls":["http://x"],"data":"AA=="}}],"annotations":{{"k":"v"}}}}"#
    );
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",
        "manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":2,
        "platform":{{"os":"linux","architecture":"arm64","variant":"v8"}}}}]}}"#
    );
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=b"],"Cmd":["/bin/sh"],"Labels":{{"x":"y"}}}},
        "rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"history":[{{"created_by":"x","empty_layer":true}}]}}"#
    );
    [manifest, index, config].map(String::into_bytes).to_vec()
}

pub(crate) fn locations() -> Vec<Vec<u8>> {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let texts = [
        "127.0.0.1:5000/library/app:1.0".to_owned(),
        format!("registry.example/team/app@{digest}"),
        "oci:/some/dir:latest".to_owned(),
        format!("oci:dir@{digest}"),
        "docker-archive:/some/file.tar".to_owned(),
        "dir:/some/rootfs".to_owned(),
    ];
    texts.map(String::into_bytes).to_vec()
}

pub(crate) fn erofs_images() -> Vec<Vec<u8>> {
    let mut tree = Tree::new();
    tree.begin_layer();
    for (mut entry, _) in entries() {
        // Content needs chunks; without them only an empty file is whole.
        if let EntryKind::File { bytes, .. } = &mut entry.kind {
            *bytes = 0;
        }
        tree.apply(entry, &Limits::default()).expect("a good entry");
    }
    let mut image = Vec::new();
    let placement = Placement::of_blobs(&tree.map);
    draught_erofs::write(&tree, &placement, &Options::default(), &mut image).expect("a good tree");
    vec![image]
}

/// An image packed with and without batches: its blob and its bootstrap.
fn packed() -> Vec<(Vec<u8>, Vec<u8>)> {
    let pack = |batch_bytes| {
        let options = PackOptions {
            batch_bytes,
            ..PackOptions::default()
        };
        let mut packer = ImagePacker::new(options.clone()).expect("good options");
        let (_, blob) = packer
            .add_layer(LayerInput::new(&*tar()), &())
            .expect("a good layer");
        let mut stored = Vec::new();
        let mut file = blob
            .expect("new content")
            .content
            .into_file()
            .expect("a file");
        file.read_to_end(&mut stored).expect("a file");
        let packed = packer.finish().expect("a good image");
        let chunk_indexes = bootstrap::chunk_indexes_in_order(&packed.tree);
        let blobs: Vec<_> = packed.blobs.into_iter().map(|blob| blob.info).collect();
        let input = bootstrap::Input {
            tree: &packed.tree,
            blobs: &blobs,
            chunk_indexes: &chunk_indexes,
            prefetch: &[],
        };
        let how = bootstrap::Options {
            chunk_bytes: options.chunk_bytes,
            compression: options.compression,
            digester: options.digester,
        };
        let mut written = Vec::new();
        bootstrap::write(&input, &how, &mut written).expect("a good tree");
        (stored, written)
    };
    vec![pack(0), pack(128 << 10)]
}

pub(crate) fn blobs() -> Vec<Vec<u8>> {
    packed().into_iter().map(|(blob, _)| blob).collect()
}

pub(crate) fn bootstraps() -> Vec<Vec<u8>> {
    packed()
        .into_iter()
        .map(|(_, bootstrap)| bootstrap)
        .collect()
}

/// Profiles with few touches and many, and with names that need escapes.
pub(crate) fn profiles() -> Vec<Vec<u8>> {
    let touch = |path: &[u8], at_ms| Touch {
        path: path.to_vec(),
        offset: at_ms * 4096,
        bytes: 8192,
        at_ms,
    };
    let many = (0..200).map(|at| touch(format!("usr/lib/{at}.so").as_bytes(), at));
    let odd: [&[u8]; 4] = [b"with space", b"new\nline", b"\xff\xfe", b"back\\slash%00"];
    let odd = (0..).zip(odd).map(|(at, path)| touch(path, at));
    let profile = |touches| Profile {
        reference: "registry.example/app:1".to_owned(),
        image: Some(Digest::sha256(b"image")),
        touches,
    };
    let all = [Vec::new(), many.collect(), odd.collect()];
    all.map(|touches| profile(touches).encode()).to_vec()
}
