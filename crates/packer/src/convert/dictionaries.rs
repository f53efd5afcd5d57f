//! The dictionaries of a conversion, as they are named.

use std::sync::Arc;

use draught_digest::{Algorithm, Digest};
use draught_oci::{Any, Document, Location, Manifest, Platform};
use draught_source::{Blobs, Client, Repository};

use super::error::ConvertError;
use super::index;
use super::options::ConvertOptions;
use crate::dictionary::Dictionary;
use crate::import::open_image;
use crate::pack::{DictionaryAt, Output};

/// Images that chunks are taken from.
#[derive(Debug)]
pub(super) struct Dictionaries {
    named: Vec<Named>,
    /// Those that were opened last, and for which platform.
    opened: Option<(Platform, Vec<DictionaryAt>)>,
}

#[derive(Debug)]
struct Named {
    name: String,
    /// Whether an image is to be converted without it if it is of no use.
    may_fail: bool,
    repository: Repository,
    document: Any,
}

impl Dictionaries {
    /// Finds out what the locations stand for.
    pub(super) async fn find(
        client: &Client,
        options: &ConvertOptions,
    ) -> Result<Self, ConvertError> {
        let must = options.dictionaries.iter().map(|it| (it, false));
        let may = options.more_dictionaries.iter().map(|it| (it, true));
        let mut named: Vec<Named> = Vec::new();
        for (location, may_fail) in must.chain(may) {
            match Named::find(client, location, may_fail).await {
                Ok(found) => {
                    let digest = found.document.digest();
                    if named.iter().all(|it| it.document.digest() != digest) {
                        named.push(found);
                    }
                }
                Err(error) if may_fail => left_out(&location.to_string(), &error),
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            named,
            opened: None,
        })
    }

    /// Whether there are none: then those that the options of the packer have are used.
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// What they are, to the byte.
    pub(super) fn digests(&self) -> Vec<Digest> {
        self.named
            .iter()
            .map(|named| named.document.digest())
            .collect()
    }

    /// The dictionaries of an image for a platform. A multi-platform one that has nothing for it is left out.
    pub(super) async fn of(
        &mut self,
        platform: &Platform,
        output: &Output,
    ) -> Result<Vec<DictionaryAt>, ConvertError> {
        let digester = match output {
            Output::Nydus(options) => options.digester,
            // Those have digests of this kind, and no dictionaries.
            Output::Archives(_) => Algorithm::Sha256,
        };
        if let Some((of, opened)) = &self.opened
            && of == platform
        {
            return Ok(opened.clone());
        }
        let mut opened = Vec::new();
        for named in &self.named {
            let manifest = match named.manifest(platform).await {
                Err(error) if named.may_fail => {
                    left_out(&named.name, &error);
                    continue;
                }
                manifest => manifest?,
            };
            let Some(manifest) = manifest else {
                let (dictionary, platform) = (&named.name, platform.to_string());
                tracing::warn!(
                    dictionary,
                    platform,
                    "the dictionary has no image for the platform"
                );
                continue;
            };
            match named.open(&manifest, digester).await {
                Ok(at) => opened.push(at),
                Err(error) if named.may_fail => left_out(&named.name, &error),
                Err(error) => return Err(error),
            }
        }
        self.opened = Some((platform.clone(), opened.clone()));
        Ok(opened)
    }
}

fn left_out(dictionary: &str, error: &ConvertError) {
    let error: &dyn std::error::Error = error;
    tracing::warn!(
        dictionary,
        error,
        "an image is no dictionary and is left out"
    );
}

impl Named {
    async fn find(
        client: &Client,
        location: &Location,
        may_fail: bool,
    ) -> Result<Self, ConvertError> {
        let name = location.to_string();
        let failed = |source| ConvertError::Read {
            what: name.clone(),
            source,
        };
        let (repository, selector) = client.open(location).await.map_err(failed)?;
        let document = repository.manifest(&selector).await.map_err(failed)?;
        Ok(Self {
            name,
            may_fail,
            repository,
            document,
        })
    }

    async fn manifest(
        &self,
        platform: &Platform,
    ) -> Result<Option<Document<Manifest>>, ConvertError> {
        let index = match &self.document {
            Any::Manifest(manifest) => return Ok(Some(manifest.clone())),
            Any::Index(index) => index,
        };
        // Beside its original, the nydus image is the one that is meant.
        let mut features = platform.os_features().to_vec();
        features.push(draught_importer::LAZY_OS_FEATURE.to_owned());
        let platform = platform.clone().with_os_features(features);
        let Some(descriptor) = index.select(&platform) else {
            return Ok(None);
        };
        match index::read(&self.repository, descriptor).await? {
            Any::Manifest(manifest) => Ok(Some(manifest)),
            Any::Index(inner) => Err(ConvertError::Nested {
                digest: inner.digest(),
            }),
        }
    }

    async fn open(
        &self,
        manifest: &Document<Manifest>,
        digester: Algorithm,
    ) -> Result<DictionaryAt, ConvertError> {
        let blobs = Blobs::new(self.repository.clone(), None);
        let opened = open_image(&blobs, manifest).await;
        let opened = opened.map_err(|source| ConvertError::Open {
            what: format!("the chunk dictionary {}", self.name),
            source: Box::new(source),
        })?;
        let dictionary = Dictionary::of_image(manifest.digest(), opened).and_then(|it| {
            it.check_digester(digester)?;
            Ok(it)
        });
        let dictionary = dictionary.map_err(|source| ConvertError::Dictionary {
            what: self.name.clone(),
            source,
        })?;
        Ok(DictionaryAt {
            dictionary: Arc::new(dictionary),
            from: Arc::new(self.repository.clone()),
            name: self.name.clone(),
        })
    }
}
