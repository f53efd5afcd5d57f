//! From an origin to a place that images are read from.

use std::sync::Arc;

use draught_oci::{Location, LocationError, Selector};
use draught_source::{
    BackendLocation, BackendLocationError, Blobs, Client, CredentialFiles, ObjectCredentials,
    ObjectStore, Settings, SourceError,
};

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

/// Where an origin's blobs are, and which of its images is meant, with the credentials of its user.
pub(crate) async fn open_blobs(origin: &Origin) -> Result<(Blobs, Selector), OriginError> {
    let reference = || origin.reference.clone();
    let location: Location = origin
        .reference
        .parse()
        .map_err(|source| OriginError::Reference {
            reference: reference(),
            source,
        })?;
    let credentials = if origin.credentials.is_empty() {
        CredentialFiles::from_env()
    } else {
        CredentialFiles::of(origin.credentials.clone())
    };
    let settings = Settings {
        plain_http: origin.plain_http.clone(),
        credentials,
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
    Ok((Blobs::new(repository, backend), selector))
}

/// What an origin's blobs are read from.
pub(crate) async fn open_source(
    origin: &Origin,
) -> Result<Arc<dyn draught_source::Source>, OriginError> {
    let (blobs, _) = open_blobs(origin).await?;
    Ok(Arc::new(blobs))
}
