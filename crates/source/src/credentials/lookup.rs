//! Which credential is for which repository.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use super::file::{self, Credential, CredentialError, WireFile};
use super::helper;

/// What docker calls its hub in its files and to its helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Where credentials are, most wanted first. The first file that has one for the repository wins.
///
/// The files are read anew for every look-up, and look-ups happen only when a registry asks to be told who
/// we are, so that a login counts without a restart.
#[derive(Debug, Clone, Default)]
pub struct CredentialFiles {
    files: Vec<PathBuf>,
    helper_dir: Option<PathBuf>,
}

impl CredentialFiles {
    /// None at all.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// These files.
    #[must_use]
    pub fn of(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            helper_dir: None,
        }
    }

    /// The same, with helpers in this directory instead of those on the search path.
    #[must_use]
    pub fn with_helper_dir(mut self, dir: PathBuf) -> Self {
        self.helper_dir = Some(dir);
        self
    }

    /// The files of whoever runs this: `$REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG/config.json`, then podman's
    /// `$XDG_RUNTIME_DIR/containers/auth.json` and `~/.config/containers/auth.json`, then docker's
    /// `~/.docker/config.json`. What was set for this run comes before what is there for all.
    #[must_use]
    pub fn from_env() -> Self {
        let uid = rustix::process::getuid().as_raw();
        Self::of(Self::paths(|name| env::var_os(name), uid))
    }

    /// The files, in the order in which they are looked into: paths only, no secrets.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The files of an environment.
    pub(super) fn paths(env: impl Fn(&str) -> Option<OsString>, uid: u32) -> Vec<PathBuf> {
        let dir = |name| {
            env(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let home = dir("HOME");
        let runtime = dir("XDG_RUNTIME_DIR")
            .unwrap_or_else(|| PathBuf::from(format!("/run/containers/{uid}")));
        // Without XDG_RUNTIME_DIR podman uses /run/containers/UID itself, not a directory in it.
        let runtime_file = if env("XDG_RUNTIME_DIR").is_some_and(|value| !value.is_empty()) {
            runtime.join("containers/auth.json")
        } else {
            runtime.join("auth.json")
        };
        let config =
            dir("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
        [
            dir("REGISTRY_AUTH_FILE"),
            dir("DOCKER_CONFIG").map(|dir| dir.join("config.json")),
            Some(runtime_file),
            config.map(|dir| dir.join("containers/auth.json")),
            home.map(|home| home.join(".docker/config.json")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The credential for a repository; `None` when there is none, which for public images is fine.
    ///
    /// # Errors
    /// When a file is there and unreadable, or the helper that should know fails.
    pub async fn lookup(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialError> {
        for path in &self.files {
            let file = path.clone();
            let read = tokio::task::spawn_blocking(move || file::read(&file)).await;
            let Some(wire) = read.map_err(|_| CredentialError::Cancelled)?? else {
                continue;
            };
            if let Some(name) = wire.helper_for(host, repository) {
                let server = if host == "docker.io" { HUB_KEY } else { host };
                let found = helper::ask(self.helper_dir.as_deref(), &name, server).await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            for (key, entry) in wire.entries_for(host, repository) {
                if let Some(credential) = file::credential(path, key, entry)? {
                    return Ok(Some(credential));
                }
            }
        }
        Ok(None)
    }
}

impl WireFile {
    /// The helper that knows this repository: the one for its longest prefix, else the one for all.
    fn helper_for(&self, host: &str, repository: &str) -> Option<String> {
        let mut best: Option<(usize, &String)> = None;
        for (key, name) in &self.cred_helpers {
            let length = match_length(key, host, repository);
            if length > best.map(|(length, _)| length) {
                best = length.map(|length| (length, name));
            }
        }
        best.map(|(_, name)| name)
            .or(self.creds_store.as_ref())
            .filter(|name| !name.is_empty())
            .cloned()
    }

    /// The entries that apply to this repository, longest prefix first.
    fn entries_for<'a>(
        &'a self,
        host: &str,
        repository: &str,
    ) -> impl Iterator<Item = (&'a str, &'a file::WireAuth)> {
        let mut found: Vec<(usize, &str, &file::WireAuth)> = self
            .auths
            .iter()
            .filter_map(|(key, entry)| {
                let length = match_length(key, host, repository)?;
                entry.as_ref().map(|entry| (length, key.as_str(), entry))
            })
            .collect();
        found.sort_by_key(|(length, ..)| std::cmp::Reverse(*length));
        found.into_iter().map(|(_, key, entry)| (key, entry))
    }
}

/// How much of `host/repository` a key names, in bytes; `None` when it names another.
///
/// Docker's keys are hosts or URLs, of which the host counts; podman's are `host` or `host/path`, of which
/// whole parts of the path count.
fn match_length(key: &str, host: &str, repository: &str) -> Option<usize> {
    let url = ["https://", "http://"]
        .into_iter()
        .find_map(|scheme| key.strip_prefix(scheme));
    let (key_host, path) = match url {
        Some(rest) => (rest.split('/').next().unwrap_or_default(), ""),
        None => key.split_once('/').unwrap_or((key, "")),
    };
    let key_host = match key_host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    };
    // Very old files have the hub as "index.docker.io/v1/".
    let path = if key_host == "docker.io" && path.trim_end_matches('/') == "v1" {
        ""
    } else {
        path.trim_end_matches('/')
    };
    let within = path.is_empty()
        || repository
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (key_host == host && within).then_some(path.len())
}
