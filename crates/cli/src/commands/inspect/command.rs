//! The command.

use anyhow::Result;
use draught_oci::{Location, Platform};
use draught_source::BackendLocation;

use super::facts::{self, Report};
use super::shared::Others;
use super::text;
use crate::args::Format;
use crate::outcome::Outcome;
use crate::settings::Settings;
use crate::{asynchronous, open, output};

/// Show what an image is made of
///
/// Reads manifest, configuration and metadata, none of the content. --format json has the same for
/// programs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  draught inspect 127.0.0.1:5000/app:1
  draught inspect 127.0.0.1:5000/app:2 --with 127.0.0.1:5000/app:1
  draught inspect --format json oci:./app | jq '.images[].layers[].bytes'")]
pub(crate) struct Args {
    /// The image: HOST/REPO:TAG, HOST/REPO@sha256:…, oci:DIR[:TAG] or docker-archive:FILE
    #[arg(value_name = "REF")]
    reference: Location,

    /// Show only the image for this platform: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// Show also how much of the image this one has too, chunk by chunk; may be given several times
    #[arg(long, value_name = "OTHER")]
    with: Vec<Location>,

    /// The place that has the image's blobs, where its manifest lists none: s3://BUCKET[/PREFIX][?region=…&
    /// endpoint=…], oss://BUCKET[/PREFIX]?endpoint=… or dir:PATH
    #[arg(long, value_name = "PLACE")]
    blob_backend: Option<BackendLocation>,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let report = asynchronous::run(report(args, settings))?;
    match settings.format {
        Format::Text => output::data(&text::write(&report))?,
        Format::Json => output::json(&report)?,
    }
    Ok(Outcome::Done)
}

async fn report(args: &Args, settings: &Settings) -> Result<Report> {
    let client = open::client(settings);
    let named = open::named(&client, &args.reference, args.blob_backend.as_ref()).await?;
    let mut others = Others::new(&client, &args.with);
    let mut images = Vec::new();
    for image in named.images {
        let image = image?;
        let wanted = match (&args.platform, &image.platform) {
            (Some(wanted), Some(platform)) => wanted.rank(platform).is_some(),
            _ => true,
        };
        if wanted {
            let (mut facts, opened) = facts::image(&named.blobs, &image).await?;
            if let Some((content, opened)) = facts.content.as_mut().zip(opened) {
                others.compare(&facts.platform, &opened, content).await?;
            }
            images.push(facts);
        }
    }
    Ok(Report {
        reference: args.reference.to_string(),
        digest: named.descriptor.digest.to_string(),
        media_type: named.descriptor.media_type,
        images,
    })
}
