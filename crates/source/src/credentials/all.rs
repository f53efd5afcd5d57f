//! All that may know a credential, in order.

use std::sync::Arc;
use std::time::SystemTime;

use super::file::{Credential, CredentialError};
use super::keychain::Keychain;
use super::lookup::CredentialFiles;
use super::plugins::Plugins;
use super::secrets::PullSecrets;

/// What a credential is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Who asks for it: the registry, or a host that stands for it.
    pub(crate) host: &'a str,
    /// The registry that the image's name has.
    pub(crate) registry: &'a str,
    /// The repository.
    pub(crate) repository: &'a str,
    /// A second repository of the same registry, to read from.
    pub(crate) from: Option<&'a str>,
}

/// A credential, and when it ends if that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) credential: Credential,
    pub(crate) expires: Option<SystemTime>,
}

impl From<Credential> for Found {
    fn from(credential: Credential) -> Self {
        Self {
            credential,
            expires: None,
        }
    }
}

#[derive(Debug, Clone)]
enum Provider {
    Keychain(Arc<Keychain>),
    Plugins(Plugins),
    Secrets(PullSecrets),
    Files(CredentialFiles),
}

/// Where credentials are, most wanted first. Clones share what is remembered.
///
/// Everything is looked up anew when a registry asks to be told who we are, so that a login counts without a
/// restart. When a registry does not take what one knows, the next is asked.
#[derive(Debug, Clone, Default)]
pub struct Credentials(Vec<Provider>);

impl Credentials {
    /// None at all.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The files of whoever runs this, see [`CredentialFiles::from_env`].
    #[must_use]
    pub fn from_env() -> Self {
        CredentialFiles::from_env().into()
    }

    /// The same, and then docker's and podman's files.
    #[must_use]
    pub fn then_files(self, files: CredentialFiles) -> Self {
        self.then(Provider::Files(files))
    }

    /// The same, and then each of these files: one that is torn hides none of the others.
    #[must_use]
    pub fn then_each(self, files: Vec<std::path::PathBuf>) -> Self {
        files.into_iter().fold(self, |all, file| {
            all.then_files(CredentialFiles::of(vec![file]))
        })
    }

    /// The same, and then pull secrets of Kubernetes.
    #[must_use]
    pub fn then_secrets(self, secrets: PullSecrets) -> Self {
        self.then(Provider::Secrets(secrets))
    }

    /// The same, and then credential-provider plugins of the kubelet.
    #[must_use]
    pub fn then_plugins(self, plugins: Plugins) -> Self {
        self.then(Provider::Plugins(plugins))
    }

    /// The same, and then what was handed over for single images.
    #[must_use]
    pub fn then_keychain(self, keychain: Arc<Keychain>) -> Self {
        self.then(Provider::Keychain(keychain))
    }

    /// The same, and then all of another.
    #[must_use]
    pub fn then_all(mut self, others: &Self) -> Self {
        self.0.extend(others.0.iter().cloned());
        self
    }

    fn then(mut self, provider: Provider) -> Self {
        self.0.push(provider);
        self
    }

    /// A credential; none when there is none, which for public images is fine. The first `skip` ones are
    /// known to be no use.
    ///
    /// # Errors
    /// When nobody has one, and somebody could not say.
    pub(crate) async fn lookup(
        &self,
        wanted: &Wanted<'_>,
        mut skip: usize,
    ) -> Result<Option<Found>, CredentialError> {
        let mut failed = None;
        for provider in &self.0 {
            let found = match provider.lookup(wanted).await {
                Ok(found) => found,
                Err(error) => {
                    // The others may know; who is not let in at all is told.
                    let why = &error as &dyn std::error::Error;
                    let host = wanted.host;
                    tracing::warn!(host, error = why, "credentials could not be looked up");
                    failed.get_or_insert(error);
                    continue;
                }
            };
            let count = found.len();
            if let Some(found) = found.into_iter().nth(skip) {
                return Ok(Some(found));
            }
            skip = skip.saturating_sub(count);
        }
        failed.map_or(Ok(None), Err)
    }
}

impl Provider {
    async fn lookup(&self, wanted: &Wanted<'_>) -> Result<Vec<Found>, CredentialError> {
        let (host, repository) = (wanted.host, wanted.repository);
        Ok(match self {
            Self::Keychain(keychain) => keychain.find(wanted, SystemTime::now()),
            Self::Plugins(plugins) => plugins.lookup(host, repository).await?,
            Self::Secrets(secrets) => secrets.lookup(host, repository).await?,
            Self::Files(files) => {
                let found = files.lookup(host, repository).await?;
                found.map(Found::from).into_iter().collect()
            }
        })
    }
}

impl From<CredentialFiles> for Credentials {
    fn from(files: CredentialFiles) -> Self {
        Self::none().then_files(files)
    }
}
