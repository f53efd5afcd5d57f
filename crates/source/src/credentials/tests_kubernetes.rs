use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::*;
use crate::secret::Secret;

fn credential(username: &str, password: &str) -> Credential {
    Credential::Password {
        username: username.to_owned(),
        password: Secret::new(password),
    }
}

fn users(found: &[Found]) -> Vec<&str> {
    found
        .iter()
        .map(|found| match &found.credential {
            Credential::Password { username, .. } => username.as_str(),
            _ => "",
        })
        .collect()
}

fn entry(user: &str) -> String {
    format!("{{\"username\":\"{user}\",\"password\":\"p\"}}")
}

#[tokio::test]
async fn pull_secrets_are_read_as_kubernetes_mounts_them() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |path: &str, text: String| {
        let path = scratch.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    };
    let auths = |key: &str, user: &str| format!("{{\"auths\":{{\"{key}\":{}}}}}", entry(user));
    // As the kubelet does it: a link to a link to a directory.
    write("one/..v1/.dockerconfigjson", auths("r.example", "one"));
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, scratch.path().join(name)).unwrap();
    };
    link("..v1", "one/..data");
    link("..data/.dockerconfigjson", "one/.dockerconfigjson");
    let old = format!("{{\"https://*.example/v1/\":{}}}", entry("old"));
    write("two/.dockercfg", old);
    write("file.json", auths("r.example/team", "file"));
    write(
        "three/.dockerconfigjson",
        "{\"credsStore\":\"evil\",\"auths\":{}}".to_owned(),
    );
    let secrets = PullSecrets::of(vec![
        scratch.path().join("file.json"),
        scratch.path().join("is-not-there"),
        scratch.path().to_owned(),
    ]);
    for (host, repository, expect) in [
        ("r.example", "team/app", &["file", "one", "old"][..]),
        ("r.example", "other/app", &["one", "old"]),
        ("s.example", "app", &["old"]),
        ("r.elsewhere", "app", &[]),
    ] {
        let found = secrets.lookup(host, repository).await.unwrap();
        assert_eq!(users(&found), expect, "{host}/{repository}");
    }
    // One that is torn hides none of the others, and is an error for those who find nothing.
    write("four/.dockerconfigjson", "{\"auths\":{\"hunter2".to_owned());
    let found = secrets.lookup("s.example", "app").await.unwrap();
    assert_eq!(users(&found), ["old"]);
    let error = secrets.lookup("r.elsewhere", "app").await.unwrap_err();
    assert!(
        !format!("{error} {error:?}").contains("hunter2"),
        "{error:?}"
    );
}

/// A plugin's configuration and its directory.
struct Scene {
    scratch: tempfile::TempDir,
    config: PathBuf,
}

/// A plugin that counts its runs in `runs` and answers what `answer` prints.
fn scene(answer: &str, config: &str) -> Scene {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("plugin");
    let runs = scratch.path().join("runs");
    let asked = scratch.path().join("asked");
    let text = format!(
        "#!/bin/sh\ncat > {}\necho run >> {}\necho hunter2 >&2\n{answer}\n",
        asked.display(),
        runs.display()
    );
    fs_err::write(&path, text).unwrap();
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = scratch.path().join("config.yaml");
    fs_err::write(&file, config).unwrap();
    Scene {
        scratch,
        config: file,
    }
}

impl Scene {
    fn plugins(&self) -> Plugins {
        let dir = self.scratch.path().to_owned();
        Plugins::with_timeout(self.config.clone(), dir, Duration::from_secs(20))
    }

    fn runs(&self) -> usize {
        let text = fs_err::read_to_string(self.scratch.path().join("runs"));
        text.map_or(0, |text| text.lines().count())
    }
}

const CONFIG: &str = r#"
# As a cloud's documentation has it.
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: plugin
    matchImages:
      - "*.dkr.example"
      - r.example:5000
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args: [get, --quiet]
    env:
      - name: WHO
        value: env-user
"#;

fn answer(kind: &str, duration: &str, auth: &str) -> String {
    format!(
        "cat <<END\n{{\"kind\":\"CredentialProviderResponse\",\
         \"apiVersion\":\"credentialprovider.kubelet.k8s.io/v1\",\"cacheKeyType\":\"{kind}\",\
         {duration}\"auth\":{auth}}}\nEND"
    )
}

#[tokio::test]
async fn a_plugin_is_asked_as_the_kubelet_asks_it() {
    let auth = r#"{"*.dkr.example":{"username":"$WHO","password":"$1"}}"#;
    let scene = scene(&answer("Registry", "", auth), CONFIG);
    let plugins = scene.plugins();
    let found = plugins.lookup("a.dkr.example", "team/app").await.unwrap();
    let credentials: Vec<_> = found.iter().map(|found| &found.credential).collect();
    assert_eq!(credentials, [&credential("env-user", "get")]);
    let hours = found[0].expires.unwrap().duration_since(SystemTime::now());
    assert_eq!(hours.unwrap().as_secs().div_ceil(3600), 12);
    let asked = fs_err::read_to_string(scene.scratch.path().join("asked")).unwrap();
    let asked: serde_json::Value = serde_json::from_str(&asked).unwrap();
    let expect = serde_json::json!({
        "kind": "CredentialProviderRequest",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "image": "a.dkr.example/team/app",
    });
    assert_eq!(asked, expect);
    // Not for it, so it is not even asked.
    assert!(plugins.lookup("b.example", "app").await.unwrap().is_empty());
    assert_eq!(scene.runs(), 1);
    // Asked, and it says nothing about this one.
    let found = plugins.lookup("r.example:5000", "app").await.unwrap();
    assert!(found.is_empty());
    assert_eq!(scene.runs(), 2);
}

#[tokio::test]
async fn answers_are_kept_for_what_they_say_and_as_long() {
    for (kind, duration, expect) in [
        // The same image twice, another image, another registry.
        ("Image", "\"cacheDuration\":\"1h\",", [1, 1, 2, 3]),
        ("Registry", "\"cacheDuration\":\"1h\",", [1, 1, 1, 2]),
        ("Global", "", [1, 1, 1, 1]),
        ("Global", "\"cacheDuration\":\"0s\",", [1, 2, 3, 4]),
    ] {
        let auth = r#"{"*.dkr.example":{"username":"u","password":"p"}}"#;
        let scene = scene(&answer(kind, duration, auth), CONFIG);
        let plugins = scene.plugins();
        let mut runs = Vec::new();
        for (host, repository) in [
            ("a.dkr.example", "one"),
            ("a.dkr.example", "one"),
            ("a.dkr.example", "two"),
            ("b.dkr.example", "one"),
        ] {
            let found = plugins.lookup(host, repository).await.unwrap();
            assert_eq!(users(&found), ["u"]);
            runs.push(scene.runs());
        }
        assert_eq!(runs, expect, "{kind} {duration}");
    }
}

#[tokio::test]
async fn what_plugins_do_wrong_is_told_and_not_shown() {
    let good = answer("Image", "", "{}");
    for (script, expect) in [
        ("echo '{\"auth\": hunter2'; exit 0", "not JSON"),
        ("echo '{}'", "kind"),
        ("exit 3", "exit status: 3"),
        (&good.replace("/v1\"", "/v9\""), "apiVersion"),
        (&good.replace("Image", "Cluster"), "cacheKeyType"),
        (
            &answer("Image", "\"cacheDuration\":\"soon\",", "{}"),
            "cacheDuration",
        ),
    ] {
        let scene = scene(script, CONFIG);
        let error = scene.plugins().lookup("a.dkr.example", "app").await;
        let error = error.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(expect), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let scene = scene("sleep 60", CONFIG);
    let dir = scene.scratch.path().to_owned();
    let plugins = Plugins::with_timeout(scene.config.clone(), dir, Duration::from_millis(300));
    let error = plugins.lookup("a.dkr.example", "app").await.unwrap_err();
    assert!(
        matches!(error, CredentialError::PluginTimeout { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_changed_configuration_counts_at_once() {
    let auth = r#"{"*.dkr.example":{"username":"$WHO","password":"p"}}"#;
    let scene = scene(&answer("Image", "", auth), CONFIG);
    let plugins = scene.plugins();
    let found = plugins.lookup("a.dkr.example", "app").await.unwrap();
    assert_eq!(users(&found), ["env-user"]);
    let changed = CONFIG.replace("env-user", "somebody");
    fs_err::write(&scene.config, changed).unwrap();
    let found = plugins.lookup("a.dkr.example", "app").await.unwrap();
    assert_eq!(users(&found), ["somebody"]);
}

#[test]
fn configurations_are_read_strictly() {
    let path = Path::new("config.yaml");
    let parse = |text: &str| plugin_config::parse(path, text.as_bytes());
    assert_eq!(parse(CONFIG).unwrap().len(), 1);
    // JSON is YAML.
    let json = r#"{"apiVersion":"kubelet.config.k8s.io/v1","kind":"CredentialProviderConfig","providers":[]}"#;
    assert!(parse(json).unwrap().is_empty());
    for (old, new, expect) in [
        (
            "kubelet.config.k8s.io/v1",
            "kubelet.config.k8s.io/v2",
            "apiVersion",
        ),
        ("CredentialProviderConfig", "KubeletConfiguration", "kind"),
        ("name: plugin", "name: ../plugin", "providers[0].name"),
        ("name: plugin", "title: plugin", "providers[0].name"),
        ("\"12h\"", "\"long\"", "providers[0].defaultCacheDuration"),
        ("matchImages", "images", "providers[0].matchImages"),
        (
            "credentialprovider.kubelet.k8s.io/v1",
            "x/v1",
            "providers[0].apiVersion",
        ),
        (
            "args:",
            "tokenAttributes: {requireServiceAccount: true}\n    args:",
            "providers[0].tokenAttributes",
        ),
    ] {
        let error = parse(&CONFIG.replace(old, new)).unwrap_err();
        assert!(error.to_string().contains(expect), "{error}");
    }
    let error = parse(&CONFIG.replace("- name: WHO", "- {name: hunter2")).unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("line"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn the_next_is_asked_when_one_knows_nothing_or_fails() {
    let scratch = tempfile::tempdir().unwrap();
    let torn = scratch.path().join("torn.json");
    fs_err::write(&torn, "{").unwrap();
    let good = scratch.path().join("good.json");
    let text = format!("{{\"auths\":{{\"r.example\":{}}}}}", entry("files"));
    fs_err::write(&good, text).unwrap();
    let keychain = std::sync::Arc::new(Keychain::new());
    let image = "r.example/app".parse().unwrap();
    keychain.hand_over(&image, None, credential("handed", "p"), None);
    let credentials = Credentials::none()
        .then_keychain(keychain)
        .then_files(CredentialFiles::of(vec![torn]))
        .then_files(CredentialFiles::of(vec![good]));
    let wanted = |host, repository| Wanted {
        host,
        registry: host,
        repository,
        from: None,
    };
    let mut all = Vec::new();
    for skip in 0..3 {
        let found = credentials.lookup(&wanted("r.example", "app"), skip).await;
        all.extend(found.unwrap_or_default());
    }
    assert_eq!(users(&all), ["handed", "files"]);
    let found = credentials.lookup(&wanted("r.example", "other"), 0).await;
    assert_eq!(users(&[found.unwrap().unwrap()]), ["files"]);
    let error = credentials.lookup(&wanted("s.example", "app"), 0).await;
    assert!(
        matches!(error, Err(CredentialError::Json { .. })),
        "{error:?}"
    );
}
