//! One image, of one platform: layers in, blobs and a tree out.

use std::io::{self, Read};

use draught_digest::Digest;
use draught_rafs::blob::{BlobFeatures, BlobInfo, BlobOptions, BlobWriteError, ChunkTable};
use draught_rafs::bootstrap::{BLOBS_MAX, chunk_indexes_in_order};
use draught_tree::{Blob, Tree};

use crate::bootstrap::{self, BootstrapLayer, Contents, FinishError};
use crate::cache::{Head, RecordError, RecordWriter, Replay};
use crate::dictionary::{BlobOrigin, DictionaryUse, Loaded, UsedBlob};
use crate::directory::Directory;
use crate::known::Known;
use crate::layer::{self, Layer, LayerInput, OwnTree, PackLayerError, Written};
use crate::options::{OptionsError, PackOptions};
use crate::progress::{LayerReport, Progress};
use crate::prune::Needed;
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
    pub blobs: Vec<UsedBlob>,
    /// Its bootstrap.
    pub bootstrap: BootstrapLayer,
}

/// Packs the layers of an image, lowest first, into blobs and one tree.
///
/// Chunks that a dictionary has, or that a lower layer or an earlier file of the image brought, are not
/// stored again. Blobs are the same for the same layers and options, on any number of threads. After an error the packer is of
/// no more use.
#[derive(Debug)]
pub struct ImagePacker {
    options: PackOptions,
    tree: Tree,
    known: Known,
    blobs: Vec<UsedBlob>,
    layers: usize,
    wants_records: bool,
    /// Of the layer that was packed last.
    record: Option<io::Result<Vec<u8>>>,
}

/// What a layer has beside its place in the image, while it is packed.
struct Asides {
    own: OwnTree,
    record: Option<RecordWriter>,
    first_chunk: u32,
}

impl ImagePacker {
    /// An image without layers.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn new(options: PackOptions) -> Result<Self, OptionsError> {
        options.check()?;
        let mut tree = Tree::new();
        let (dictionaries, blobs) = Loaded::load(
            &options.dictionaries,
            options.digester,
            options.chunk_bytes,
            &mut tree.map,
        )
        .ok_or(OptionsError::Dictionaries)?;
        Ok(Self {
            options,
            tree,
            known: Known::new(dictionaries),
            blobs,
            layers: 0,
            wants_records: false,
            record: None,
        })
    }

    /// How much of each dictionary can be used.
    #[must_use]
    pub fn dictionaries(&self) -> &[DictionaryUse] {
        self.known.dictionaries.uses()
    }

    /// The same, and of every layer that is packed a record is kept, for a build cache.
    #[must_use]
    pub fn with_records(self) -> Self {
        Self {
            wants_records: true,
            ..self
        }
    }

    /// The record of the layer that was packed last, if one was kept. An error says why it could not be
    /// written; the layer is none the worse for it.
    pub fn take_record(&mut self) -> Option<io::Result<Vec<u8>>> {
        self.record.take()
    }

    /// Does again what packing a layer did, from its record: layers above are packed as if it had been
    /// packed here. Gives what was reported, but for digests, and the facts of the blob that it became.
    /// After an error the packer is of no more use.
    ///
    /// A record says what it likes of its blob: whoever goes on with it has verified the record, or trusts
    /// where it comes from.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn add_recorded(
        &mut self,
        record: &[u8],
    ) -> Result<(LayerReport, Option<BlobInfo>), RecordError> {
        let replay = Replay {
            tree: &mut self.tree,
            known: &mut self.known,
            limits: &self.options.tree_limits,
        };
        let (report, info) = replay.run(record)?;
        if let Some(info) = &info {
            self.push_blob(info.clone());
        }
        self.layers += 1;
        Ok((report, info))
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
        let mut asides = self.asides();
        let (report, written) = layer::pack_archive(input, self.layer(&mut asides, progress))?;
        self.close(number, report, written, asides, progress)
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
        let mut asides = self.asides();
        let (report, written) = layer::pack_content(directory, self.layer(&mut asides, progress))?;
        self.close(number, report, written, asides, progress)
    }

    /// Ends the image: gives its bootstrap, and which blobs it is made of. A blob whose content upper
    /// layers hide entirely is none of them.
    ///
    /// # Errors
    /// See [`FinishError`].
    pub fn finish(mut self) -> Result<PackedImage, FinishError> {
        let dictionaries = &self.known.dictionaries;
        let needed = Needed::by(&self.tree, &self.tree.map, dictionaries);
        let chunk_indexes = if needed.is_all() && dictionaries.chunks() == 0 {
            chunk_indexes_in_order(&self.tree)
        } else {
            let subset = needed.of(&self.tree.map, dictionaries);
            let mut used = needed.blobs.iter();
            self.blobs.retain(|_| used.next().copied().unwrap_or(true));
            subset.become_map_of(&mut self.tree)
        };
        // No longer needed, and large.
        self.known = Known::default();
        let is_foreign = |blob: &&UsedBlob| matches!(blob.origin, BlobOrigin::Dictionary(_));
        if self.blobs.len() > BLOBS_MAX {
            return Err(FinishError::Blobs {
                blobs: self.blobs.len(),
                dictionaries: self.blobs.iter().filter(is_foreign).count(),
            });
        }
        let infos: Vec<BlobInfo> = self.blobs.iter().map(|blob| blob.info.clone()).collect();
        let contents = Contents {
            tree: &self.tree,
            blobs: &infos,
            chunk_indexes: &chunk_indexes,
        };
        let bootstrap = bootstrap::write(contents, &self.options)?;
        Ok(PackedImage {
            tree: self.tree,
            blobs: self.blobs,
            bootstrap,
        })
    }

    fn asides(&self) -> Asides {
        Asides {
            own: OwnTree::new(self.options.layer_bootstraps),
            record: self.wants_records.then(RecordWriter::new),
            // What is too much is refused when the layer is packed.
            first_chunk: u32::try_from(self.tree.map.chunks.len()).unwrap_or(u32::MAX),
        }
    }

    fn layer<'a>(&'a mut self, asides: &'a mut Asides, progress: &'a dyn Progress) -> Layer<'a> {
        Layer {
            number: self.layers,
            blob: BlobOptions {
                compression: self.options.compression,
                digester: self.options.digester,
                chunk_bytes_max: self.options.chunk_bytes,
                batches: self.options.batch_bytes > 0,
            },
            options: &self.options,
            tree: &mut self.tree,
            own: &mut asides.own,
            record: &mut asides.record,
            known: &mut self.known,
            progress,
        }
    }

    fn close(
        &mut self,
        number: usize,
        mut report: LayerReport,
        written: Option<Written>,
        asides: Asides,
        progress: &dyn Progress,
    ) -> Result<(LayerReport, Option<PackedBlob>), PackLayerError> {
        let Asides {
            own,
            record,
            first_chunk,
        } = asides;
        let (mut blob, mut recorded) = (None, None);
        if let Some(written) = written {
            let closed = self.close_blob(written, own, record.is_some())?;
            report.blob_bytes = closed.0.content.bytes();
            recorded = closed.1.map(|table| (closed.0.info.clone(), table));
            blob = Some(closed.0);
        }
        self.layers += 1;
        self.record = record.map(|record| {
            record.finish(&Head {
                first_chunk,
                report: report.clone(),
                blob: recorded,
            })
        });
        progress.layer_packed(number, &report);
        Ok((report, blob))
    }

    /// Ends a blob; gives its table too if that is wanted.
    fn close_blob(
        &mut self,
        written: Written,
        own: OwnTree,
        wants_table: bool,
    ) -> Result<(PackedBlob, Option<ChunkTable>), PackLayerError> {
        let layout = |source: BlobWriteError| PackLayerError::Blob { source };
        let spool_failed = |source| PackLayerError::Spool { source };
        let Written { mut spool, writer } = written;
        let own = own.into_tree();
        let (bytes, mut tail) = writer
            .finish_data(spool.hasher(), own.is_some())
            .map_err(layout)?;
        spool.append(&bytes).map_err(spool_failed)?;
        let id = self.tree.map.push_blob(Blob {
            // Known when the blob is complete.
            digest: Digest::sha256(b""),
            stored_bytes: 0,
            device_bytes: tail.info().device_bytes,
        });
        let id = id.ok_or(PackLayerError::TooManyChunks)?;
        let table = tail.take_table();
        let copy = wants_table.then(|| table.clone());
        table
            .append_to(&mut self.tree.map, id)
            .ok_or(PackLayerError::TooManyChunks)?;
        let bootstrap = match own {
            Some(own) => Some(self.layer_bootstrap(own, tail.info())?),
            None => None,
        };
        let (bytes, mut info) = tail.finish(bootstrap.as_deref()).map_err(layout)?;
        spool.append(&bytes).map_err(spool_failed)?;
        let content = spool.finish();
        info.digest = Some(content.digest());
        if let Some(blob) = self.tree.map.blobs.get_mut(id.index()) {
            blob.digest = content.digest();
            blob.stored_bytes = content.bytes();
        }
        // What a bootstrap says of the blob is about its data: the inner bootstrap is none of it.
        info.features = info.features.without(BlobFeatures::INLINED_FS_META);
        self.push_blob(info.clone());
        Ok((PackedBlob { info, content }, copy))
    }

    /// Adds the blob that the layer at hand became.
    fn push_blob(&mut self, info: BlobInfo) {
        let Some(digest) = info.digest else { return };
        self.blobs.push(UsedBlob {
            digest,
            stored_bytes: info.stored_bytes,
            info,
            origin: BlobOrigin::Layer(self.layers),
        });
    }

    /// The bootstrap of the layer that was packed last, over the blobs that its files lie in.
    fn layer_bootstrap(&self, mut own: Tree, last: &BlobInfo) -> Result<Vec<u8>, PackLayerError> {
        let (map, dictionaries) = (&self.tree.map, &self.known.dictionaries);
        let mut needed = Needed::by(&own, map, dictionaries);
        if let Some(last) = needed.blobs.last_mut() {
            // Even if whiteouts or later entries of the layer left nothing of it.
            *last = true;
        }
        let chunk_indexes = needed.of(map, dictionaries).become_map_of(&mut own);
        let earlier = self.blobs.iter().map(|blob| &blob.info);
        let blobs: Vec<BlobInfo> = earlier
            .chain(std::iter::once(last))
            .zip(&needed.blobs)
            .filter(|(_, used)| **used)
            .map(|(blob, _)| blob.clone())
            .collect();
        let contents = Contents {
            tree: &own,
            blobs: &blobs,
            chunk_indexes: &chunk_indexes,
        };
        bootstrap::write_raw(contents, &self.options)
            .map_err(|source| PackLayerError::Bootstrap { source })
    }
}
