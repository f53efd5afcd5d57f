//! `draught df`.

use anyhow::{Context as _, Result};
use draught_node::{Client, DfImage, DfReport, Layout};

use crate::args::Format;
use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;
use crate::units::Size;

/// Say what the store holds, and for whom
///
/// OWN is what no other image in the store has; SHARED what others have too; PRESENT what of both is on this
/// node; MISSING the rest. All in whole blocks of 4 KiB, decoded.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, settings: &Settings) -> Result<Outcome> {
    let report = Client::new(Layout::new(&settings.root))
        .df()
        .context("ask the daemon")?;
    match settings.format {
        Format::Json => output::json(&report)?,
        Format::Text => output::data(&text(&report))?,
    }
    Ok(Outcome::Done)
}

fn text(report: &DfReport) -> String {
    let head = [
        "IMAGE", "MOUNTED", "TOTAL", "OWN", "SHARED", "PRESENT", "MISSING",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(report.images.iter().map(row));
    let mut text = output::table(&rows);
    text.push_str(&format!(
        "\n{} of chunks, {} if each image had its own: {}\n{} on disk, {} of it data on {} devices\n",
        Size(report.bytes_present),
        Size(report.bytes_of_images),
        ratio(report.bytes_of_images, report.bytes_present),
        Size(report.bytes_on_disk),
        Size(report.data_bytes_on_disk),
        report.devices,
    ));
    if let Some(limit) = report.cache_bytes_max {
        text.push_str(&format!("{} is the limit\n", Size(limit)));
    }
    if let Some(over) = &report.over_limit {
        text.push_str(&format!(
            "{} more than the limit, for what is mounted: {}\n",
            Size(over.bytes),
            over.mounted.join(", ")
        ));
    }
    text
}

fn ratio(without: u64, with: u64) -> String {
    if with == 0 {
        return "nothing is there".to_owned();
    }
    let hundredths = u128::from(without) * 100 / u128::from(with);
    format!("{}.{:02} times as much", hundredths / 100, hundredths % 100)
}

fn row(image: &DfImage) -> Vec<String> {
    let sizes = [
        image.bytes_total,
        image.bytes_own,
        image.bytes_shared,
        image.bytes_present,
        image.bytes_missing,
    ];
    let name = if image.references.is_empty() {
        image.digest.clone()
    } else {
        image.references.join(", ")
    };
    let mounted = if image.mounted { "yes" } else { "no" };
    let mut row = vec![name, mounted.to_owned()];
    row.extend(sizes.map(|bytes| Size(bytes).to_string()));
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_says_what_sharing_saves() {
        assert_eq!(ratio(300, 100), "3.00 times as much");
        assert_eq!(ratio(150, 100), "1.50 times as much");
        assert_eq!(ratio(0, 0), "nothing is there");
    }
}
