//! The command.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use draught_oci::Location;
use draught_packer::{
    BlobPlace, CACHE_LAYERS_DEFAULT, CACHE_LAYERS_MAX, CacheLocation, CacheOptions, ConvertOptions,
    PlatformChoice, Publish, convert,
};
use draught_source::{BackendLocation, ObjectStore};

use super::dictionaries::{ChunkDict, in_store, named};
use super::options::{self, Annotation, OutputArgs, PlatformArg};
use super::report::Report;
use super::tracker::Tracker;
use crate::args::Format;
use crate::outcome::Outcome;
use crate::settings::Settings;
use crate::{asynchronous, open, output};

/// Write an image in a format that can be read lazily, or back as plain layers
///
/// Layers are streamed: none is unpacked to disk or held in memory. The same image with the same
/// options gives the same bytes, on any number of threads. What the destination has already is not
/// sent again, and an image that it has made from the same source with the same options is left alone. A
/// conversion that was interrupted goes on with the layers that were not finished.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
SRC and DST are one of:
  HOST/REPO:TAG, HOST/REPO@sha256:…   an image in a registry
  oci:DIR[:TAG]                       a directory in the OCI layout
  docker-archive:FILE[:NAME[:TAG]]    what docker save writes, may be in gzip; DST replaces FILE
  dir:ROOTFS                          a directory of files (SRC only)

Examples:
  draught convert docker.io/library/python:3.12 127.0.0.1:5000/python:3.12
  draught convert --platform all registry.example/app:1 registry.example/app:1-lazy
  draught convert --merge-platforms registry.example/app:1 registry.example/app:1
  draught convert --referrer registry.example/app:1
  draught convert --to estargz registry.example/app:1 registry.example/app:1-esgz
  draught convert --cache registry:registry.example/cache:app SRC registry.example/app:1-lazy
  draught convert --chunk-dict registry.example/base:1-lazy SRC registry.example/app:1-lazy
  draught convert --compressor lz4 --chunk-size 256KiB oci:./app oci:./app-lazy
  draught convert docker-archive:app.tar.gz docker-archive:lazy.tar:app:1")]
pub(crate) struct Args {
    /// The image to read
    src: Location,

    /// Where to write the new one; may be left out with --referrer, which is where SRC is
    #[arg(required_unless_present = "referrer")]
    dst: Option<Location>,

    #[command(flatten)]
    output: OutputArgs,

    /// Which image of a multi-platform one: OS/ARCH[/VARIANT], or all [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<PlatformArg>,

    /// Keep the original image beside the new one, in one index: clients that know nydus choose the new one,
    /// all others the original
    #[arg(long, conflicts_with = "referrer")]
    merge_platforms: bool,

    /// Write no tag: the new image is a referrer of the original, whose tag keeps working
    #[arg(long)]
    referrer: bool,

    /// Write an annotation into the image's manifest, and into the index if there is one. Can be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    annotate: Vec<Annotation>,

    /// Store no chunk that this nydus image has: the new image refers to its blobs. Can be repeated; the
    /// first that has a chunk is taken. The word store stands for all that this node's store has
    #[arg(long, value_name = "REF|store")]
    chunk_dict: Vec<ChunkDict>,

    /// Take layers that were converted before from here, and keep the layers of this conversion here for the
    /// next one; more than once for several. One of dir:PATH (a directory of its own),
    /// registry:HOST/REPO:TAG (a tag of its own), inline (the image that DST has now, and the new one)
    #[arg(long, value_name = "CACHE")]
    cache: Vec<CacheLocation>,

    /// Layers that each --cache keeps: those that were used last
    #[arg(long, value_name = "N", default_value_t = CACHE_LAYERS_DEFAULT, value_parser = cache_size)]
    cache_size: usize,

    /// Where data blobs go, if not into DST's repository: s3://BUCKET[/PREFIX][?region=…&endpoint=…],
    /// oss://BUCKET[/PREFIX]?endpoint=…, dir:PATH. Credentials come from the environment and the usual files.
    /// Whoever mounts the image names the same place
    #[arg(long, value_name = "URL")]
    blob_backend: Option<BackendLocation>,

    /// Send data blobs even if the blob backend has them
    #[arg(long, requires = "blob_backend")]
    force_push: bool,

    /// Convert even if DST has the same image, made with the same options
    #[arg(long)]
    force: bool,
}

fn cache_size(text: &str) -> Result<usize, String> {
    let sizes = 1..=CACHE_LAYERS_MAX;
    let size = text.parse().ok().filter(|size| sizes.contains(size));
    size.ok_or_else(|| format!("a cache keeps 1 to {CACHE_LAYERS_MAX} layers"))
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let client = open::client(settings);
    let blobs = args.blob_backend.as_ref().map(|location| {
        let store = ObjectStore::open(location, &client);
        let store = store.with_context(|| format!("open the blob backend {location}"))?;
        anyhow::Ok(BlobPlace {
            backend: Arc::new(store.with_force(args.force_push)),
            name: location.to_string(),
        })
    });
    let options = ConvertOptions {
        output: args.output.output()?,
        platform: args
            .platform
            .clone()
            .map_or_else(PlatformChoice::default, PlatformArg::choice),
        cache: CacheOptions {
            locations: args.cache.clone(),
            layers_max: args.cache_size,
        },
        dictionaries: named(&args.chunk_dict),
        more_dictionaries: in_store(&args.chunk_dict, settings)?,
        publish: match (args.merge_platforms, args.referrer) {
            (true, _) => Publish::Merged,
            (false, true) => Publish::Referrer,
            (false, false) => Publish::Tag,
        },
        annotations: options::annotations(&args.annotate),
        blobs: blobs.transpose()?,
        journal: Some(settings.root.join("convert")),
        force: args.force || args.force_push,
    };
    let dst = args.dst.as_ref().unwrap_or(&args.src);
    let start = Instant::now();
    let tracker = Arc::new(Tracker::new(settings.progress));
    let converted = asynchronous::run(async {
        let progress = Arc::clone(&tracker);
        convert(&client, &args.src, dst, &options, progress)
            .await
            .with_context(|| format!("convert {} to {dst}", args.src))
    })?;
    drop(tracker);
    let report = Report::new(&args.src, dst, &converted, start.elapsed());
    match settings.format {
        Format::Json => output::json(&report)?,
        Format::Text => output::data(&report.text())?,
    }
    Ok(Outcome::Done)
}
