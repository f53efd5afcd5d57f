//! The passes over a tree, the same for everybody.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use draught_digest::Digest;

use super::contender::{Contender, Kind};
use crate::bench::measure;
use crate::bench::reader::{self, Pass};
use crate::bench::results::{Metric, Results, number};

/// A program that every image has; its first byte stands for a container that begins to run.
const PROGRAM: &str = "usr/bin/bash";

/// How often an idle process is looked at, and how long it may take to become idle.
const IDLE_EVERY: Duration = Duration::from_millis(100);
const IDLE_MAX: Duration = Duration::from_secs(10);

/// What every tree must be.
#[derive(Debug)]
pub(super) struct Expected {
    entries: u64,
    bytes: u64,
    fingerprint: Digest,
}

impl Expected {
    /// Looks at the unpacked tree.
    pub(super) fn see(tree: &Path) -> Result<Self> {
        let pass = reader::read_all(tree)?;
        Ok(Self {
            entries: pass.entries,
            bytes: pass.bytes,
            fingerprint: reader::fingerprint(tree)?,
        })
    }

    /// How much there is, for people.
    pub(super) fn words(&self) -> String {
        format!(
            "{} entries, {:.0} MB in files",
            self.entries,
            number(self.bytes) / 1e6
        )
    }

    fn read(&self, pass: Pass, name: &str) -> Result<f64> {
        ensure!(
            pass.bytes == self.bytes,
            "read everything: {name} gave {} bytes instead of {}",
            pass.bytes,
            self.bytes
        );
        self.seen(pass, name)
    }

    fn seen(&self, pass: Pass, name: &str) -> Result<f64> {
        ensure!(
            pass.entries == self.entries,
            "see everything: {name} showed {} entries instead of {}",
            pass.entries,
            self.entries
        );
        Ok(pass.wall_s)
    }
}

/// All passes of one run over one contender. With `verify`, its content is compared afterwards.
pub(super) fn measure(
    contender: &dyn Contender,
    work: &Path,
    expected: &Expected,
    verify: bool,
    results: &mut Results,
) -> Result<()> {
    let name = contender.name().to_owned();
    let mut note = |metric: Metric, value: f64| results.record(&name, metric, value);
    measure::drop_caches()?;
    let begun = Instant::now();
    let mut readable = contender.mount(work)?;
    if contender.kind() != Kind::Directory {
        note(Metric::Mount, begun.elapsed().as_secs_f64());
    }
    let dir = readable.dir().to_owned();
    reader::first_byte(&dir.join(PROGRAM))?;
    note(Metric::FirstByte, begun.elapsed().as_secs_f64());
    // Noted early, so that they can be ended whatever happens.
    let processes = readable.processes()?;
    note(
        Metric::StatCold,
        expected.seen(reader::stat_all(&dir)?, &name)?,
    );
    if contender.kind() == Kind::Lazy {
        note(
            Metric::ReadCold,
            expected.read(reader::read_all(&dir)?, &name)?,
        );
        note(Metric::DaemonCpu, measure::usage(&processes)?.cpu_s);
        readable.wait_until_complete()?;
    }
    measure::drop_caches()?;
    note(
        Metric::ReadDropped,
        expected.read(reader::read_all(&dir)?, &name)?,
    );
    note(
        Metric::ReadWarm,
        expected.read(reader::read_all(&dir)?, &name)?,
    );
    note(
        Metric::StatWarm,
        expected.seen(reader::stat_all(&dir)?, &name)?,
    );
    if contender.kind() == Kind::Lazy {
        let usage = measure::usage(&processes)?;
        note(Metric::DaemonPeakRss, number(usage.peak_rss_bytes));
        note(Metric::DaemonOwnRss, number(usage.own_rss_bytes));
    }
    if verify {
        let same = reader::fingerprint(&dir)? == expected.fingerprint;
        ensure!(
            same,
            "compare {name}: its files differ from the unpacked ones"
        );
    }
    if let Some(seconds) = readable.mount_again()? {
        note(Metric::MountAgain, seconds);
    }
    Ok(())
}

/// Waits until a process needs no processor any more.
pub(super) fn wait_until_idle(pid: u32) -> Result<()> {
    let begun = Instant::now();
    let mut before = measure::usage(&[pid]).context("look at a process")?.cpu_s;
    loop {
        std::thread::sleep(IDLE_EVERY);
        let now = measure::usage(&[pid])?.cpu_s;
        if now <= before || begun.elapsed() > IDLE_MAX {
            return Ok(());
        }
        before = now;
    }
}
