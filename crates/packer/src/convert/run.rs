//! From a location to a location.

use std::sync::Arc;

use draught_digest::Digest;
use draught_oci::{Any, Location};
use draught_source::{Client, Repository};

use super::conversion::Conversion;
use super::dictionaries::Dictionaries;
use super::error::ConvertError;
use super::marks::{self, How};
use super::options::{ConvertOptions, Converted, PlatformChoice, Publish};
use super::single::Chosen;
use crate::cache::{Caches, Journal};
use crate::directory::Directory;
use crate::options::OptionsError;
use crate::pack::{Output, Packer};
use crate::progress::Progress;

/// Converts the image at `from` and writes it to `to`, whose tag changes last of all.
///
/// Ends early, without a trace behind the tag, when it is dropped.
///
/// # Errors
/// See [`ConvertError`].
pub async fn convert(
    client: &Client,
    from: &Location,
    to: &Location,
    options: &ConvertOptions,
    progress: Arc<dyn Progress>,
) -> Result<Converted, ConvertError> {
    let output = &options.output;
    output.check().map_err(|source| ConvertError::Options {
        source: Box::new(source),
    })?;
    marks::check(options)?;
    check_choices(options)?;
    if let Location::Directory { rootfs } = from {
        let directory =
            Directory::open(rootfs).map_err(|source| ConvertError::OpenDirectory { source })?;
        if options.publish != Publish::Tag {
            return Err(ConvertError::Publish {
                what: "keeping the original beside the converted image",
                why: "the source is a directory".to_owned(),
            });
        }
        let dictionaries = Dictionaries::find(client, options).await?;
        let (to, tag) = create(client, to, options.publish).await?;
        let why = "a directory has no digest by which it could be found again";
        let caches = Caches::unused(&options.cache.locations, why, Arc::clone(&progress));
        let mut conversion = begin(options, None, to, caches, &progress, dictionaries)?;
        return Box::pin(conversion.directory(directory, &tag)).await;
    }
    let read_failed = |source| ConvertError::Read {
        what: from.to_string(),
        source,
    };
    let (source, selector) = client.open(from).await.map_err(read_failed)?;
    let document = source.manifest(&selector).await.map_err(read_failed)?;
    let chosen = match (document, &options.platform) {
        (Any::Index(found), PlatformChoice::All) => Any::Index(found),
        (document, choice) => Any::Manifest(Chosen::find(&source, document, choice).await?),
    };
    let dictionaries = Dictionaries::find(client, options).await?;
    let (to, tag) = create(client, to, options.publish).await?;
    let how = How::of(options, &dictionaries.digests());
    if may_be_there(options)
        && let Some(digest) = find_made(&to, &tag, options, &how, &chosen).await
    {
        return Ok(Converted {
            digest,
            images: Vec::new(),
            carried_over: Vec::new(),
            cache: None,
            unchanged: true,
        });
    }
    let told = Arc::clone(&progress);
    let mut caches = Box::pin(Caches::open(client, &options.cache, &to, &tag, told)).await;
    if let Some(dir) = &options.journal {
        let place = blob_place(options, &to);
        match Box::pin(Journal::open(dir, place)).await {
            Ok(journal) => caches.push_journal(Arc::new(journal)),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the journal can't be used: if this conversion is interrupted, the next one begins anew"
            ),
        }
    }
    let mut conversion = begin(options, Some(source), to, caches, &progress, dictionaries)?;
    match chosen {
        Any::Index(found) => Box::pin(conversion.index(&found, &tag)).await,
        Any::Manifest(manifest) => Box::pin(conversion.single(&manifest, &tag)).await,
    }
}

/// Whether it is worth a look if all was done before: with caches, they are to be brought up to date.
fn may_be_there(options: &ConvertOptions) -> bool {
    !options.force && options.cache.locations.is_empty()
}

/// Refuses what can't be before anything is read or made.
fn check_choices(options: &ConvertOptions) -> Result<(), ConvertError> {
    let has_dictionaries =
        !(options.dictionaries.is_empty() && options.more_dictionaries.is_empty());
    let nydus_only = [
        ("a chunk dictionary", has_dictionaries),
        ("a blob backend", options.blobs.is_some()),
    ];
    if !matches!(options.output, Output::Nydus(_))
        && let Some((what, _)) = nydus_only.iter().find(|(_, wanted)| *wanted)
    {
        let format = options.output.name();
        return Err(ConvertError::Options {
            source: Box::new(OptionsError::NydusOnly { what, format }),
        });
    }
    if options.publish == Publish::Merged && !matches!(options.output, Output::Nydus(_)) {
        return Err(ConvertError::Publish {
            what: "one index with the original and the converted image",
            why: format!(
                "clients tell them apart by a feature that nydus images name; {} images serve every \
                 client themselves",
                options.output.name()
            ),
        });
    }
    Ok(())
}

fn begin<'a>(
    options: &'a ConvertOptions,
    source: Option<Repository>,
    to: Repository,
    caches: Caches,
    progress: &Arc<dyn Progress>,
    dictionaries: Dictionaries,
) -> Result<Conversion<'a>, ConvertError> {
    let how = How::of(options, &dictionaries.digests());
    let output = options.output.clone();
    let mut packer = Packer::with(output, Arc::new(to.clone()), caches, Arc::clone(progress))?;
    if let Some(place) = &options.blobs {
        packer = packer.with_blob_place(place.clone())?;
    }
    Ok(Conversion {
        from: source,
        to,
        packer,
        options,
        how,
        dictionaries,
        progress: Arc::clone(progress),
        images: Vec::new(),
        carried_over: Vec::new(),
    })
}

/// Where blobs of layers go.
fn blob_place(options: &ConvertOptions, to: &Repository) -> Arc<dyn draught_source::BlobBackend> {
    match &options.blobs {
        Some(blobs) => Arc::clone(&blobs.backend),
        None => Arc::new(to.clone()),
    }
}

/// What the destination has that was made from this image with these options. What can't be read is not
/// there: then all is done, and fails where it matters.
async fn find_made(
    to: &Repository,
    tag: &str,
    options: &ConvertOptions,
    how: &How,
    source: &Any,
) -> Option<Digest> {
    let digest = source.digest();
    if options.publish == Publish::Referrer {
        let Any::Manifest(_) = source else {
            return None;
        };
        let referrers = to.referrers(&digest).await.ok()?;
        let mut referrers = referrers.iter();
        let made = referrers.find(|made| how.is_made(&made.annotations, &digest));
        return made.map(|made| made.digest);
    }
    let selector = draught_oci::Selector::Tag(tag.to_owned());
    let there = to.manifest(&selector).await.ok()?;
    let annotations = match &there {
        Any::Manifest(manifest) => &manifest.annotations,
        Any::Index(index) => &index.annotations,
    };
    how.is_made(annotations, &digest).then(|| there.digest())
}

async fn create(
    client: &Client,
    to: &Location,
    publish: Publish,
) -> Result<(Repository, String), ConvertError> {
    let failed = |source| ConvertError::Write {
        what: to.to_string(),
        source,
    };
    if publish == Publish::Referrer {
        // No tag is written, so none need be named.
        let (repository, _) = client.open(to).await.map_err(failed)?;
        if let Repository::Archive(_) = repository {
            return Err(ConvertError::Publish {
                what: "a referrer",
                why: "docker archives have none".to_owned(),
            });
        }
        return Ok((repository, String::new()));
    }
    client.create(to).await.map_err(failed)
}
