//! The index finds what was added, whatever fingerprints are the same, and forgets what was removed.

use std::collections::{BTreeMap, BTreeSet};

use draught_digest::Digest;
use proptest::prelude::*;

use super::{Candidate, Index, Source};
use crate::key::DeviceKey;

type Asked = (Digest, u32);

fn asked(number: u16) -> Asked {
    (Digest::sha256(&number.to_le_bytes()), u32::from(number) + 1)
}

fn key(number: u8) -> DeviceKey {
    DeviceKey([number; 32])
}

fn add(index: &mut Index, device: u8, source: Source, first: u32, digests: &[u16]) {
    let hashing = index.hashing();
    let known = index.added(&key(device));
    let added = known.or_else(|| index.add_device(key(device))).unwrap();
    let hashes = digests.iter().map(|digest| hashing.hash(asked(*digest)));
    let records: Vec<_> = (first..).zip(hashes).collect();
    index.add(added, source, records);
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8, Vec<u16>),
    Learn(u8, Vec<u16>),
    Remove(u8),
}

fn some_step() -> impl Strategy<Value = Step> {
    let digests = || prop::collection::vec(0_u16..60, 0..12);
    prop_oneof![
        3 => (0_u8..6, digests()).prop_map(|(device, digests)| Step::Add(device, digests)),
        1 => (0_u8..6, digests()).prop_map(|(device, digests)| Step::Learn(device, digests)),
        1 => (0_u8..6).prop_map(Step::Remove),
    ]
}

type Model = BTreeMap<u8, Vec<(Source, u32, u16)>>;

/// All records that are known are candidates for their digests, and no candidate is of a device that is gone.
fn check(index: &Index, model: &Model) -> Result<(), TestCaseError> {
    let all: Vec<Asked> = (0..60).map(asked).collect();
    let found = index.candidates(&all);
    let mut candidates = BTreeSet::new();
    for Candidate {
        device,
        source,
        number,
        asked,
    } in found.candidates
    {
        let key = found.keys[&device];
        prop_assert!(model.contains_key(&key.0[0]), "of a device that is gone");
        candidates.insert((key, source, number, asked));
    }
    for (device, records) in model {
        for (source, number, digest) in records {
            let expected = (key(*device), *source, *number, usize::from(*digest));
            prop_assert!(candidates.contains(&expected), "{expected:?} is not found");
        }
    }
    let count = |source| {
        let all = model.values().flatten();
        all.filter(|(of, _, _)| *of == source).count() as u64
    };
    prop_assert_eq!(index.chunks(), count(Source::Table));
    prop_assert_eq!(index.twins(), count(Source::Twins));
    prop_assert_eq!(index.devices(), model.len() as u64);
    Ok(())
}

proptest! {
    #[test]
    fn what_was_added_is_found_until_it_is_removed_even_if_fingerprints_are_the_same(
        steps in prop::collection::vec(some_step(), 1..30),
    ) {
        let mut index = Index::with_collisions();
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Add(device, digests) if !model.contains_key(&device) => {
                    add(&mut index, device, Source::Table, 0, &digests);
                    let records = (0..).zip(digests);
                    let records = records.map(|(number, digest)| (Source::Table, number, digest));
                    model.insert(device, records.collect());
                }
                Step::Learn(device, digests) if model.contains_key(&device) => {
                    let records = model.get_mut(&device).unwrap();
                    let first = records.iter().filter(|it| it.0 == Source::Twins).count();
                    let first = u32::try_from(first).unwrap();
                    add(&mut index, device, Source::Twins, first, &digests);
                    let new = (first..).zip(digests);
                    records.extend(new.map(|(number, digest)| (Source::Twins, number, digest)));
                }
                Step::Remove(device) => {
                    index.remove(&key(device));
                    model.remove(&device);
                }
                Step::Add(..) | Step::Learn(..) => {}
            }
            check(&index, &model)?;
        }
    }
}

#[test]
fn records_of_a_device_that_was_removed_while_it_was_read_are_not_added() {
    let mut index = Index::default();
    add(&mut index, 2, Source::Table, 0, &[4]);
    let stale = index.add_device(key(1)).unwrap();
    index.remove(&key(1));
    let hash = index.hashing().hash(asked(5));
    index.add(stale, Source::Table, [(0, hash)]);
    assert_eq!((index.chunks(), index.devices()), (1, 1));
    // It was made again in the meantime: the one that came too late forgets nothing.
    add(&mut index, 1, Source::Table, 0, &[6]);
    index.remove_added(stale);
    index.add(stale, Source::Table, [(0, hash)]);
    assert_eq!((index.chunks(), index.devices()), (2, 2));
}

#[test]
fn a_digest_that_a_table_repeats_has_no_more_places_than_help() {
    let mut index = Index::default();
    add(&mut index, 1, Source::Table, 0, &[5; 10_000]);
    assert!(index.candidates(&[asked(5)]).candidates.len() <= 16);
    assert!(index.chunks() <= 16);
}

#[test]
fn an_index_of_what_is_gone_gives_its_memory_back() {
    let mut index = Index::default();
    let empty = index.bytes();
    for device in 0..20 {
        let digests: Vec<u16> = (0..10_000).map(|it| it * 6 + u16::from(device)).collect();
        add(&mut index, device, Source::Table, 0, &digests);
    }
    assert_eq!(index.chunks(), 200_000);
    let full = index.bytes();
    // Some twelve bytes an entry, and what a growing table leaves free.
    assert!(full - empty < 200_000 * 32, "{full}");
    for device in 0..20 {
        index.remove(&key(device));
    }
    assert!(index.bytes() < empty + 64 * 1024, "{}", index.bytes());
}
