//! Writing an archive: it is there whole or not at all.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use draught_digest::Digest;
use draught_oci::{Any, Descriptor, Document, Index, Limits, Reference, annotation, media_type};
use draught_tar::{BLOCK_BYTES, WriteError};
use draught_tree::{Entry, EntryKind, Meta};
use parking_lot::Mutex;
use tempfile::TempPath;

use super::names::{LIST_FILE, WireImage, blob_path};
use crate::error::SourceError;
use crate::listing::{self, INDEX_FILE, MARKER, MARKER_FILE};
use crate::local::LocalBlob;
use crate::payload::{Payload, Pushed, copy_verified};

/// Bytes written at a time.
const WRITE_BYTES: usize = 1 << 20;

/// For everyone to read, as other tools write them.
const MODE: u16 = 0o644;
const DIRECTORY_MODE: u16 = 0o755;

/// Indexes within indexes whose images are listed for older readers.
const DEPTH_MAX: usize = 4;

/// An archive that grows.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    reference: Option<Reference>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    draft: Draft,
    index: Index,
    blobs: BTreeMap<Digest, LocalBlob>,
}

/// The file under another name. What is behind `end` is not part of it: the lists of a file that was
/// published, or a blob that turned out to be another one.
#[derive(Debug)]
struct Draft {
    file: Arc<std::fs::File>,
    /// The same, with the target's path in its errors.
    out: fs_err::File,
    /// Gone when the file has its own name; then it is changed no more.
    name: Option<TempPath>,
    end: u64,
}

/// The directory of a file.
fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    }
}

impl Writer {
    pub(super) fn create(path: &Path, reference: Option<Reference>) -> Result<Self, SourceError> {
        match fs_err::metadata(path) {
            Ok(found) if !found.is_file() => {
                return Err(SourceError::Format {
                    path: path.to_owned(),
                    expected: "a docker archive",
                    reason: "it is there and no regular file".to_owned(),
                });
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut draft = Draft::new(path)?;
        draft.file(MARKER_FILE, MARKER)?;
        for directory in ["blobs", "blobs/sha256"] {
            draft.directory(directory)?;
        }
        Ok(Self {
            path: path.to_owned(),
            reference,
            state: Mutex::new(State {
                draft,
                index: Index::new(Vec::new()),
                blobs: BTreeMap::new(),
            }),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn index(&self) -> Index {
        self.state.lock().index.clone()
    }

    pub(super) fn blob(&self, digest: &Digest) -> Option<LocalBlob> {
        self.state.lock().blobs.get(digest).cloned()
    }

    pub(super) fn push_blob(
        &self,
        descriptor: &Descriptor,
        payload: &Payload,
    ) -> Result<Pushed, SourceError> {
        let mut state = self.state.lock();
        if state.blobs.contains_key(&descriptor.digest) {
            return Ok(Pushed::Existed);
        }
        state.write_blob(&self.path, descriptor, &mut *payload.open()?)?;
        Ok(Pushed::Written)
    }

    pub(super) fn put_manifest(
        &self,
        tag: Option<&str>,
        document: &Any,
    ) -> Result<(), SourceError> {
        let mut state = self.state.lock();
        let descriptor = document.descriptor();
        if !state.blobs.contains_key(&descriptor.digest) {
            state.write_blob(&self.path, &descriptor, &mut document.bytes())?;
        }
        // Without a tag it is a part of an index, which lists it; what has a subject nobody else lists.
        if tag.is_none() && document.subject().is_none() {
            return Ok(());
        }
        let name = match (tag, &self.reference) {
            (Some(tag), Some(reference)) => reference.with_tag(tag).ok(),
            _ => None,
        };
        let name = name.map(|name| name.to_string());
        listing::list(&mut state.index, tag, document, name.as_deref());
        let is_tagged = |image: &Descriptor| image.annotation(annotation::REF_NAME).is_some();
        if state.index.manifests.iter().any(is_tagged) {
            state.publish(&self.path)?;
        }
        Ok(())
    }
}

impl State {
    fn write_blob(
        &mut self,
        path: &Path,
        descriptor: &Descriptor,
        from: &mut dyn Read,
    ) -> Result<(), SourceError> {
        self.draft.detach(path)?;
        let name = blob_path(&descriptor.digest);
        let offset = self.draft.entry(&name, descriptor.size, |out| {
            copy_verified(descriptor, from, out)
        })?;
        let blob = LocalBlob::of_file(Arc::clone(&self.draft.file), offset, descriptor.size);
        self.blobs.insert(descriptor.digest, blob);
        Ok(())
    }

    /// Writes what lists the images, and gives the file its name.
    fn publish(&mut self, path: &Path) -> Result<(), SourceError> {
        let list = serde_json::to_vec(&self.list()?).map_err(io::Error::from)?;
        let index = Document::write(self.index.clone());
        self.draft.detach(path)?;
        let end = self.draft.end;
        self.draft.file(INDEX_FILE, index.bytes())?;
        self.draft.file(LIST_FILE, &list)?;
        let published = self.draft.publish(path);
        // What comes next takes the place of the lists.
        self.draft.end = end;
        published
    }

    /// Every image once, for readers that do not know indexes: the names of an index are those of its first.
    fn list(&self) -> Result<Vec<WireImage>, SourceError> {
        let mut list: Vec<(Digest, WireImage)> = Vec::new();
        for image in listing::images(&self.index) {
            let name = image.annotation(annotation::CONTAINERD_IMAGE_NAME);
            let mut names: Vec<String> = name.map(str::to_owned).into_iter().collect();
            let mut todo = vec![(image.clone(), 0)];
            while let Some((descriptor, depth)) = todo.pop() {
                match self.document(&descriptor)? {
                    Some(Any::Index(inner)) if depth < DEPTH_MAX => {
                        let inner: Vec<_> = listing::images(&inner).cloned().collect();
                        todo.extend(inner.into_iter().rev().map(|image| (image, depth + 1)));
                    }
                    Some(Any::Manifest(manifest)) if is_image(&manifest.config) => {
                        let known = list
                            .iter_mut()
                            .find(|(digest, _)| *digest == manifest.digest());
                        if let Some((_, known)) = known {
                            known.name(&mut names);
                            continue;
                        }
                        let mut wire = WireImage {
                            config: blob_path(&manifest.config.digest),
                            repo_tags: None,
                            layers: Some(
                                manifest
                                    .layers
                                    .iter()
                                    .map(|layer| blob_path(&layer.digest))
                                    .collect(),
                            ),
                        };
                        wire.name(&mut names);
                        list.push((manifest.digest(), wire));
                    }
                    _ => {}
                }
            }
        }
        Ok(list.into_iter().map(|(_, wire)| wire).collect())
    }

    /// A manifest or index that was written here, if it was.
    fn document(&self, descriptor: &Descriptor) -> Result<Option<Any>, SourceError> {
        let digest = descriptor.digest;
        let Some(blob) = self.blobs.get(&digest) else {
            return Ok(None);
        };
        let what = || format!("manifest {digest}");
        let bytes = blob.document(&digest, what)?;
        let parsed = Any::parse(bytes, &descriptor.media_type, &Limits::default());
        parsed.map(Some).map_err(|source| SourceError::Document {
            what: what(),
            source: Box::new(source),
        })
    }
}

impl WireImage {
    /// Takes names that nobody has yet.
    fn name(&mut self, names: &mut Vec<String>) {
        if !names.is_empty() {
            self.repo_tags.get_or_insert_default().append(names);
        }
    }
}

fn is_image(config: &Descriptor) -> bool {
    media_type::is_image_config(&media_type::essence(&config.media_type))
}

impl Draft {
    /// An empty file beside `path`.
    fn new(path: &Path) -> Result<Self, SourceError> {
        use std::os::unix::fs::PermissionsExt as _;

        let (file, name) = tempfile::Builder::new()
            .prefix(".draught-")
            .permissions(std::fs::Permissions::from_mode(MODE.into()))
            .tempfile_in(dir_of(path))?
            .into_parts();
        Ok(Self {
            out: fs_err::File::from_parts(file.try_clone()?, path),
            file: Arc::new(file),
            name: Some(name),
            end: 0,
        })
    }

    /// What has its own name is not changed: a copy is.
    fn detach(&mut self, path: &Path) -> Result<(), SourceError> {
        if self.name.is_some() {
            return Ok(());
        }
        let mut copy = Self::new(path)?;
        (&self.out).rewind()?;
        let copied = io::copy(&mut (&self.out).take(self.end), &mut &copy.out)?;
        if copied != self.end {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        copy.end = self.end;
        *self = copy;
        Ok(())
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), SourceError> {
        let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
        self.entry(name, bytes, |out| Ok(out.write_all(content)?))?;
        Ok(())
    }

    fn directory(&mut self, name: &str) -> Result<(), SourceError> {
        self.append(name, DIRECTORY_MODE, EntryKind::Directory, |_| Ok(()))?;
        Ok(())
    }

    /// Appends a file of `bytes` bytes, and says where its content begins.
    fn entry(
        &mut self,
        name: &str,
        bytes: u64,
        write: impl FnOnce(&mut dyn io::Write) -> Result<(), SourceError>,
    ) -> Result<u64, SourceError> {
        let chunks = Box::default();
        self.append(name, MODE, EntryKind::File { bytes, chunks }, write)
    }

    /// Appends an entry. If it fails, it is not part of the file.
    fn append(
        &mut self,
        name: &str,
        mode: u16,
        kind: EntryKind,
        write: impl FnOnce(&mut dyn io::Write) -> Result<(), SourceError>,
    ) -> Result<u64, SourceError> {
        (&self.out).seek(SeekFrom::Start(self.end))?;
        let out = BufWriter::with_capacity(WRITE_BYTES, &self.out);
        let mut tar = draught_tar::Writer::new(out);
        let meta = Meta {
            mode,
            ..Meta::default()
        };
        let path = name.as_bytes().into();
        tar.entry(&Entry { path, meta, kind }).map_err(unwritten)?;
        let content = tar.position();
        write(&mut tar)?;
        let block = u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX);
        let bytes = tar.position().next_multiple_of(block);
        // The end of the archive, for now: the next entry takes its place.
        tar.finish().map_err(unwritten)?;
        let offset = self.end.saturating_add(content);
        self.end = self.end.saturating_add(bytes);
        Ok(offset)
    }

    /// Gives the file its name, once it is on disk.
    fn publish(&mut self, path: &Path) -> Result<(), SourceError> {
        // The two blocks of zeros that end an archive are there already.
        let trailer = u64::try_from(2 * BLOCK_BYTES).unwrap_or(u64::MAX);
        self.out.set_len(self.end.saturating_add(trailer))?;
        self.out.sync_all()?;
        if let Some(name) = self.name.take() {
            name.persist(path).map_err(|error| error.error)?;
        }
        fs_err::File::open(dir_of(path))?.sync_all()?;
        Ok(())
    }
}

fn unwritten(error: WriteError) -> io::Error {
    match error {
        WriteError::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}
