//! The command.

use anyhow::Result;
use draught_oci::{Location, Platform};

use super::facts::{self, Report};
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
  draught inspect --format json oci:./app | jq '.images[].layers[].bytes'")]
pub(crate) struct Args {
    /// The image: HOST/REPO:TAG, HOST/REPO@sha256:…, oci:DIR[:TAG] or docker-archive:FILE
    #[arg(value_name = "REF")]
    reference: Location,

    /// Show only the image for this platform: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
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
    let named = open::named(&client, &args.reference).await?;
    let mut images = Vec::new();
    for image in named.images {
        let image = image?;
        let wanted = match (&args.platform, &image.platform) {
            (Some(wanted), Some(platform)) => wanted.rank(platform).is_some(),
            _ => true,
        };
        if wanted {
            images.push(facts::image(&named.repository, &image).await?);
        }
    }
    Ok(Report {
        reference: args.reference.to_string(),
        digest: named.descriptor.digest.to_string(),
        media_type: named.descriptor.media_type,
        images,
    })
}
