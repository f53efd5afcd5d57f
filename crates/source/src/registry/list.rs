//! Lists: tags, and what refers to a manifest.

use draught_digest::Digest;
use draught_oci::{Any, Descriptor, Document, Index, Limits, Selector};
use reqwest::header::LINK;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::client::RegistryRepository;
use crate::error::SourceError;
use crate::http::{Answer, Request};
use crate::retry;
use crate::settings::{LIST_BYTES_MAX, LIST_PAGES_MAX};

/// Entries asked for at once.
const PAGE_ENTRIES: &str = "1000";

#[derive(Deserialize)]
struct WireTags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl RegistryRepository {
    /// All tags, as the registry orders them.
    ///
    /// # Errors
    /// Of every class; not found when the repository has never been written.
    pub async fn tags(&self) -> Result<Vec<String>, SourceError> {
        let mut url = self.url("tags/list")?;
        url.query_pairs_mut().append_pair("n", PAGE_ENTRIES);
        let mut tags = Vec::new();
        for _ in 0..LIST_PAGES_MAX {
            let (body, next) = self.page(url).await?;
            let wire: WireTags = serde_json::from_slice(&body)
                .map_err(|_| self.senseless("list of tags is malformed"))?;
            tags.extend(wire.tags.unwrap_or_default());
            match next {
                Some(next) => url = next,
                None => return Ok(tags),
            }
        }
        Err(self.senseless("list of tags has no end"))
    }

    /// Manifests whose subject is `subject`; from the tag that stands in where a registry has no such list.
    ///
    /// # Errors
    /// Of every class but not found.
    pub async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, SourceError> {
        let mut url = self.url(&format!("referrers/{subject}"))?;
        let mut found = Vec::new();
        for page in 0..LIST_PAGES_MAX {
            let (body, next) = match self.page(url).await {
                Ok(page) => page,
                Err(error) if error.is_not_found() && page == 0 => {
                    let index = self.referrers_index(subject).await?;
                    return Ok(index.map(|index| index.manifests).unwrap_or_default());
                }
                Err(error) => return Err(error),
            };
            let index = Document::<Index>::parse(body, &Limits::default()).map_err(|source| {
                SourceError::Document {
                    what: format!("{}, referrers of {subject}", self.label()),
                    source: Box::new(source),
                }
            })?;
            found.extend(index.content().manifests.iter().cloned());
            match next {
                Some(next) => url = next,
                None => return Ok(found),
            }
        }
        Err(self.senseless("list of referrers has no end"))
    }

    /// One page of a list, and where the next one is.
    async fn page(&self, url: Url) -> Result<(Vec<u8>, Option<Url>), SourceError> {
        let request = Request::new(Method::GET, url);
        retry::insist(self.settings(), || async {
            let answer = self
                .expect(&request, &self.pull(), &[StatusCode::OK])
                .await?;
            let next = self.next_page(&request.url, &answer)?;
            let body = answer.bytes("list", LIST_BYTES_MAX).await?;
            Ok((body.to_vec(), next))
        })
        .await
    }

    /// `Link: <URL>; rel="next"`.
    fn next_page(&self, from: &Url, answer: &Answer) -> Result<Option<Url>, SourceError> {
        let Some(link) = answer.header(LINK.as_str()) else {
            return Ok(None);
        };
        let target = link
            .strip_prefix('<')
            .and_then(|rest| rest.split_once('>'))
            .filter(|(_, rest)| rest.contains("next"))
            .map(|(target, _)| target);
        target
            .map(|target| self.authority().target(from, target))
            .transpose()
    }

    /// The index at the tag that stands in for the list of referrers.
    async fn referrers_index(&self, subject: &Digest) -> Result<Option<Index>, SourceError> {
        match self.manifest(&referrers_tag(subject)).await {
            Ok(Any::Index(index)) => Ok(Some(index.content().clone())),
            Ok(Any::Manifest(_)) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a manifest to the index at the tag that stands in. The specification has no compare-and-swap for
    /// this: of two writers at once one may be lost, as with every other client.
    pub(super) async fn add_referrer(
        &self,
        subject: &Descriptor,
        document: &Any,
    ) -> Result<(), SourceError> {
        let mut index = self
            .referrers_index(&subject.digest)
            .await?
            .unwrap_or_else(|| Index::new(Vec::new()));
        let mut descriptor = document.descriptor();
        if index
            .manifests
            .iter()
            .any(|other| other.digest == descriptor.digest)
        {
            return Ok(());
        }
        let (artifact_type, annotations) = match document {
            Any::Manifest(manifest) => {
                let kind = manifest.artifact_type.clone();
                let config = manifest.config.media_type.clone();
                (kind.or(Some(config)), manifest.annotations.clone())
            }
            Any::Index(other) => (other.artifact_type.clone(), other.annotations.clone()),
        };
        descriptor.artifact_type = artifact_type;
        descriptor.annotations = annotations;
        index.manifests.push(descriptor);
        let Selector::Tag(tag) = referrers_tag(&subject.digest) else {
            return Ok(());
        };
        // The index has no subject itself, so this ends here.
        Box::pin(self.put_manifest(Some(&tag), &Any::Index(Document::write(index)))).await
    }
}

/// The tag that stands in for the list of referrers.
fn referrers_tag(subject: &Digest) -> Selector {
    Selector::Tag(format!("{}-{}", subject.algorithm().name(), subject.hex()))
}
