//! Blobs in a bucket of S3, at a server that verifies every signature.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use draught_digest::Digest;
use draught_oci::Descriptor;
use draught_source::{
    BlobBackend as _, Class, Client, ObjectCredentials, ObjectStore, PART_BYTES, Payload, Pushed,
    Settings, Source as _, SourceError,
};
use draught_testkit::fault_proxy::{Fault, Rule};
use draught_testkit::{FaultProxy, MountGuard, S3Server, Scratch, need};

use crate::support::{chain, noise, payload, settings};

fn part_bytes() -> usize {
    usize::try_from(PART_BYTES).unwrap()
}

fn of(bytes: &[u8]) -> Descriptor {
    Descriptor::of("application/octet-stream", bytes)
}

fn with(settings: Settings) -> Client {
    Client::new(Settings {
        object_credentials: ObjectCredentials::of(None, S3Server::environment()),
        ..settings
    })
}

fn store(client: &Client, addr: SocketAddr) -> ObjectStore {
    let location = S3Server::location(addr, "images/").parse().unwrap();
    ObjectStore::open(&location, client).unwrap()
}

fn key(descriptor: &Descriptor) -> String {
    format!("images/{}", descriptor.digest.hex())
}

async fn read_all(store: &ObjectStore, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
    let stream = store.blob(descriptor).await?;
    Ok(stream.into_bytes(usize::MAX).await?.to_vec())
}

#[tokio::test]
async fn blobs_of_any_size_go_and_come() {
    let server = S3Server::start();
    let client = with(settings());
    let store = store(&client, server.addr());
    for bytes in [0, 1, part_bytes(), part_bytes() + 1, 5 * part_bytes() / 2] {
        let blob = noise(7, bytes);
        let descriptor = of(&blob);
        let digest = &descriptor.digest;
        assert!(!store.has_blob(digest).await.unwrap());
        assert_eq!(store.blob_bytes(digest).await.unwrap(), None);
        let pushed = store.put_blob(&descriptor, &payload(&blob)).await.unwrap();
        assert_eq!(pushed, Pushed::Written);
        assert!(server.object(&key(&descriptor)).unwrap() == blob);
        assert!(store.has_blob(digest).await.unwrap());
        assert_eq!(
            store.blob_bytes(digest).await.unwrap(),
            Some(descriptor.size)
        );
        assert!(read_all(&store, &descriptor).await.unwrap() == blob);
        for range in [0..bytes, 0..bytes.min(1), bytes / 2..bytes, bytes..bytes] {
            let wanted = u64::try_from(range.start).unwrap()..u64::try_from(range.end).unwrap();
            let got = store.read_range(digest, wanted).await.unwrap();
            assert!(got == blob[range]);
        }
    }
    assert!(server.uploads().is_empty());
}

#[tokio::test]
async fn what_is_there_is_not_sent_again_unless_forced() {
    let server = S3Server::start();
    let client = with(settings());
    let store = store(&client, server.addr());
    let blob = noise(1, 1000);
    let descriptor = of(&blob);
    let put = |store: ObjectStore| {
        let (descriptor, blob) = (descriptor.clone(), payload(&blob));
        async move { store.put_blob(&descriptor, &blob).await.unwrap() }
    };
    assert_eq!(put(store.clone()).await, Pushed::Written);
    assert_eq!(put(store.clone()).await, Pushed::Existed);
    assert_eq!(server.writes(), 1);
    // Who asks before he sends is not told that it is there.
    let forced = store.clone().with_force(true);
    assert!(store.has_blob(&descriptor.digest).await.unwrap());
    assert!(!forced.has_blob(&descriptor.digest).await.unwrap());
    assert_eq!(put(forced).await, Pushed::Written);
    assert_eq!(server.writes(), 2);
    // What is shorter can't be it.
    server.put(&key(&descriptor), blob[..999].to_vec());
    assert_eq!(put(store).await, Pushed::Written);
    assert!(server.object(&key(&descriptor)).unwrap() == blob);
}

#[tokio::test]
async fn bytes_with_another_digest_become_no_object() {
    let server = S3Server::start();
    let client = with(settings());
    let store = store(&client, server.addr());
    for bytes in [100, 2 * part_bytes() + 5] {
        let (blob, other) = (noise(1, bytes), noise(2, bytes));
        let descriptor = of(&blob);
        let error = store.put_blob(&descriptor, &payload(&other)).await;
        let error = error.unwrap_err();
        assert!(matches!(error, SourceError::Mismatch { .. }), "{error}");
        let error = store.put_blob(&descriptor, &payload(&blob[1..])).await;
        let error = error.unwrap_err();
        assert!(matches!(error, SourceError::Size { .. }), "{error}");
    }
    assert!(server.keys().is_empty() && server.uploads().is_empty());
}

#[tokio::test]
async fn wrong_credentials_are_denied_and_never_shown() {
    let server = S3Server::start();
    let [id, secret] = S3Server::environment();
    let blob = noise(1, 10);
    let mut wrong = secret.clone();
    wrong.1.push('x');
    for environment in [vec![id, wrong.clone()], vec![]] {
        let is_anonymous = environment.is_empty();
        let client = Client::new(Settings {
            object_credentials: ObjectCredentials::of(None, environment),
            ..settings()
        });
        let store = store(&client, server.addr());
        let descriptor = of(&blob);
        let shown = format!("{store:?} {client:?}");
        assert!(!shown.contains(&secret.1), "{shown}");
        for error in [
            store.has_blob(&descriptor.digest).await.unwrap_err(),
            store
                .put_blob(&descriptor, &payload(&blob))
                .await
                .unwrap_err(),
            store
                .read_range(&descriptor.digest, 0..1)
                .await
                .unwrap_err(),
        ] {
            assert_eq!(error.class(), Class::Denied, "{error}");
            let text = chain(&error);
            for hidden in [&*secret.1, "Signature=", "AWS4", "Authorization"] {
                assert!(!text.contains(hidden), "{text}");
            }
            assert_eq!(text.contains("AWS_ACCESS_KEY_ID"), is_anonymous, "{text}");
        }
    }
}

#[tokio::test]
async fn credentials_come_from_files_too() {
    let server = S3Server::start();
    let [id, secret] = S3Server::environment();
    let scratch = Scratch::new();
    fs_err::create_dir(scratch.join(".aws")).unwrap();
    let text = format!(
        "[default]\naws_access_key_id=other\naws_secret_access_key=other\n\
         [mine]\naws_access_key_id={}\naws_secret_access_key={}\n",
        id.1, secret.1
    );
    fs_err::write(scratch.join(".aws/credentials"), text).unwrap();
    let profile = ("AWS_PROFILE".to_owned(), "mine".to_owned());
    let home: PathBuf = scratch.path().to_owned();
    let client = Client::new(Settings {
        object_credentials: ObjectCredentials::of(Some(home), [profile]),
        ..settings()
    });
    let store = store(&client, server.addr());
    assert!(!store.has_blob(&of(b"x").digest).await.unwrap());
}

#[tokio::test]
async fn an_interrupted_push_goes_on_where_it_was() {
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.addr());
    let client = with(Settings {
        attempts: 1,
        ..settings()
    });
    let store = store(&client, proxy.addr());
    let scratch = Scratch::new();
    let blob = noise(3, 6 * part_bytes() + 17);
    let descriptor = of(&blob);
    fs_err::write(scratch.join("blob"), &blob).unwrap();
    let file = Payload::File(scratch.join("blob"));
    let broken = Rule::new(Fault::Reset).on_method("PUT").after(3);
    proxy.inject(broken);
    let error = store.put_blob(&descriptor, &file).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(server.keys().is_empty());
    let [there] = server.uploads()[..] else {
        panic!("{:?}", server.uploads());
    };
    assert!((1..=3).contains(&there), "{there}");
    proxy.lift_all();
    let writes = server.writes();
    let pushed = store.put_blob(&descriptor, &file).await.unwrap();
    assert_eq!(pushed, Pushed::Written);
    assert!(server.object(&key(&descriptor)).unwrap() == blob);
    assert_eq!(server.writes() - writes, 7 - there, "parts were sent again");
    assert!(server.uploads().is_empty());
}

#[tokio::test]
async fn parts_with_other_bytes_are_not_gone_on_with() {
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.addr());
    let client = with(Settings {
        attempts: 1,
        ..settings()
    });
    let store = store(&client, proxy.addr());
    let blob = noise(4, 3 * part_bytes());
    let descriptor = of(&blob);
    // Twice, so that there are two uploads, of which one is of no use.
    for hides in [true, true, false] {
        server.lists_uploads(!hides);
        if hides {
            proxy.inject(
                Rule::new(Fault::Status(503))
                    .on_method("POST")
                    .after(1)
                    .times(1),
            );
            let error = store
                .put_blob(&descriptor, &payload(&blob))
                .await
                .unwrap_err();
            assert!(error.is_unavailable(), "{error}");
            assert!(server.keys().is_empty());
            server.spoil_uploads();
            continue;
        }
        assert_eq!(server.uploads(), [3, 3]);
        store.put_blob(&descriptor, &payload(&blob)).await.unwrap();
    }
    assert!(server.object(&key(&descriptor)).unwrap() == blob);
    assert!(server.uploads().is_empty());
}

#[tokio::test]
async fn a_push_outlives_a_server_that_fails_now_and_then() {
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.addr());
    let store = store(&with(settings()), proxy.addr());
    let blob = noise(5, 3 * part_bytes());
    for method in ["PUT", "POST", "GET", "HEAD"] {
        let of_method = || Rule::new(Fault::Status(503)).on_method(method);
        proxy.inject(of_method().times(2));
        proxy.inject(Rule::new(Fault::Reset).on_method(method).after(3).times(1));
    }
    let descriptor = of(&blob);
    store.put_blob(&descriptor, &payload(&blob)).await.unwrap();
    assert!(server.object(&key(&descriptor)).unwrap() == blob);
    proxy.inject(
        Rule::new(Fault::ResetAfter(1 << 20))
            .on_method("GET")
            .times(2),
    );
    assert!(read_all(&store, &descriptor).await.unwrap() == blob);
}

#[tokio::test]
async fn a_range_is_asked_for_once_and_comes_whole_or_not_at_all() {
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.addr());
    let store = store(&with(settings()), proxy.addr());
    let blob = noise(6, 100_000);
    let descriptor = of(&blob);
    let digest = &descriptor.digest;
    let missing = store.read_range(digest, 0..10).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    server.put(&key(&descriptor), blob.clone());
    for fault in [
        Fault::Status(503),
        Fault::RetryAfter(503, 7),
        Fault::Reset,
        Fault::ResetAfter(100),
        Fault::TruncateAfter(100),
        Fault::ShortenTo(100),
    ] {
        proxy.reset_counts();
        let rule = proxy.inject(Rule::new(fault.clone()).on_method("GET"));
        let error = store.read_range(digest, 50..90_000).await.unwrap_err();
        assert!(error.is_unavailable(), "{fault:?}: {error}");
        if let Fault::RetryAfter(_, seconds) = fault {
            let retry_after = Some(Duration::from_secs(seconds));
            assert_eq!(error.class(), Class::Unavailable { retry_after });
        }
        proxy.lift(rule);
    }
    let rule = proxy.inject(Rule::new(Fault::IgnoreRange).on_method("GET"));
    store.read_range(digest, 50..60).await.unwrap_err();
    proxy.lift(rule);
    for range in [99_990..100_001, 100_001..100_002] {
        let outside = store.read_range(digest, range).await.unwrap_err();
        let is_outside = matches!(outside, SourceError::RangeOutside { .. });
        assert!(is_outside, "{outside}");
    }
    assert!(store.read_range(digest, 50..60).await.unwrap() == blob[50..60]);
}

#[tokio::test]
async fn nothing_waits_for_ever() {
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.addr());
    proxy.inject(Rule::new(Fault::Hang));
    let store = store(
        &with(Settings {
            stall_timeout: Duration::from_millis(50),
            commit_timeout: Duration::from_millis(100),
            attempts: 2,
            ..settings()
        }),
        proxy.addr(),
    );
    let blob = noise(8, part_bytes() + 1);
    let descriptor = of(&blob);
    let asked = store.has_blob(&descriptor.digest).await.unwrap_err();
    let pushed = store
        .with_force(true)
        .put_blob(&descriptor, &payload(&blob))
        .await;
    for error in [asked, pushed.unwrap_err()] {
        assert!(matches!(error, SourceError::Stalled { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_corrupt_object_is_found_out() {
    let server = S3Server::start();
    let store = store(&with(settings()), server.addr());
    let mut blob = noise(9, 10_000_000);
    let descriptor = of(&blob);
    blob[9_999_999] ^= 1;
    server.put(&key(&descriptor), blob);
    let error = read_all(&store, &descriptor).await.unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    assert!(error.to_string().contains(&descriptor.digest.to_string()));
}

#[test]
fn plain_http_is_for_loopback_and_listed_hosts() {
    let location = "s3://blobs?endpoint=http://10.9.8.7:9000".parse().unwrap();
    let error = ObjectStore::open(&location, &with(settings())).unwrap_err();
    let text = chain(&error);
    assert!(
        text.contains("10.9.8.7:9000") && text.contains("plain HTTP"),
        "{text}"
    );
    let listed = Settings {
        plain_http: vec!["10.9.8.7:9000".to_owned()],
        ..settings()
    };
    ObjectStore::open(&location, &with(listed)).unwrap();
}

#[test]
fn a_bucket_of_amazon_needs_a_region() {
    let location = "s3://blobs".parse().unwrap();
    let error = ObjectStore::open(&location, &with(settings())).unwrap_err();
    assert!(chain(&error).contains("AWS_REGION"), "{error}");
    let region = ("AWS_REGION".to_owned(), "eu-central-1".to_owned());
    let client = Client::new(Settings {
        object_credentials: ObjectCredentials::of(None, [region]),
        ..settings()
    });
    ObjectStore::open(&location, &client).unwrap();
}

#[tokio::test]
async fn a_directory_holds_blobs_as_files() {
    let scratch = Scratch::new();
    let dir = scratch.join("made/when/needed");
    let location = format!("dir:{}", dir.display()).parse().unwrap();
    let store = ObjectStore::open(&location, &with(settings())).unwrap();
    let blob = noise(1, 1_000_000);
    let descriptor = of(&blob);
    let digest = &descriptor.digest;
    assert!(!store.has_blob(digest).await.unwrap());
    assert!(
        store
            .read_range(digest, 0..1)
            .await
            .unwrap_err()
            .is_not_found()
    );
    let put = async |bytes: &[u8]| store.put_blob(&descriptor, &payload(bytes)).await;
    let error = put(&noise(2, 1_000_000)).await.unwrap_err();
    assert!(matches!(error, SourceError::Mismatch { .. }), "{error}");
    assert_eq!(fs_err::read_dir(&dir).unwrap().count(), 0);
    assert_eq!(put(&blob).await.unwrap(), Pushed::Written);
    assert_eq!(put(&blob).await.unwrap(), Pushed::Existed);
    let file = dir.join(digest.hex());
    assert!(fs_err::read(&file).unwrap() == blob);
    assert!(read_all(&store, &descriptor).await.unwrap() == blob);
    assert!(store.read_range(digest, 5..9).await.unwrap() == blob[5..9]);
    fs_err::write(&file, &blob[1..]).unwrap();
    assert_eq!(put(&blob).await.unwrap(), Pushed::Written);
    assert!(fs_err::read(&file).unwrap() == blob);
    let other = Digest::blake3(&blob);
    assert_eq!(
        store.has_blob(&other).await.unwrap_err().class(),
        Class::Refused
    );
}

#[tokio::test]
async fn a_directory_that_is_full_gets_no_half_file() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let dir = scratch.dir("small");
    let mut command = Command::new("mount");
    command
        .args(["-t", "tmpfs", "-o", "size=1M", "small"])
        .arg(&dir);
    let _small = MountGuard::run(&mut command, &dir);
    let location = format!("dir:{}", dir.display()).parse().unwrap();
    let store = ObjectStore::open(&location, &with(settings())).unwrap();
    let blob = noise(1, 4 << 20);
    let descriptor = of(&blob);
    let error = store
        .put_blob(&descriptor, &payload(&blob))
        .await
        .unwrap_err();
    assert!(matches!(error, SourceError::Io { .. }), "{error}");
    assert!(!store.has_blob(&descriptor.digest).await.unwrap());
    assert_eq!(fs_err::read_dir(&dir).unwrap().count(), 0);
    let small = noise(2, 1000);
    let descriptor = of(&small);
    store.put_blob(&descriptor, &payload(&small)).await.unwrap();
    assert!(read_all(&store, &descriptor).await.unwrap() == small);
}
