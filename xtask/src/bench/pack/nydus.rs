//! Converting to nydus' format: beside the least that it could take, and beside nydus' own converter.

use anyhow::Result;

use crate::bench::convert::{self, BATCHED, Input, NydusImage};
use crate::bench::image::{Image, Which};
use crate::bench::results::median;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::Sheet;
use crate::bench::suite::unit::Unit;

/// Wall time of a tar archive over that of `zstd -3 -T2`.
const OVER_ZSTD_MOST: f64 = 1.5;

/// What is stored, with batches, over what `zstd -3` makes of the archive as a whole.
const SIZE_OVER_ZSTD_MOST: f64 = 1.04;

/// Wall time over that of nydus-image: 2.5 times as fast.
const OVER_NYDUS_MOST: f64 = 1.0 / 2.5;

/// What is stored over what nydus-image stores.
const SIZE_OVER_NYDUS_MOST: f64 = 1.0;

/// Wall time of a tar.gz over the slower of what has to be done: converting the tar, and inflating.
const GZIP_MOST: f64 = 1.1;

/// Resident memory at its peak, in bytes.
const PEAK_RSS_MOST: f64 = 96e6;

/// The names of those that are compared.
struct Names {
    tar: String,
    batched: String,
    gzip: String,
    zstd: Option<String>,
    inflating: String,
    nydus: Option<String>,
}

/// Converts each image with everybody.
pub(super) fn measure(
    bench: &Bench<'_>,
    images: &[Which],
    nydus: Option<&NydusImage>,
) -> Result<Report> {
    let mut report = Report {
        notes: vec![
            "From a local layout to a local layout, everything in memory before. Results are all that is \
             written: blobs, metadata, manifest."
                .to_owned(),
        ],
        ..Report::default()
    };
    for which in images {
        let (letter, words) = which.words();
        let dir = bench.fresh(letter)?;
        let image = Image::prepare(*which, &dir)?;
        let tar = convert::draught(bench.draught, &image, Input::Tar, &[]);
        let batched = convert::draught(bench.draught, &image, Input::Tar, &BATCHED);
        let gzip = convert::draught(bench.draught, &image, Input::Gzip, &[]);
        let zstd = convert::zstd(&image);
        let inflating = convert::inflating(&image);
        let theirs = nydus.map(|nydus| convert::nydus(nydus, &image, Input::Tar));
        let names = Names {
            tar: tar.name.clone(),
            batched: batched.name.clone(),
            gzip: gzip.name.clone(),
            zstd: zstd.as_ref().map(|it| it.name.clone()),
            inflating: inflating.name.clone(),
            nydus: theirs.as_ref().map(|it| it.name.clone()),
        };
        let mut contenders = vec![tar, batched, gzip, inflating];
        contenders.extend(zstd);
        contenders.extend(theirs);
        let measured = convert::measure(&contenders, &image, &dir, bench.runs, bench.interrupt)?;
        let sheet = measured.sheet(&format!("{letter}: {words}"));
        report.bars.extend(bars(letter, &sheet, &names));
        report.sheets.push(sheet);
        fs_err::remove_dir_all(&dir)?;
    }
    Ok(report)
}

fn bars(letter: &str, sheet: &Sheet, names: &Names) -> Vec<Bar> {
    let over = |row: &str, other: &Option<String>, key: &str| {
        let other = other.as_ref()?;
        sheet.ratio(row, other, key)
    };
    let times = |words: &str, most: f64, measured: Option<f64>| {
        Bar::at_most(format!("{letter}: {words}"), most, Unit::Times, measured)
    };
    let peaks =
        [&names.tar, &names.batched, &names.gzip].map(|name| sheet.median(name, "peak_rss_bytes"));
    let peak = peaks.into_iter().flatten().reduce(f64::max);
    vec![
        times(
            "time for a tar over that of zstd -3 -T2",
            OVER_ZSTD_MOST,
            over(&names.tar, &names.zstd, "wall_s"),
        ),
        times(
            "size with batches of 128 KiB over that of zstd -3 -T2",
            SIZE_OVER_ZSTD_MOST,
            over(&names.batched, &names.zstd, "result_bytes"),
        ),
        times(
            "time for a tar over that of nydus-image",
            OVER_NYDUS_MOST,
            over(&names.tar, &names.nydus, "wall_s"),
        ),
        times(
            "size over that of nydus-image",
            SIZE_OVER_NYDUS_MOST,
            over(&names.tar, &names.nydus, "result_bytes"),
        ),
        times(
            "time for a tar.gz over that for a tar or inflating alone, the slower of them",
            GZIP_MOST,
            over_slower(
                sheet.values(&names.gzip, "wall_s"),
                sheet.values(&names.tar, "wall_s"),
                sheet.values(&names.inflating, "wall_s"),
            ),
        ),
        Bar::at_most(
            format!("{letter}: the largest peak RSS of draught"),
            PEAK_RSS_MOST,
            Unit::Bytes,
            peak,
        ),
    ]
}

/// How many times as much the first needs as the larger of the others: the median over the runs.
fn over_slower(values: &[f64], one: &[f64], other: &[f64]) -> Option<f64> {
    let slower = one.iter().zip(other).map(|(one, other)| one.max(*other));
    median(
        values
            .iter()
            .zip(slower)
            .map(|(value, slower)| value / slower)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_is_chosen_run_by_run() {
        let ratio = over_slower(&[2.0, 6.0, 3.0], &[1.0, 6.0, 2.0], &[2.0, 3.0, 1.0]);
        assert_eq!(ratio, Some(1.0));
        assert_eq!(over_slower(&[], &[1.0], &[1.0]), None);
    }
}
