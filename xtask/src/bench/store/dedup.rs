//! What deduplication costs an image that shares nothing, and what it saves those that share.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use draught_tar::Writer;
use draught_testkit::images::{Layer, Packing, write_layout};
use draught_tree::EntryKind;

use super::packings::{self, Packed};
use crate::bench::draught::Registry;
use crate::bench::image::{self, Which, oci};
use crate::bench::measure;
use crate::bench::node::Node;
use crate::bench::reader;
use crate::bench::results::number;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::counted::{Counted, Drawn};
use crate::bench::suite::generated::entry;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::{Unit, percent};
use crate::run::say;

/// What the daemon understands as "off".
const OFF: (&str, &str) = ("DRAUGHT_DEDUP", "off");

/// The first image with deduplication over the same without.
const FIRST_MOST: f64 = 1.05;

/// How often that is compared in a run: it takes a second, and a bar so low needs many.
const PAIRS_PER_RUN: u32 = 3;

/// What the same content packed differently may draw, in hundredths of its stored bytes.
const REPACKED_MOST: f64 = 5.0;

/// How long the daemon may take to note that everything is there.
const COMPLETE_MAX: Duration = Duration::from_secs(10);

/// Bytes of the file that the second image adds.
const ADDED_BYTES: usize = 100_000;

/// All three measurements.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Report> {
    let registry = bench.registry()?;
    let mut report = Report::default();
    report.notes.push(
        "An image is read from the registry on loopback, with the daemon running and the page cache \
         dropped; % are of the image's stored bytes."
            .to_owned(),
    );
    first_image(bench, &registry, &mut report)?;
    second_image(bench, &registry, &mut report)?;
    repacked(bench, &registry, &mut report)?;
    Ok(report)
}

const FIRST: &[Column] = &[
    Column("mount_s", "mount", Unit::Seconds),
    Column("read_s", "read everything", Unit::Seconds),
    Column("sum_s", "together", Unit::Seconds),
    Column("daemon_cpu_s", "CPU of the daemon", Unit::Seconds),
];

fn first_image(bench: &Bench<'_>, registry: &Registry, report: &mut Report) -> Result<()> {
    let (_, layout) = image::layouts(&Which::A.archive()?)?;
    let reference = registry.reference("bench/first");
    bench.convert(&oci(&layout), &reference, &[])?;
    let (_, words) = Which::A.words();
    let title = format!("The first image ({words}) with nothing local");
    let mut sheet = Sheet::new(title, FIRST);
    let (on, off) = ("deduplication on", "deduplication off");
    let pairs = bench.runs * PAIRS_PER_RUN;
    for run in 1..=pairs {
        let mut both = [(on, None), (off, Some(OFF))];
        if run % 2 == 0 {
            // Whoever comes second may find a busier machine.
            both.reverse();
        }
        for (name, env) in both {
            say(&format!("{name}, run {run} of {pairs}"));
            let work = bench.fresh("work")?;
            let dir = work.join("mount");
            let mut node = bench.node(&work, env)?;
            measure::drop_caches()?;
            let begun = Instant::now();
            node.mount(&reference, &dir)?;
            sheet.record(name, "mount_s", begun.elapsed().as_secs_f64());
            sheet.record(name, "read_s", reader::read_all(&dir)?.wall_s);
            sheet.record(name, "sum_s", begun.elapsed().as_secs_f64());
            let usage = measure::usage(node.processes()?)?;
            sheet.record(name, "daemon_cpu_s", usage.cpu_s);
        }
    }
    let ratio = sheet.ratio(on, off, "sum_s");
    let words = "the first image, deduplication on over off";
    let bar = Bar::at_most(words, FIRST_MOST, Unit::Times, ratio);
    report.bars.push(bar);
    report.sheets.push(sheet);
    Ok(())
}

const DRAWN: &[Column] = &[
    Column("stored_bytes", "stored", Unit::Bytes),
    Column("drawn_bytes", "drawn", Unit::Bytes),
    Column("drawn_percent", "… of stored", Unit::Percent),
    Column("content_percent", "… without metadata", Unit::Percent),
    Column("requests", "requests", Unit::Count),
    Column("disk_bytes", "disk added", Unit::Bytes),
    Column("disk_percent", "… of the first's", Unit::Percent),
    Column("seconds", "mount and read", Unit::Seconds),
];

/// What drawing an image did.
struct Drawing {
    drawn: Drawn,
    content_bytes: f64,
    disk_bytes: f64,
    seconds: f64,
}

/// Mounts an image and reads all of it.
fn draw(node: &mut Node<'_>, counted: &Counted, name: &str, work: &Path) -> Result<Drawing> {
    let root = work.join("root");
    let dir = work.join(name.replace('/', "-"));
    let before = measure::allocated(&root)?;
    measure::drop_caches()?;
    // Nobody else asks: what was counted so far is not ours.
    counted.drawn();
    let begun = Instant::now();
    node.mount(&counted.reference(name), &dir)?;
    reader::read_all(&dir)?;
    let seconds = begun.elapsed().as_secs_f64();
    node.wait_until_complete(&dir, COMPLETE_MAX)?;
    let drawn = counted.drawn();
    let content_bytes = number(node.of_mount(&dir, "bytes_fetched")?);
    measure::settle();
    let after = measure::allocated(&root)?;
    Ok(Drawing {
        drawn,
        content_bytes,
        disk_bytes: number(after) - number(before),
        seconds,
    })
}

/// Draws images one after the other in one node, `runs` times, and notes what that took.
fn draw_all(
    bench: &Bench<'_>,
    registry: &Registry,
    title: &str,
    images: &[(&str, &str, u64)],
) -> Result<Sheet> {
    let counted = Counted::before(registry);
    let mut sheet = Sheet::new(title, DRAWN);
    for run in 1..=bench.runs {
        let work = bench.fresh("work")?;
        let mut node = bench.node(&work, None)?;
        let mut first_disk_bytes = None;
        for (words, name, stored_bytes) in images {
            bench.interrupt.check()?;
            say(&format!("{words}, run {run} of {}", bench.runs));
            let drawing = draw(&mut node, &counted, name, &work)?;
            let stored = number(*stored_bytes);
            let first = *first_disk_bytes.get_or_insert(drawing.disk_bytes);
            for (key, value) in [
                ("stored_bytes", stored),
                ("drawn_bytes", drawing.drawn.bytes),
                ("drawn_percent", percent(drawing.drawn.bytes, stored)),
                ("content_percent", percent(drawing.content_bytes, stored)),
                ("requests", drawing.drawn.requests),
                ("disk_bytes", drawing.disk_bytes),
                ("disk_percent", percent(drawing.disk_bytes, first)),
                ("seconds", drawing.seconds),
            ] {
                sheet.record(words, key, value);
            }
        }
    }
    Ok(sheet)
}

fn second_image(bench: &Bench<'_>, registry: &Registry, report: &mut Report) -> Result<()> {
    let archive = Which::A.archive()?;
    let scratch = bench.fresh("second")?;
    let small = scratch.join("small.tar");
    write_small(fs_err::File::create(&small)?)?;
    let layer = |path: &Path| -> Result<Layer<'static>> {
        let archive = Box::new(fs_err::File::open(path)?);
        let packing = Packing::Tar;
        Ok(Layer { archive, packing })
    };
    let mut images = Vec::new();
    for (words, name, layers) in [
        ("the first image", "bench/base", vec![layer(&archive)?]),
        (
            "with one small layer more",
            "bench/derived",
            vec![layer(&archive)?, layer(&small)?],
        ),
    ] {
        let layout = scratch.join("layout");
        write_layout(&layout, layers)?;
        let stored = bench.convert(&oci(&layout), &registry.reference(name), &[])?;
        fs_err::remove_dir_all(layout)?;
        images.push((words, name, stored));
    }
    let title =
        "A second image: the first's layer, and one with a new file of 100 kB and a changed one";
    let sheet = draw_all(bench, registry, title, &images)?;
    report.sheets.push(sheet);
    Ok(())
}

/// A layer with a new file and a changed one.
fn write_small<W: std::io::Write>(out: W) -> Result<W> {
    // Not to be compressed, and not in the base.
    let mut added = Vec::new();
    let mut state = draught_digest::Digest::blake3(b"added by a layer");
    while added.len() < ADDED_BYTES {
        added.extend_from_slice(state.as_bytes());
        state = draught_digest::Digest::blake3(state.as_bytes());
    }
    added.truncate(ADDED_BYTES);
    let mut writer = Writer::new(out);
    for (path, content) in [
        (&b"opt/added"[..], &added[..]),
        (b"etc/debian_version", b"changed\n"),
    ] {
        let kind = EntryKind::File {
            bytes: u64::try_from(content.len())?,
            chunks: Box::default(),
        };
        writer.entry(&entry(path, 0o644, kind))?;
        writer.data(content)?;
    }
    Ok(writer.finish()?)
}

fn repacked(bench: &Bench<'_>, registry: &Registry, report: &mut Report) -> Result<()> {
    let scratch = bench.fresh("packings")?;
    let mut images = Vec::new();
    let packed = packings::make(&scratch, bench.interrupt)?;
    for Packed {
        words,
        name,
        layout,
        args,
    } in &packed
    {
        let reference = registry.reference(name);
        let stored = bench.convert(&oci(layout), &reference, args)?;
        images.push((*words, *name, stored));
    }
    fs_err::remove_dir_all(scratch)?;
    let title = "Debian with Python packed in three ways, read one after the other";
    let sheet = draw_all(bench, registry, title, &images)?;
    for (words, ..) in images.iter().skip(1) {
        let drawn = sheet.median(words, "drawn_percent");
        let bar = Bar::at_most(
            format!("drawn for the same content in {words}"),
            REPACKED_MOST,
            Unit::Percent,
            drawn,
        );
        report.bars.push(bar);
    }
    report.sheets.push(sheet);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_layer_has_two_files() {
        let bytes = write_small(Vec::new()).unwrap();
        // Two headers, their data in whole blocks of 512 bytes, and two blocks at the end.
        let blocks = 2 + ADDED_BYTES.div_ceil(512) + 1 + 2;
        assert_eq!(bytes.len(), blocks * 512);
    }
}
