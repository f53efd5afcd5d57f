//! What clients ask a list of snapshots to have.

use draught_snapshotter::check_filters;

/// Filters are accepted or refused with a word; the same bytes mean the same.
pub(crate) fn filters(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let filters: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let checked = check_filters(&filters);
    if let Err(error) = &checked {
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(check_filters(&filters), checked);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seeds = [
        r#"labels."containerd.io/snapshot.ref"==sha256:abc,parent=="sha256:def""#,
        "kind==committed\nname~=/^sha256:.*$/,labels.a!=\"x\\\"y\\u00e9\"",
        "name~=|a\\|b|,parent",
    ];
    seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
}
