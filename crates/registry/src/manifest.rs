//! What a registry must know of a manifest: its type, what it refers to, and its subject.

use std::collections::BTreeMap;

use draught_digest::Digest;
use serde::Deserialize;

use crate::names::parse_digest;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    subject: Option<RawDescriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

/// A manifest or index that can be stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    /// What the referrers list shows: of an image without one, the type of its config.
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) subject: Option<Digest>,
    /// Blobs that must be in the repository.
    pub(crate) blobs: Vec<Digest>,
    /// Manifests that must be in the repository.
    pub(crate) manifests: Vec<Digest>,
}

/// Why a manifest can't be stored: words for the client.
pub(crate) type Refusal = String;

/// Reads a manifest that was pushed as `content_type`, or as nothing in particular.
pub(crate) fn parse(content_type: Option<&str>, bytes: &[u8]) -> Result<Manifest, Refusal> {
    let raw: RawManifest = serde_json::from_slice(bytes)
        .map_err(|error| format!("this is not a manifest: {error}"))?;
    if raw.schema_version != Some(2) {
        return Err("schemaVersion must be 2; convert older manifests before pushing them".into());
    }
    // A document that is both would be read as one by some clients and as the other by the rest.
    if raw.manifests.is_some() && (raw.config.is_some() || raw.layers.is_some()) {
        return Err("a manifest can't have both manifests and config or layers".into());
    }
    let media_type = media_type(content_type, &raw)?;
    let is_index = matches!(media_type.as_str(), OCI_INDEX | DOCKER_LIST);
    let artifact_type = raw.artifact_type.filter(|kind| !kind.is_empty());
    let mut manifest = Manifest {
        media_type,
        artifact_type,
        annotations: raw.annotations.unwrap_or_default(),
        subject: raw.subject.as_ref().map(digest_of).transpose()?,
        blobs: Vec::new(),
        manifests: Vec::new(),
    };
    if is_index {
        let entries = raw.manifests.ok_or("an index must have manifests")?;
        manifest.manifests = entries.iter().map(digest_of).collect::<Result<_, _>>()?;
    } else {
        let config = raw.config.ok_or("a manifest must have a config")?;
        let layers = raw.layers.ok_or("a manifest must have layers")?;
        manifest.blobs.push(digest_of(&config)?);
        for layer in layers.iter().filter(|layer| !lies_elsewhere(layer)) {
            manifest.blobs.push(digest_of(layer)?);
        }
        if manifest.artifact_type.is_none() && !config.media_type.is_empty() {
            manifest.artifact_type = Some(config.media_type);
        }
    }
    Ok(manifest)
}

fn media_type(content_type: Option<&str>, raw: &RawManifest) -> Result<String, Refusal> {
    // Parameters such as a character set do not change the type.
    let content_type = content_type
        .and_then(|value| value.split(';').next())
        .map(str::trim)
        .filter(|value| !value.is_empty());
    let named = match (content_type, raw.media_type.as_deref()) {
        (Some(pushed), Some(inside)) if pushed != inside => {
            return Err(format!(
                "pushed as {pushed:?}, but its mediaType is {inside:?}"
            ));
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) if raw.manifests.is_some() => OCI_INDEX,
        (None, None) => OCI_MANIFEST,
    };
    match named {
        OCI_MANIFEST | OCI_INDEX | DOCKER_MANIFEST | DOCKER_LIST => Ok(named.to_owned()),
        other => Err(format!(
            "manifests of the type {other:?} are not supported; push an OCI or docker v2 manifest"
        )),
    }
}

fn digest_of(descriptor: &RawDescriptor) -> Result<Digest, Refusal> {
    parse_digest(&descriptor.digest)
}

/// Whether a layer is fetched from somewhere else, so that no registry has to hold it.
fn lies_elsewhere(layer: &RawDescriptor) -> bool {
    layer.urls.as_ref().is_some_and(|urls| !urls.is_empty())
        || layer.media_type.contains(".nondistributable.")
        || layer.media_type.contains(".foreign.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    fn image(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/x","digest":"{}","size":1}},
            "layers":[{{"mediaType":"application/y","digest":"{}","size":1}}]{extra}}}"#,
            digest("config"),
            digest("layer")
        )
    }

    #[test]
    fn an_image_names_its_blobs_and_its_type() {
        let manifest = parse(Some(OCI_MANIFEST), image("").as_bytes()).unwrap();
        assert_eq!(manifest.blobs, [digest("config"), digest("layer")]);
        assert_eq!(manifest.artifact_type.as_deref(), Some("application/x"));
        assert_eq!(
            parse(None, image("").as_bytes()).unwrap().media_type,
            OCI_MANIFEST
        );
    }

    #[test]
    fn a_layer_that_lies_elsewhere_is_not_asked_for() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}"}},"layers":[
            {{"mediaType":"application/y","urls":["https://x"],"digest":"{}"}},
            {{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{}"}},
            {{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{}"}}]}}"#,
            digest("config"),
            digest("a"),
            digest("b"),
            digest("c"),
        );
        let manifest = parse(Some(DOCKER_MANIFEST), text.as_bytes()).unwrap();
        assert_eq!(manifest.blobs, [digest("config")]);
    }

    #[test]
    fn what_no_client_could_use_is_refused() {
        let index_and_image = image(r#","manifests":[]"#);
        let twice = image(r#","schemaVersion":2"#);
        let other_inside = image(r#","mediaType":"application/vnd.oci.image.index.v1+json""#);
        let sha512 = image(&format!(
            r#","subject":{{"digest":"sha512:{}"}}"#,
            "0".repeat(128)
        ));
        for text in [
            "",
            "[]",
            "{",
            "{}",
            r#"{"schemaVersion":1}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"config":null,"layers":null}"#,
            &index_and_image,
            &twice,
            &other_inside,
            &sha512,
        ] {
            assert!(
                parse(Some(OCI_MANIFEST), text.as_bytes()).is_err(),
                "{text}"
            );
        }
        assert!(parse(Some("text/plain"), image("").as_bytes()).is_err());
        assert!(parse(Some(OCI_INDEX), image("").as_bytes()).is_err());
    }
}
