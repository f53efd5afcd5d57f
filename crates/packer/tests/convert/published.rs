//! How converted images are made known.

use draught_digest::Digest;
use draught_oci::{Any, Index, Location, Platform, Selector};
use draught_packer::{ConvertOptions, Converted, PlatformChoice, Publish};
use draught_testkit::{docker_registry, registry};

use crate::support::*;

const NYDUS: &str = "nydus.remoteimage.v1";

fn how(publish: Publish) -> ConvertOptions {
    ConvertOptions {
        publish,
        ..ConvertOptions::default()
    }
}

/// A small image for this machine, in a repository.
async fn source(built: &Built, to: &Location) -> Digest {
    let host = Platform::host();
    let content = archive(&[("a", b"some content")]);
    let layers = [(TAR, &content[..], &content[..])];
    let image = built.image(true, ("linux", host.architecture()), &layers);
    push_plain(&built.tag(image), to).await;
    open(to).await.1.digest()
}

async fn index_at(at: &Location) -> Index {
    match open(at).await.1 {
        Any::Index(index) => index.content().clone(),
        Any::Manifest(_) => panic!("no index"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_original_stays_beside_what_it_became() {
    let (registry, built) = (registry(), Built::new());
    let at = remote(&registry, "app:1");
    let original = source(&built, &at).await;
    // Over itself: the tag then stands for both.
    let converted = run_with(&at, &at, &how(Publish::Merged)).await.unwrap();
    assert_eq!(converted.carried_over, [original]);
    let index = index_at(&at).await;
    let digests: Vec<Digest> = index.manifests.iter().map(|entry| entry.digest).collect();
    assert_eq!(digests, [original, converted.images[0].manifest]);
    // Who doesn't know nydus gets the original, who does the other.
    let host = Platform::host();
    assert_eq!(index.select(&host).unwrap().digest, original);
    let knows = host.with_os_features(vec![NYDUS.to_owned()]);
    assert_eq!(index.select(&knows).unwrap().digest, digests[1]);
    let (repository, _) = open(&at).await;
    let lazy = manifest_of(&repository, &index.manifests[1]).await;
    assert_eq!(
        lazy.artifact_type.as_deref(),
        Some("application/vnd.nydus.image.manifest.v1+json")
    );
    // And again, from what is there now: the original is converted, what it became before is not kept twice.
    let again = run_with(&at, &at, &how(Publish::Merged)).await.unwrap();
    assert!(again.unchanged);
    let force = ConvertOptions {
        force: true,
        platform: PlatformChoice::All,
        ..how(Publish::Merged)
    };
    let again = run_with(&at, &at, &force).await.unwrap();
    let index = index_at(&at).await;
    assert_eq!(index.select(&Platform::host()).unwrap().digest, original);
    assert_eq!(index.manifests.len(), 2, "{index:?}");
    assert_eq!(again.images[0].manifest, digests[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_platforms_stay_beside_what_they_became() {
    let built = Built::new();
    let sources = entries(&built);
    let (from, to) = (built.tag(built.index(&sources)), built.out());
    let options = ConvertOptions {
        platform: PlatformChoice::All,
        ..how(Publish::Merged)
    };
    let converted = run_with(&from, &to, &options).await.unwrap();
    let index = index_at(&to).await;
    assert_eq!(index.manifests.len(), 6, "four that were there, and two");
    for (entry, source) in index.manifests.iter().zip(&sources) {
        assert_eq!(entry.digest.to_string(), source["digest"]);
    }
    for (entry, image) in index.manifests[4..].iter().zip(&converted.images) {
        assert_eq!(entry.digest, image.manifest);
        let platform = entry.platform.as_ref().unwrap();
        assert_eq!(platform.os_features(), [NYDUS]);
        assert_eq!(platform.architecture(), image.platform.architecture());
    }
}

async fn referred(at: &Location) -> (Converted, Digest) {
    let built = Built::new();
    let original = source(&built, at).await;
    let converted = run_with(at, at, &how(Publish::Referrer)).await.unwrap();
    // The tag is what it was.
    let (repository, document) = open(at).await;
    assert_eq!(document.digest(), original);
    let referrers = repository.referrers(&original).await.unwrap();
    assert_eq!(referrers.len(), 1, "{referrers:?}");
    assert_eq!(referrers[0].digest, converted.digest);
    let lazy = manifest_of(&repository, &referrers[0]).await;
    assert_eq!(lazy.subject.as_ref().unwrap().digest, original);
    for blob in lazy.blobs() {
        bytes(&repository, blob).await;
    }
    // Done once, it is done.
    let again = run_with(at, at, &how(Publish::Referrer)).await.unwrap();
    assert!(again.unchanged, "{again:?}");
    assert_eq!(again.digest, converted.digest);
    (converted, original)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_referrer_leaves_the_tag_alone() {
    let registry = registry();
    referred(&remote(&registry, "app:1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_referrers_gets_a_tag_that_stands_for_them() {
    let Some(registry) = docker_registry() else {
        return;
    };
    let at = remote(&registry, "app:1");
    let (converted, original) = referred(&at).await;
    let tag = original.to_string().replace(':', "-");
    let (repository, _) = open(&at).await;
    let Any::Index(index) = repository.manifest(&Selector::Tag(tag)).await.unwrap() else {
        panic!("no index");
    };
    assert_eq!(index.manifests[0].digest, converted.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_are_written_and_those_of_the_format_are_not_to_be_set() {
    let (built, registry) = (Built::new(), registry());
    let (from, to) = (remote(&registry, "app:1"), built.out());
    source(&built, &from).await;
    let mut options = ConvertOptions::default();
    let key = "org.example.team".to_owned();
    options.annotations.insert(key.clone(), "blue".to_owned());
    run_with(&from, &to, &options).await.unwrap();
    let (_, manifest) = open_manifest(&to).await;
    assert_eq!(manifest.annotations[&key], "blue");
    options.publish = Publish::Merged;
    run_with(&from, &to, &options).await.unwrap();
    assert_eq!(index_at(&to).await.annotations[&key], "blue");
    let key = "containerd.io/snapshot/nydus-source-digest".to_owned();
    options.annotations.insert(key.clone(), "x".to_owned());
    let error = run_with(&from, &to, &options).await.unwrap_err();
    assert!(error.to_string().contains(&key), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_converted_is_left_alone_until_something_changes() {
    let (built, registry) = (Built::new(), registry());
    let (from, to) = (remote(&registry, "app:1"), remote(&registry, "lazy:1"));
    source(&built, &from).await;
    let plain = ConvertOptions::default();
    let first = run_with(&from, &to, &plain).await.unwrap();
    assert!(!first.unchanged);
    let before = registry.proxy().counts();
    let again = run_with(&from, &to, &plain).await.unwrap();
    assert!(again.unchanged);
    assert_eq!(again.digest, first.digest);
    let made = registry.proxy().counts().since(&before);
    // Manifests, and the configuration of the source.
    assert_eq!(made.matching("PUT", "").requests, 0, "{made:?}");
    assert_eq!(made.matching("POST", "").requests, 0, "{made:?}");
    assert!(made.matching("GET", "").requests <= 3, "{made:?}");
    // Other options.
    let mut other = plain.clone();
    pack(&mut other).chunk_bytes = 64 << 10;
    assert!(!run_with(&from, &to, &other).await.unwrap().unchanged);
    // Asked for.
    let force = ConvertOptions {
        force: true,
        ..other.clone()
    };
    assert!(!run_with(&from, &to, &force).await.unwrap().unchanged);
    // Another source.
    let host = Platform::host();
    let content = archive(&[("a", b"other content")]);
    let layers = [(TAR, &content[..], &content[..])];
    let image = built.image(false, ("linux", host.architecture()), &layers);
    push_plain(&built.tag(image), &from).await;
    assert!(!run_with(&from, &to, &other).await.unwrap().unchanged);
    // An index, whole.
    let from = built.tag(built.index(&entries(&built)));
    let all = ConvertOptions {
        platform: PlatformChoice::All,
        ..plain
    };
    assert!(!run_with(&from, &to, &all).await.unwrap().unchanged);
    assert!(run_with(&from, &to, &all).await.unwrap().unchanged);
}
