//! Credentials in memory, each handed over for one image's repository.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use draught_oci::Reference;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::all::{Found, Wanted};
use super::file::Credential;
use crate::secret::Secret;

/// Credentials held at once; beyond, the one that was used longest ago goes. A node runs some hundred images.
const CREDENTIALS_MAX: usize = 4096;

/// Credentials held for one repository: pods bring different ones, and a wrong one must not push out the right one
/// at once.
const PER_REPOSITORY_MAX: usize = 4;

/// How long a credential that nobody uses is held: what runs for longer than this without a single read of its
/// image that needed to be let in has all of it.
const UNUSED_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// How often it is noted that a credential is used. It is no more precise than [`UNUSED_MAX`] needs.
const NOTE_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Bytes of a secret: tokens of clouds have some thousand.
const SECRET_BYTES_MAX: usize = 16 << 10;

/// The version that is written.
const VERSION: u32 = 1;

/// Whom a credential is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Purpose {
    /// The registry, as the image's name has it.
    registry: String,
    repository: String,
    /// Who may see it: the registry, or a host that stands for it.
    host: String,
}

#[derive(Debug)]
struct Entry {
    credential: Credential,
    expires: Option<SystemTime>,
    used: SystemTime,
}

/// Credentials that were handed over, each for one repository: for no other one is it ever used, and no other host
/// than the one that it is for ever sees it. They are in memory only.
///
/// Of a repository with several, the one handed over last is tried first. Which credentials there are can be written down
/// with [`Keychain::to_bytes`], for something that keeps it from everybody else.
pub struct Keychain {
    entries: Mutex<BTreeMap<Purpose, Vec<Entry>>>,
    changes: watch::Sender<u64>,
}

impl fmt::Debug for Keychain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.len();
        f.debug_struct("Keychain").field("count", &count).finish()
    }
}

impl Default for Keychain {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }
}

/// Why what was written down can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeychainError {
    /// It is torn. It is not shown.
    #[error("the keychain is malformed")]
    Malformed,
    /// Somebody else wrote it.
    #[error("the keychain has version {got}, expected {VERSION}")]
    Version {
        /// What it has.
        got: u32,
    },
}

impl Keychain {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a credential for the repository of `image`, to be shown to `server` (the image's registry if none is
    /// named) until `expires`. Gives whether it was not there before.
    pub fn hand_over(
        &self,
        image: &Reference,
        server: Option<&str>,
        credential: Credential,
        expires: Option<SystemTime>,
    ) -> bool {
        self.hand_over_at(image, server, credential, expires, SystemTime::now())
    }

    fn hand_over_at(
        &self,
        image: &Reference,
        server: Option<&str>,
        credential: Credential,
        expires: Option<SystemTime>,
        now: SystemTime,
    ) -> bool {
        if secret(&credential).expose().len() > SECRET_BYTES_MAX {
            return false;
        }
        let mut all = self.entries.lock();
        forget_old(&mut all, now);
        let entries = all.entry(purpose(image, server)).or_default();
        let before = entries.len();
        entries.retain(|entry| entry.credential != credential);
        let is_new = entries.len() == before;
        let entry = Entry {
            credential,
            expires,
            used: now,
        };
        entries.insert(0, entry);
        entries.truncate(PER_REPOSITORY_MAX);
        while all.values().map(Vec::len).sum::<usize>() > CREDENTIALS_MAX {
            forget_oldest(&mut all);
        }
        drop(all);
        self.changed();
        is_new
    }

    /// Forgets a credential that was handed over, when it turned out not to be one.
    pub fn take_back(&self, image: &Reference, server: Option<&str>, credential: &Credential) {
        let mut all = self.entries.lock();
        let purpose = purpose(image, server);
        let Some(entries) = all.get_mut(&purpose) else {
            return;
        };
        entries.retain(|entry| entry.credential != *credential);
        if entries.is_empty() {
            all.remove(&purpose);
        }
        drop(all);
        self.changed();
    }

    /// How many credentials there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.lock().values().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells of every change, until it is dropped.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// What was handed over for a repository.
    pub(super) fn find(&self, wanted: &Wanted<'_>, now: SystemTime) -> Vec<Found> {
        // A second repository is none that anything here is for.
        if wanted.from.is_some_and(|from| from != wanted.repository) {
            return Vec::new();
        }
        let purpose = Purpose {
            registry: wanted.registry.to_owned(),
            repository: wanted.repository.to_owned(),
            host: wanted.host.to_owned(),
        };
        let mut all = self.entries.lock();
        let Some(entries) = all.get_mut(&purpose) else {
            return Vec::new();
        };
        entries.retain(|entry| !is_old(entry, now));
        let mut is_noted = false;
        let found = entries.iter_mut().map(|entry| {
            if now.duration_since(entry.used).unwrap_or_default() >= NOTE_EVERY {
                entry.used = now;
                is_noted = true;
            }
            Found {
                credential: entry.credential.clone(),
                expires: entry.expires,
            }
        });
        let found = found.collect();
        drop(all);
        if is_noted {
            self.changed();
        }
        found
    }
}

/// A credential's place.
fn purpose(image: &Reference, server: Option<&str>) -> Purpose {
    let registry = image.host().to_owned();
    Purpose {
        host: server.map_or_else(|| registry.clone(), host_of),
        repository: image.repository().to_owned(),
        registry,
    }
}

/// The host of a server's address, which may be a URL.
fn host_of(server: &str) -> String {
    let rest = ["https://", "http://"]
        .into_iter()
        .find_map(|scheme| server.strip_prefix(scheme))
        .unwrap_or(server);
    let host = rest.split('/').next().unwrap_or_default();
    match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

fn secret(credential: &Credential) -> &Secret {
    match credential {
        Credential::Password { password, .. } => password,
        Credential::IdentityToken(token) | Credential::RegistryToken(token) => token,
    }
}

fn is_old(entry: &Entry, now: SystemTime) -> bool {
    entry.expires.is_some_and(|expires| expires <= now)
        || now.duration_since(entry.used).unwrap_or_default() >= UNUSED_MAX
}

fn forget_old(all: &mut BTreeMap<Purpose, Vec<Entry>>, now: SystemTime) {
    all.retain(|_, entries| {
        entries.retain(|entry| !is_old(entry, now));
        !entries.is_empty()
    });
}

fn forget_oldest(all: &mut BTreeMap<Purpose, Vec<Entry>>) {
    let used = |entries: &Vec<Entry>| entries.iter().map(|entry| entry.used).max();
    let oldest = all.iter().min_by_key(|(_, entries)| used(entries));
    let Some(purpose) = oldest.map(|(purpose, _)| purpose.clone()) else {
        return;
    };
    all.remove(&purpose);
}

/// No `Debug`: it holds secrets.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireKeychain {
    version: u32,
    entries: Vec<WireEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEntry {
    purpose: Purpose,
    kind: WireKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_s: Option<u64>,
    used_s: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WireKind {
    Password,
    IdentityToken,
    RegistryToken,
}

fn to_seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn from_seconds(seconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

impl Keychain {
    /// All of it, in clear: for memory that nobody else can read.
    ///
    /// # Errors
    /// None that ever happened.
    pub fn to_bytes(&self) -> Result<Vec<u8>, KeychainError> {
        let all = self.entries.lock();
        let entries = all.iter().flat_map(|(purpose, entries)| {
            entries.iter().map(|entry| WireEntry {
                purpose: purpose.clone(),
                kind: match entry.credential {
                    Credential::Password { .. } => WireKind::Password,
                    Credential::IdentityToken(_) => WireKind::IdentityToken,
                    Credential::RegistryToken(_) => WireKind::RegistryToken,
                },
                username: match &entry.credential {
                    Credential::Password { username, .. } => Some(username.clone()),
                    _ => None,
                },
                secret: secret(&entry.credential).expose().to_owned(),
                expires_s: entry.expires.map(to_seconds),
                used_s: to_seconds(entry.used),
            })
        });
        let wire = WireKeychain {
            version: VERSION,
            entries: entries.collect(),
        };
        serde_json::to_vec(&wire).map_err(|_| KeychainError::Malformed)
    }

    /// Adds what [`Keychain::to_bytes`] wrote.
    ///
    /// # Errors
    /// When it is not whole, or of another version. Then nothing is added.
    pub fn add_bytes(&self, bytes: &[u8]) -> Result<(), KeychainError> {
        let wire: WireKeychain =
            serde_json::from_slice(bytes).map_err(|_| KeychainError::Malformed)?;
        if wire.version != VERSION {
            return Err(KeychainError::Version { got: wire.version });
        }
        let mut all = self.entries.lock();
        for entry in wire.entries.into_iter().take(CREDENTIALS_MAX) {
            let secret = Secret::new(entry.secret);
            let credential = match entry.kind {
                WireKind::Password => Credential::Password {
                    username: entry.username.unwrap_or_default(),
                    password: secret,
                },
                WireKind::IdentityToken => Credential::IdentityToken(secret),
                WireKind::RegistryToken => Credential::RegistryToken(secret),
            };
            let entries = all.entry(entry.purpose).or_default();
            entries.push(Entry {
                credential,
                expires: entry.expires_s.and_then(from_seconds),
                used: from_seconds(entry.used_s).unwrap_or(SystemTime::UNIX_EPOCH),
            });
            entries.truncate(PER_REPOSITORY_MAX);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> Reference {
        text.parse().unwrap()
    }

    fn token(text: &str) -> Credential {
        Credential::RegistryToken(Secret::new(text))
    }

    fn find(keychain: &Keychain, host: &str, image: &str, now: SystemTime) -> Vec<String> {
        let (registry, repository) = image.split_once('/').unwrap();
        let wanted = Wanted {
            host,
            registry,
            repository,
            from: None,
        };
        let found = keychain.find(&wanted, now).into_iter();
        let text = |found: Found| secret(&found.credential).expose().to_owned();
        found.map(text).collect()
    }

    #[test]
    fn a_credential_is_for_one_repository_and_one_host() {
        let keychain = Keychain::new();
        let now = SystemTime::now();
        assert!(keychain.hand_over(&image("r.example/team/app:1"), None, token("a"), None));
        for (host, image, expect) in [
            ("r.example", "r.example/team/app", &["a"][..]),
            ("r.example", "r.example/team/app/more", &[]),
            ("r.example", "r.example/team", &[]),
            ("r.example", "r.example/team/other", &[]),
            ("m.example", "r.example/team/app", &[]),
            ("r.example", "m.example/team/app", &[]),
        ] {
            assert_eq!(find(&keychain, host, image, now), expect, "{host} {image}");
        }
        let from = Wanted {
            host: "r.example",
            registry: "r.example",
            repository: "team/app",
            from: Some("team/other"),
        };
        assert!(keychain.find(&from, now).is_empty());
    }

    #[test]
    fn a_named_server_is_the_only_one_that_sees_it() {
        let keychain = Keychain::new();
        let now = SystemTime::now();
        let server = Some("https://m.example:5000/v2/");
        keychain.hand_over(&image("r.example/app"), server, token("a"), None);
        assert!(find(&keychain, "r.example", "r.example/app", now).is_empty());
        assert_eq!(
            find(&keychain, "m.example:5000", "r.example/app", now),
            ["a"]
        );
        let server = Some("https://index.docker.io/v1/");
        keychain.hand_over(&image("app"), server, token("b"), None);
        assert_eq!(
            find(&keychain, "docker.io", "docker.io/library/app", now),
            ["b"]
        );
    }

    #[test]
    fn the_newest_is_tried_first_and_old_ones_go() {
        let keychain = Keychain::new();
        let (app, now) = (image("r.example/app"), SystemTime::now());
        for text in ["a", "b", "c", "a", "d", "e"] {
            keychain.hand_over(&app, None, token(text), None);
        }
        assert_eq!(
            find(&keychain, "r.example", "r.example/app", now),
            ["e", "d", "a", "c"]
        );
        keychain.take_back(&app, None, &token("d"));
        assert_eq!(
            find(&keychain, "r.example", "r.example/app", now),
            ["e", "a", "c"]
        );
        assert!(!keychain.hand_over(&app, None, token("c"), None));
    }

    #[test]
    fn what_has_ended_or_is_not_used_is_not_found() {
        let keychain = Keychain::new();
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let (app, b) = (image("r.example/a"), image("r.example/b"));
        keychain.hand_over_at(&app, None, token("a"), Some(now + hour), now);
        keychain.hand_over_at(&b, None, token("b"), None, now);
        assert_eq!(find(&keychain, "r.example", "r.example/a", now), ["a"]);
        assert!(find(&keychain, "r.example", "r.example/a", now + hour).is_empty());
        // Each use is worth another month.
        let later = now + UNUSED_MAX / 2;
        assert_eq!(find(&keychain, "r.example", "r.example/b", later), ["b"]);
        let later = now + UNUSED_MAX;
        assert_eq!(find(&keychain, "r.example", "r.example/b", later), ["b"]);
        assert!(find(&keychain, "r.example", "r.example/b", later + UNUSED_MAX).is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let keychain = Keychain::new();
        let now = SystemTime::now();
        for number in 0..CREDENTIALS_MAX + 10 {
            let at = now + Duration::from_millis(u64::try_from(number).unwrap());
            let image = image(&format!("r.example/app-{number}"));
            keychain.hand_over_at(&image, None, token("a"), None, at);
        }
        assert_eq!(keychain.len(), CREDENTIALS_MAX);
        assert!(find(&keychain, "r.example", "r.example/app-0", now).is_empty());
        let long = token(&"x".repeat(SECRET_BYTES_MAX + 1));
        assert!(!keychain.hand_over(&image("r.example/long"), None, long, None));
        assert_eq!(keychain.len(), CREDENTIALS_MAX);
    }

    #[test]
    fn what_is_written_is_read() {
        let keychain = Keychain::new();
        let now = SystemTime::now();
        let app = image("r.example/app");
        let password = Credential::Password {
            username: "me".to_owned(),
            password: Secret::new("p:w"),
        };
        let hour = Some(now + Duration::from_secs(3600));
        keychain.hand_over(&app, None, password, hour);
        let identity = Credential::IdentityToken(Secret::new("i"));
        keychain.hand_over(&app, Some("m.example"), identity, None);
        keychain.hand_over(&app, None, token("t"), None);
        let other = Keychain::new();
        other.add_bytes(&keychain.to_bytes().unwrap()).unwrap();
        assert_eq!(other.to_bytes().unwrap(), keychain.to_bytes().unwrap());
        assert_eq!(
            find(&other, "r.example", "r.example/app", now),
            ["t", "p:w"]
        );
        assert!(other.add_bytes(b"{\"version\":1,").is_err());
        assert!(other.add_bytes(b"{\"version\":2,\"entries\":[]}").is_err());
        assert_eq!(other.len(), 3);
    }

    #[test]
    fn it_is_not_shown() {
        let keychain = Keychain::new();
        keychain.hand_over(&image("r.example/app"), None, token("hunter2"), None);
        let shown = format!("{:?}", keychain.entries.lock());
        assert!(!shown.contains("hunter2"), "{shown}");
        let shown = format!("{keychain:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
