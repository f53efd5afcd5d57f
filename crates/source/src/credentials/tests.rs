use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::secret::Secret;

fn password(username: &str, password: &str) -> Option<Credential> {
    Some(Credential::Password {
        username: username.to_owned(),
        password: Secret::new(password),
    })
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs_err::write(&path, text).unwrap();
    path
}

/// `me:p:w` in base64: a password with a colon.
const ME: &str = "bWU6cDp3";
/// `you:x`.
const YOU: &str = "eW91Ong=";

#[tokio::test]
async fn entries_are_found_under_all_their_keys() {
    let dir = tempfile::tempdir().unwrap();
    for (key, host, found) in [
        ("https://index.docker.io/v1/", "docker.io", true),
        ("index.docker.io/v1/", "docker.io", true),
        ("docker.io", "docker.io", true),
        ("reg.example", "reg.example", true),
        ("https://reg.example", "reg.example", true),
        ("https://reg.example/v2/", "reg.example", true),
        ("reg.example:5000", "reg.example:5000", true),
        ("reg.example:5000", "reg.example", false),
        ("reg.example", "reg.example:5000", false),
        ("other.example", "reg.example", false),
        ("reg.example.evil", "reg.example", false),
    ] {
        let text = format!("{{\"auths\":{{\"{key}\":{{\"auth\":\"{ME}\"}}}}}}");
        let files = CredentialFiles::of(vec![write(dir.path(), "c.json", &text)]);
        let expect = if found { password("me", "p:w") } else { None };
        assert_eq!(
            files.lookup(host, "a/b").await.unwrap(),
            expect,
            "{key} {host}"
        );
    }
}

#[tokio::test]
async fn the_longest_prefix_of_the_repository_wins() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "{{\"auths\":{{\"r.example/team\":{{\"auth\":\"{ME}\"}},\"r.example\":{{\"auth\":\"{YOU}\"}}}}}}"
    );
    let files = CredentialFiles::of(vec![write(dir.path(), "auth.json", &text)]);
    for (repository, user) in [
        ("team", "me"),
        ("team/app", "me"),
        ("teamwork/app", "you"),
        ("app", "you"),
    ] {
        let found = files.lookup("r.example", repository).await.unwrap();
        let Some(Credential::Password { username, .. }) = found else {
            panic!("nothing for {repository}");
        };
        assert_eq!(username, user, "{repository}");
    }
}

#[tokio::test]
async fn the_first_file_that_knows_wins() {
    let dir = tempfile::tempdir().unwrap();
    let entry = |auth| format!("{{\"auths\":{{\"r.example\":{{\"auth\":\"{auth}\"}}}}}}");
    let files = CredentialFiles::of(vec![
        dir.path().join("is-not-there.json"),
        write(dir.path(), "empty.json", ""),
        write(dir.path(), "hollow.json", "{\"auths\":{\"r.example\":{}}}"),
        write(dir.path(), "null.json", "{\"auths\":{\"r.example\":null}}"),
        write(dir.path(), "first.json", &entry(ME)),
        write(dir.path(), "second.json", &entry(YOU)),
    ]);
    assert_eq!(
        files.lookup("r.example", "a").await.unwrap(),
        password("me", "p:w")
    );
}

#[test]
fn files_are_those_of_podman_and_docker() {
    let paths = |variables: &[(&str, &str)]| {
        let variables: BTreeMap<String, OsString> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
            .collect();
        CredentialFiles::paths(|name| variables.get(name).cloned(), 7)
            .into_iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        paths(&[
            ("HOME", "/h"),
            ("REGISTRY_AUTH_FILE", "/r.json"),
            ("DOCKER_CONFIG", "/d"),
            ("XDG_RUNTIME_DIR", "/run/user/7"),
        ]),
        [
            "/r.json",
            "/d/config.json",
            "/run/user/7/containers/auth.json",
            "/h/.config/containers/auth.json",
            "/h/.docker/config.json",
        ]
    );
    assert_eq!(
        paths(&[("DOCKER_CONFIG", "")]),
        ["/run/containers/7/auth.json"]
    );
}

#[tokio::test]
async fn tokens_and_plain_fields_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let secret = Secret::new("t");
    for (entry, expect) in [
        (
            "{\"identitytoken\":\"t\",\"auth\":\"eDp5\"}",
            Credential::IdentityToken(secret.clone()),
        ),
        (
            "{\"registrytoken\":\"t\"}",
            Credential::RegistryToken(secret.clone()),
        ),
        (
            "{\"username\":\"u\",\"password\":\"t\"}",
            Credential::Password {
                username: "u".to_owned(),
                password: secret.clone(),
            },
        ),
    ] {
        let text = format!("{{\"auths\":{{\"r.example\":{entry}}},\"x-unknown\":1}}");
        let files = CredentialFiles::of(vec![write(dir.path(), "c.json", &text)]);
        assert_eq!(files.lookup("r.example", "a").await.unwrap(), Some(expect));
    }
}

#[tokio::test]
async fn malformed_files_are_named_and_not_quoted() {
    let dir = tempfile::tempdir().unwrap();
    for text in [
        "{\"auths\":{\"r.example\":{\"auth\":\"hunter2 is no base64\"}}}",
        "{\"auths\":{\"r.example\":{\"auth\":\"aHVudGVyMg==\"}}}",
        "{\"auths\":{\"r.example\":{\"auth\":[\"hunter2\"]}}}",
        "hunter2",
    ] {
        let files = CredentialFiles::of(vec![write(dir.path(), "c.json", text)]);
        let error = files.lookup("r.example", "a").await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("c.json"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

fn helper(dir: &Path, name: &str, script: &str) {
    let path = write(dir, &format!("docker-credential-{name}"), script);
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn helpers_are_asked_with_the_host_on_their_input() {
    let dir = tempfile::tempdir().unwrap();
    helper(
        dir.path(),
        "echo",
        "#!/bin/sh\n[ \"$1\" = get ] || exit 1\nread server\nprintf '{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":\"for %s\"}' \"$server\"\n",
    );
    helper(
        dir.path(),
        "token",
        "#!/bin/sh\necho '{\"Username\":\"<token>\",\"Secret\":\"t\"}'\n",
    );
    helper(
        dir.path(),
        "nothing",
        "#!/bin/sh\necho credentials not found in native keychain\nexit 1\n",
    );
    let text = format!(
        "{{\"credsStore\":\"echo\",\"credHelpers\":{{\"t.example\":\"token\",\"n.example\":\"nothing\"}},\
         \"auths\":{{\"n.example\":{{\"auth\":\"{ME}\"}}}}}}"
    );
    let files = CredentialFiles::of(vec![write(dir.path(), "config.json", &text)])
        .with_helper_dir(dir.path().to_owned());
    let lookup = async |host| files.lookup(host, "a").await.unwrap();
    assert_eq!(lookup("r.example").await, password("u", "for r.example"));
    assert_eq!(
        lookup("docker.io").await,
        password("u", "for https://index.docker.io/v1/")
    );
    assert_eq!(
        lookup("t.example").await,
        Some(Credential::IdentityToken(Secret::new("t")))
    );
    assert_eq!(lookup("n.example").await, password("me", "p:w"));
}

#[tokio::test]
async fn helpers_that_fail_are_named_and_their_secrets_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    helper(
        dir.path(),
        "broken",
        "#!/bin/sh\necho the keychain is locked\nexit 1\n",
    );
    helper(
        dir.path(),
        "leaky",
        "#!/bin/sh\necho '{\"Secret\":\"hunter2\"}'\nexit 1\n",
    );
    helper(dir.path(), "garbage", "#!/bin/sh\necho hunter2\n");
    for (name, expect) in [
        ("broken", "the keychain is locked"),
        ("leaky", "docker-credential-leaky failed"),
        ("garbage", "docker-credential-garbage gave no answer"),
        ("missing", "docker-credential-missing could not be run"),
        ("../evil", "is not a name"),
    ] {
        let text = format!("{{\"credsStore\":\"{name}\"}}");
        let files = CredentialFiles::of(vec![write(dir.path(), "config.json", &text)])
            .with_helper_dir(dir.path().to_owned());
        let error = files.lookup("r.example", "a").await.unwrap_err();
        assert!(error.to_string().contains(expect), "{error}");
        assert!(
            !format!("{error} {error:?}").contains("hunter2"),
            "{error:?}"
        );
    }
}

#[test]
fn secrets_are_not_shown() {
    let credential = Credential::Password {
        username: "u".to_owned(),
        password: Secret::new("hunter2"),
    };
    assert!(!format!("{credential:?}").contains("hunter2"));
}
