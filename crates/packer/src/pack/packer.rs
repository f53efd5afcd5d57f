//! The packer of whole images.

use std::fmt;
use std::sync::Arc;

use draught_oci::Manifest;
use draught_source::BlobBackend;

use super::error::PackError;
use super::layer::Layer;
use super::output::Output;
use super::packed::Packed;
use super::push::Pusher;
use super::{archives, lazy};
use crate::archive::TreeContent;
use crate::cache::{BuildCache, CacheReport, Caches};
use crate::dictionary::Dictionary;
use crate::directory::Directory;
use crate::options::OptionsError;
use crate::progress::Progress;

/// Packs the layers of images into blobs, and puts these where they belong.
///
/// Layers are streamed one after the other, lowest first; blobs are sent while the next layer is packed. A
/// layer that a cache has is neither opened nor packed. Blobs are the same for the same layers and options.
///
/// ```no_run
/// # use std::sync::Arc;
/// # async fn pack(blobs: Arc<dyn draught_packer::BlobBackend>) -> Result<(), Box<dyn std::error::Error>> {
/// use draught_packer::{Output, Packer, StreamLayer};
///
/// let mut packer = Packer::new(Output::default(), blobs)?;
/// let base = StreamLayer::new(std::fs::File::open("base.tar.gz")?);
/// let app = StreamLayer::new(std::fs::File::open("app.tar")?);
/// let packed = packer.pack(&[Arc::new(base), Arc::new(app)]).await?;
/// packer.flush().await?;
/// for layer in &packed.layers {
///     println!("{} {}", layer.descriptor.digest, layer.diff_id);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Packer {
    pub(super) output: Output,
    pub(crate) pusher: Pusher,
    /// Whether blobs of layers go where manifests can't list them.
    pub(super) unlisted: Option<String>,
    /// Where the blobs of dictionaries are, in the order of the options' dictionaries.
    pub(super) dictionaries: Vec<DictionaryAt>,
}

/// A dictionary, and where its blobs are.
#[derive(Debug, Clone)]
pub struct DictionaryAt {
    /// Its chunks.
    pub dictionary: Arc<Dictionary>,
    /// What its blobs are taken from, those that the image uses.
    pub from: Arc<dyn BlobBackend>,
    /// What manifests say of where these come from: a reference.
    pub name: String,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer")
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}

/// A place for the blobs of layers that is no repository.
#[derive(Debug, Clone)]
pub struct BlobPlace {
    /// The place.
    pub backend: Arc<dyn BlobBackend>,
    /// What manifests say of it, without credentials.
    pub name: String,
}

impl Packer {
    /// A packer that writes all blobs to `blobs`.
    ///
    /// # Errors
    /// [`PackError::Options`].
    pub fn new(output: Output, blobs: Arc<dyn BlobBackend>) -> Result<Self, PackError> {
        Self::with(output, blobs, Caches::none(Arc::new(())), Arc::new(()))
    }

    pub(crate) fn with(
        output: Output,
        blobs: Arc<dyn BlobBackend>,
        caches: Caches,
        progress: Arc<dyn Progress>,
    ) -> Result<Self, PackError> {
        output.check().map_err(|source| PackError::Options {
            source: Box::new(source),
        })?;
        Ok(Self {
            output,
            pusher: Pusher::new(blobs, caches, progress),
            unlisted: None,
            dictionaries: Vec::new(),
        })
    }

    /// Tells what happens. To be called before the first layer is packed.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.pusher.set_progress(progress);
        self
    }

    /// Takes layers from a cache that has them, and keeps those of this conversion there. Of several, a layer
    /// is taken from the first that has it. To be called before the first layer is packed.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<dyn BuildCache>) -> Self {
        self.pusher.add_cache(cache);
        self
    }

    /// Sends the blobs of layers elsewhere, where manifests can't list them: they are in
    /// [`Packed::unlisted`] then. To be called before the first layer is packed.
    ///
    /// # Errors
    /// [`PackError::Options`] when layers of the format can't be anywhere but in the image's repository.
    pub fn with_blob_place(mut self, place: BlobPlace) -> Result<Self, PackError> {
        if let Output::Archives(_) = self.output {
            let source = OptionsError::NydusOnly {
                what: "a blob backend",
                format: self.output.name(),
            };
            return Err(PackError::Options {
                source: Box::new(source),
            });
        }
        self.pusher.set_blobs(place.backend);
        self.unlisted = Some(place.name);
        Ok(self)
    }

    /// Stores no chunk again that these have, of the images that are packed from now on; those that the options
    /// named are forgotten. Blobs of theirs that an image uses are made to be where its own are, and are
    /// listed with those.
    ///
    /// # Errors
    /// [`PackError::Options`] when they are of no use, or the format can't have any.
    pub fn set_dictionaries(&mut self, all: Vec<DictionaryAt>) -> Result<(), PackError> {
        let failed = |source| PackError::Options {
            source: Box::new(source),
        };
        match &mut self.output {
            Output::Nydus(options) => {
                options.dictionaries = all.iter().map(|at| Arc::clone(&at.dictionary)).collect();
                options.check().map_err(failed)?;
            }
            Output::Archives(_) if all.is_empty() => {}
            Output::Archives(_) => {
                return Err(failed(OptionsError::NydusOnly {
                    what: "a chunk dictionary",
                    format: self.output.name(),
                }));
            }
        }
        self.dictionaries = all;
        Ok(())
    }

    /// How layers are written.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Packs the layers of an image, lowest first. An index is packed image by image, with the same packer.
    ///
    /// # Errors
    /// See [`PackError`]. The packer is of no more use.
    pub async fn pack(&mut self, layers: &[Arc<dyn Layer>]) -> Result<Packed, PackError> {
        let packed = self.pack_layers(layers).await;
        if packed.is_err() {
            // What was finished before is to be found by the next conversion.
            drop(self.flush().await);
        }
        packed
    }

    async fn pack_layers(&mut self, layers: &[Arc<dyn Layer>]) -> Result<Packed, PackError> {
        match &self.output {
            Output::Nydus(options) => {
                let options = options.clone();
                Box::pin(lazy::pack(self, &options, layers)).await
            }
            Output::Archives(options) => {
                let options = options.clone();
                Box::pin(archives::pack(self, &options, layers)).await
            }
        }
    }

    /// Packs a directory tree as an image of one layer. It must not change meanwhile.
    ///
    /// # Errors
    /// See [`PackError`]. The packer is of no more use.
    pub async fn pack_directory(&mut self, directory: Directory) -> Result<Packed, PackError> {
        match &self.output {
            Output::Nydus(options) => {
                let options = options.clone();
                Box::pin(lazy::pack_directory(self, &options, directory)).await
            }
            Output::Archives(options) => {
                let options = options.clone();
                Box::pin(archives::pack_content(self, &options, directory)).await
            }
        }
    }

    /// Writes a tree as the only layer, an archive.
    pub(crate) async fn pack_tree(&mut self, content: TreeContent) -> Result<Packed, PackError> {
        match &self.output {
            Output::Archives(options) => {
                let options = options.clone();
                Box::pin(archives::pack_content(self, &options, content)).await
            }
            Output::Nydus(_) => {
                let source = OptionsError::NydusOnly {
                    what: "a tree that is read back",
                    format: self.output.name(),
                };
                Err(PackError::Options {
                    source: Box::new(source),
                })
            }
        }
    }

    /// Waits until all that was packed is where it belongs: what refers to it may be written then.
    ///
    /// # Errors
    /// [`PackError::Write`].
    pub async fn flush(&mut self) -> Result<(), PackError> {
        self.pusher.flush().await
    }

    /// Hands the layers of an image to the caches, once [`flush`](Self::flush) has returned and before its
    /// manifest is written: a cache that lives in the image says there what it has. Failures of caches are
    /// told, and end nothing.
    pub async fn finish_image(&mut self, packed: &Packed, manifest: &mut Manifest) {
        let caches = Arc::clone(self.pusher.caches());
        Box::pin(caches.finish_image(&packed.kept, manifest)).await;
    }

    /// Ends with the caches, once the manifest of the last image is written. Gives what they did; `None`
    /// when there are none.
    pub async fn commit(&mut self) -> Option<CacheReport> {
        let caches = Arc::clone(self.pusher.caches());
        Box::pin(caches.commit()).await;
        caches.report()
    }
}
