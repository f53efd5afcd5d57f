//! One image, of one platform: layers in, blobs and a tree out.

use std::io::Read;

use draught_rafs::blob::{BlobInfo, BlobOptions, BlobWriteError};
use draught_tree::{Blob, BlobId, Tree};

use crate::bootstrap::{self, BootstrapLayer, FinishError};
use crate::directory::Directory;
use crate::layer::{self, Known, Layer, LayerInput, PackLayerError, Written};
use crate::options::{OptionsError, PackOptions};
use crate::progress::{LayerReport, Progress};
use crate::prune;
use crate::spool::Spooled;

/// A blob that is complete, in a file without a name.
#[derive(Debug)]
pub struct PackedBlob {
    /// What a bootstrap says of it.
    pub info: BlobInfo,
    /// Its bytes.
    pub content: Spooled,
}

/// An image that is complete.
#[derive(Debug)]
pub struct PackedImage {
    /// What it holds.
    pub tree: Tree,
    /// The blobs that it is made of, in the order of the tree's map.
    pub blobs: Vec<BlobInfo>,
    /// Its bootstrap.
    pub bootstrap: BootstrapLayer,
}

/// Packs the layers of an image, lowest first, into blobs and one tree.
///
/// Chunks that a lower layer or an earlier file of the image brought are not stored again. Blobs are
/// the same for the same layers and options, on any number of threads. After an error the packer is of
/// no more use.
#[derive(Debug)]
pub struct ImagePacker {
    options: PackOptions,
    tree: Tree,
    known: Known,
    blobs: Vec<BlobInfo>,
    layers: usize,
}

impl ImagePacker {
    /// An image without layers.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn new(options: PackOptions) -> Result<Self, OptionsError> {
        options.check()?;
        Ok(Self {
            options,
            tree: Tree::new(),
            known: Known::new(),
            blobs: Vec::new(),
            layers: 0,
        })
    }

    /// Packs the next layer; reads it to its end and checks all that is known of it. Gives a blob if
    /// the layer brought anything that was not there.
    ///
    /// # Errors
    /// See [`PackLayerError`].
    pub fn add_layer<R: Read + Send>(
        &mut self,
        input: LayerInput<R>,
        progress: &dyn Progress,
    ) -> Result<(LayerReport, Option<PackedBlob>), PackLayerError> {
        let number = self.layers;
        progress.layer_started(number, input.stored_bytes);
        let (report, written) = layer::pack_archive(input, self.layer(progress))?;
        self.close(number, report, written, progress)
    }

    /// Packs a directory tree as the next layer, names in byte order. It must not change meanwhile.
    ///
    /// # Errors
    /// See [`PackLayerError`].
    pub fn add_directory(
        &mut self,
        directory: &mut Directory,
        progress: &dyn Progress,
    ) -> Result<(LayerReport, Option<PackedBlob>), PackLayerError> {
        let number = self.layers;
        progress.layer_started(number, None);
        let (report, written) = layer::pack_content(directory, self.layer(progress))?;
        self.close(number, report, written, progress)
    }

    /// Ends the image: gives its bootstrap, and which blobs it is made of. A blob whose content upper
    /// layers hide entirely is none of them.
    ///
    /// # Errors
    /// See [`FinishError`].
    pub fn finish(mut self) -> Result<PackedImage, FinishError> {
        let used = prune::used_blobs(&self.tree);
        if used.contains(&false) {
            prune::prune(&mut self.tree, &used);
            let mut used = used.iter();
            self.blobs.retain(|_| used.next().copied().unwrap_or(true));
        }
        let bootstrap = bootstrap::write(&self.tree, &self.blobs, &self.options)?;
        Ok(PackedImage {
            tree: self.tree,
            blobs: self.blobs,
            bootstrap,
        })
    }

    fn layer<'a>(&'a mut self, progress: &'a dyn Progress) -> Layer<'a> {
        Layer {
            number: self.layers,
            blob: BlobOptions {
                compression: self.options.compression,
                digester: self.options.digester,
                chunk_bytes_max: self.options.chunk_bytes,
                batches: self.options.batch_bytes > 0,
                inline_bootstrap: false,
            },
            options: &self.options,
            tree: &mut self.tree,
            known: &mut self.known,
            progress,
        }
    }

    fn close(
        &mut self,
        number: usize,
        mut report: LayerReport,
        written: Option<Written>,
        progress: &dyn Progress,
    ) -> Result<(LayerReport, Option<PackedBlob>), PackLayerError> {
        self.layers += 1;
        let blob = match written {
            Some(written) => Some(self.close_blob(written)?),
            None => None,
        };
        if let Some(blob) = &blob {
            report.blob_bytes = blob.content.bytes();
        }
        progress.layer_packed(number, &report);
        Ok((report, blob))
    }

    fn close_blob(&mut self, written: Written) -> Result<PackedBlob, PackLayerError> {
        let layout = |source: BlobWriteError| PackLayerError::Blob { source };
        let spool_failed = |source| PackLayerError::Spool { source };
        let Written { mut spool, writer } = written;
        let (bytes, tail) = writer.finish_data(spool.hasher()).map_err(layout)?;
        spool.append(&bytes).map_err(spool_failed)?;
        let (bytes, mut info, table) = tail.finish(None).map_err(layout)?;
        spool.append(&bytes).map_err(spool_failed)?;
        let content = spool.finish();
        info.digest = Some(content.digest());
        let id = self.tree.map.push_blob(Blob {
            digest: content.digest(),
            stored_bytes: content.bytes(),
            device_bytes: info.device_bytes,
        });
        let id: BlobId = id.ok_or(PackLayerError::TooManyChunks)?;
        table
            .append_to(&mut self.tree.map, id)
            .ok_or(PackLayerError::TooManyChunks)?;
        self.blobs.push(info.clone());
        Ok(PackedBlob { info, content })
    }
}
