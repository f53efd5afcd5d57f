//! The kubelet's credential-provider plugins: an image in, credentials out, and how long they are good for.
//!
//! Origin: `credentialprovider.kubelet.k8s.io/v1`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::all::Found;
use super::file::{Credential, CredentialError, read_bytes};
use super::globs;
use super::plugin_config::{self, Plugin};
use crate::duration;
use crate::secret::Secret;
use crate::stamp::{Stamp, stamp};

/// How long a plugin may take, as the kubelet gives it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of its answer: tokens of clouds have some thousand, and there may be one for each registry.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Answers kept of one plugin.
const ANSWERS_MAX: usize = 1024;

/// No answer is kept longer, whatever its plugin says.
const KEPT_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long before its end an answer is not used any more, so that it does not end under way; of one that
/// lives shorter than four times this, the last quarter.
const EARLY: Duration = Duration::from_secs(60);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireRequest<'a> {
    kind: &'static str,
    api_version: &'a str,
    image: &'a str,
}

/// No `Debug`: it holds secrets.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireResponse {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    cache_key_type: String,
    #[serde(default)]
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, WireAuth>>,
}

#[derive(Deserialize)]
struct WireAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// What an answer counts for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum CacheKey {
    Image(String),
    Registry(String),
    Global,
}

/// Patterns with what is for them.
type Answer = Vec<(String, Credential)>;

#[derive(Debug)]
struct Kept {
    answer: Answer,
    until: Instant,
    expires: SystemTime,
}

/// One plugin with its answers. The lock is held while it runs: who comes meanwhile gets the same answer.
#[derive(Debug)]
struct Running {
    plugin: Plugin,
    answers: tokio::sync::Mutex<BTreeMap<CacheKey, Kept>>,
}

#[derive(Debug, Default)]
struct Loaded {
    stamp: Option<Stamp>,
    plugins: Vec<Arc<Running>>,
}

/// Credential-provider plugins, as the kubelet runs them: a file that says which, and a directory with them.
///
/// The file is read again when it changes. Answers are kept as long as plugins say, in memory only, and are
/// fetched anew before they end. Clones share them.
#[derive(Debug, Clone)]
pub struct Plugins(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: PathBuf,
    bin_dir: PathBuf,
    timeout: Duration,
    loaded: Mutex<Loaded>,
}

impl Plugins {
    /// A `CredentialProviderConfig` (YAML or JSON) and the directory that has the programs it names.
    #[must_use]
    pub fn new(config: PathBuf, bin_dir: PathBuf) -> Self {
        Self::with_timeout(config, bin_dir, TIMEOUT)
    }

    pub(super) fn with_timeout(config: PathBuf, bin_dir: PathBuf, timeout: Duration) -> Self {
        Self(Arc::new(Shared {
            config,
            bin_dir,
            timeout,
            loaded: Mutex::default(),
        }))
    }

    /// All that the plugins for a repository know, in their order.
    pub(super) async fn lookup(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Vec<Found>, CredentialError> {
        let mut found = Vec::new();
        let mut failed = None;
        for running in self.plugins()? {
            if !running.plugin.is_for(host, repository) {
                continue;
            }
            match self.ask(&running, host, repository).await {
                Ok(more) => found.extend(more),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        match failed {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    /// The plugins, as the file says now.
    fn plugins(&self) -> Result<Vec<Arc<Running>>, CredentialError> {
        let path = &self.0.config;
        let now = stamp(path);
        let mut loaded = self.0.loaded.lock();
        if now.is_none() || loaded.stamp != now {
            let bytes = read_bytes(path)?.ok_or_else(|| CredentialError::Config {
                source: io::Error::new(io::ErrorKind::NotFound, path.display().to_string()),
            })?;
            let plugins = plugin_config::parse(path, &bytes)?;
            let plugins = plugins.into_iter().map(|plugin| {
                let answers = tokio::sync::Mutex::default();
                Arc::new(Running { plugin, answers })
            });
            loaded.plugins = plugins.collect();
            loaded.stamp = now;
        }
        Ok(loaded.plugins.clone())
    }

    async fn ask(
        &self,
        running: &Running,
        host: &str,
        repository: &str,
    ) -> Result<Vec<Found>, CredentialError> {
        let image = format!("{host}/{repository}");
        let mut answers = running.answers.lock().await;
        let keys = [
            CacheKey::Image(image.clone()),
            CacheKey::Registry(host.to_owned()),
            CacheKey::Global,
        ];
        let mut kept = keys.iter().filter_map(|key| answers.get(key));
        if let Some(kept) = kept.find(|kept| Instant::now() < kept.until) {
            let found = matching(&kept.answer, host, repository).into_iter();
            let expires = Some(kept.expires);
            return Ok(found
                .map(|credential| Found {
                    credential,
                    expires,
                })
                .collect());
        }
        let (key, lifetime, answer) = self.run(&running.plugin, host, &image).await?;
        let expires = SystemTime::now() + lifetime;
        let found = matching(&answer, host, repository).into_iter();
        let found = found.map(|credential| Found {
            credential,
            expires: (!lifetime.is_zero()).then_some(expires),
        });
        let found = found.collect();
        let early = EARLY.min(lifetime / 4);
        let until = Instant::now() + lifetime.saturating_sub(early);
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, kept| Instant::now() < kept.until);
        }
        // All of them have ended.
        keys.iter().for_each(|old| drop(answers.remove(old)));
        if !lifetime.is_zero() && answers.len() < ANSWERS_MAX {
            let kept = Kept {
                answer,
                until,
                expires,
            };
            answers.insert(key, kept);
        }
        Ok(found)
    }

    /// Runs a plugin: what its answer counts for, how long, and the answer.
    async fn run(
        &self,
        plugin: &Plugin,
        host: &str,
        image: &str,
    ) -> Result<(CacheKey, Duration, Answer), CredentialError> {
        let name = || plugin.name.clone();
        let wrong = |problem| CredentialError::PluginAnswer {
            name: name(),
            problem,
        };
        let request = WireRequest {
            kind: "CredentialProviderRequest",
            api_version: plugin.protocol,
            image,
        };
        let request = serde_json::to_vec(&request).map_err(|_| wrong("no question"))?;
        let path = self.0.bin_dir.join(&plugin.name);
        let run = tokio::time::timeout(self.0.timeout, exec(&path, plugin, &request));
        let (status, stdout) = run
            .await
            .map_err(|_| CredentialError::PluginTimeout {
                name: name(),
                timeout_s: self.0.timeout.as_secs(),
            })?
            .map_err(|source| CredentialError::PluginStart {
                name: name(),
                source,
            })?;
        if !status.success() {
            return Err(CredentialError::PluginFailed {
                name: name(),
                status,
            });
        }
        tracing::debug!(
            plugin = plugin.name,
            image,
            "a credential provider answered"
        );
        let wire: WireResponse =
            serde_json::from_slice(&stdout).map_err(|_| wrong("it is not JSON of its kind"))?;
        if wire.kind != "CredentialProviderResponse" {
            return Err(wrong("its kind is not CredentialProviderResponse"));
        }
        if wire.api_version != plugin.protocol {
            return Err(wrong("its apiVersion is not the one of the question"));
        }
        let key = match wire.cache_key_type.as_str() {
            "Image" => CacheKey::Image(image.to_owned()),
            "Registry" => CacheKey::Registry(host.to_owned()),
            "Global" => CacheKey::Global,
            _ => return Err(wrong("its cacheKeyType is none of Image, Registry, Global")),
        };
        let lifetime = match wire.cache_duration {
            Some(text) => {
                duration::parse(&text).ok_or_else(|| wrong("its cacheDuration is none"))?
            }
            None => plugin.cache_default,
        };
        let auth = wire.auth.unwrap_or_default().into_iter();
        let auth = auth.map(|(pattern, wire)| {
            let credential = Credential::Password {
                username: wire.username,
                password: Secret::new(wire.password),
            };
            (pattern, credential)
        });
        Ok((key, lifetime.min(KEPT_MAX), auth.collect()))
    }
}

/// What of an answer is for a repository, the most specific first.
fn matching(answer: &Answer, host: &str, repository: &str) -> Vec<Credential> {
    let mut matching: Vec<_> = answer
        .iter()
        .filter_map(|(pattern, credential)| {
            Some((globs::matches(pattern, host, repository)?, credential))
        })
        .collect();
    matching.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    let matching = matching.into_iter();
    matching.map(|(_, credential)| credential.clone()).collect()
}

/// Runs a program; it dies with the future that waits for it. What it says on its standard error goes
/// nowhere: some print what they were given.
async fn exec(
    path: &Path,
    plugin: &Plugin,
    request: &[u8],
) -> io::Result<(std::process::ExitStatus, Vec<u8>)> {
    let env = plugin.env.iter();
    let mut child = Command::new(path)
        .args(&plugin.args)
        .envs(env.map(|(name, value)| (name, value.expose())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that answers without reading has closed its end: what it says counts.
        let written = stdin.write_all(request).await;
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error);
        }
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut answer)
            .await?;
    }
    Ok((child.wait().await?, answer))
}
