//! What happens when the way to a registry is bad: in bounded time, the right bytes or the right error.

use std::time::{Duration, Instant};

use crate::support::{Script, answer, client, noise, push, push_image, repository, settings};
use draught_oci::{Descriptor, Selector, media_type};
use draught_source::{
    Class, Client, Payload, Pushed, Repository, Settings, Source as _, SourceError,
};
use draught_testkit::TestRegistry;
use draught_testkit::fault_proxy::{Fault, Kind, Rule};

/// Long enough that no answer on loopback is taken for silence, short enough for a test.
const STALL: Duration = Duration::from_millis(400);

/// Larger than all socket buffers on the way.
const BLOB_BYTES: usize = 24 << 20;

struct Scene {
    registry: TestRegistry,
    place: Repository,
    content: Vec<u8>,
    blob: Descriptor,
}

/// A registry with one blob, of which nothing was counted yet.
async fn scene(client: Client, bytes: usize) -> Scene {
    let registry = draught_testkit::registry();
    let place = repository(&client, registry.addr(), "a").await;
    let content = noise(1, bytes);
    let blob = push(&place, media_type::LAYER_TAR, content.clone()).await;
    registry.proxy().reset_counts();
    Scene {
        registry,
        place,
        content,
        blob,
    }
}

impl Scene {
    async fn read_all(&self) -> Result<bytes::Bytes, SourceError> {
        let stream = self.place.blob(&self.blob).await?;
        stream.into_bytes(self.content.len()).await
    }

    /// Whatever happened, it works now.
    async fn recovers(&self) {
        self.registry.proxy().lift_all();
        let read = self
            .place
            .read_range(&self.blob.digest, 1..11)
            .await
            .unwrap();
        assert_eq!(read, self.content[1..11]);
    }
}

fn stalling() -> Client {
    Client::new(Settings {
        stall_timeout: STALL,
        ..settings()
    })
}

fn unavailable() -> Class {
    Class::Unavailable { retry_after: None }
}

#[tokio::test]
async fn a_download_goes_on_where_it_was_reset() {
    let scene = scene(client(), BLOB_BYTES).await;
    let proxy = scene.registry.proxy();
    // Each connection gives 2 MB at most: more are needed than there are tries without progress.
    proxy.inject(Rule::new(Fault::ResetAfter(2_000_000)).on_blobs());
    assert_eq!(scene.read_all().await.unwrap(), scene.content);
    let blobs = proxy.counts().blobs();
    assert!(blobs.requests >= 12, "{blobs:?}");
    let sent = blobs.sent_bytes;
    assert!(
        sent < 2 * u64::try_from(BLOB_BYTES).unwrap(),
        "{sent} bytes came"
    );
}

#[tokio::test]
async fn a_download_from_a_server_without_ranges_begins_again() {
    let scene = scene(client(), 3 << 20).await;
    let proxy = scene.registry.proxy();
    proxy.inject(Rule::new(Fault::TruncateAfter(1 << 20)).on_blobs().times(1));
    proxy.inject(Rule::new(Fault::IgnoreRange).on_blobs().after(1));
    assert_eq!(scene.read_all().await.unwrap(), scene.content);
    assert_eq!(proxy.counts().blobs().requests, 2);
}

#[tokio::test]
async fn a_download_that_never_comes_further_ends_in_an_error() {
    let scene = scene(client(), 1 << 20).await;
    let proxy = scene.registry.proxy();
    proxy.inject(Rule::new(Fault::ResetAfter(0)).on_blobs());
    let error = scene.read_all().await.unwrap_err();
    assert_eq!(error.class(), unavailable(), "{error}");
    assert_eq!(
        proxy.counts().blobs().requests,
        u64::from(settings().attempts)
    );
    scene.recovers().await;
}

#[tokio::test]
async fn a_changed_blob_is_corrupt_and_asked_for_once() {
    let scene = scene(client(), 3 << 20).await;
    let proxy = scene.registry.proxy();
    proxy.inject(Rule::new(Fault::FlipByte(2_000_000)).on_blobs());
    let error = scene.read_all().await.unwrap_err();
    assert!(matches!(error, SourceError::Mismatch { .. }), "{error}");
    assert_eq!(error.class(), Class::Corrupt);
    assert_eq!(proxy.counts().blobs().requests, 1);
    scene.recovers().await;
}

#[tokio::test]
async fn a_blob_with_another_size_is_corrupt() {
    let scene = scene(client(), 1 << 20).await;
    for wrong in [(1 << 20) - 1, (1 << 20) + 1, 1] {
        let blob = Descriptor {
            size: wrong,
            ..scene.blob.clone()
        };
        let stream = scene.place.blob(&blob).await.unwrap();
        let error = stream.into_bytes(2 << 20).await.unwrap_err();
        assert_eq!(error.class(), Class::Corrupt, "{error}");
    }
    let proxy = scene.registry.proxy();
    proxy.inject(Rule::new(Fault::ShortenTo(1000)).on_blobs());
    let error = scene.read_all().await.unwrap_err();
    assert_eq!(error.class(), Class::Corrupt, "{error}");
}

#[tokio::test]
async fn a_range_at_the_front_is_read_from_a_server_without_ranges() {
    let scene = scene(client(), BLOB_BYTES).await;
    let proxy = scene.registry.proxy();
    proxy.inject(Rule::new(Fault::IgnoreRange).on_blobs());
    for range in [0..10, 1_000_000..2_000_000] {
        let read = scene
            .place
            .read_range(&scene.blob.digest, range.clone())
            .await
            .unwrap();
        let at = |offset: u64| usize::try_from(offset).unwrap();
        assert_eq!(read, scene.content[at(range.start)..at(range.end)]);
    }
}

#[tokio::test]
async fn a_range_far_in_is_refused_by_name_from_a_server_without_ranges() {
    let scene = scene(client(), BLOB_BYTES).await;
    let proxy = scene.registry.proxy();
    proxy.inject(Rule::new(Fault::IgnoreRange).on_blobs());
    let error = scene
        .place
        .read_range(&scene.blob.digest, 20_000_000..20_000_010)
        .await
        .unwrap_err();
    assert!(matches!(error, SourceError::RangeIgnored { .. }), "{error}");
    assert_eq!(error.class(), Class::Refused);
    let sent = proxy.counts().blobs().sent_bytes;
    assert!(
        sent < 16_000_000,
        "{sent} bytes were sent before we hung up"
    );
    scene.recovers().await;
}

#[tokio::test]
async fn a_ranged_read_is_tried_once_and_its_error_has_the_right_class() {
    let scene = scene(stalling(), 1 << 20).await;
    let proxy = scene.registry.proxy();
    let retry_after = Some(Duration::from_secs(7));
    for (fault, expect) in [
        (Fault::Status(500), unavailable()),
        (Fault::Status(429), unavailable()),
        (
            Fault::RetryAfter(503, 7),
            Class::Unavailable { retry_after },
        ),
        (Fault::Status(403), Class::Denied),
        (Fault::Status(404), Class::NotFound),
        (Fault::Status(400), Class::Refused),
        (Fault::Status(416), Class::Corrupt),
        (Fault::Reset, unavailable()),
        (Fault::ResetAfter(100), unavailable()),
        (Fault::TruncateAfter(100), unavailable()),
        (Fault::ShortenTo(100), unavailable()),
        (Fault::StallAfter(100), unavailable()),
        (Fault::Hang, unavailable()),
    ] {
        proxy.lift_all();
        proxy.reset_counts();
        proxy.inject(Rule::new(fault.clone()).on_blobs());
        let begun = Instant::now();
        let read = scene.place.read_range(&scene.blob.digest, 1000..9000).await;
        let error = read.expect_err(&format!("{fault:?}"));
        assert_eq!(error.class(), expect, "{fault:?}: {error}");
        assert!(
            begun.elapsed() < 10 * STALL,
            "{fault:?} took {:?}",
            begun.elapsed()
        );
        // A connection that breaks before an answer may have been an idle one: that is asked again at once.
        let requests = if fault == Fault::Reset { 2 } else { 1 };
        assert_eq!(proxy.counts().blobs().requests, requests, "{fault:?}");
        scene.recovers().await;
    }
}

#[tokio::test]
async fn a_registry_that_is_down_is_unavailable_and_back_when_it_is_back() {
    let scene = scene(client(), 1 << 20).await;
    scene.registry.proxy().go_down();
    let error = scene
        .place
        .read_range(&scene.blob.digest, 0..10)
        .await
        .unwrap_err();
    assert_eq!(error.class(), unavailable(), "{error}");
    scene.registry.proxy().come_up();
    scene.recovers().await;
}

#[tokio::test]
async fn slow_is_not_silent() {
    let scene = scene(stalling(), 1 << 20).await;
    let proxy = scene.registry.proxy();
    // Takes longer than the silence that ends a download.
    proxy.inject(Rule::new(Fault::Bandwidth(1 << 20)).on_blobs());
    let begun = Instant::now();
    assert_eq!(scene.read_all().await.unwrap(), scene.content);
    assert!(begun.elapsed() > STALL);
    assert_eq!(proxy.counts().blobs().requests, 1);
}

/// Reads uploads at 10 MiB/s, and takes its time before it says that it has one.
fn slow_registry() -> Script {
    Script::start_slow(Duration::from_millis(25), |seen| {
        match seen.method.as_str() {
            "HEAD" => answer("404 Not Found", &[], b""),
            "POST" => answer("202 Accepted", &[("location", "/up")], b""),
            _ => {
                std::thread::sleep(2 * STALL);
                answer("201 Created", &[], b"")
            }
        }
    })
}

#[tokio::test]
async fn a_slow_upload_is_not_taken_for_a_dead_one() {
    let script = slow_registry();
    let place = repository(&stalling(), script.addr(), "a").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let content = noise(2, 12 << 20);
    fs_err::write(file.path(), &content).unwrap();
    let descriptor = Descriptor::of(media_type::LAYER_TAR, &content);
    let begun = Instant::now();
    let from_file = Payload::File(file.path().to_owned());
    let pushed = place.push_blob(&descriptor, &from_file, &[]).await.unwrap();
    assert_eq!(pushed, Pushed::Written);
    assert!(begun.elapsed() > 2 * STALL, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_upload_that_nobody_reads_ends_in_an_error() {
    let script = Script::start_slow(Duration::from_secs(3600), |seen| {
        match seen.method.as_str() {
            "HEAD" => answer("404 Not Found", &[], b""),
            _ => answer("202 Accepted", &[("location", "/up")], b""),
        }
    });
    let client = Client::new(Settings {
        attempts: 1,
        stall_timeout: STALL,
        ..settings()
    });
    let place = repository(&client, script.addr(), "a").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let content = noise(2, 24 << 20);
    fs_err::write(file.path(), &content).unwrap();
    let descriptor = Descriptor::of(media_type::LAYER_TAR, &content);
    let from_file = Payload::File(file.path().to_owned());
    let error = place
        .push_blob(&descriptor, &from_file, &[])
        .await
        .unwrap_err();
    assert!(matches!(error, SourceError::Stalled { .. }), "{error}");
}

#[tokio::test]
async fn whole_operations_are_tried_again() {
    let registry = draught_testkit::registry();
    let place = repository(&client(), registry.addr(), "a").await;
    let proxy = registry.proxy();
    for (fault, kind) in [
        (Fault::Status(503), Kind::Upload),
        (Fault::Reset, Kind::Upload),
        (Fault::Status(500), Kind::Manifest),
        (Fault::Reset, Kind::Manifest),
        (Fault::Status(429), Kind::Blob),
    ] {
        proxy.lift_all();
        let rule = proxy.inject(Rule::new(fault.clone()).on(kind).times(2));
        let content = noise(u64::from(fault == Fault::Reset), 100_000);
        let image = push_image(&place, "tag", content.clone()).await;
        let tag = Selector::Tag("tag".to_owned());
        let again = place.manifest(&tag).await.unwrap();
        assert_eq!(again.digest(), image.digest());
        let stream = place.blob(&image.layers[0]).await.unwrap();
        assert_eq!(stream.into_bytes(content.len()).await.unwrap(), content);
        assert_eq!(proxy.hits(rule), 2, "{fault:?} {kind:?}");
        let image = draught_oci::Selector::Digest(image.digest());
        place.delete_manifest(&image).await.unwrap();
    }
}

#[tokio::test]
async fn a_registry_that_finds_a_blob_too_large_gets_it_in_pieces() {
    let registry = draught_testkit::registry();
    let client = Client::new(settings());
    let place = repository(&client, registry.addr(), "a").await;
    let proxy = registry.proxy();
    proxy.inject(
        Rule::new(Fault::Status(413))
            .on_method("PUT")
            .on(Kind::Upload)
            .times(1),
    );
    let content = noise(3, 1 << 20);
    let descriptor = push(&place, media_type::LAYER_TAR, content.clone()).await;
    assert_eq!(proxy.counts().matching("PATCH", "/uploads/").requests, 1);
    assert!(place.has_blob(&descriptor.digest).await.unwrap());
}

#[tokio::test]
async fn redirects_are_followed_once_and_remembered_until_they_end() {
    let scene = scene(client(), 1 << 20).await;
    let proxy = scene.registry.proxy();
    proxy.inject(Rule::new(Fault::Redirect).on_blobs());
    assert_eq!(scene.read_all().await.unwrap(), scene.content);
    proxy.reset_counts();
    for start in 0..10 {
        let read = scene
            .place
            .read_range(&scene.blob.digest, start..start + 5)
            .await
            .unwrap();
        let start = usize::try_from(start).unwrap();
        assert_eq!(read, scene.content[start..start + 5]);
    }
    let redirects = proxy
        .log()
        .iter()
        .filter(|it| it.status == Some(307))
        .count();
    assert_eq!(redirects, 1);
    scene.recovers().await;
}

#[tokio::test]
async fn a_blob_read_by_many_at_once_comes_whole_to_all() {
    let scene = scene(client(), 1 << 20).await;
    let reads = (0..200_u64).map(|number| {
        let start = number * 5000;
        let (place, digest) = (scene.place.clone(), scene.blob.digest);
        async move {
            (
                start,
                place
                    .read_range(&digest, start..start + 5000)
                    .await
                    .unwrap(),
            )
        }
    });
    for (start, read) in futures_util::future::join_all(reads).await {
        let start = usize::try_from(start).unwrap();
        assert_eq!(read, scene.content[start..start + 5000]);
    }
}
