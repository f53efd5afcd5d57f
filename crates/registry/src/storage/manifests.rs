//! Manifests, the tags that name them, and what refers to what.

use std::io;

use draught_digest::Digest;

use super::Storage;
use super::durable;
use crate::names::{RepositoryName, Tag, parse_digest};

/// A manifest as it was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredManifest {
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

/// What a tag must be before it may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagGuard {
    /// Anything.
    Any,
    /// Not there.
    Absent,
    /// Naming this manifest.
    Is(Digest),
}

/// What became of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagOutcome {
    /// It names the manifest.
    Set,
    /// The guard did not hold: it named this one, or nothing.
    Kept(Option<Digest>),
}

impl Storage {
    /// A repository's manifest.
    pub(crate) fn manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> io::Result<Option<StoredManifest>> {
        let file = self.manifests_dir(name).join(digest.hex());
        let Some(mut stored) = durable::found(fs_err::read(&file))? else {
            return Ok(None);
        };
        let corrupt = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is corrupt", file.display()),
            )
        };
        let end = stored
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or_else(corrupt)?;
        let bytes = stored.split_off(end + 1);
        stored.truncate(end);
        let media_type = String::from_utf8(stored).map_err(|_| corrupt())?;
        Ok(Some(StoredManifest { media_type, bytes }))
    }

    /// Whether a repository has a manifest.
    pub(crate) fn has_manifest(&self, name: &RepositoryName, digest: &Digest) -> io::Result<bool> {
        let file = self.manifests_dir(name).join(digest.hex());
        Ok(durable::found(fs_err::metadata(file))?.is_some())
    }

    /// Stores a manifest, and that it refers to its subject.
    pub(crate) fn add_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        media_type: &str,
        bytes: &[u8],
        subject: Option<&Digest>,
    ) -> io::Result<()> {
        let dir = self.manifests_dir(name);
        durable::create_dir_all(&dir)?;
        let stored = [media_type.as_bytes(), b"\n", bytes];
        durable::write(&self.uploads_dir(), &dir.join(digest.hex()), &stored)?;
        if let Some(subject) = subject {
            let dir = self.referrers_dir(name, subject);
            durable::create_dir_all(&dir)?;
            durable::write(&self.uploads_dir(), &dir.join(digest.hex()), &[])?;
        }
        Ok(())
    }

    /// Removes a manifest, the tags that name it, and its entry at its subject; whether it was there.
    pub(crate) fn remove_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        subject: Option<&Digest>,
    ) -> io::Result<bool> {
        let _guard = self.lock_links();
        for tag in self.tags(name)? {
            if let Some(tag) = Tag::parse(&tag)
                && self.tag(name, &tag)? == Some(*digest)
            {
                durable::remove(&self.tag_file(name, &tag))?;
            }
        }
        if let Some(subject) = subject {
            durable::remove(&self.referrers_dir(name, subject).join(digest.hex()))?;
        }
        durable::remove(&self.manifests_dir(name).join(digest.hex()))
    }

    /// The digests of the manifests whose subject is `subject`, sorted.
    pub(crate) fn referrers(
        &self,
        name: &RepositoryName,
        subject: &Digest,
    ) -> io::Result<Vec<Digest>> {
        let names = durable::names(&self.referrers_dir(name, subject))?;
        Ok(names
            .iter()
            .filter_map(|hex| parse_digest(&format!("sha256:{hex}")).ok())
            .collect())
    }

    /// The manifest that a tag names.
    pub(crate) fn tag(&self, name: &RepositoryName, tag: &Tag) -> io::Result<Option<Digest>> {
        let file = self.tag_file(name, tag);
        let Some(text) = durable::found(fs_err::read_to_string(&file))? else {
            return Ok(None);
        };
        parse_digest(&text).map(Some).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is corrupt", file.display()),
            )
        })
    }

    /// Lets a tag name a manifest, if `guard` holds.
    pub(crate) fn set_tag(
        &self,
        name: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        guard: TagGuard,
    ) -> io::Result<TagOutcome> {
        durable::create_dir_all(&self.tags_dir(name))?;
        let _guard = self.lock_links();
        let now = self.tag(name, tag)?;
        let holds = match guard {
            TagGuard::Any => true,
            TagGuard::Absent => now.is_none(),
            TagGuard::Is(wanted) => now == Some(wanted),
        };
        if !holds {
            return Ok(TagOutcome::Kept(now));
        }
        let text = digest.to_string();
        durable::write(
            &self.uploads_dir(),
            &self.tag_file(name, tag),
            &[text.as_bytes()],
        )?;
        Ok(TagOutcome::Set)
    }

    /// Removes a tag; whether it was there.
    pub(crate) fn remove_tag(&self, name: &RepositoryName, tag: &Tag) -> io::Result<bool> {
        let _guard = self.lock_links();
        durable::remove(&self.tag_file(name, tag))
    }

    /// A repository's tags, sorted.
    pub(crate) fn tags(&self, name: &RepositoryName) -> io::Result<Vec<String>> {
        durable::names(&self.tags_dir(name))
    }
}
