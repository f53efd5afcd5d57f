//! The command.

use anyhow::Result;
use draught_oci::Location;
use draught_source::BackendLocation;
use serde::Serialize;

use super::fault::{Fault, Findings};
use super::image;
use crate::args::Format;
use crate::outcome::Outcome;
use crate::progress::Reporter;
use crate::settings::Settings;
use crate::units::Size;
use crate::{asynchronous, open, output};

/// Verify an image to its last chunk
///
/// Reads everything: manifests, configurations, metadata, every blob with its tables and every chunk in
/// it, for all platforms. Each fault is a line on standard output, with the blob, the bytes and a file
/// that has them. Nothing is written and nothing repaired.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes:
  0  no faults
  1  faults were found, or the check could not be done
Example:
  draught check 127.0.0.1:5000/app:1 && echo sound")]
pub(crate) struct Args {
    /// The image: HOST/REPO:TAG, HOST/REPO@sha256:…, oci:DIR[:TAG] or docker-archive:FILE
    #[arg(value_name = "REF")]
    reference: Location,

    /// The place that has the image's blobs, where its manifest lists none: s3://BUCKET[/PREFIX][?region=…&
    /// endpoint=…], oss://BUCKET[/PREFIX]?endpoint=… or dir:PATH
    #[arg(long, value_name = "PLACE")]
    blob_backend: Option<BackendLocation>,
}

/// What is printed for programs.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(rename = "ref")]
    reference: String,
    sound: bool,
    checked: Checked,
    faults: &'a [Fault],
    /// Faults beyond those listed.
    faults_more: u64,
}

/// How much was looked at.
#[derive(Debug, Serialize)]
struct Checked {
    images: u64,
    blobs: u64,
    bytes: u64,
    chunks: u64,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let findings = asynchronous::run(check(args, settings))?;
    let sound = findings.faults.is_empty();
    match settings.format {
        Format::Json => output::json(&Report {
            reference: args.reference.to_string(),
            sound,
            checked: Checked {
                images: findings.images,
                blobs: findings.blobs,
                bytes: findings.bytes,
                chunks: findings.chunks,
            },
            faults: &findings.faults,
            faults_more: findings.faults_more,
        })?,
        Format::Text => {
            for fault in &findings.faults {
                output::line(&fault.to_string())?;
            }
            if findings.faults_more > 0 {
                output::line(&format!("and {} faults more", findings.faults_more))?;
            }
            output::say(&summary(&findings));
        }
    }
    Ok(if sound {
        Outcome::Done
    } else {
        Outcome::Faults
    })
}

fn summary(findings: &Findings) -> String {
    let faults = match findings.faults.len() {
        0 => "no faults".to_owned(),
        1 => "1 fault".to_owned(),
        faults => format!("{faults} faults"),
    };
    format!(
        "checked {} images, {} blobs with {}, {} chunks: {faults}",
        findings.images,
        findings.blobs,
        Size(findings.bytes),
        findings.chunks
    )
}

async fn check(args: &Args, settings: &Settings) -> Result<Findings> {
    let client = open::client(settings);
    let reporter = Reporter::new("check", settings.progress);
    reporter.part("manifest");
    let named = open::named(&client, &args.reference, args.blob_backend.as_ref()).await?;
    let mut findings = Findings::default();
    for image in named.images {
        findings.images += 1;
        match image {
            Ok(image) => image::check(&named.blobs, &image, &mut findings, &reporter).await?,
            Err(error) => findings.add_error(&named.descriptor.digest, Err(error)),
        }
    }
    Ok(findings)
}
