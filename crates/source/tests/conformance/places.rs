//! One suite over every place that images can be written to: Debian's registry, the embedded one, a layout, a
//! docker archive.

use std::io::Read as _;

use crate::support::{client, noise, payload, push, push_image, repository, settings};
use draught_digest::Digest;
use draught_oci::{Any, Descriptor, Document, Index, Manifest, Platform, Selector, media_type};
use draught_source::{
    BlobReader, Class, Client, Payload, Pushed, Repository, Settings, Source as _,
};
use draught_testkit::{Scratch, TestRegistry};

/// More than one piece of a stream, and an odd number.
const BLOB_BYTES: usize = (3 << 20) + 17;

fn registries() -> Vec<TestRegistry> {
    let mut all = vec![draught_testkit::registry()];
    all.extend(draught_testkit::docker_registry());
    all
}

/// Every place, with what keeps it alive.
async fn places(client: &Client) -> Vec<(Repository, Box<dyn std::any::Any>)> {
    let mut places: Vec<(Repository, Box<dyn std::any::Any>)> = Vec::new();
    for registry in registries() {
        let place = repository(client, registry.addr(), "some/where").await;
        places.push((place, Box::new(registry)));
    }
    let scratch = Scratch::new();
    let location = format!("oci:{}:x", scratch.join("layout").display());
    let (layout, _) = client.create(&location.parse().unwrap()).await.unwrap();
    places.push((layout, Box::new(scratch)));
    let scratch = Scratch::new();
    let location = format!("docker-archive:{}", scratch.join("image.tar").display());
    let (archive, _) = client.create(&location.parse().unwrap()).await.unwrap();
    places.push((archive, Box::new(scratch)));
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_come_back_as_they_went() {
    let client = client();
    for (place, _alive) in places(&client).await {
        let content = noise(1, BLOB_BYTES);
        let descriptor = Descriptor::of("application/octet-stream", &content);
        assert!(!place.has_blob(&descriptor.digest).await.unwrap());

        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), &content).unwrap();
        let from_file = Payload::File(file.path().to_owned());
        let pushed = place.push_blob(&descriptor, &from_file, &[]).await.unwrap();
        assert_eq!(pushed, Pushed::Written);
        let pushed = place.push_blob(&descriptor, &from_file, &[]).await.unwrap();
        assert_eq!(pushed, Pushed::Existed);
        assert!(place.has_blob(&descriptor.digest).await.unwrap());

        let stream = place.blob(&descriptor).await.unwrap();
        assert_eq!(stream.into_bytes(BLOB_BYTES).await.unwrap(), content);

        let mut reader = BlobReader::new(
            place.blob(&descriptor).await.unwrap(),
            &tokio::runtime::Handle::current(),
        );
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        assert_eq!(read.await.unwrap().unwrap(), content);

        let empty = push(&place, "application/octet-stream", Vec::new()).await;
        let stream = place.blob(&empty).await.unwrap();
        assert_eq!(stream.into_bytes(0).await.unwrap(), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_that_many_make_at_once_is_whole_for_all_of_them() {
    let client = client();
    for _ in 0..8 {
        let scratch = Scratch::new();
        let location = format!("oci:{}:x", scratch.join("layout").display());
        let location = location.parse().unwrap();
        let made = (0..8).map(|_| client.create(&location));
        for made in futures_util::future::join_all(made).await {
            made.unwrap();
        }
    }
}

#[tokio::test]
async fn ranges_are_the_bytes_asked_for_and_no_others() {
    let client = client();
    for (place, _alive) in places(&client).await {
        let content = noise(2, 100_000);
        let descriptor = push(&place, "application/octet-stream", content.clone()).await;
        for range in [
            0..1,
            0..100_000,
            99_999..100_000,
            4096..8192,
            7..7,
            100_000..100_000,
        ] {
            let read = place
                .read_range(&descriptor.digest, range.clone())
                .await
                .unwrap();
            let at = |offset: u64| usize::try_from(offset).unwrap();
            assert_eq!(read, content[at(range.start)..at(range.end)], "{range:?}");
        }
        for range in [100_000..100_001, 99_999..100_001, 1 << 40..(1 << 40) + 1] {
            let error = place
                .read_range(&descriptor.digest, range.clone())
                .await
                .unwrap_err();
            // A registry cuts a range that is half outside: then what comes is another range.
            let half = range.start < 100_000;
            let unavailable = Class::Unavailable { retry_after: None };
            let expect = [Class::Corrupt]
                .into_iter()
                .chain(half.then_some(unavailable));
            assert!(
                expect.into_iter().any(|class| class == error.class()),
                "{range:?}: {error}"
            );
        }
        let missing = Digest::sha256(b"missing");
        let error = place.read_range(&missing, 0..10).await.unwrap_err();
        assert_eq!(error.class(), Class::NotFound, "{error}");
    }
}

#[tokio::test]
async fn manifests_are_found_by_tag_and_digest() {
    let client = client();
    for (place, _alive) in places(&client).await {
        let first = push_image(&place, "one", noise(3, 1000)).await;
        let by_tag = place
            .manifest(&Selector::Tag("one".to_owned()))
            .await
            .unwrap();
        assert_eq!(by_tag, Any::Manifest(first.clone()));
        let by_digest = place
            .manifest(&Selector::Digest(first.digest()))
            .await
            .unwrap();
        assert_eq!(by_digest, by_tag);

        // A tag moves.
        let second = push_image(&place, "one", noise(4, 1000)).await;
        let by_tag = place
            .manifest(&Selector::Tag("one".to_owned()))
            .await
            .unwrap();
        assert_eq!(by_tag.digest(), second.digest());
        push_image(&place, "two", noise(4, 1000)).await;
        assert_eq!(place.tags().await.unwrap(), ["one", "two"]);

        let error = place
            .manifest(&Selector::Tag("three".to_owned()))
            .await
            .unwrap_err();
        assert_eq!(error.class(), Class::NotFound, "{error}");
        let missing = Selector::Digest(Digest::sha256(b"missing"));
        let error = place.manifest(&missing).await.unwrap_err();
        assert_eq!(error.class(), Class::NotFound, "{error}");
    }
}

#[tokio::test]
async fn an_index_leads_to_the_image_for_the_platform() {
    let client = client();
    for (place, _alive) in places(&client).await {
        let host = push_image(&place, "host", noise(5, 100)).await;
        let other = push_image(&place, "other", noise(6, 100)).await;
        let vax: Platform = "linux/vax".parse().unwrap();
        let index = Document::write(Index::new(vec![
            other.descriptor().with_platform(vax.clone()),
            host.descriptor().with_platform(Platform::host()),
        ]));
        place
            .put_manifest(Some("all"), &Any::Index(index))
            .await
            .unwrap();
        let all = Selector::Tag("all".to_owned());
        let image = place.image(&all, &Platform::host()).await.unwrap();
        assert_eq!(image, host);
        assert_eq!(
            place.config(&image).await.unwrap().platform,
            Platform::host()
        );
        assert_eq!(place.image(&all, &vax).await.unwrap(), other);
        let error = place
            .image(&all, &"linux/pdp11".parse().unwrap())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("linux/vax"), "{error}");
        assert_eq!(error.class(), Class::NotFound);
    }
}

#[tokio::test]
async fn referrers_are_found_also_where_no_registry_lists_them() {
    let client = client();
    for (place, _alive) in places(&client).await {
        let subject = push_image(&place, "subject", noise(7, 100)).await;
        assert_eq!(place.referrers(&subject.digest()).await.unwrap(), []);
        let mut about = Manifest::new(subject.config.clone(), vec![]);
        about.subject = Some(subject.descriptor());
        about.artifact_type = Some("application/vnd.example.note".to_owned());
        let mut digests = Vec::new();
        for note in ["a", "b"] {
            about.annotations.insert("note".to_owned(), note.to_owned());
            let document = Any::Manifest(Document::write(about.clone()));
            place.put_manifest(None, &document).await.unwrap();
            place.put_manifest(None, &document).await.unwrap();
            digests.push(document.digest());
        }
        let found = place.referrers(&subject.digest()).await.unwrap();
        let mut found: Vec<Digest> = found
            .iter()
            .inspect(|it| assert_eq!(it.artifact_type, about.artifact_type))
            .map(|it| it.digest)
            .collect();
        found.sort();
        digests.sort();
        assert_eq!(found, digests);
    }
}

#[tokio::test]
async fn what_is_deleted_is_gone() {
    let client = client();
    for (place, _alive) in places(&client).await {
        let image = push_image(&place, "one", noise(8, 100)).await;
        let digest = Selector::Digest(image.digest());
        if matches!(place, Repository::Archive(_)) {
            let error = place.delete_manifest(&digest).await.unwrap_err();
            assert_eq!(error.class(), Class::Refused, "{error}");
            let error = place
                .delete_blob(&image.layers[0].digest)
                .await
                .unwrap_err();
            assert_eq!(error.class(), Class::Refused, "{error}");
            continue;
        }
        place.delete_manifest(&digest).await.unwrap();
        let error = place.manifest(&digest).await.unwrap_err();
        assert_eq!(error.class(), Class::NotFound, "{error}");
        place.delete_blob(&image.layers[0].digest).await.unwrap();
        assert!(!place.has_blob(&image.layers[0].digest).await.unwrap());
    }
}

#[tokio::test]
async fn wrong_content_is_refused_by_every_place() {
    let client = client();
    for (place, _alive) in places(&client).await {
        let descriptor = Descriptor::of("application/octet-stream", b"right");
        for wrong in ["wrong", "longer than right", ""] {
            let wrong = payload(wrong.as_bytes());
            place.push_blob(&descriptor, &wrong, &[]).await.unwrap_err();
            assert!(!place.has_blob(&descriptor.digest).await.unwrap());
        }
    }
}

#[tokio::test]
async fn uploads_in_pieces_are_whole() {
    let client = Client::new(Settings {
        upload_chunk_bytes: Some(1 << 20),
        ..settings()
    });
    for registry in registries() {
        let place = repository(&client, registry.addr(), "pieces").await;
        let content = noise(9, BLOB_BYTES);
        let descriptor = push(&place, "application/octet-stream", content.clone()).await;
        let patches = registry
            .proxy()
            .counts()
            .matching("PATCH", "/uploads/")
            .requests;
        assert_eq!(patches, 4);
        let stream = place.blob(&descriptor).await.unwrap();
        assert_eq!(stream.into_bytes(BLOB_BYTES).await.unwrap(), content);
    }
}

#[tokio::test]
async fn a_blob_of_another_repository_is_mounted_and_not_sent() {
    let client = client();
    for registry in registries() {
        let from = repository(&client, registry.addr(), "from/here").await;
        let to = repository(&client, registry.addr(), "to/there").await;
        let content = noise(10, 1 << 20);
        let descriptor = push(&from, "application/octet-stream", content.clone()).await;
        let before = registry.proxy().counts();
        let sources = ["never/was".to_owned(), "from/here".to_owned()];
        let pushed = to
            .push_blob(&descriptor, &payload(&content), &sources)
            .await
            .unwrap();
        let from = "from/here".to_owned();
        assert_eq!(pushed, Pushed::Mounted { from });
        let after = registry.proxy().counts().since(&before);
        assert_eq!(after.total().received_bytes, 0);
        assert!(to.has_blob(&descriptor.digest).await.unwrap());
        // And where nothing can be mounted, it is sent.
        let other = noise(11, 1000);
        let descriptor = Descriptor::of(media_type::LAYER_TAR, &other);
        let pushed = to
            .push_blob(&descriptor, &payload(&other), &sources)
            .await
            .unwrap();
        assert_eq!(pushed, Pushed::Written);
    }
}
