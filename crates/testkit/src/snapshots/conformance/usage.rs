//! What snapshots take on disk.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::stage::{Stage, equal};

/// What is written: more than any filesystem's own overhead, less than nobody has.
const BYTES: usize = 300_000;

/// By how much the count of bytes may differ from what was written: blocks of filesystems.
const SLACK_BYTES: i64 = 64 << 10;

fn usage(stage: &Stage, name: &str) -> Result<(i64, i64)> {
    let usage = stage.client.usage(name);
    let usage = usage.with_context(|| format!("failed to ask for the usage of {name}"))?;
    ensure!(
        usage.size >= 0 && usage.inodes >= 0,
        "the usage of {name} is negative: {usage:?}"
    );
    Ok((usage.size, usage.inodes))
}

fn grown(what: &str, before: (i64, i64), after: (i64, i64), inodes: i64) -> Result<()> {
    let (bytes, expected) = (after.0 - before.0, i64::try_from(BYTES)?);
    ensure!(
        (expected - SLACK_BYTES..expected + SLACK_BYTES).contains(&bytes),
        "{what} takes {bytes} bytes more, should be some {expected}"
    );
    equal(&format!("inodes of {what}"), after.1 - before.1, inodes)
}

/// Makes the filesystem decide where a file lies: until then it may take no blocks.
fn settle(file: &Path) -> Result<()> {
    Ok(fs_err::File::open(file)?.sync_all()?)
}

fn noise() -> Vec<u8> {
    let bytes = (0..BYTES).map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]);
    bytes.collect()
}

pub(super) fn what_is_written_counts(stage: &Stage) -> Result<()> {
    let layer = stage.layer("layer", "", |dir| {
        Ok(fs_err::write(dir.join("below"), noise())?)
    })?;
    let active = stage.name("active");
    let mounts = stage.prepare(&active, &layer)?;
    let before = usage(stage, &active)?;
    ensure!(
        before.0 < SLACK_BYTES && before.1 <= 2,
        "a new snapshot takes {before:?}: its parent's is not its own"
    );
    stage.within(&mounts, |dir| {
        fs_err::create_dir(dir.join("dir"))?;
        fs_err::write(dir.join("dir/file"), noise())?;
        fs_err::hard_link(dir.join("dir/file"), dir.join("dir/link"))?;
        settle(&dir.join("dir/file"))
    })?;
    // A name more of one inode takes nothing.
    grown("what was written", before, usage(stage, &active)?, 2)
}

pub(super) fn a_committed_snapshot_keeps_its_usage(stage: &Stage) -> Result<()> {
    let key = stage.name("key");
    let mounts = stage.prepare(&key, "")?;
    let before = usage(stage, &key)?;
    stage.within(&mounts, |dir| {
        fs_err::write(dir.join("file"), noise())?;
        settle(&dir.join("file"))
    })?;
    let written = usage(stage, &key)?;
    grown("what was written", before, written, 1)?;
    let layer = stage.name("layer");
    stage.commit(&layer, &key)?;
    equal("the usage of the layer", usage(stage, &layer)?, written)?;
    let child = stage.name("child");
    let mounts = stage.prepare(&child, &layer)?;
    stage.within(&mounts, |dir| Ok(fs_err::remove_file(dir.join("file"))?))?;
    equal("the usage of the layer", usage(stage, &layer)?, written)
}

pub(super) fn a_view_takes_nothing(stage: &Stage) -> Result<()> {
    let layer = stage.layer("layer", "", |dir| {
        Ok(fs_err::write(dir.join("file"), noise())?)
    })?;
    let view = stage.name("view");
    stage.view(&view, &layer)?;
    let (bytes, _) = usage(stage, &view)?;
    ensure!(bytes < SLACK_BYTES, "a view takes {bytes} bytes");
    Ok(())
}
