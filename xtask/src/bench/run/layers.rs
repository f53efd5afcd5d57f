//! Whether an image of many layers costs more than one of few.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use draught_testkit::images::{Layer, Packing, write_layout};
use draught_testkit::snapshots::{Labels, mount_all};

use super::side::{Side, Whose};
use crate::bench::image::oci;
use crate::bench::measure;
use crate::bench::reader;
use crate::bench::results::median;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::counted::Counted;
use crate::bench::suite::generated;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::Unit;
use crate::run::{command, say};

/// Layers of the two images.
const LAYERS: [u32; 2] = [3, 60];

/// Files in either, the same.
const FILES: u32 = 12_000;

/// How often is prepared, mounted and removed in each run.
const TIMES: usize = 50;

/// What many layers may take of few.
const TIMES_MOST: f64 = 1.2;

const COLUMNS: &[Column] = &[
    Column("pull_s", "pull", Unit::Seconds),
    Column("prepare_us", "Prepare, µs", Unit::Count),
    Column("mounts_us", "Mounts, µs", Unit::Count),
    Column("mount_us", "mounting it, µs", Unit::Count),
    Column("stat_cold_s", "stat everything, cold", Unit::Seconds),
    Column("stat_warm_s", "… warm", Unit::Seconds),
];

fn row(whose: Whose, layers: u32) -> String {
    format!("{}, {layers} layers", whose.name())
}

/// Measures both images with both snapshotters.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Report> {
    let registry = bench.registry()?;
    let counted = Counted::before(&registry);
    for layers in LAYERS {
        say(&format!("an image of {layers} layers"));
        let layout = layout(layers, &bench.fresh("image")?)?;
        let plain = registry.reference(&name(Whose::Overlayfs, layers));
        let mut copy = command("skopeo", &["copy", "--quiet", "--insecure-policy"]);
        copy.args(["--dest-tls-verify=false", &oci(&layout)]);
        measure::output(copy.arg(format!("docker://{plain}")))?;
        let lazy = registry.reference(&name(Whose::Draught, layers));
        let scratch = bench.fresh("convert")?;
        let (from, form) = (oci(&layout), ["--to", "estargz"]);
        measure::output(&mut bench.draught.convert(&scratch, &from, &lazy, &form))?;
    }
    let mut sheet = Sheet::new("The same files in few and in many layers", COLUMNS);
    for run in 1..=bench.runs {
        for layers in LAYERS {
            for whose in Whose::BOTH {
                let row = row(whose, layers);
                say(&format!("{row}, run {run} of {}", bench.runs));
                let reference = counted.reference(&name(whose, layers));
                measure_one(bench, &mut sheet, &row, whose, &reference)?;
            }
        }
    }
    let [few, many] = LAYERS.map(|layers| row(Whose::Draught, layers));
    let bars = [
        ("prepared", "prepare_us"),
        ("told how it is mounted", "mounts_us"),
        ("mounted", "mount_us"),
        ("looked through", "stat_warm_s"),
    ];
    let bars = bars.map(|(words, key)| {
        let words = format!("an image of 60 layers is {words}, over one of 3");
        Bar::at_most(
            words,
            TIMES_MOST,
            Unit::Times,
            sheet.ratio(&many, &few, key),
        )
    });
    Ok(Report {
        notes: vec![format!(
            "{FILES} small files; a snapshot on top of the image is prepared, mounted, unmounted and removed {TIMES} \
             times, medians."
        )],
        sheets: vec![sheet],
        bars: bars.into(),
    })
}

fn name(whose: Whose, layers: u32) -> String {
    format!("bench/{}-{layers}", whose.name())
}

/// An image of so many layers, each with its share of the files.
fn layout(layers: u32, dir: &Path) -> Result<PathBuf> {
    let archive = |layer: u32| -> Result<Layer<'static>> {
        let below = format!("part-{layer}");
        let bytes = generated::write(FILES / layers, layer.into(), &[&below], Vec::new())?;
        Ok(Layer {
            archive: Box::new(std::io::Cursor::new(bytes)),
            packing: Packing::Gzip,
        })
    };
    let layout = dir.join("layout");
    let archives = (0..layers).map(archive).collect::<Result<_>>()?;
    write_layout(&layout, archives)?;
    Ok(layout)
}

fn measure_one(
    bench: &Bench<'_>,
    sheet: &mut Sheet,
    row: &str,
    whose: Whose,
    reference: &str,
) -> Result<()> {
    let work = bench.fresh("work")?;
    let side = Side::start(bench, whose, &work)?;
    let begun = Instant::now();
    side.pull(reference)?;
    sheet.record(row, "pull_s", begun.elapsed().as_secs_f64());
    let (client, top) = (side.through_containerd()?, side.top()?);
    let dir = work.join("mount");
    fs_err::create_dir_all(&dir)?;
    let mut took: [Vec<f64>; 3] = Default::default();
    for _ in 0..TIMES {
        bench.interrupt.check()?;
        let mut lap = Instant::now();
        let mut note = |at: usize| {
            if let Some(took) = took.get_mut(at) {
                took.push(lap.elapsed().as_secs_f64() * 1e6);
            }
            lap = Instant::now();
        };
        client.prepare("bench", &top, &Labels::new())?;
        note(0);
        let mounts = client.mounts("bench")?;
        note(1);
        let mounted = mount_all(&mounts, &dir)?;
        note(2);
        drop(mounted);
        client.remove("bench")?;
    }
    for (key, took) in ["prepare_us", "mounts_us", "mount_us"].iter().zip(took) {
        sheet.record(row, key, median(took).context("nothing was measured")?);
    }
    let mounts = client.prepare("bench", &top, &Labels::new())?;
    let mounted = mount_all(&mounts, &dir)?;
    measure::drop_caches()?;
    sheet.record(row, "stat_cold_s", reader::stat_all(&dir)?.wall_s);
    let warm = reader::stat_all(&dir)?;
    anyhow::ensure!(
        warm.entries >= FILES.into(),
        "look through the image: {} entries",
        warm.entries
    );
    sheet.record(row, "stat_warm_s", warm.wall_s);
    drop(mounted);
    client.remove("bench")?;
    Ok(())
}
