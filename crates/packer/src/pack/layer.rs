//! What a layer is that is to be packed.

use std::fmt;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use draught_digest::Digest;
use draught_oci::Descriptor;
use draught_source::{BlobBackend, BlobReader, SourceError};
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use crate::layer::LayerInput;

/// A layer's bytes, from the first to the last. They are read on a thread that may block.
pub type LayerReader = Box<dyn Read + Send>;

/// A layer that is to be packed: what is known of it, and its bytes when they are wanted.
///
/// A layer that a build cache has is never opened. One that is opened is read once, to its end, and all that
/// is known of it is checked.
pub trait Layer: Send + Sync {
    /// Media type, digest and size of the stored layer: tar, tar+gzip or tar+zstd. `None` when nobody knows
    /// before it is read: then no cache can have it.
    ///
    /// Its annotations say whether it is eStargz.
    fn descriptor(&self) -> Option<&Descriptor>;

    /// The digest of its archive, decompressed, if it is known; no cache can have a layer without.
    fn diff_id(&self) -> Option<Digest>;

    /// Opens it. The bytes may come with any of the three compressions, whatever the descriptor says.
    ///
    /// # Errors
    /// The layer can't be had; the image is not packed.
    fn open(&self) -> BoxFuture<'_, Result<LayerReader, SourceError>>;

    /// Where the stored layer can be had from without reading it, if it is in a registry.
    fn in_registry(&self) -> Option<(&str, &str)> {
        None
    }
}

/// A layer in a repository or another place that holds blobs.
#[derive(Debug, Clone)]
pub struct StoredLayer<B> {
    from: B,
    descriptor: Descriptor,
    diff_id: Digest,
}

impl<B: BlobBackend> StoredLayer<B> {
    /// The layer of that descriptor.
    pub fn new(from: B, descriptor: Descriptor, diff_id: Digest) -> Self {
        Self {
            from,
            descriptor,
            diff_id,
        }
    }
}

impl<B: BlobBackend> Layer for StoredLayer<B> {
    fn descriptor(&self) -> Option<&Descriptor> {
        Some(&self.descriptor)
    }

    fn diff_id(&self) -> Option<Digest> {
        Some(self.diff_id)
    }

    fn open(&self) -> BoxFuture<'_, Result<LayerReader, SourceError>> {
        Box::pin(async {
            // Whoever packs a layer checks all that its descriptor says.
            let stream = self.from.blob(&self.descriptor).await?.unverified();
            let reader = BlobReader::new(stream, &Handle::current());
            Ok(Box::new(reader) as LayerReader)
        })
    }

    fn in_registry(&self) -> Option<(&str, &str)> {
        self.from.in_registry()
    }
}

/// A layer that is read from a stream, once.
pub struct StreamLayer {
    descriptor: Option<Descriptor>,
    diff_id: Option<Digest>,
    reader: Mutex<Option<LayerReader>>,
}

impl fmt::Debug for StreamLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamLayer")
            .field("descriptor", &self.descriptor)
            .finish_non_exhaustive()
    }
}

impl StreamLayer {
    /// A layer of which nothing is known.
    pub fn new(reader: impl Read + Send + 'static) -> Self {
        Self {
            descriptor: None,
            diff_id: None,
            reader: Mutex::new(Some(Box::new(reader))),
        }
    }

    /// Says what the stream is; it is checked.
    #[must_use]
    pub fn with_descriptor(self, descriptor: Descriptor) -> Self {
        Self {
            descriptor: Some(descriptor),
            ..self
        }
    }

    /// Says what its archive is; it is checked.
    #[must_use]
    pub fn with_diff_id(self, diff_id: Digest) -> Self {
        Self {
            diff_id: Some(diff_id),
            ..self
        }
    }
}

impl Layer for StreamLayer {
    fn descriptor(&self) -> Option<&Descriptor> {
        self.descriptor.as_ref()
    }

    fn diff_id(&self) -> Option<Digest> {
        self.diff_id
    }

    fn open(&self) -> BoxFuture<'_, Result<LayerReader, SourceError>> {
        let reader = self
            .reader
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let reader = reader.ok_or(SourceError::Unsupported {
            what: "reading it a second time",
            kind: "a layer that is a stream",
        });
        Box::pin(async { reader })
    }
}

/// Whether a layer says that it is eStargz.
pub(super) fn is_estargz(layer: &dyn Layer) -> bool {
    let descriptor = layer.descriptor();
    descriptor.is_some_and(|layer| draught_importer::estargz_toc(layer).is_some())
}

/// A layer that was opened, with all that is known of it.
pub(super) fn input(layer: &dyn Layer, reader: LayerReader) -> LayerInput<LayerReader> {
    LayerInput {
        reader,
        digest: layer.descriptor().map(|descriptor| descriptor.digest),
        stored_bytes: layer.descriptor().map(|descriptor| descriptor.size),
        diff_id: layer.diff_id(),
        is_estargz: is_estargz(layer),
    }
}
