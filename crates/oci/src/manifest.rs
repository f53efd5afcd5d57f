//! Manifests and indexes.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::descriptor::Descriptor;
use crate::document::{Content, Limits, ParseError};
use crate::media_type;
use crate::platform::Platform;
use crate::wire::{WireDescriptor, WireManifest, nonempty};

/// One image: a configuration and layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// OCI's or docker's.
    pub media_type: String,
    /// What kind of artifact it is, when it is no image to run.
    pub artifact_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// Layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about.
    pub subject: Option<Descriptor>,
    /// What its writer says of it.
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// An OCI manifest.
    #[must_use]
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            media_type: media_type::MANIFEST.to_owned(),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Everything that it names and that has to be there for it to be whole: configuration, then layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// Images for several platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// OCI's or docker's.
    pub media_type: String,
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// Its manifests, in the order of preference.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one is about.
    pub subject: Option<Descriptor>,
    /// What its writer says of it.
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// An OCI index.
    #[must_use]
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            media_type: media_type::INDEX.to_owned(),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The manifest that runs best on `platform`, the first among equals.
    ///
    /// One without a platform is taken when no other fits: the caller then has to compare the image
    /// configuration. Attestations and other documents that are about a manifest are never taken.
    #[must_use]
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let rank = |descriptor: &Descriptor| match &descriptor.platform {
            Some(image) => platform.rank(image),
            None => Some(u32::MAX),
        };
        self.images()
            .filter_map(|descriptor| rank(descriptor).map(|rank| (rank, descriptor)))
            .min_by_key(|(rank, descriptor)| {
                let features = |image: &Platform| image.os_features().len();
                let features = descriptor.platform.as_ref().map_or(0, features);
                // What is made for more of what the platform knows is better.
                (*rank, Reverse(features))
            })
            .map(|(_, descriptor)| descriptor)
    }

    /// The manifests and indexes that are images, without attestations and other artifacts.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|descriptor| {
            let is_document = media_type::is_manifest(&descriptor.media_type)
                || media_type::is_index(&descriptor.media_type);
            let is_about_another = descriptor
                .annotations
                .contains_key(crate::annotation::DOCKER_REFERENCE_TYPE);
            is_document && !is_about_another
        })
    }
}

/// Reads what manifest and index have in common, and refuses what could be both.
fn decode_wire(
    bytes: &[u8],
    kind: &'static str,
    limits: &Limits,
) -> Result<WireManifest, ParseError> {
    let wire: WireManifest =
        serde_json::from_slice(bytes).map_err(|source| ParseError::Json { kind, source })?;
    if wire.fs_layers.is_some() || wire.schema_version == 1 {
        return Err(ParseError::Schema1);
    }
    if wire.schema_version != 2 {
        let version = wire.schema_version;
        return Err(ParseError::SchemaVersion { kind, version });
    }
    if wire.manifests.is_some() && (wire.config.is_some() || wire.layers.is_some()) {
        return Err(ParseError::Ambiguous);
    }
    let count = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::len);
    let count = count(&wire.layers).saturating_add(count(&wire.manifests));
    if count > limits.descriptors_max {
        return Err(ParseError::TooMany {
            count,
            limit: limits.descriptors_max,
        });
    }
    Ok(wire)
}

/// Checks the media type that a document gives itself.
fn check_media_type(
    told: Option<String>,
    expected: &str,
    is_right: fn(&str) -> bool,
) -> Result<String, ParseError> {
    match told {
        None => Ok(expected.to_owned()),
        Some(told) if is_right(&told) => Ok(told),
        Some(found) => Err(ParseError::MediaType {
            expected: expected.to_owned(),
            found,
        }),
    }
}

/// One descriptor of a document.
fn descriptor(
    wire: WireDescriptor,
    kind: &'static str,
    field: impl FnOnce() -> String,
) -> Result<Descriptor, ParseError> {
    Descriptor::try_from(wire).map_err(|source| ParseError::Descriptor {
        kind,
        field: field(),
        source,
    })
}

/// A list of descriptors of a document.
fn descriptors(
    wires: Vec<WireDescriptor>,
    kind: &'static str,
    field: &str,
) -> Result<Vec<Descriptor>, ParseError> {
    wires
        .into_iter()
        .enumerate()
        .map(|(index, wire)| descriptor(wire, kind, || format!("{field}[{index}]")))
        .collect()
}

/// The subject of a document.
fn subject(
    wire: Option<WireDescriptor>,
    kind: &'static str,
) -> Result<Option<Descriptor>, ParseError> {
    wire.map(|wire| descriptor(wire, kind, || "subject".to_owned()))
        .transpose()
}

/// A struct of texts and numbers always has a JSON form.
fn encode(wire: &WireManifest) -> Vec<u8> {
    serde_json::to_vec(wire).unwrap_or_default()
}

impl Content for Manifest {
    const KIND: &'static str = "manifest";

    fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, ParseError> {
        let wire = decode_wire(bytes, Self::KIND, limits)?;
        let media_type = check_media_type(
            wire.media_type,
            media_type::MANIFEST,
            media_type::is_manifest,
        )?;
        if wire.manifests.is_some() {
            return Err(ParseError::MediaType {
                expected: media_type,
                found: media_type::INDEX.to_owned(),
            });
        }
        let config = wire.config.ok_or(ParseError::Missing {
            kind: Self::KIND,
            field: "config",
        })?;
        Ok(Self {
            media_type,
            artifact_type: wire.artifact_type,
            config: descriptor(config, Self::KIND, || "config".to_owned())?,
            layers: descriptors(wire.layers.unwrap_or_default(), Self::KIND, "layers")?,
            subject: subject(wire.subject, Self::KIND)?,
            annotations: wire.annotations.unwrap_or_default(),
        })
    }

    fn encode(&self) -> Vec<u8> {
        encode(&WireManifest {
            schema_version: 2,
            media_type: Some(self.media_type.clone()),
            artifact_type: self.artifact_type.clone(),
            config: Some((&self.config).into()),
            layers: Some(self.layers.iter().map(Into::into).collect()),
            subject: self.subject.as_ref().map(Into::into),
            annotations: nonempty(&self.annotations),
            ..WireManifest::default()
        })
    }

    fn media_type(&self) -> &str {
        &self.media_type
    }
}

impl Content for Index {
    const KIND: &'static str = "index";

    fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, ParseError> {
        let wire = decode_wire(bytes, Self::KIND, limits)?;
        let media_type =
            check_media_type(wire.media_type, media_type::INDEX, media_type::is_index)?;
        if wire.config.is_some() || wire.layers.is_some() {
            return Err(ParseError::MediaType {
                expected: media_type,
                found: media_type::MANIFEST.to_owned(),
            });
        }
        Ok(Self {
            media_type,
            artifact_type: wire.artifact_type,
            manifests: descriptors(wire.manifests.unwrap_or_default(), Self::KIND, "manifests")?,
            subject: subject(wire.subject, Self::KIND)?,
            annotations: wire.annotations.unwrap_or_default(),
        })
    }

    fn encode(&self) -> Vec<u8> {
        encode(&WireManifest {
            schema_version: 2,
            media_type: Some(self.media_type.clone()),
            artifact_type: self.artifact_type.clone(),
            manifests: Some(self.manifests.iter().map(Into::into).collect()),
            subject: self.subject.as_ref().map(Into::into),
            annotations: nonempty(&self.annotations),
            ..WireManifest::default()
        })
    }

    fn media_type(&self) -> &str {
        &self.media_type
    }
}
