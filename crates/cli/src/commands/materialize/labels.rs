//! The labels by which containerd knows what belongs to what, and where it came from.
//!
//! Origin: containerd's documentation of garbage collection (`docs/garbage-collection.md`) and of content flow
//! (`docs/content-flow.md`), and what containerd 1.6 was seen to write.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use draught_digest::Digest;
use draught_oci::{Descriptor, Reference, media_type};

use super::containerd::Labels;

/// What a document needs in order not to lose a child begins so.
const GC_REF: &str = "containerd.io/gc.ref.content";
/// Where a blob can be had from again, by registry.
const SOURCE: &str = "containerd.io/distribution.source.";
/// Bytes of a label's name and value together, by containerd's rules.
const LABEL_BYTES_MAX: usize = 4096;
/// Labels of one kind on one document that are tried: more than a document has children.
const LABELS_MAX: usize = 8192;

/// How the label of a child begins: one with a number behind it, or the whole name.
fn kind(child: &Descriptor) -> String {
    let essence = media_type::essence(&child.media_type);
    if media_type::is_image_config(&essence) {
        return format!("{GC_REF}.config");
    }
    if media_type::is_manifest(&essence) {
        return format!("{GC_REF}.m.");
    }
    // An index is not told from anything else there.
    let is_layer = essence.contains(".image.layer.") || essence.contains(".image.rootfs.");
    if is_layer {
        return format!("{GC_REF}.l.");
    }
    format!("{GC_REF}.")
}

/// The labels that a document lacks to keep these children, beside those that it has.
pub(crate) fn references(have: &Labels, children: &[Descriptor]) -> Labels {
    let kept = have.iter().filter(|(key, _)| key.starts_with(GC_REF));
    let mut kept: BTreeSet<String> = kept.map(|(_, digest)| digest.clone()).collect();
    let mut added = Labels::new();
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for child in children {
        let kind = kind(child);
        let count = counts.entry(kind.clone()).or_default();
        let first = *count;
        *count += 1;
        if !kept.insert(child.digest.to_string()) {
            continue;
        }
        // containerd numbers them by their place. A number that something else has is not taken from it.
        let name = |index: usize| match (kind.ends_with('.'), index) {
            (false, 0) => kind.clone(),
            _ => format!("{kind}{index}"),
        };
        let mut free = (first..LABELS_MAX).map(name);
        let free = free.find(|name| !have.contains_key(name) && !added.contains_key(name));
        added.extend(free.map(|name| (name, child.digest.to_string())));
    }
    added
}

/// A host as these labels name it: without its port, and an address without brackets.
pub(crate) fn without_port(host: &str) -> &str {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    name.trim_start_matches('[').trim_end_matches(']')
}

/// The label that says where a blob came from, if it fits.
pub(crate) fn source(from: Option<&Reference>) -> Labels {
    let label = from.map(|from| {
        let name = format!("{SOURCE}{}", without_port(from.host()));
        (name, from.repository().to_owned())
    });
    let fits = label.filter(|(name, value)| name.len() + value.len() <= LABEL_BYTES_MAX);
    fits.into_iter().collect()
}

/// The repositories that a blob's labels say it came from.
pub(crate) fn sources(labels: &Labels) -> Vec<(String, String)> {
    let named = labels
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(SOURCE)?, value)));
    let mut all: Vec<(String, String)> = named
        .flat_map(|(host, names)| {
            let names = names.split(',').filter(|name| !name.is_empty());
            names.map(move |name| (host.to_owned(), name.to_owned()))
        })
        .collect();
    all.sort();
    all
}

/// A time as RFC 3339 has it, in UTC.
pub(crate) fn time_text(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The date so many days after 1970-01-01.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    loop {
        let length = 365 + u64::from(is_leap(year));
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

/// The name that containerd's clients give the write of a blob, so that theirs and ours are one.
pub(crate) fn write_name(descriptor: &Descriptor) -> String {
    let essence = media_type::essence(&descriptor.media_type);
    let digest: &Digest = &descriptor.digest;
    let kind = if media_type::is_manifest(&essence) {
        "manifest"
    } else if media_type::is_index(&essence) {
        "index"
    } else if media_type::is_image_config(&essence) {
        "config"
    } else if kind(descriptor).ends_with(".l.") {
        "layer"
    } else {
        "unknown"
    };
    format!("{kind}-{digest}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn descriptor(media_type: &str, content: &str) -> Descriptor {
        Descriptor::of(media_type, content.as_bytes())
    }

    #[test]
    fn children_are_named_as_containerd_names_them() {
        let config = descriptor(media_type::CONFIG, "config");
        let layers = ["a", "b"].map(|text| descriptor(media_type::LAYER_TAR_GZIP, text));
        let other = descriptor("application/x-other", "other");
        let children = [
            config.clone(),
            layers[0].clone(),
            layers[1].clone(),
            other.clone(),
        ];
        let labels = references(&Labels::new(), &children);
        let expect = [
            ("containerd.io/gc.ref.content.config", &config),
            ("containerd.io/gc.ref.content.l.0", &layers[0]),
            ("containerd.io/gc.ref.content.l.1", &layers[1]),
            ("containerd.io/gc.ref.content.0", &other),
        ];
        let expect = expect.map(|(name, child)| (name.to_owned(), child.digest.to_string()));
        assert_eq!(labels, expect.into());
        let manifests = ["x", "y"].map(|text| descriptor(media_type::DOCKER_MANIFEST, text));
        let labels = references(&Labels::new(), &manifests);
        assert_eq!(
            labels["containerd.io/gc.ref.content.m.1"],
            manifests[1].digest.to_string()
        );
    }

    #[test]
    fn what_is_kept_already_gets_no_second_label_and_loses_none() {
        let layers = ["a", "b"].map(|text| descriptor(media_type::LAYER_TAR_GZIP, text));
        let name = |index| format!("containerd.io/gc.ref.content.l.{index}");
        // The second one is there under the first one's number.
        let have: Labels = [(name(0), layers[1].digest.to_string())].into();
        let labels = references(&have, &layers);
        assert_eq!(labels, [(name(1), layers[0].digest.to_string())].into());
        let have: Labels = have.into_iter().chain(labels).collect();
        assert_eq!(references(&have, &layers), Labels::new());
    }

    #[test]
    fn sources_go_both_ways_and_long_ones_are_left_out() {
        let reference: Reference = "127.0.0.1:5000/some/app:1".parse().unwrap();
        let labels = source(Some(&reference));
        assert_eq!(
            sources(&labels),
            [("127.0.0.1".to_owned(), "some/app".to_owned())]
        );
        assert_eq!(source(None), Labels::new());
        for (host, expect) in [
            ("docker.io", "docker.io"),
            ("[::1]:5000", "::1"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(without_port(host), expect);
        }
        let two = [(format!("{SOURCE}docker.io"), "library/a,b/c".to_owned())];
        assert_eq!(sources(&two.into()).len(), 2);
    }

    #[test]
    fn times_are_what_the_calendar_says() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time_text(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
