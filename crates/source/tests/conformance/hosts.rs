//! hosts.toml: mirrors before the registry, and nothing lost when they fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Script, answer, chain, noise, push_image, repository, settings};
use draught_digest::Digest;
use draught_oci::{Document, Manifest, Selector};
use draught_source::{
    Class, Client, Credential, Credentials, Hosts, Keychain, Repository, Secret, Settings,
    Source as _, SourceError,
};
use draught_testkit::{Scratch, TestRegistry};
use parking_lot::Mutex;

/// How long a change of a file may take to be noticed.
const NOTICED: Duration = Duration::from_secs(20);

/// Directories of hosts, in `certs.d`.
struct Files(Scratch);

impl Files {
    fn new() -> Self {
        Self(Scratch::new())
    }

    /// Writes a registry's file.
    fn write(&self, registry: SocketAddr, text: &str) {
        let name = format!("certs.d/{}_{}_", registry.ip(), registry.port());
        fs_err::write(self.0.dir(name).join("hosts.toml"), text).unwrap();
    }

    fn client(&self) -> Client {
        self.client_with(Credentials::none())
    }

    fn client_with(&self, credentials: Credentials) -> Client {
        Client::new(Settings {
            hosts: Hosts::of(vec![self.0.join("elsewhere"), self.0.join("certs.d")]),
            credentials,
            attempts: 1,
            ..settings()
        })
    }
}

fn tag() -> Selector {
    Selector::Tag("x".to_owned())
}

fn host(addr: SocketAddr) -> String {
    format!("[host.\"http://{addr}\"]\n")
}

/// A registry with an image of one layer.
async fn with_image(seed: u64) -> (TestRegistry, Document<Manifest>) {
    let registry = draught_testkit::registry();
    let place = repository(&crate::support::client(), registry.addr(), "a/b").await;
    let image = push_image(&place, "x", noise(seed, 10_000)).await;
    registry.proxy().reset_counts();
    (registry, image)
}

fn layer(image: &Document<Manifest>) -> Digest {
    image.content().layers[0].digest
}

async fn read(place: &Repository, image: &Document<Manifest>, seed: u64) {
    let found = place.read_range(&layer(image), 5..15).await.unwrap();
    assert_eq!(found, noise(seed, 10_000)[5..15]);
}

fn requests(registry: &TestRegistry) -> u64 {
    registry.proxy().counts().total().requests
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_told_for_whom() {
    let (registry, image) = with_image(1).await;
    let (mirror, _) = with_image(1).await;
    let files = Files::new();
    files.write(registry.addr(), &host(mirror.addr()));
    let place = repository(&files.client(), registry.addr(), "a/b").await;
    let found = place.manifest(&tag()).await.unwrap();
    assert_eq!(found.digest(), image.digest());
    place
        .manifest(&Selector::Digest(image.digest()))
        .await
        .unwrap();
    read(&place, &image, 1).await;
    let descriptor = &image.content().layers[0];
    let stream = place.blob(descriptor).await.unwrap();
    assert_eq!(stream.into_bytes(1 << 20).await.unwrap().len(), 10_000);
    assert_eq!((requests(&registry), requests(&mirror)), (0, 4));
    // Written is the registry.
    push_image(&place, "y", noise(9, 100)).await;
    assert_eq!(requests(&mirror), 4);
}

#[tokio::test]
async fn the_registry_is_named_to_those_who_stand_for_it_only() {
    let (registry, image) = with_image(1).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let mirror = Script::start(move |request| {
        noted.lock().push(request.target.clone());
        answer("404 Not Found", &[], b"")
    });
    let files = Files::new();
    files.write(registry.addr(), &host(mirror.addr()));
    let place = repository(&files.client(), registry.addr(), "a/b").await;
    read(&place, &image, 1).await;
    let ns = registry.addr().to_string().replace(':', "%3A");
    let target = format!("/v2/a/b/blobs/{}?ns={ns}", layer(&image));
    assert_eq!(*seen.lock(), [target]);
    let log = registry.proxy().log();
    assert!(
        log.iter()
            .all(|logged| !format!("{logged:?}").contains("ns=")),
        "{log:?}"
    );
}

#[tokio::test]
async fn what_a_mirror_lacks_comes_from_the_next_and_it_is_asked_last_then() {
    let (registry, image) = with_image(1).await;
    let (empty, full) = (draught_testkit::registry(), with_image(1).await.0);
    let files = Files::new();
    files.write(
        registry.addr(),
        &format!("{}{}", host(empty.addr()), host(full.addr())),
    );
    let place = repository(&files.client(), registry.addr(), "a/b").await;
    for _ in 0..3 {
        read(&place, &image, 1).await;
    }
    assert_eq!(
        (requests(&empty), requests(&full), requests(&registry)),
        (1, 3, 0)
    );
    // Something else it may have.
    place
        .manifest(&Selector::Digest(image.digest()))
        .await
        .unwrap();
    assert_eq!(
        (requests(&empty), requests(&full), requests(&registry)),
        (2, 4, 0)
    );
}

#[tokio::test]
async fn a_mirror_that_is_down_is_asked_last_for_a_while() {
    let (registry, image) = with_image(1).await;
    let (mirror, _) = with_image(1).await;
    let files = Files::new();
    files.write(registry.addr(), &host(mirror.addr()));
    let client = files.client();
    let place = repository(&client, registry.addr(), "a/b").await;
    mirror.proxy().go_down();
    read(&place, &image, 1).await;
    mirror.proxy().come_up();
    // Another repository learns from the first.
    let again = repository(&client, registry.addr(), "a/b").await;
    read(&again, &image, 1).await;
    assert_eq!((requests(&mirror), requests(&registry)), (0, 2));
    // But it is still there when nobody else is, and then it is well again.
    registry.proxy().go_down();
    read(&place, &image, 1).await;
    registry.proxy().come_up();
    read(&place, &image, 1).await;
    assert_eq!((requests(&mirror), requests(&registry)), (2, 2));
}

#[tokio::test]
async fn a_mirror_that_breaks_in_the_middle_of_a_blob_is_followed_by_the_server() {
    use draught_testkit::fault_proxy::{Fault, Kind, Rule};

    let (registry, image) = with_image(1).await;
    let (mirror, _) = with_image(1).await;
    mirror
        .proxy()
        .inject(Rule::new(Fault::TruncateAfter(5000)).on(Kind::Blob));
    let files = Files::new();
    files.write(registry.addr(), &host(mirror.addr()));
    let client = Client::new(Settings {
        attempts: 3,
        ..files.client().settings().clone()
    });
    let place = repository(&client, registry.addr(), "a/b").await;
    let stream = place.blob(&image.content().layers[0]).await.unwrap();
    let bytes = stream.into_bytes(1 << 20).await.unwrap();
    assert_eq!(bytes, noise(1, 10_000));
    assert_eq!((requests(&mirror), requests(&registry)), (1, 1));
}

#[tokio::test]
async fn tags_are_asked_of_those_who_may_say() {
    let (registry, image) = with_image(1).await;
    let (mirror, other) = with_image(2).await;
    let files = Files::new();
    let pull = format!("{}capabilities = [\"pull\"]\n", host(mirror.addr()));
    files.write(registry.addr(), &pull);
    let place = repository(&files.client(), registry.addr(), "a/b").await;
    let found = place.manifest(&tag()).await.unwrap();
    assert_eq!(found.digest(), image.digest());
    assert_eq!(requests(&mirror), 0);
    // By digest it may give what only it has.
    place
        .manifest(&Selector::Digest(other.digest()))
        .await
        .unwrap();
    assert_eq!(requests(&mirror), 1);
    let nobody = format!("capabilities = [\"pull\"]\n{pull}");
    files.write(registry.addr(), &nobody);
    let place = repository(&files.client(), registry.addr(), "a/b").await;
    let error = place.manifest(&tag()).await.unwrap_err();
    assert!(matches!(error, SourceError::NoHost { .. }), "{error}");
    assert_eq!(error.class(), Class::Refused);
}

#[tokio::test]
async fn a_mirror_that_lies_is_not_believed() {
    let (registry, image) = with_image(1).await;
    let liar = Script::start(|_| {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        answer(
            "200 OK",
            &[("content-type", kind)],
            b"{\"schemaVersion\":2}",
        )
    });
    let files = Files::new();
    files.write(registry.addr(), &host(liar.addr()));
    let place = repository(&files.client(), registry.addr(), "a/b").await;
    let selector = Selector::Digest(image.digest());
    for _ in 0..2 {
        let found = place.manifest(&selector).await.unwrap();
        assert_eq!(found.digest(), image.digest());
    }
    // A blob's stream is verified at its end; who tries again gets the right one.
    let descriptor = &image.content().layers[0];
    let place = repository(&files.client(), registry.addr(), "a/b").await;
    let stream = place.blob(descriptor).await.unwrap();
    let bytes = stream.into_bytes(1 << 20).await.unwrap();
    assert_eq!(bytes, noise(1, 10_000));
}

#[tokio::test]
async fn a_blob_that_was_wrong_is_asked_of_the_server_next() {
    use draught_testkit::fault_proxy::{Fault, Kind, Rule};

    let (registry, image) = with_image(1).await;
    let (mirror, _) = with_image(1).await;
    mirror
        .proxy()
        .inject(Rule::new(Fault::FlipByte(7)).on(Kind::Blob));
    let files = Files::new();
    files.write(registry.addr(), &host(mirror.addr()));
    let descriptor = &image.content().layers[0];
    let place = repository(&files.client(), registry.addr(), "a/b").await;
    let stream = place.blob(descriptor).await.unwrap();
    let error = stream.into_bytes(1 << 20).await.unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    let stream = place.blob(descriptor).await.unwrap();
    stream.into_bytes(1 << 20).await.unwrap();
    // Of ranges only the reader knows.
    let place = repository(&files.client(), registry.addr(), "a/b").await;
    let range = place.read_range(&layer(&image), 5..15).await.unwrap();
    assert_ne!(range, noise(1, 10_000)[5..15]);
    place.distrust(&layer(&image));
    read(&place, &image, 1).await;
    assert_eq!((requests(&mirror), requests(&registry)), (2, 2));
}

#[tokio::test]
async fn the_server_is_who_the_file_says() {
    let (registry, image) = with_image(1).await;
    let (server, _) = with_image(1).await;
    let files = Files::new();
    let text = format!("server = \"http://{}\"\n", server.addr());
    files.write(registry.addr(), &text);
    let place = repository(&files.client(), registry.addr(), "a/b").await;
    read(&place, &image, 1).await;
    push_image(&place, "y", noise(9, 100)).await;
    assert_eq!(requests(&registry), 0);
}

#[tokio::test]
async fn one_file_is_for_all_registries_that_have_none() {
    let (registry, image) = with_image(1).await;
    let (mirror, _) = with_image(1).await;
    let files = Files::new();
    let default = files.0.dir("certs.d/_default").join("hosts.toml");
    fs_err::write(default, host(mirror.addr())).unwrap();
    let place = repository(&files.client(), registry.addr(), "a/b").await;
    read(&place, &image, 1).await;
    assert_eq!((requests(&mirror), requests(&registry)), (1, 0));
    // One of its own comes before it, and so does one that is written later.
    files.write(registry.addr(), "server = \"\"");
    let place = repository(&files.client(), registry.addr(), "a/b").await;
    read(&place, &image, 1).await;
    assert_eq!((requests(&mirror), requests(&registry)), (1, 1));
}

#[tokio::test]
async fn changes_are_noticed_while_it_runs() {
    let (registry, image) = with_image(1).await;
    let (mirror, _) = with_image(1).await;
    let files = Files::new();
    let place = repository(&files.client(), registry.addr(), "a/b").await;
    read(&place, &image, 1).await;
    assert_eq!(requests(&registry), 1);
    files.write(registry.addr(), &host(mirror.addr()));
    let begun = Instant::now();
    while requests(&mirror) == 0 {
        assert!(begun.elapsed() < NOTICED, "the new file is not noticed");
        read(&place, &image, 1).await;
    }
    // Torn, as an editor leaves it for a moment: an error that passes.
    files.write(registry.addr(), "[host.\"http://");
    let error = loop {
        assert!(
            begun.elapsed() < 2 * NOTICED,
            "the torn file is not noticed"
        );
        if let Err(error) = place.read_range(&layer(&image), 0..5).await {
            break error;
        }
    };
    assert!(error.is_unavailable(), "{error}");
    assert!(chain(&error).contains("hosts.toml"), "{}", chain(&error));
    files.write(registry.addr(), "");
    while place.read_range(&layer(&image), 0..5).await.is_err() {
        assert!(begun.elapsed() < 3 * NOTICED, "the repair is not noticed");
    }
}

#[tokio::test]
async fn a_file_that_is_wrong_is_named_and_harms_nobody_else() {
    let (registry, image) = with_image(1).await;
    let (other, _) = with_image(1).await;
    let files = Files::new();
    files.write(registry.addr(), "[host.\"https://m.example\"]\nca = 5");
    let client = files.client();
    let place = repository(&client, registry.addr(), "a/b").await;
    let error = place.manifest(&tag()).await.unwrap_err();
    let text = chain(&error);
    for part in ["hosts.toml", "ca", "line 2", &registry.addr().to_string()] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(requests(&registry), 0);
    let place = repository(&client, other.addr(), "a/b").await;
    read(&place, &image, 1).await;
}

#[tokio::test]
async fn credentials_and_headers_go_to_the_host_that_they_are_for() {
    let (registry, image) = with_image(1).await;
    registry
        .proxy()
        .require_tokens(Some(draught_testkit::fault_proxy::Auth {
            user: Some(("me".to_owned(), "secret".to_owned())),
            lifetime: Duration::from_secs(300),
        }));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (noted, other) = (Arc::clone(&seen), Arc::clone(&seen));
    let storage = Script::start(move |request| {
        other.lock().push(("storage", request.clone()));
        answer("404 Not Found", &[], b"")
    });
    let target = format!("http://{}/signed", storage.addr());
    let mirror = Script::start(move |request| {
        noted.lock().push(("mirror", request.clone()));
        if request.target.contains("/manifests/") {
            let challenge = [("www-authenticate", "Basic realm=\"mirror\"")];
            return answer("401 Unauthorized", &challenge, b"");
        }
        answer("307 Temporary Redirect", &[("location", &target)], b"")
    });
    let files = Files::new();
    let text = format!(
        "{}header = {{x-token = \"for-mirror\"}}\n",
        host(mirror.addr())
    );
    files.write(registry.addr(), &text);
    let keychain = Arc::new(Keychain::new());
    let reference = format!("{}/a/b:x", registry.addr()).parse().unwrap();
    let credential = Credential::Password {
        username: "me".to_owned(),
        password: Secret::new("secret"),
    };
    keychain.hand_over(&reference, None, credential, None);
    let client = files.client_with(Credentials::none().then_keychain(keychain));
    let place = repository(&client, registry.addr(), "a/b").await;
    read(&place, &image, 1).await;
    place.manifest(&tag()).await.unwrap();
    let seen = seen.lock().clone();
    let headers: Vec<_> = seen
        .iter()
        .map(|(who, request)| {
            (
                *who,
                request.header("x-token"),
                request.header("authorization"),
            )
        })
        .collect();
    let expect = [
        ("mirror", Some("for-mirror"), None),
        ("storage", None, None),
        ("mirror", Some("for-mirror"), None),
    ];
    assert_eq!(headers, expect);
    // Not for another repository of the same registry either.
    let other = repository(&client, registry.addr(), "a/c").await;
    let error = other.manifest(&tag()).await.unwrap_err();
    assert_eq!(error.class(), Class::Denied, "{error}");
}
