//! Programs that know credentials: `docker-credential-NAME get`, host in, JSON out.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::file::{Credential, CredentialError};
use crate::secret::Secret;

/// How long a helper may take: those of clouds ask a server themselves.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of its answer: tokens have some thousand.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Characters of its message that an error repeats.
const MESSAGE_CHARS_MAX: usize = 200;

/// What every helper says when it has nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The name that marks the secret as an identity token.
const IDENTITY_TOKEN_USER: &str = "<token>";

/// No `Debug`: it holds the secret.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks `docker-credential-NAME` for a server's credential; `None` when it has none.
pub(super) async fn ask(
    dir: Option<&Path>,
    name: &str,
    server: &str,
) -> Result<Option<Credential>, CredentialError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || !name.bytes().all(legal) {
        let name = name.to_owned();
        return Err(CredentialError::HelperName { name });
    }
    let program = format!("docker-credential-{name}");
    let path = dir.map_or_else(|| program.clone().into(), |dir| dir.join(&program));
    let run = run(&path, server);
    let (success, stdout) = tokio::time::timeout(TIMEOUT, run)
        .await
        .map_err(|_| CredentialError::HelperTimeout {
            program: program.clone(),
            timeout_s: TIMEOUT.as_secs(),
        })?
        .map_err(|source| CredentialError::HelperStart {
            program: program.clone(),
            source,
        })?;
    if !success {
        let text = String::from_utf8_lossy(&stdout);
        if text.contains(NOT_FOUND) {
            return Ok(None);
        }
        // JSON here would be an answer with the secret in it.
        let line = text
            .lines()
            .next()
            .filter(|line| !line.trim_start().starts_with('{'));
        let message = line
            .unwrap_or_default()
            .chars()
            .filter(|c| !c.is_control())
            .take(MESSAGE_CHARS_MAX)
            .collect();
        return Err(CredentialError::HelperFailed { program, message });
    }
    let answer: WireAnswer =
        serde_json::from_slice(&stdout).map_err(|_| CredentialError::HelperAnswer { program })?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    let secret = Secret::new(answer.secret);
    Ok(Some(if answer.username == IDENTITY_TOKEN_USER {
        Credential::IdentityToken(secret)
    } else {
        Credential::Password {
            username: answer.username,
            password: secret,
        }
    }))
}

/// Runs the helper; it dies with the future that waits for it.
async fn run(path: &Path, server: &str) -> std::io::Result<(bool, Vec<u8>)> {
    let mut child = Command::new(path)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that answers without reading has closed its end: what it says counts.
        let written = stdin.write_all(server.as_bytes()).await;
        if let Err(error) = written
            && error.kind() != std::io::ErrorKind::BrokenPipe
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
    Ok((child.wait().await?.success(), answer))
}
