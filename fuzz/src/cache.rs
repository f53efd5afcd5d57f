//! What a build cache holds. It lies in a registry, where others may write too.

use std::io::{Read as _, Write as _};

use draught_digest::Digest;
use draught_oci::{Document, Limits, Manifest};
use draught_packer::{CachedLayer, ImagePacker, LayerInput, PackOptions};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::seed;

/// How a record begins: what it is, and the length of its head.
const FRONT_BYTES: usize = 16;

/// A record with its head and its entries decompressed, so that mutations reach what is in them: what it
/// begins with, the length of the head, the head, the entries.
fn unpacked(record: &[u8]) -> Vec<u8> {
    let (front, rest) = record.split_at(FRONT_BYTES);
    let (magic, length) = front.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
    let (head, entries) = rest.split_at(usize::try_from(length).expect("a small head"));
    let [head, entries] = [head, entries].map(|part| {
        let mut out = Vec::new();
        let mut gzip = GzDecoder::new(part);
        gzip.read_to_end(&mut out).expect("good gzip");
        out
    });
    let length = u64::try_from(head.len()).expect("a small head");
    [magic, &length.to_le_bytes(), &head, &entries].concat()
}

/// The record that this is when decompressed; of what is too short, or has a head that is not there, it
/// makes one that is as wrong.
fn packed(unpacked: &[u8]) -> Vec<u8> {
    let Some((front, rest)) = unpacked.split_at_checked(FRONT_BYTES) else {
        return unpacked.to_vec();
    };
    let (magic, length) = front.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (head, entries) = rest.split_at(length.min(rest.len()));
    let [head, entries] = [head, entries].map(|part| {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(part).expect("memory takes it");
        gzip.finish().expect("memory takes it")
    });
    let length = u64::try_from(head.len()).expect("a small head");
    [magic, &length.to_le_bytes(), &head, &entries].concat()
}

/// A record is refused, or gives an image that can be ended, or is refused then; the same every time.
pub(crate) fn record(data: &[u8]) {
    let record = packed(data);
    let image = || {
        let mut packer = ImagePacker::new(PackOptions::default()).expect("good options");
        let (report, info) = packer.add_recorded(&record).ok()?;
        assert!(report.cached, "a record that was packed now");
        assert_eq!(
            report.blob_bytes,
            info.map_or(0, |info| info.stored_bytes),
            "a blob of another size than was reported"
        );
        let image = packer.finish().ok()?;
        Some(image.bootstrap.content.digest())
    };
    assert_eq!(image(), image(), "the same record gave two images");
}

/// The records of layers, with and without batches.
pub(crate) fn records() -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    for batch_bytes in [0, 128 << 10] {
        let options = PackOptions {
            batch_bytes,
            ..PackOptions::default()
        };
        for tar in seed::tars() {
            let packer = ImagePacker::new(options.clone()).expect("good options");
            let mut packer = packer.with_records();
            if packer.add_layer(LayerInput::new(&*tar), &()).is_ok() {
                let record = packer.take_record().expect("records are kept");
                records.push(unpacked(&record.expect("memory takes it")));
            }
        }
    }
    records
}

/// What is understood as a cache can be written again, and is then the same list of layers.
pub(crate) fn document(data: &[u8]) {
    let Ok(manifest) = Document::<Manifest>::parse(data.to_vec(), &Limits::default()) else {
        return;
    };
    let Ok(layers) = CachedLayer::listed(manifest.content()) else {
        return;
    };
    let again = CachedLayer::list(&layers);
    let again = CachedLayer::listed(again.content()).expect("what we write can be read");
    let names = |layers: &[CachedLayer]| -> Vec<_> {
        layers
            .iter()
            .map(|layer| {
                let blob = layer.blob.as_ref().map(|blob| blob.digest);
                (layer.key, layer.record.digest, layer.record.size, blob)
            })
            .collect()
    };
    assert_eq!(names(&again), names(&layers));
}

/// A cache, and an image that is its own.
pub(crate) fn documents() -> Vec<Vec<u8>> {
    let digest = |text: &str| Digest::sha256(text.as_bytes());
    let manifest = |annotations: &str, artifact_type: &str, layers: &str| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",{artifact_type}
            "config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{}","size":2}},
            "layers":[{layers}],"annotations":{{{annotations}}}}}"#,
            digest("{}")
        )
    };
    let record = format!(
        r#"{{"mediaType":"application/vnd.draught.cache.record.v1","digest":"{}","size":9,
        "annotations":{{"vnd.draught.cache.key":"{}","vnd.draught.cache.blob":"{}"}}}}"#,
        digest("record"),
        digest("key"),
        digest("blob")
    );
    let blob = format!(
        r#"{{"mediaType":"application/vnd.oci.image.layer.nydus.blob.v1","digest":"{}","size":7}}"#,
        digest("blob")
    );
    let artifact = r#""artifactType":"application/vnd.draught.cache.v1+json","#;
    let line = format!(
        r#""vnd.draught.cache.layers":"{} {} 9 {} 7\n{} {} 9 none""#,
        digest("key"),
        digest("record"),
        digest("blob"),
        digest("other key"),
        digest("record")
    );
    vec![
        manifest("", artifact, &format!("{record},{blob}")).into_bytes(),
        manifest(&line, "", &blob).into_bytes(),
    ]
}
