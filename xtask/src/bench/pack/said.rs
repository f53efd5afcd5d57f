//! What `draught convert --format json` says.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::bench::measure::{self, Cost};

/// What it says of an image's layers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// For each layer the bytes of the blob that it became, the lowest first.
    pub(super) blob_bytes: Vec<u64>,
    /// Bytes of the image's metadata, as it is stored.
    pub(super) metadata_bytes: u64,
    /// Layers that came from a build cache.
    pub(super) hits: usize,
}

/// Runs a conversion; what it says goes through the file `log`.
pub(super) fn convert(command: &mut Command, log: &Path) -> Result<(Cost, Said)> {
    let cost = measure::run(command, log)?;
    let text = fs_err::read_to_string(log)?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("understand {text}"))?;
    let said = said(&value).with_context(|| format!("find the image's layers in {text}"))?;
    Ok((cost, said))
}

fn said(value: &Value) -> Option<Said> {
    let image = value.get("images")?.get(0)?;
    let layers = image.get("layers")?.as_array()?;
    let blob_bytes = layers.iter().map(|layer| layer.get("blob_bytes")?.as_u64());
    let cached = |layer: &&Value| layer.get("cached").and_then(Value::as_bool) == Some(true);
    Some(Said {
        blob_bytes: blob_bytes.collect::<Option<_>>()?,
        metadata_bytes: image.get("bootstrap_layer_bytes")?.as_u64()?,
        hits: layers.iter().filter(cached).count(),
    })
}

impl Said {
    /// Fails if not so many layers came from a build cache: then something else was measured.
    pub(super) fn ensure_hits(&self, expect: usize) -> Result<()> {
        ensure!(
            self.hits == expect,
            "take {expect} layers from the cache: {} were found there",
            self.hits
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn layers_and_hits_are_found() {
        let layers = json!([{"blob_bytes": 5, "cached": true}, {"blob_bytes": 0, "cached": false}]);
        let value = json!({"images": [{"layers": layers, "bootstrap_layer_bytes": 7}]});
        let expect = Said {
            blob_bytes: vec![5, 0],
            metadata_bytes: 7,
            hits: 1,
        };
        assert_eq!(said(&value), Some(expect));
        assert!(said(&value).unwrap().ensure_hits(2).is_err());
        assert_eq!(said(&json!({"images": []})), None);
    }
}
