//! From an origin to a place that images are read from.

use std::sync::Arc;

use draught_oci::{Location, LocationError, Selector};
use draught_source::{Client, CredentialFiles, Repository, Settings, SourceError};

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
    /// It can't be opened.
    #[error("failed to open {reference}")]
    Open {
        /// The reference.
        reference: String,
        /// Why.
        source: SourceError,
    },
}

/// The repository of an origin, and which of its images is meant, with the credentials of its user.
pub(crate) async fn open_repository(
    origin: &Origin,
) -> Result<(Repository, Selector), OriginError> {
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
        ..Settings::default()
    };
    Client::new(settings)
        .open(&location)
        .await
        .map_err(|source| OriginError::Open {
            reference: reference(),
            source,
        })
}

/// What an origin's blobs are read from.
pub(crate) async fn open_source(
    origin: &Origin,
) -> Result<Arc<dyn draught_source::Source>, OriginError> {
    let (repository, _) = open_repository(origin).await?;
    Ok(Arc::new(repository))
}
