//! Converting to eStargz, beside its own tool.

use anyhow::Result;

use crate::bench::convert::{self, Input};
use crate::bench::estargz::Estargz;
use crate::bench::image::{Image, Which};
use crate::bench::results::median;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::Sheet;
use crate::bench::suite::unit::{Unit, percent};

/// Wall time over that of `ctr-remote`: twice as fast.
const OVER_THEIRS_MOST: f64 = 1.0 / 2.0;

/// By how much what is stored may be larger or smaller, in hundredths.
const SIZE_APART_MOST: f64 = 2.0;

const PLAIN: [&str; 2] = ["--to", "estargz"];

/// Small files share a gzip member, which readers find by `innerOffset`.
const PACKED: [&str; 4] = ["--to", "estargz", "--batch-size", "256KiB"];

/// Converts each image with both.
pub(super) fn measure(bench: &Bench<'_>, images: &[Which]) -> Result<Report> {
    let mut report = Report {
        notes: vec![
            "The wall time of `ctr-remote` has what containerd does for it, its processor time and memory do \
             not. What takes a minute or more is measured once."
                .to_owned(),
        ],
        ..Report::default()
    };
    for which in images {
        let (letter, words) = which.words();
        let dir = bench.fresh(letter)?;
        let image = Image::prepare(*which, &dir)?;
        let estargz = Estargz::start(&image.gzip_layout, &dir)?;
        let plain = convert::draught(bench.draught, &image, Input::Gzip, &PLAIN);
        let packed = convert::draught(bench.draught, &image, Input::Gzip, &PACKED);
        let theirs = estargz.as_ref().map(convert::ctr_remote);
        let names = (
            plain.name.clone(),
            theirs.as_ref().map(|it| it.name.clone()),
        );
        let mut contenders = vec![plain, packed];
        contenders.extend(theirs);
        let measured = convert::measure(&contenders, &image, &dir, bench.runs, bench.interrupt)?;
        let sheet = measured.sheet(&format!("{letter}: {words}"));
        report
            .bars
            .extend(bars(letter, &sheet, &names.0, names.1.as_deref()));
        report.sheets.push(sheet);
        fs_err::remove_dir_all(&dir)?;
    }
    Ok(report)
}

fn bars(letter: &str, sheet: &Sheet, ours: &str, theirs: Option<&str>) -> [Bar; 2] {
    let time = theirs.and_then(|theirs| sheet.ratio(ours, theirs, "wall_s"));
    let apart = theirs.and_then(|theirs| {
        let key = "result_bytes";
        apart(sheet.values(ours, key), sheet.values(theirs, key))
    });
    [
        Bar::at_most(
            format!("{letter}: time over that of ctr-remote"),
            OVER_THEIRS_MOST,
            Unit::Times,
            time,
        ),
        Bar::at_most(
            format!("{letter}: size larger or smaller than that of ctr-remote by"),
            SIZE_APART_MOST,
            Unit::Percent,
            apart,
        ),
    ]
}

/// How far these are from those, in hundredths of those: the median over the runs.
fn apart(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    let runs = ours.iter().zip(theirs);
    median(
        runs.map(|(ours, theirs)| percent((ours - theirs).abs(), *theirs))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_is_as_far_apart_as_larger() {
        assert_eq!(apart(&[75.0], &[100.0]), Some(25.0));
        assert_eq!(apart(&[125.0], &[100.0]), Some(25.0));
        assert_eq!(apart(&[], &[100.0]), None);
    }
}
