//! Pull secrets of Kubernetes, as files or as volumes that they are mounted to.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::all::Found;
use super::file::{self, CredentialError, WireAuth};
use super::globs;

/// What a secret of type `kubernetes.io/dockerconfigjson` has.
const CONFIG_FILE: &str = ".dockerconfigjson";

/// What one of the old type `kubernetes.io/dockercfg` has: the entries, without the table around them.
const OLD_FILE: &str = ".dockercfg";

/// Secrets looked for in one directory.
const SECRETS_MAX: usize = 1024;

/// Files and directories of pull secrets, most wanted first.
///
/// A directory is a mounted secret or holds mounted secrets. The files are read anew for every look-up, so that
/// a secret that Kubernetes replaces counts at once. What a secret says of credential helpers is not followed:
/// who may write a secret may not start programs here.
#[derive(Debug, Clone, Default)]
pub struct PullSecrets {
    paths: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct WireSecret {
    auths: BTreeMap<String, Option<WireAuth>>,
}

impl PullSecrets {
    /// These files and directories. They need not be there.
    #[must_use]
    pub fn of(paths: Vec<PathBuf>) -> Self {
        Self { paths }
    }

    /// All credentials for a repository: the most specific of each secret first.
    pub(super) async fn lookup(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Vec<Found>, CredentialError> {
        if self.paths.is_empty() {
            return Ok(Vec::new());
        }
        let (paths, host, repository) =
            (self.paths.clone(), host.to_owned(), repository.to_owned());
        let read = tokio::task::spawn_blocking(move || find(&paths, &host, &repository));
        read.await.map_err(|_| CredentialError::Cancelled)?
    }
}

/// Looks into all. One that can't be read hides none of the others.
fn find(paths: &[PathBuf], host: &str, repository: &str) -> Result<Vec<Found>, CredentialError> {
    let mut found = Vec::new();
    let mut failed = None;
    for path in paths {
        let files = match files(path) {
            Ok(files) => files,
            Err(source) => {
                failed.get_or_insert(CredentialError::Read { source });
                continue;
            }
        };
        for file in files {
            match find_in(&file, host, repository) {
                Ok(more) => found.extend(more),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        Some(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "a pull secret can't be read");
            Ok(found)
        }
        None => Ok(found),
    }
}

/// The files of a path: itself, or what is in it and one step below.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let is_dir = match fs_err::metadata(path) {
        Ok(metadata) => metadata.is_dir(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if !is_dir {
        return Ok(vec![path.to_owned()]);
    }
    let mut dirs = Vec::new();
    for entry in fs_err::read_dir(path)?.take(SECRETS_MAX) {
        let entry = entry?;
        // Kubernetes keeps versions of a volume in directories that begin with two dots.
        let is_version = entry.file_name().as_encoded_bytes().starts_with(b"..");
        if !is_version && fs_err::metadata(entry.path()).is_ok_and(|found| found.is_dir()) {
            dirs.push(entry.path());
        }
    }
    dirs.sort();
    let all = [path.to_owned()].into_iter().chain(dirs);
    let files = all.flat_map(|dir| [dir.join(CONFIG_FILE), dir.join(OLD_FILE)]);
    Ok(files.filter(|file| file.exists()).collect())
}

fn find_in(path: &Path, host: &str, repository: &str) -> Result<Vec<Found>, CredentialError> {
    let Some(bytes) = file::read_bytes(path)? else {
        return Ok(Vec::new());
    };
    let malformed = |error: serde_json::Error| CredentialError::Json {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
    };
    let is_old = path.file_name().is_some_and(|name| name == OLD_FILE);
    let entries = if is_old {
        serde_json::from_slice(&bytes).map_err(malformed)?
    } else {
        let secret: WireSecret = serde_json::from_slice(&bytes).map_err(malformed)?;
        secret.auths
    };
    let mut matching = Vec::new();
    for (key, entry) in &entries {
        if let (Some(rank), Some(entry)) = (globs::matches(key, host, repository), entry)
            && let Some(credential) = file::credential(path, key, entry)?
        {
            matching.push((rank, credential));
        }
    }
    matching.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    let found = matching.into_iter();
    Ok(found
        .map(|(_, credential)| Found::from(credential))
        .collect())
}
