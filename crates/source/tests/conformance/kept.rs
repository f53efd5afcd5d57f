//! Several credentials for one repository, tokens that end, and nothing of it in the logs.

use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::support::{Script, answer, noise, push_image, repository, settings};
use draught_oci::{Document, Manifest, Reference, Selector};
use draught_source::{
    Client, Credential, CredentialFiles, Credentials, Keychain, Plugins, PullSecrets, Secret,
    Settings, Source as _, SourceError,
};
use draught_testkit::fault_proxy::Auth;
use draught_testkit::{Scratch, TestRegistry};
use parking_lot::Mutex;

const PASSWORD: &str = "hunter2:with:colons";

fn password(password: &str) -> Credential {
    Credential::Password {
        username: "me".to_owned(),
        password: Secret::new(password),
    }
}

fn tag() -> Selector {
    Selector::Tag("x".to_owned())
}

fn client(credentials: Credentials) -> Client {
    Client::new(Settings {
        credentials,
        ..settings()
    })
}

/// A registry that gives tokens to `me` only, with an image.
async fn scene() -> (TestRegistry, Document<Manifest>) {
    let registry = draught_testkit::registry();
    let place = repository(&crate::support::client(), registry.addr(), "a/b").await;
    let image = push_image(&place, "x", noise(1, 10_000)).await;
    registry.proxy().require_tokens(Some(Auth {
        user: Some(("me".to_owned(), PASSWORD.to_owned())),
        lifetime: Duration::from_secs(300),
    }));
    (registry, image)
}

fn reference(registry: &TestRegistry) -> Reference {
    registry.reference("a/b:x").parse().unwrap()
}

#[tokio::test]
async fn what_was_handed_over_lets_in_and_a_wrong_one_makes_the_next_be_tried() {
    let (registry, _) = scene().await;
    let keychain = Arc::new(Keychain::new());
    let image = reference(&registry);
    let client = client(Credentials::none().then_keychain(Arc::clone(&keychain)));
    let place = repository(&client, registry.addr(), "a/b").await;
    let error = place.manifest(&tag()).await.unwrap_err();
    assert!(
        matches!(error, SourceError::NoCredentials { .. }),
        "{error}"
    );
    keychain.hand_over(&image, None, password("wrong"), None);
    let error = place.manifest(&tag()).await.unwrap_err();
    assert!(
        matches!(error, SourceError::CredentialsRejected { .. }),
        "{error}"
    );
    keychain.hand_over(&image, None, password(PASSWORD), None);
    // The newest is tried first; a wrong one on top of it does no harm.
    keychain.hand_over(&image, None, password("wrong again"), None);
    place.manifest(&tag()).await.unwrap();
    registry.proxy().expire_tokens();
    place.manifest(&tag()).await.unwrap();
}

#[tokio::test]
async fn names_and_passwords_are_tried_one_after_the_other_where_there_are_no_tokens() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let server = Script::start(move |seen| {
        let given = seen.header("authorization").unwrap_or("none").to_owned();
        noted.lock().push(given.clone());
        // me:good
        if given == "Basic bWU6Z29vZA==" {
            let config = draught_oci::Descriptor::of("application/json", b"{}");
            let manifest = Document::write(Manifest::new(config, vec![])).into_bytes();
            let kind = "application/vnd.oci.image.manifest.v1+json";
            return answer("200 OK", &[("content-type", kind)], &manifest);
        }
        let challenge = [("www-authenticate", "Basic realm=\"r\"")];
        answer("401 Unauthorized", &challenge, b"")
    });
    let keychain = Arc::new(Keychain::new());
    let image = format!("{}/a:x", server.addr()).parse().unwrap();
    for secret in ["good", "bad", "worse"] {
        keychain.hand_over(&image, None, password(secret), None);
    }
    let client = client(Credentials::none().then_keychain(Arc::clone(&keychain)));
    let place = repository(&client, server.addr(), "a").await;
    place.manifest(&tag()).await.unwrap();
    assert_eq!(asked.lock().len(), 4);
    // The good one is known now.
    place.manifest(&tag()).await.unwrap();
    assert_eq!(asked.lock().len(), 5);
    keychain.take_back(&image, None, &password("good"));
    let other = repository(
        &self::client(Credentials::none().then_keychain(keychain)),
        server.addr(),
        "a",
    )
    .await;
    let error = other.manifest(&tag()).await.unwrap_err();
    assert!(
        matches!(error, SourceError::CredentialsRejected { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn what_has_ended_is_not_sent() {
    let (registry, _) = scene().await;
    let keychain = Arc::new(Keychain::new());
    let past = SystemTime::now() - Duration::from_secs(1);
    keychain.hand_over(&reference(&registry), None, password(PASSWORD), Some(past));
    let client = client(Credentials::none().then_keychain(keychain));
    let place = repository(&client, registry.addr(), "a/b").await;
    let error = place.manifest(&tag()).await.unwrap_err();
    assert!(
        matches!(error, SourceError::NoCredentials { .. }),
        "{error}"
    );
}

/// How long a test waits for what happens in the background.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_token_is_replaced_while_it_is_still_good_and_no_reader_waits_for_that() {
    let reads = Arc::new(AtomicU64::new(0));
    let (counted, seen) = (Arc::clone(&reads), Arc::clone(&reads));
    let issued = Arc::new(AtomicU64::new(0));
    let issuing = Arc::clone(&issued);
    let tokens = Script::start(move |_| {
        let number = issuing.fetch_add(1, Ordering::SeqCst);
        if number == 1 {
            // The second is given only when readers went on with the first.
            let (before, begun) = (seen.load(Ordering::SeqCst), Instant::now());
            while seen.load(Ordering::SeqCst) < before + 3 && begun.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
        }
        let body = format!("{{\"token\":\"t{number}\",\"expires_in\":8}}");
        answer("200 OK", &[], body.as_bytes())
    });
    let challenge = format!("Bearer realm=\"http://{}/\"", tokens.addr());
    let refused = Arc::new(AtomicU64::new(0));
    let refusing = Arc::clone(&refused);
    let used = Arc::new(Mutex::new(Vec::new()));
    let using = Arc::clone(&used);
    let server = Script::start(move |seen| {
        let Some(token) = seen.header("authorization") else {
            refusing.fetch_add(1, Ordering::SeqCst);
            return answer("401 Unauthorized", &[("www-authenticate", &challenge)], b"");
        };
        using.lock().push(token.to_owned());
        counted.fetch_add(1, Ordering::SeqCst);
        answer("200 OK", &[], b"0123456789")
    });
    let place = repository(&client(Credentials::none()), server.addr(), "a").await;
    let digest = draught_digest::Digest::sha256(b"0123456789");
    let begun = Instant::now();
    loop {
        place.read_range(&digest, 0..10).await.unwrap();
        if used.lock().last().is_some_and(|token| token == "Bearer t1") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the token is never replaced");
    }
    // It was never over: nobody was refused but the first, who had none.
    assert_eq!(refused.load(Ordering::SeqCst), 1);
    assert_eq!(issued.load(Ordering::SeqCst), 2);
}

/// What is logged, as text.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_of_it_is_logged_at_any_level() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (registry, image) = scene().await;
    let host = registry.addr().to_string();
    let scratch = Scratch::new();
    // Every kind: the right one comes last, so that all are used.
    let keychain = Arc::new(Keychain::new());
    let secrets = [
        "sesame-keychain",
        "sesame-plugin",
        "sesame-env",
        "sesame-stderr",
        "sesame-secret",
    ];
    keychain.hand_over(&reference(&registry), None, password(secrets[0]), None);
    let plugin = scratch.join("plugin");
    let script = format!(
        "#!/bin/sh\necho {} >&2\ncat <<END\n{{\"kind\":\"CredentialProviderResponse\",\
         \"apiVersion\":\"credentialprovider.kubelet.k8s.io/v1\",\"cacheKeyType\":\"Image\",\
         \"auth\":{{\"{host}\":{{\"username\":\"me\",\"password\":\"{}\"}}}}}}\nEND\n",
        secrets[3], secrets[1]
    );
    fs_err::write(&plugin, script).unwrap();
    fs_err::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = scratch.join("plugins.yaml");
    let text = format!(
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n\
         - name: plugin\n  matchImages: [\"{host}\"]\n  defaultCacheDuration: 1h\n\
         \x20 apiVersion: credentialprovider.kubelet.k8s.io/v1\n\
         \x20 env: [{{name: WHO, value: {}}}]\n",
        secrets[2]
    );
    fs_err::write(&config, text).unwrap();
    let entry = |secret: &str| {
        format!("{{\"auths\":{{\"{host}\":{{\"username\":\"me\",\"password\":\"{secret}\"}}}}}}")
    };
    let secret = scratch.dir("secret").join(".dockerconfigjson");
    fs_err::write(secret, entry(secrets[4])).unwrap();
    let file = scratch.join("config.json");
    fs_err::write(&file, entry(PASSWORD)).unwrap();
    let certs = scratch.dir("certs.d/_default").join("hosts.toml");
    fs_err::write(certs, "header = {x-token = \"sesame-header\"}").unwrap();
    let credentials = Credentials::none()
        .then_keychain(keychain)
        .then_plugins(Plugins::new(config, scratch.path().to_owned()))
        .then_secrets(PullSecrets::of(vec![scratch.join("secret")]))
        .then_files(CredentialFiles::of(vec![file]));
    let client = Client::new(Settings {
        credentials,
        hosts: draught_source::Hosts::of(vec![scratch.join("certs.d")]),
        ..settings()
    });
    let place = repository(&client, registry.addr(), "a/b").await;
    place.manifest(&tag()).await.unwrap();
    let layer = image.content().layers[0].digest;
    place.read_range(&layer, 0..10).await.unwrap();
    let shown = format!("{client:?} {place:?}");
    let logged = String::from_utf8_lossy(&captured.0.lock()).into_owned();
    assert!(
        logged.contains("answer"),
        "nothing was logged at all: {logged}"
    );
    let base64 = "bWU6aHVudGVyMjp3aXRoOmNvbG9ucw==";
    for secret in secrets
        .iter()
        .chain(&[PASSWORD, "sesame-header", base64, "token-1-"])
    {
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
        let line = logged.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is logged: {line:?}");
    }
}
