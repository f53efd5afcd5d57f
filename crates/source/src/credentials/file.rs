//! One file of credentials: docker's `config.json` or podman's `auth.json`, which have one format.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use crate::secret::Secret;

/// Bytes of such a file: people have a few entries, a few thousand fit.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// How to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token that buys short-lived ones (OAuth 2 refresh token).
    IdentityToken(Secret),
    /// A token for the registry itself.
    RegistryToken(Secret),
}

/// Why credentials could not be looked up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The file is unreadable.
    #[error("credential file could not be read")]
    Read {
        /// With the path in it.
        source: io::Error,
    },
    /// The file is too long to be one.
    #[error("credential file {path} is over the limit of {FILE_BYTES_MAX} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file is malformed. What is wrong is told by place only: the text may be a secret.
    #[error("credential file {path} is malformed at line {line}, column {column}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// An entry is malformed.
    #[error("entry {key:?} of credential file {path} is not base64 of name:password")]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry's key.
        key: String,
    },
    /// The file names a helper that can't be one.
    #[error("credential helper {name:?} is not a name: letters, digits, '.', '_' and '-'")]
    HelperName {
        /// As the file has it.
        name: String,
    },
    /// The helper didn't run.
    #[error("credential helper {program} could not be run")]
    HelperStart {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The helper ran too long.
    #[error("credential helper {program} gave no answer in {timeout_s} s")]
    HelperTimeout {
        /// The program.
        program: String,
        /// How long it had.
        timeout_s: u64,
    },
    /// The helper failed.
    #[error("credential helper {program} failed: {message}")]
    HelperFailed {
        /// The program.
        program: String,
        /// The first line that it said.
        message: String,
    },
    /// The program is ending.
    #[error("the program is shutting down")]
    Cancelled,
    /// The configuration of credential-provider plugins is unreadable.
    #[error("configuration of credential providers could not be read")]
    Config {
        /// With the path in it.
        source: io::Error,
    },
    /// That configuration is no YAML of its kind. The text is not repeated: it may hold secrets.
    #[error(
        "configuration of credential providers {path} is malformed at line {line}, column {column}"
    )]
    ConfigSyntax {
        /// The file.
        path: PathBuf,
        /// Where, from 1; 0 when that is not known.
        line: u64,
        /// Where in the line.
        column: u64,
    },
    /// A field of that configuration makes no sense.
    #[error("configuration of credential providers {path}: {field}: {problem}")]
    ConfigField {
        /// The file.
        path: PathBuf,
        /// Which.
        field: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A plugin didn't run.
    #[error("credential provider {name} could not be run")]
    PluginStart {
        /// The plugin.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A plugin ran too long.
    #[error("credential provider {name} gave no answer in {timeout_s} s")]
    PluginTimeout {
        /// The plugin.
        name: String,
        /// How long it had.
        timeout_s: u64,
    },
    /// A plugin failed. What it says is not repeated, it may hold a secret: run it by hand to see it.
    #[error("credential provider {name} failed ({status})")]
    PluginFailed {
        /// The plugin.
        name: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// A plugin said something that is no answer; it is not shown, it may hold the secret.
    #[error("credential provider {name} gave no answer that can be used: {problem}")]
    PluginAnswer {
        /// The plugin.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The helper said something that is no answer; it is not shown, it may hold the secret.
    #[error("credential helper {program} gave no answer that can be read")]
    HelperAnswer {
        /// The program.
        program: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireFile {
    #[serde(default)]
    pub(super) auths: BTreeMap<String, Option<WireAuth>>,
    #[serde(default)]
    pub(super) creds_store: Option<String>,
    #[serde(default)]
    pub(super) cred_helpers: BTreeMap<String, String>,
}

/// No `Debug`: it holds secrets as they are in the file.
#[derive(Default, Deserialize)]
pub(super) struct WireAuth {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default, rename = "identitytoken")]
    identity_token: Option<String>,
    #[serde(default, rename = "registrytoken")]
    registry_token: Option<String>,
}

/// Reads a file's bytes; `None` when it isn't there.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, CredentialError> {
    use std::io::Read as _;

    let failed = |source| CredentialError::Read { source };
    let file = match fs_err::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    let read = file
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(read).is_ok_and(|read| read > FILE_BYTES_MAX) {
        let path = path.to_owned();
        return Err(CredentialError::TooLong { path });
    }
    Ok(Some(bytes))
}

/// Reads a file; `None` when it isn't there.
pub(super) fn read(path: &Path) -> Result<Option<WireFile>, CredentialError> {
    let Some(bytes) = read_bytes(path)? else {
        return Ok(None);
    };
    // Podman makes the file empty when the last entry goes.
    if bytes.trim_ascii().is_empty() {
        return Ok(Some(WireFile::default()));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| CredentialError::Json {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
        })
}

/// What an entry says; `None` when it is empty, as it is when a helper keeps the secret.
pub(super) fn credential(
    path: &Path,
    key: &str,
    entry: &WireAuth,
) -> Result<Option<Credential>, CredentialError> {
    let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    if let Some(token) = text(&entry.identity_token) {
        return Ok(Some(Credential::IdentityToken(Secret::new(token))));
    }
    if let Some(token) = text(&entry.registry_token) {
        return Ok(Some(Credential::RegistryToken(Secret::new(token))));
    }
    if let Some(auth) = text(&entry.auth) {
        let malformed = || CredentialError::Entry {
            path: path.to_owned(),
            key: key.to_owned(),
        };
        let decoded = BASE64.decode(auth.trim()).map_err(|_| malformed())?;
        let decoded = String::from_utf8(decoded).map_err(|_: FromUtf8Error| malformed())?;
        // The first colon: names have none, passwords may. Docker pads with NULs.
        let (username, password) = decoded.split_once(':').ok_or_else(malformed)?;
        return Ok(Some(Credential::Password {
            username: username.to_owned(),
            password: Secret::new(password.trim_end_matches('\0')),
        }));
    }
    Ok(text(&entry.username)
        .zip(text(&entry.password))
        .map(|(username, password)| Credential::Password {
            username,
            password: Secret::new(password),
        }))
}
