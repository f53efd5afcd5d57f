//! What calls of a snapshotter take when it has many snapshots.

use std::time::Instant;

use anyhow::{Context as _, Result};
use draught_testkit::snapshots::{Labels, Snapshots};

use super::side::{Side, Whose};
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::Unit;
use crate::run::say;

/// Snapshots that are prepared, mounted and removed.
const SNAPSHOTS: usize = 1_000;

/// Snapshots that are listed.
const LISTED: usize = 10_000;

/// How often they are listed in each run.
const LISTS: usize = 20;

/// Who makes what is listed, at once: otherwise it takes minutes.
const MAKERS: usize = 16;

/// Layers below everything that is prepared.
const LAYERS: usize = 3;

/// What a call may take of containerd's own.
const TIMES_MOST: f64 = 1.5;

/// The calls; of each there are two columns.
const CALLS: [&str; 5] = ["Prepare", "Mounts", "Remove", "List", "List, filtered"];

const COLUMNS: &[Column] = &[
    Column("prepare_us", "Prepare, µs", Unit::Count),
    Column("prepare_p99_us", "p99", Unit::Count),
    Column("mounts_us", "Mounts, µs", Unit::Count),
    Column("mounts_p99_us", "p99", Unit::Count),
    Column("remove_us", "Remove, µs", Unit::Count),
    Column("remove_p99_us", "p99", Unit::Count),
    Column("list_us", "List, µs", Unit::Count),
    Column("list_p99_us", "p99", Unit::Count),
    Column("filtered_us", "List of one, µs", Unit::Count),
    Column("filtered_p99_us", "p99", Unit::Count),
];

const KEYS: [(&str, &str); 5] = [
    ("prepare_us", "prepare_p99_us"),
    ("mounts_us", "mounts_p99_us"),
    ("remove_us", "remove_p99_us"),
    ("list_us", "list_p99_us"),
    ("filtered_us", "filtered_p99_us"),
];

const THROUGH: &str = "draught through containerd";
const DIRECTLY: &str = "draught, asked directly";
const OVERLAYFS: &str = "overlayfs through containerd";

/// Measures ours and containerd's own.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Report> {
    let mut sheet = Sheet::new(
        format!("Among {SNAPSHOTS} snapshots; lists of {LISTED}"),
        COLUMNS,
    );
    for (row, whose) in [
        (THROUGH, Whose::Draught),
        (DIRECTLY, Whose::Draught),
        (OVERLAYFS, Whose::Overlayfs),
    ] {
        let work = bench.fresh("work")?;
        let side = Side::start(bench, whose, &work)?;
        let directly = side.directly()?.filter(|_| row == DIRECTLY);
        let client = directly.map_or_else(|| side.through_containerd(), Ok)?;
        measure_one(bench, &mut sheet, row, &client)?;
    }
    let mut report = Report {
        notes: vec![format!(
            "Each is asked by one client, one call after the other, on {LAYERS} layers; the list of one is found by its \
             label, as containerd looks for a lazy layer. Medians and 99th percentiles of a run's calls. To list, \
             containerd asks a snapshotter that is not its own after each snapshot by itself."
        )],
        ..Report::default()
    };
    for (row, words) in [(THROUGH, ""), (DIRECTLY, ", asked directly")] {
        for (call, (median, p99)) in CALLS.iter().zip(KEYS) {
            for (which, key) in [("median", median), ("p99", p99)] {
                let (ours, theirs) = (sheet.median(row, key), sheet.median(OVERLAYFS, key));
                report.bars.push(Bar::at_most(
                    format!("{call}, {which}{words}, over containerd's own"),
                    TIMES_MOST,
                    Unit::Times,
                    ours.zip(theirs).map(|(ours, theirs)| ours / theirs),
                ));
            }
        }
    }
    report.sheets.push(sheet);
    Ok(report)
}

/// A label by which one of many is found.
const LABEL: &str = "containerd.io/snapshot.ref";

fn measure_one(bench: &Bench<'_>, sheet: &mut Sheet, row: &str, client: &Snapshots) -> Result<()> {
    // Names of two clients of one snapshotter are different.
    let prefix = row.replace([' ', ','], "-");
    let none = Labels::new();
    let mut parent = String::new();
    for layer in 0..LAYERS {
        let (key, name) = (
            format!("{prefix}-key-{layer}"),
            format!("{prefix}-layer-{layer}"),
        );
        client.prepare(&key, &parent, &none)?;
        client.commit(&name, &key, &none, "")?;
        parent = name;
    }
    for run in 1..=bench.runs {
        say(&format!("{row}, run {run} of {}", bench.runs));
        let keys: Vec<String> = (0..SNAPSHOTS)
            .map(|at| format!("{prefix}-{run}-{at}"))
            .collect();
        let prepare = |key: &String| client.prepare(key, &parent, &none).map(drop);
        note(sheet, row, KEYS[0], timed(bench, &keys, prepare)?);
        let mounts = |key: &String| client.mounts(key).map(drop);
        note(sheet, row, KEYS[1], timed(bench, &keys, mounts)?);
        let remove = |key: &String| client.remove(key);
        note(sheet, row, KEYS[2], timed(bench, &keys, remove)?);
    }
    say(&format!("{row}: making {LISTED} snapshots"));
    make_many(bench, client, &prefix, &parent)?;
    let all = client.list(&[])?.len();
    anyhow::ensure!(all >= LISTED, "list all: {all} of {LISTED} came");
    let one = Labels::from([(LABEL.to_owned(), format!("{prefix}-of-one"))]);
    client.view(&format!("{prefix}-labelled"), &parent, &one)?;
    let filter = format!("labels.\"{LABEL}\"=={prefix}-of-one,parent==\"{parent}\"");
    let filter = [filter];
    let found = client.list(&filter)?.len();
    anyhow::ensure!(found == 1, "find one by its label: {found} came");
    let times = vec![(); LISTS];
    for _ in 0..bench.runs {
        let list = |(): &()| client.list(&[]).map(drop);
        note(sheet, row, KEYS[3], timed(bench, &times, list)?);
        let list = |(): &()| client.list(&filter).map(drop);
        note(sheet, row, KEYS[4], timed(bench, &times, list)?);
    }
    Ok(())
}

/// Makes snapshots, several at once.
fn make_many(bench: &Bench<'_>, client: &Snapshots, prefix: &str, parent: &str) -> Result<()> {
    let make = |maker: usize| -> Result<()> {
        for at in (maker..LISTED).step_by(MAKERS) {
            bench.interrupt.check()?;
            client.prepare(&format!("{prefix}-many-{at}"), parent, &Labels::new())?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS)
            .map(|maker| scope.spawn(move || make(maker)))
            .collect();
        let mut all = Ok(());
        for maker in makers {
            let made = maker
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a maker panicked"));
            all = all.and(made);
        }
        all
    })
}

/// Calls once for each thing; seconds.
fn timed<T, E>(
    bench: &Bench<'_>,
    things: &[T],
    mut call: impl FnMut(&T) -> Result<(), E>,
) -> Result<Vec<f64>>
where
    E: std::error::Error + Send + Sync + 'static,
{
    bench.interrupt.check()?;
    let timed = things.iter().map(|thing| {
        let begun = Instant::now();
        call(thing)?;
        Ok(begun.elapsed().as_secs_f64())
    });
    timed.collect()
}

/// Notes the median and the 99th percentile, in microseconds.
fn note(sheet: &mut Sheet, row: &str, keys: (&'static str, &'static str), mut seconds: Vec<f64>) {
    seconds.sort_by(f64::total_cmp);
    for (key, hundredths) in [(keys.0, 50), (keys.1, 99)] {
        if let Ok(value) = percentile(&seconds, hundredths) {
            sheet.record(row, key, value * 1e6);
        }
    }
}

/// The value that so many hundredths of the sorted ones do not exceed.
fn percentile(sorted: &[f64], hundredths: usize) -> Result<f64> {
    let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
    let value = sorted.get(rank - 1);
    value.copied().context("nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 50).unwrap(), 100.0);
        assert_eq!(percentile(&values, 99).unwrap(), 198.0);
        assert_eq!(percentile(&values[..3], 99).unwrap(), 3.0);
        assert_eq!(percentile(&values[..1], 50).unwrap(), 1.0);
        assert!(percentile(&[], 50).is_err());
    }
}
