//! What a runtime without lazy reading does: fetch every layer whole, unpack it, then start.

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, Result};
use draught_codec::{LayerDecoder, LayerLimits};
use draught_oci::Descriptor;
use draught_source::{BlobReader, RegistryRepository};
use draught_tar::{Limits, Reader};
use tokio::runtime::Handle;

use super::cancel::Cancel;
use super::tree_on_disk::TreeOnDisk;

/// Fetches and unpacks layers into an empty directory, lowest first, each decoded and written while it
/// comes from the network.
pub(crate) async fn unpack(
    repository: &RegistryRepository,
    layers: &[Descriptor],
    into: &Path,
    cancel: &Cancel,
) -> Result<()> {
    for layer in layers {
        let blob = BlobReader::new(repository.blob(layer), &Handle::current());
        let (into, cancel) = (into.to_owned(), cancel.clone());
        let unpack = move || unpack_layer(blob, &TreeOnDisk::new(&into)?, &cancel);
        tokio::task::spawn_blocking(unpack)
            .await?
            .with_context(|| format!("unpack the layer {}", layer.digest))?;
    }
    Ok(())
}

fn unpack_layer(layer: impl Read, into: &TreeOnDisk, cancel: &Cancel) -> Result<()> {
    let decoder = LayerDecoder::new(layer, LayerLimits::default())?;
    let mut reader = Reader::new(decoder, Limits::default());
    while let Some(entry) = reader.next_entry()? {
        cancel.check()?;
        into.add(&entry, &mut reader)?;
    }
    // To the very end: only then is the digest checked.
    io::copy(&mut reader.finish()?, &mut io::sink())?;
    Ok(())
}
