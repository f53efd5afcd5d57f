//! From an origin to a place that images are read from.

use std::path::PathBuf;
use std::sync::Arc;

use draught_oci::{Location, LocationError, Selector};
use draught_source::{
    BackendLocation, BackendLocationError, Blobs, Client, CredentialFiles, Credentials, Hosts,
    Keychain, ObjectCredentials, ObjectStore, Plugins, PullSecrets, Settings, SourceError,
};

use crate::ahead::{Ahead, Fetched};
use crate::state::Origin;

/// Why an origin can't be read from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OriginError {
    /// The reference can't be understood.
    #[error("{reference:?} is not a reference")]
    Reference {
        /// The reference.
        reference: String,
        /// What is wrong with it.
        source: LocationError,
    },
    /// The place of its blobs can't be understood. It is not repeated: what can't be understood may hold
    /// what should not be shown.
    #[error("the blob backend is not one that can be used")]
    Backend {
        /// What is wrong with it.
        source: BackendLocationError,
    },
    /// It can't be opened.
    #[error("failed to open {reference}")]
    Open {
        /// The reference.
        reference: String,
        /// Why.
        source: SourceError,
    },
}

/// What a daemon is told of registries.
#[derive(Debug, Clone, Default)]
pub struct RegistrySettings {
    /// Directories with files about hosts, as containerd and docker have them, most wanted first.
    pub hosts_dirs: Vec<PathBuf>,
    /// The kubelet's configuration of credential-provider plugins.
    pub provider_config: Option<PathBuf>,
    /// The directory with those plugins.
    pub provider_bin_dir: Option<PathBuf>,
    /// Pull secrets of Kubernetes: files, mounted secrets, directories of them.
    pub pull_secrets: Vec<PathBuf>,
    /// Files of credentials as docker and podman have them, besides those of the daemon's user.
    pub credential_files: Vec<PathBuf>,
}

/// How images are come by: what all of them share.
#[derive(Debug)]
pub(crate) struct Sources {
    hosts: Hosts,
    /// What was handed over, and what this daemon was told to look into.
    credentials: Credentials,
    keychain: Arc<Keychain>,
    fetched: Fetched,
}

impl Sources {
    /// As a daemon was told, with what was handed over to the worker before this one.
    pub(crate) fn new(settings: RegistrySettings, keychain: Keychain) -> Self {
        let keychain = Arc::new(keychain);
        // What was handed over for just this image is the best that there is.
        let mut credentials = Credentials::none().then_keychain(Arc::clone(&keychain));
        if let (Some(config), Some(dir)) = (settings.provider_config, settings.provider_bin_dir) {
            credentials = credentials.then_plugins(Plugins::new(config, dir));
        }
        credentials = credentials
            .then_secrets(PullSecrets::of(settings.pull_secrets))
            .then_each(settings.credential_files);
        Self {
            hosts: Hosts::of(settings.hosts_dirs),
            credentials,
            keychain,
            fetched: Fetched::default(),
        }
    }

    /// Where credentials are handed over.
    pub(crate) fn keychain(&self) -> &Arc<Keychain> {
        &self.keychain
    }

    /// Where credentials for an origin are: those that it names, then the daemon's, then, if it names none,
    /// those of the daemon's user.
    fn credentials(&self, origin: &Origin) -> Credentials {
        let named = Credentials::none().then_each(origin.credentials.clone());
        let all = named.then_all(&self.credentials);
        if origin.credentials.is_empty() {
            all.then_files(CredentialFiles::from_env())
        } else {
            all
        }
    }

    /// Where an origin's blobs are, and which of its images is meant.
    pub(crate) async fn open_blobs(
        &self,
        origin: &Origin,
    ) -> Result<(Ahead, Selector), OriginError> {
        let reference = || origin.reference.clone();
        let location: Location =
            origin
                .reference
                .parse()
                .map_err(|source| OriginError::Reference {
                    reference: reference(),
                    source,
                })?;
        let settings = Settings {
            plain_http: origin.plain_http.clone(),
            credentials: self.credentials(origin),
            hosts: self.hosts.clone(),
            object_credentials: ObjectCredentials::from_env(),
            ..Settings::default()
        };
        let client = Client::new(settings);
        let failed = |source| OriginError::Open {
            reference: reference(),
            source,
        };
        let (repository, selector) = client.open(&location).await.map_err(failed)?;
        let backend = match &origin.blob_backend {
            Some(text) => {
                let location = text.parse::<BackendLocation>();
                let location = location.map_err(|source| OriginError::Backend { source })?;
                Some(ObjectStore::open(&location, &client).map_err(failed)?)
            }
            None => None,
        };
        let blobs = Blobs::new(repository, backend);
        Ok((Ahead::new(blobs, self.fetched.clone()), selector))
    }

    /// What an origin's blobs are read from.
    pub(crate) async fn open_source(
        &self,
        origin: &Origin,
    ) -> Result<Arc<dyn draught_source::Source>, OriginError> {
        let (blobs, _) = self.open_blobs(origin).await?;
        Ok(Arc::new(blobs))
    }
}
