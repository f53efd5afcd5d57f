use std::sync::Arc;

use draught_digest::Digest;
use draught_rafs::bootstrap::chunk_indexes_in_order;
use draught_testkit::images;
use draught_tree::Compression;

use crate::cache::key::WRITER_VERSION;
use crate::dictionary::{BlobOrigin, Dictionary};
use crate::image::ImagePacker;
use crate::layer::LayerInput;
use crate::options::PackOptions;

/// Small chunks and batches, so that there are many of both; and the options that change what a blob has.
fn options() -> [PackOptions; 3] {
    let base = PackOptions {
        chunk_bytes: 4 << 10,
        ..PackOptions::default()
    };
    [
        base.clone(),
        PackOptions {
            batch_bytes: 4 << 10,
            digester: draught_digest::Algorithm::Sha256,
            layer_bootstraps: false,
            ..base.clone()
        },
        PackOptions {
            compression: Compression::Lz4Block,
            ..base
        },
    ]
}

/// Layers that share content with each other, hide it, and bring it back.
fn layers() -> Vec<Vec<u8>> {
    let mut layers = images::torture_layers();
    let again = layers[0].clone();
    layers.push(again.clone());
    layers.push(again);
    layers
}

/// All records, the blobs' digests, and the bootstrap's.
fn pack(options: &PackOptions, records: &[Vec<u8>]) -> (Vec<Vec<u8>>, String) {
    let mut packer = ImagePacker::new(options.clone()).unwrap().with_records();
    let (mut kept, mut seen) = (Vec::new(), String::new());
    for (at, layer) in layers().iter().enumerate() {
        let (digest, mut report, record);
        if let Some(recorded) = records.get(at) {
            let (recorded_report, info) = packer.add_recorded(recorded).unwrap();
            (digest, report) = (info.and_then(|info| info.digest), recorded_report);
            record = recorded.clone();
            assert!(report.cached);
        } else {
            let (packed, blob) = packer
                .add_layer(LayerInput::new(layer.as_slice()), &())
                .unwrap();
            (digest, report) = (blob.map(|blob| blob.content.digest()), packed);
            record = packer.take_record().unwrap().unwrap();
        }
        (report.cached, report.digest, report.diff_id) = (false, None, None);
        seen.push_str(&format!("{digest:?} {report:?}\n"));
        kept.push(record);
    }
    let image = packer.finish().unwrap();
    let bootstrap = &image.bootstrap;
    let digest = bootstrap.content.digest();
    seen.push_str(&format!("{digest} {:?}", bootstrap.xattrs_left_out));
    (kept, seen)
}

#[test]
fn an_image_that_begins_with_recorded_layers_is_the_same_to_the_last_byte() {
    for options in options() {
        let (records, expected) = pack(&options, &[]);
        for recorded in 1..=records.len() {
            let (again, got) = pack(&options, &records[..recorded]);
            assert_eq!(got, expected, "{recorded} layers");
            assert!(again == records, "{recorded} layers: other records");
        }
    }
}

/// An image of the first of the layers, and of something else that has some of their content.
fn dictionaries(options: &PackOptions) -> Vec<Arc<Dictionary>> {
    let some: Vec<u8> = images::torture_layers().remove(1);
    let dictionary = |layer: &[u8]| {
        let mut packer = ImagePacker::new(options.clone()).unwrap();
        packer.add_layer(LayerInput::new(layer), &()).unwrap();
        let image = packer.finish().unwrap();
        let chunk_indexes = chunk_indexes_in_order(&image.tree);
        let infos = image.blobs.into_iter().map(|blob| blob.info).collect();
        let identity = Digest::sha256(layer);
        let made = Dictionary::new(identity, image.tree.map, infos, chunk_indexes);
        Arc::new(made.unwrap())
    };
    vec![dictionary(&layers()[0]), dictionary(&some)]
}

#[test]
fn layers_that_were_recorded_over_a_dictionary_are_replayed_over_it() {
    for options in options() {
        let with = PackOptions {
            dictionaries: dictionaries(&options),
            ..options.clone()
        };
        let (records, expected) = pack(&with, &[]);
        assert_ne!(pack(&options, &[]).1, expected);
        for recorded in 1..=records.len() {
            let (again, got) = pack(&with, &records[..recorded]);
            assert_eq!(got, expected, "{recorded} layers");
            assert!(again == records, "{recorded} layers: other records");
        }
        // Each blob says where it comes from, whether it was packed or replayed.
        for recorded in [0, records.len()] {
            let mut packer = ImagePacker::new(with.clone()).unwrap();
            for (at, layer) in layers().iter().enumerate() {
                if at < recorded {
                    packer.add_recorded(&records[at]).unwrap();
                } else {
                    packer
                        .add_layer(LayerInput::new(layer.as_slice()), &())
                        .unwrap();
                }
            }
            let blobs = packer.finish().unwrap().blobs;
            let is_foreign = |origin| matches!(origin, BlobOrigin::Dictionary(_));
            let foreign = blobs.iter().filter(|blob| is_foreign(blob.origin)).count();
            assert!(foreign > 0 && foreign < blobs.len(), "{blobs:?}");
            assert!(blobs[..foreign].iter().all(|blob| is_foreign(blob.origin)));
        }
        // Over another dictionary, or over none, they don't fit.
        for dictionaries in [vec![], with.dictionaries[1..].to_vec()] {
            let other = PackOptions {
                dictionaries,
                ..options.clone()
            };
            let mut packer = ImagePacker::new(other).unwrap();
            packer.add_recorded(&records[0]).unwrap_err();
        }
    }
}

#[test]
fn a_damaged_record_is_refused_and_never_panics() {
    let options = &options()[0];
    let (records, _) = pack(options, &[]);
    let add = |record: &[u8]| {
        let mut packer = ImagePacker::new(options.clone()).unwrap();
        packer.add_recorded(record)
    };
    let record = &records[0];
    add(record).unwrap();
    for bytes in (0..record.len()).step_by(97) {
        add(&record[..bytes]).unwrap_err();
    }
    for at in (0..record.len()).step_by(31) {
        let mut record = record.clone();
        record[at] ^= 0x10;
        // gzip has a checksum, the rest is checked; what is in its header does not matter.
        drop(add(&record));
    }
    // Of a layer that stands on others.
    add(&records[1]).unwrap_err();
}

/// If this fails though nothing is wrong with the blobs, then caches have others than are written now: raise
/// [`WRITER_VERSION`] and note what is written here. A new release of a compressor can be the reason.
#[test]
fn a_writer_that_writes_other_blobs_has_another_version() {
    let written: Vec<String> = options()
        .iter()
        .map(|options| {
            let mut packer = ImagePacker::new(options.clone()).unwrap();
            let mut blobs = String::new();
            for layer in layers() {
                let input = LayerInput::new(layer.as_slice());
                let (_, blob) = packer.add_layer(input, &()).unwrap();
                let digest = blob.map(|blob| blob.content.digest());
                blobs.push_str(&format!("{digest:?}\n"));
            }
            Digest::sha256(blobs.as_bytes()).hex()[..16].to_owned()
        })
        .collect();
    let expected = ["4904577c8488e1c0", "009bbe6fc8266f0f", "432c67b92c60ad6f"];
    assert_eq!(
        (WRITER_VERSION, &*written),
        (1, &expected.map(str::to_owned)[..])
    );
}
