//! Being let in, and keeping what lets us in to ourselves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{
    Script, Seen, answer, chain, noise, payload, push, push_image, repository, settings,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use draught_oci::{Selector, media_type};
use draught_source::{
    Class, Client, CredentialFiles, Pushed, Repository, Settings, Source as _, SourceError,
};
use draught_testkit::fault_proxy::{Auth, Fault, Rule};
use draught_testkit::{Scratch, TestRegistry};
use parking_lot::Mutex;

const PASSWORD: &str = "hunter2:with:colons";

/// A file with one entry.
fn auths(dir: &Path, host: &str, entry: &str) -> CredentialFiles {
    let file = dir.join("config.json");
    fs_err::write(&file, format!("{{\"auths\":{{\"{host}\":{entry}}}}}")).unwrap();
    CredentialFiles::of(vec![file])
}

fn password_entry(user: &str) -> String {
    let auth = BASE64.encode(format!("{user}:{PASSWORD}"));
    format!("{{\"auth\":\"{auth}\"}}")
}

fn client(credentials: CredentialFiles) -> Client {
    Client::new(Settings {
        credentials: credentials.into(),
        ..settings()
    })
}

/// A registry that wants tokens, and somebody who may have them.
async fn scene(lifetime: Duration) -> (TestRegistry, Scratch, Repository) {
    let registry = draught_testkit::registry();
    registry.proxy().require_tokens(Some(Auth {
        user: Some(("user".to_owned(), PASSWORD.to_owned())),
        lifetime,
    }));
    let scratch = Scratch::new();
    let host = registry.addr().to_string();
    let client = client(auths(scratch.path(), &host, &password_entry("user")));
    let place = repository(&client, registry.addr(), "a/b").await;
    (registry, scratch, place)
}

const LONG: Duration = Duration::from_secs(300);

#[tokio::test]
async fn tokens_are_fetched_once_per_scope() {
    let (registry, _scratch, place) = scene(LONG).await;
    push_image(&place, "x", noise(1, 1000)).await;
    let issued = registry.proxy().tokens_issued();
    // One to write, one to ask whether blobs are there.
    assert!(issued <= 2, "{issued}");
    for _ in 0..5 {
        place
            .manifest(&Selector::Tag("x".to_owned()))
            .await
            .unwrap();
    }
    assert_eq!(registry.proxy().tokens_issued(), issued);
}

#[tokio::test]
async fn mounts_ask_for_both_repositories_and_deletes_to_delete() {
    let (registry, scratch, place) = scene(LONG).await;
    let host = registry.addr().to_string();
    let client = client(auths(scratch.path(), &host, &password_entry("user")));
    let other = repository(&client, registry.addr(), "other").await;
    let content = noise(2, 1000);
    let descriptor = push(&place, media_type::LAYER_TAR, content.clone()).await;
    let from = "a/b".to_owned();
    let pushed = other
        .push_blob(&descriptor, &payload(&content), std::slice::from_ref(&from))
        .await
        .unwrap();
    assert_eq!(pushed, Pushed::Mounted { from });
    let image = push_image(&other, "x", content).await;
    other
        .delete_manifest(&Selector::Digest(image.digest()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_is_replaced_unseen() {
    let (registry, _scratch, place) = scene(LONG).await;
    let content = noise(3, 1 << 20);
    let descriptor = push(&place, media_type::LAYER_TAR, content.clone()).await;
    for round in 0..3 {
        registry.proxy().expire_tokens();
        let read = place.read_range(&descriptor.digest, 10..20).await.unwrap();
        assert_eq!(read, content[10..20], "{round}");
    }
    registry.proxy().expire_tokens();
    push_image(&place, "x", noise(4, 100_000)).await;
}

#[tokio::test]
async fn many_readers_with_an_ended_token_fetch_one_new_one() {
    let (registry, _scratch, place) = scene(LONG).await;
    let content = noise(5, 100_000);
    let descriptor = push(&place, media_type::LAYER_TAR, content.clone()).await;
    place.read_range(&descriptor.digest, 0..10).await.unwrap();
    let before = registry.proxy().tokens_issued();
    registry.proxy().expire_tokens();
    let reads = (0..50).map(|_| place.read_range(&descriptor.digest, 0..10));
    for read in futures_util::future::join_all(reads).await {
        assert_eq!(read.unwrap(), content[..10]);
    }
    assert_eq!(registry.proxy().tokens_issued() - before, 1);
}

#[tokio::test]
async fn without_credentials_or_with_wrong_ones_the_error_says_so() {
    let (registry, scratch, _place) = scene(LONG).await;
    let host = registry.addr().to_string();
    let tag = Selector::Tag("x".to_owned());

    let nobody = repository(&client(CredentialFiles::none()), registry.addr(), "a/b").await;
    let error = nobody.manifest(&tag).await.unwrap_err();
    assert!(
        matches!(error, SourceError::NoCredentials { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("docker login"), "{error}");

    let files = auths(scratch.path(), &host, &password_entry("stranger"));
    let stranger = repository(&client(files), registry.addr(), "a/b").await;
    let error = stranger.manifest(&tag).await.unwrap_err();
    assert!(
        matches!(error, SourceError::CredentialsRejected { .. }),
        "{error}"
    );
    assert_eq!(error.class(), Class::Denied);
    let shown = chain(&error);
    assert!(!shown.contains(PASSWORD), "{shown}");
    assert!(
        !shown.contains(&BASE64.encode(format!("stranger:{PASSWORD}"))),
        "{shown}"
    );
}

#[tokio::test]
async fn a_redirect_to_another_host_takes_no_credentials_along() {
    let (registry, _scratch, place) = scene(LONG).await;
    let content = noise(6, 100_000);
    let descriptor = push(&place, media_type::LAYER_TAR, content.clone()).await;
    // The proxy's second address refuses whoever brings credentials.
    registry
        .proxy()
        .inject(Rule::new(Fault::Redirect).on_blobs());
    for _ in 0..2 {
        let read = place.read_range(&descriptor.digest, 5..10).await.unwrap();
        assert_eq!(read, content[5..10]);
        let stream = place.blob(&descriptor).await.unwrap();
        assert_eq!(stream.into_bytes(content.len()).await.unwrap(), content);
    }
}

/// What scripted servers saw of `Authorization`.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Option<String>>>>);

impl Log {
    fn note(&self, seen: &Seen) -> Option<String> {
        let authorization = seen.header("authorization").map(str::to_owned);
        self.0.lock().push(authorization.clone());
        authorization
    }

    fn all(&self) -> Vec<Option<String>> {
        self.0.lock().clone()
    }
}

/// A manifest that everything here serves.
fn manifest() -> Vec<u8> {
    let config = draught_oci::Descriptor::of(media_type::CONFIG, b"{}");
    draught_oci::Document::write(draught_oci::Manifest::new(config, vec![])).into_bytes()
}

fn ok() -> Vec<u8> {
    answer(
        "200 OK",
        &[("content-type", media_type::MANIFEST)],
        &manifest(),
    )
}

fn unauthorized(challenge: &str) -> Vec<u8> {
    answer("401 Unauthorized", &[("www-authenticate", challenge)], b"")
}

#[tokio::test]
async fn a_registry_that_wants_passwords_gets_them_after_it_asked() {
    let log = Log::default();
    let noted = log.clone();
    let basic = format!("Basic {}", BASE64.encode(format!("user:{PASSWORD}")));
    let expect = basic.clone();
    let registry = Script::start(move |seen| match noted.note(seen) {
        Some(given) if given == expect => ok(),
        _ => unauthorized("Basic realm=\"here\""),
    });
    let scratch = Scratch::new();
    let files = auths(
        scratch.path(),
        &registry.addr().to_string(),
        &password_entry("user"),
    );
    let place = repository(&client(files), registry.addr(), "a").await;
    for _ in 0..2 {
        place
            .manifest(&Selector::Tag("x".to_owned()))
            .await
            .unwrap();
    }
    assert_eq!(log.all(), [None, Some(basic.clone()), Some(basic)]);
}

#[tokio::test]
async fn a_wrong_password_is_not_tried_for_ever() {
    let log = Log::default();
    let noted = log.clone();
    let registry = Script::start(move |seen| {
        noted.note(seen);
        unauthorized("Basic realm=\"here\"")
    });
    let scratch = Scratch::new();
    let files = auths(
        scratch.path(),
        &registry.addr().to_string(),
        &password_entry("user"),
    );
    let place = repository(&client(files), registry.addr(), "a").await;
    let error = place
        .manifest(&Selector::Tag("x".to_owned()))
        .await
        .unwrap_err();
    assert!(
        matches!(error, SourceError::CredentialsRejected { .. }),
        "{error}"
    );
    assert_eq!(log.all().len(), 2);
    // And not at all for what has another registry's credential.
    let files = auths(scratch.path(), "other.example", &password_entry("user"));
    let place = repository(&client(files), registry.addr(), "a").await;
    let error = place
        .manifest(&Selector::Tag("x".to_owned()))
        .await
        .unwrap_err();
    assert!(
        matches!(error, SourceError::NoCredentials { .. }),
        "{error}"
    );
    assert_eq!(log.all()[2..], [None]);
}

#[tokio::test]
async fn identity_tokens_are_changed_for_short_ones_in_a_form() {
    let forms: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let noted = forms.clone();
    let tokens = Script::start(move |seen| {
        noted.lock().push(seen.clone());
        answer(
            "200 OK",
            &[],
            b"{\"access_token\":\"short\",\"expires_in\":300}",
        )
    });
    let challenge = format!(
        "Bearer realm=\"http://{}/oauth?keep=1\",service=\"a & b\"",
        tokens.addr()
    );
    let registry = Script::start(move |seen| match seen.header("authorization") {
        Some("Bearer short") => ok(),
        _ => unauthorized(&challenge),
    });
    let scratch = Scratch::new();
    let host = registry.addr().to_string();
    let files = auths(scratch.path(), &host, "{\"identitytoken\":\"long+lived\"}");
    let place = repository(&client(files), registry.addr(), "a").await;
    place
        .manifest(&Selector::Tag("x".to_owned()))
        .await
        .unwrap();
    let forms = forms.lock();
    assert_eq!(forms.len(), 1);
    assert_eq!(
        (forms[0].method.as_str(), forms[0].target.as_str()),
        ("POST", "/oauth?keep=1")
    );
    assert_eq!(
        String::from_utf8_lossy(&forms[0].body),
        "grant_type=refresh_token&service=a+%26+b&client_id=draught\
         &scope=repository%3Aa%3Apull&refresh_token=long%2Blived"
    );
}

#[tokio::test]
async fn registry_tokens_are_sent_as_they_are() {
    let registry = Script::start(|seen| match seen.header("authorization") {
        Some("Bearer ready") => ok(),
        _ => unauthorized("Bearer realm=\"https://127.0.0.1:1/\""),
    });
    let scratch = Scratch::new();
    let host = registry.addr().to_string();
    let files = auths(scratch.path(), &host, "{\"registrytoken\":\"ready\"}");
    let place = repository(&client(files), registry.addr(), "a").await;
    place
        .manifest(&Selector::Tag("x".to_owned()))
        .await
        .unwrap();
}

#[tokio::test]
async fn short_tokens_are_renewed_before_they_end() {
    let issued = Arc::new(AtomicU64::new(0));
    let counted = issued.clone();
    let tokens = Script::start(move |_| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        let body = format!("{{\"token\":\"t{number}\",\"expires_in\":0}}");
        answer("200 OK", &[], body.as_bytes())
    });
    let challenge = format!("Bearer realm=\"http://{}/\"", tokens.addr());
    let refusals = Arc::new(AtomicU64::new(0));
    let refused = refusals.clone();
    let registry = Script::start(move |seen| match seen.header("authorization") {
        Some(_) => ok(),
        None => {
            refused.fetch_add(1, Ordering::SeqCst);
            unauthorized(&challenge)
        }
    });
    let place = repository(&client(CredentialFiles::none()), registry.addr(), "a").await;
    for _ in 0..3 {
        place
            .manifest(&Selector::Tag("x".to_owned()))
            .await
            .unwrap();
    }
    assert_eq!(issued.load(Ordering::SeqCst), 3);
    assert_eq!(refusals.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn token_servers_beyond_tls_get_nothing() {
    let registry = Script::start(|_| unauthorized("Bearer realm=\"http://tokens.example/\""));
    let scratch = Scratch::new();
    let files = auths(
        scratch.path(),
        &registry.addr().to_string(),
        &password_entry("user"),
    );
    let place = repository(&client(files), registry.addr(), "a").await;
    let error = place
        .manifest(&Selector::Tag("x".to_owned()))
        .await
        .unwrap_err();
    assert!(matches!(error, SourceError::Redirect { .. }), "{error}");
    assert_eq!(error.class(), Class::Refused);
}

#[tokio::test]
async fn senseless_token_servers_end_in_an_error() {
    for (status, body, class) in [
        ("200 OK", "{}", Class::Refused),
        ("200 OK", "{\"token\":\"\"}", Class::Refused),
        ("200 OK", "hunter2", Class::Refused),
        ("200 OK", "{\"token\":\"a\\nb\"}", Class::Refused),
        ("404 Not Found", "", Class::NotFound),
        ("403 Forbidden", "", Class::Denied),
        ("400 Bad Request", "", Class::Refused),
    ] {
        let tokens = Script::start(move |_| answer(status, &[], body.as_bytes()));
        let challenge = format!("Bearer realm=\"http://{}/\"", tokens.addr());
        let registry = Script::start(move |_| unauthorized(&challenge));
        let place = repository(&client(CredentialFiles::none()), registry.addr(), "a").await;
        let error = place
            .manifest(&Selector::Tag("x".to_owned()))
            .await
            .unwrap_err();
        assert_eq!(error.class(), class, "{status} {body}: {error}");
        assert!(!chain(&error).contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn an_upload_elsewhere_takes_no_credentials_along() {
    let log = Log::default();
    let noted = log.clone();
    let elsewhere = Script::start(move |seen| {
        noted.note(seen);
        answer("201 Created", &[], b"")
    });
    let target = format!(
        "http://evil:credentials@{}/put?signature=x",
        elsewhere.addr()
    );
    let registry = Script::start(move |seen| {
        if seen.header("authorization").is_none() {
            return unauthorized("Basic realm=\"here\"");
        }
        match seen.method.as_str() {
            "HEAD" => answer("404 Not Found", &[], b""),
            _ => answer("202 Accepted", &[("location", &target)], b""),
        }
    });
    let scratch = Scratch::new();
    let files = auths(
        scratch.path(),
        &registry.addr().to_string(),
        &password_entry("user"),
    );
    let place = repository(&client(files), registry.addr(), "a").await;
    push(&place, media_type::LAYER_TAR, noise(7, 1000)).await;
    assert_eq!(log.all(), [None]);
}

#[tokio::test]
async fn helpers_that_fail_are_an_error_only_when_they_are_needed() {
    let registry = draught_testkit::registry();
    let scratch = Scratch::new();
    let file = scratch.join("config.json");
    fs_err::write(&file, "{\"credsStore\":\"is-not-there\"}").unwrap();
    let files = CredentialFiles::of(vec![file]).with_helper_dir(scratch.path().to_owned());
    let place = repository(&client(files), registry.addr(), "a").await;
    push_image(&place, "x", noise(8, 100)).await;
    registry.proxy().require_tokens(Some(Auth::default()));
    let error = place
        .manifest(&Selector::Tag("x".to_owned()))
        .await
        .unwrap_err();
    assert!(matches!(error, SourceError::Credentials { .. }), "{error}");
    assert!(
        chain(&error).contains("docker-credential-is-not-there"),
        "{error:?}"
    );
}
