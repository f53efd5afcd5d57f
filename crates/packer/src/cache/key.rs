//! What names a layer in a cache: everything that its blob depends on.

use std::fmt;
use std::str::FromStr;

use draught_digest::{Digest, ParseDigestError};
use draught_importer::estargz_toc;
use draught_oci::Descriptor;
use draught_tree::Compression;

use crate::options::PackOptions;
use crate::pack::{ArchiveFormat, Layer};

/// The version of what this crate writes. It goes up whenever the same input with the same options may give
/// other bytes than before: a change to how files are cut, to the order of chunks, to the format, or of a
/// compressor's library. Caches of other versions then miss.
pub(crate) const WRITER_VERSION: u32 = 1;

/// Names a layer of a converted image by all that determines its blob: the layer, all layers below it, in
/// which format they were written, how, and by which version of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(Digest);

impl CacheKey {
    /// The key of an image without layers.
    pub(crate) fn root(options: &PackOptions, version: u32) -> Self {
        let PackOptions {
            compression,
            level,
            digester,
            chunk_bytes,
            batch_bytes,
            layer_bootstraps,
            dictionaries,
            // Is part of the image's bootstrap, which is written anew each time.
            prefetch: _,
            // Do not change the output.
            threads: _,
            spool_dir: _,
            // Say what is refused, not what becomes of the rest.
            layer_limits: _,
            tar_limits: _,
            tree_limits: _,
        } = options;
        let compression = match compression {
            Compression::None => "none".to_owned(),
            Compression::Lz4Block => "lz4".to_owned(),
            Compression::Zstd => format!("zstd {level}"),
            Compression::Gzip => "gzip".to_owned(),
        };
        let mut text = format!(
            "draught build cache, writer {version}\nformat rafs v6\ncompression {compression}\n\
             digester {}\nchunk bytes {chunk_bytes}\nbatch bytes {batch_bytes}\n\
             layer bootstraps {layer_bootstraps}\n",
            digester.name(),
        );
        for dictionary in dictionaries {
            text.push_str(&format!("dictionary {}\n", dictionary.identity()));
        }
        Self(Digest::sha256(text.as_bytes()))
    }

    /// The key of a layer on top of what this key names. `diff_id` is in it because a conversion checks it:
    /// a configuration that lies about a layer must not be believed for a hit.
    pub(crate) fn child(self, layer: &Descriptor, diff_id: &Digest) -> Self {
        let Descriptor { digest, size, .. } = layer;
        let text = format!("parent {self}\nlayer {digest}\nbytes {size}\narchive {diff_id}\n");
        Self(Digest::sha256(text.as_bytes()))
    }

    /// The keys of an image's layers, lowest first, up to the first of which too little is known.
    pub(crate) fn chain<'a>(
        options: &PackOptions,
        layers: impl IntoIterator<Item = &'a dyn Layer>,
    ) -> Vec<Self> {
        let mut parent = Self::root(options, WRITER_VERSION);
        let key = |layer| {
            parent = parent.of(layer)?;
            Some(parent)
        };
        layers.into_iter().map_while(key).collect()
    }

    /// The key of a layer that becomes an archive, whatever lies below it.
    pub(crate) fn alone(format: &ArchiveFormat, layer: &dyn Layer) -> Option<Self> {
        let format = format.key();
        let text = format!("draught build cache, writer {WRITER_VERSION}\n{format}");
        Self(Digest::sha256(text.as_bytes())).of(layer)
    }

    fn of(self, layer: &dyn Layer) -> Option<Self> {
        let descriptor = layer.descriptor()?;
        let key = self.child(descriptor, &layer.diff_id()?);
        // What belongs to that format is left out, and only what says so is looked through for it.
        Some(match estargz_toc(descriptor) {
            Some(_) => Self(Digest::sha256(format!("of eStargz {key}").as_bytes())),
            None => key,
        })
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for CacheKey {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use draught_digest::Algorithm;
    use draught_tree::ChunkMap;

    use crate::pack::StreamLayer;

    use super::*;
    use crate::dictionary::Dictionary;

    fn layer(text: &str) -> (Descriptor, Digest) {
        let digest = Digest::sha256(text.as_bytes());
        let diff_id = Digest::sha256(format!("{text} decoded").as_bytes());
        (Descriptor::new("layer", digest, 1), diff_id)
    }

    fn dictionary(identity: &str) -> Arc<Dictionary> {
        let identity = Digest::sha256(identity.as_bytes());
        let dictionary = Dictionary::new(identity, ChunkMap::default(), Vec::new(), Vec::new());
        Arc::new(dictionary.unwrap())
    }

    #[test]
    fn whatever_changes_the_output_changes_the_key() {
        let default = PackOptions::default;
        let mut keys = BTreeSet::new();
        let changes: [fn(&mut PackOptions); 12] = [
            |_| {},
            |options| options.level = 4,
            |options| options.compression = Compression::Lz4Block,
            |options| options.compression = Compression::None,
            |options| options.digester = Algorithm::Sha256,
            |options| options.chunk_bytes = 1 << 16,
            |options| options.batch_bytes = 1 << 16,
            |options| options.layer_bootstraps = false,
            |options| options.dictionaries = vec![dictionary("a")],
            |options| options.dictionaries = vec![dictionary("b")],
            |options| options.dictionaries = vec![dictionary("a"), dictionary("b")],
            |options| options.dictionaries = vec![dictionary("b"), dictionary("a")],
        ];
        for change in changes {
            let mut options = default();
            change(&mut options);
            assert!(keys.insert(CacheKey::root(&options, WRITER_VERSION)));
        }
        assert!(keys.insert(CacheKey::root(&default(), WRITER_VERSION + 1)));

        let root = CacheKey::root(&default(), WRITER_VERSION);
        let ((a, a_id), (b, b_id)) = (layer("a"), layer("b"));
        let mut longer = a.clone();
        longer.size += 1;
        assert!(keys.insert(root.child(&a, &a_id)));
        assert!(keys.insert(root.child(&b, &b_id)));
        assert!(keys.insert(root.child(&longer, &a_id)));
        assert!(keys.insert(root.child(&a, &b_id)));
        assert!(keys.insert(root.child(&a, &a_id).child(&b, &b_id)));
        assert!(keys.insert(root.child(&b, &b_id).child(&a, &a_id)));
    }

    #[test]
    fn what_does_not_change_the_output_does_not_change_the_key() {
        let mut options = PackOptions::default();
        let key = CacheKey::root(&options, WRITER_VERSION);
        options.threads = 7.try_into().unwrap();
        options.spool_dir = "/elsewhere".into();
        options.prefetch = vec![b"bin/sh".to_vec()];
        assert_eq!(CacheKey::root(&options, WRITER_VERSION), key);
        options.compression = Compression::None;
        let key = CacheKey::root(&options, WRITER_VERSION);
        options.level = 9;
        assert_eq!(CacheKey::root(&options, WRITER_VERSION), key);
    }

    #[test]
    fn a_key_reads_as_it_is_written() {
        let (a, id) = layer("a");
        let (b, b_id) = layer("b");
        let stored = |descriptor: &Descriptor, diff_id: &Digest| {
            let stream = StreamLayer::new(std::io::empty());
            stream
                .with_descriptor(descriptor.clone())
                .with_diff_id(*diff_id)
        };
        let (lower, upper) = (stored(&a, &id), stored(&b, &b_id));
        let unknown = StreamLayer::new(std::io::empty());
        let layers: [&dyn Layer; 4] = [&lower, &upper, &unknown, &upper];
        let chain = CacheKey::chain(&PackOptions::default(), layers);
        assert_eq!(chain.len(), 2, "nothing is known above what is not known");
        assert_eq!(chain[1], chain[0].child(&b, &b_id));
        assert_eq!(chain[0].to_string().parse(), Ok(chain[0]));
    }
}
