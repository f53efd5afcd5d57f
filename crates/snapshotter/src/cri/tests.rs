use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use draught_containerd::cri::{AuthConfig, ImageSpec, PullImageRequest};
use draught_containerd::prost::Message as _;
use draught_source::Keychain;

use super::pull;

fn frame(image: &str, auth: AuthConfig) -> Vec<u8> {
    let image = ImageSpec {
        image: image.to_owned(),
    };
    let request = PullImageRequest {
        image: Some(image),
        auth: Some(auth),
    };
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    [&[0], length.to_be_bytes().as_slice(), &message].concat()
}

/// What is in a keychain, as it is written down.
fn entries(keychain: &Keychain) -> Vec<serde_json::Value> {
    let bytes = keychain.to_bytes().unwrap();
    let all: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    all["entries"].as_array().unwrap().clone()
}

fn auth(set: impl FnOnce(&mut AuthConfig)) -> AuthConfig {
    let mut auth = AuthConfig::default();
    set(&mut auth);
    auth
}

#[test]
fn every_kind_of_credential_is_taken_as_containerd_takes_it() {
    let named = auth(|auth| {
        auth.username = "me".to_owned();
        auth.password = "p:w".to_owned();
        auth.identity_token = "not this".to_owned();
    });
    let encoded = auth(|auth| auth.auth = "bWU6cDp3".to_owned());
    let identity = auth(|auth| auth.identity_token = "i".to_owned());
    let registry = auth(|auth| auth.registry_token = "r".to_owned());
    for (auth, kind, user, secret) in [
        (named, "password", Some("me"), "p:w"),
        (encoded, "password", Some("me"), "p:w"),
        (identity, "identity-token", None, "i"),
        (registry, "registry-token", None, "r"),
    ] {
        let keychain = Keychain::new();
        assert!(pull::take(&frame("r.example/team/app:1", auth), &keychain).is_some());
        let all = entries(&keychain);
        let [entry] = all.as_slice() else {
            panic!("{all:?}");
        };
        assert_eq!(entry["kind"], kind);
        assert_eq!(entry["username"].as_str(), user);
        assert_eq!(entry["secret"], secret);
        let purpose = serde_json::json!({
            "registry": "r.example", "repository": "team/app", "host": "r.example",
        });
        assert_eq!(entry["purpose"], purpose);
    }
}

#[test]
fn short_names_and_named_servers_are_understood() {
    for (image, server, host, registry, repository) in [
        ("busybox", "", "docker.io", "docker.io", "library/busybox"),
        (
            "busybox",
            "https://index.docker.io/v1/",
            "docker.io",
            "docker.io",
            "library/busybox",
        ),
        (
            "r.example:5000/a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "",
            "r.example:5000",
            "r.example:5000",
            "a",
        ),
        (
            "r.example/a",
            "https://m.example:80/v2",
            "m.example:80",
            "r.example",
            "a",
        ),
    ] {
        let keychain = Keychain::new();
        let auth = auth(|auth| {
            auth.username = "me".to_owned();
            auth.server_address = server.to_owned();
        });
        pull::take(&frame(image, auth), &keychain);
        let expect = serde_json::json!({
            "registry": registry, "repository": repository, "host": host,
        });
        assert_eq!(entries(&keychain)[0]["purpose"], expect, "{image} {server}");
    }
}

#[test]
fn what_says_nothing_or_nonsense_is_left_alone() {
    let me = auth(|auth| auth.username = "me".to_owned());
    let whole = frame("r.example/a", me.clone());
    let mut compressed = whole.clone();
    compressed[0] = 1;
    for body in [
        &[][..],
        &[0, 0, 0],
        &compressed,
        &whole[..whole.len() - 1],
        &frame("r.example/a", AuthConfig::default()),
        &frame("UPPER CASE", me),
        &frame(
            "r.example/a",
            auth(|auth| auth.auth = "not base64".to_owned()),
        ),
        &[0, 0, 0, 0, 2, 0xff, 0xff],
    ] {
        let keychain = Keychain::new();
        assert!(pull::take(body, &keychain).is_none(), "{body:?}");
        assert!(keychain.is_empty());
    }
}

#[test]
fn a_token_that_says_when_it_ends_ends_then() {
    let token = |exp: u64| {
        let claims = URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{exp}}}"));
        auth(|auth| auth.registry_token = format!("h.{claims}.s"))
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let soon = (now.unwrap() + Duration::from_secs(600)).as_secs();
    let keychain = Keychain::new();
    pull::take(&frame("r.example/a", token(soon)), &keychain);
    assert_eq!(entries(&keychain)[0]["expires_s"], soon);
}

#[test]
fn what_was_known_before_is_not_taken_back() {
    let keychain = Keychain::new();
    let body = |secret: &str| {
        let auth = auth(|auth| auth.registry_token = secret.to_owned());
        frame("r.example/a", auth)
    };
    drop(pull::take(&body("old"), &keychain));
    let again = pull::take(&body("old"), &keychain).unwrap();
    let new = pull::take(&body("new"), &keychain).unwrap();
    assert_eq!(keychain.len(), 2);
    again.take_back(&keychain);
    assert_eq!(keychain.len(), 2);
    new.take_back(&keychain);
    let left = entries(&keychain);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["secret"], "old");
}
