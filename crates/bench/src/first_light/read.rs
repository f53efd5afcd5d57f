//! What reading costs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use draught_importer::metadata_from_layer;
use draught_testkit::{MountGuard, Scratch, erofs, mounted, need, process};

use super::images::Tree;
use super::program::Program;
use crate::machine::drop_caches;
use crate::measure::{bytes_of, memory};
use crate::table::{megabytes, seconds, table};
use crate::walk::{read_all, stat_all};

/// The largest bootstrap there may be, in bytes.
const BOOTSTRAP_BYTES_MAX: u64 = 1 << 30;

/// Times of one way to have a tree; some do not exist for it.
#[derive(Debug, Default, Clone)]
struct Times {
    mount: Option<Duration>,
    stat: Duration,
    cold: Option<Duration>,
    complete: Duration,
    warm: Duration,
    rss_bytes_max: Option<u64>,
}

/// Measures all ways to read a tree; a table.
pub(crate) fn measure(
    program: &Program,
    scratch: &Scratch,
    tree: &Tree,
    runs: usize,
) -> Result<String> {
    let packed = Packed::of(program, scratch, tree)?;
    let mut lines = vec![("ext4", local(&tree.rootfs, runs)?)];
    let dir = scratch.dir("local-erofs");
    let local_image = local_erofs(scratch, tree, &dir)?;
    lines.push(("EROFS, a local file", local(&dir, runs)?));
    drop(local_image);
    lines.push(("draught", median(runs, || ours(program, scratch, tree))?));
    if need::nydus().is_some() {
        lines.push((
            "nydusd, the same blobs",
            median(runs, || nydusd(scratch, &packed, tree))?,
        ));
    }
    let show = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), seconds);
    let rows: Vec<_> = lines
        .into_iter()
        .map(|(what, times)| {
            vec![
                what.to_owned(),
                show(times.mount),
                seconds(times.stat),
                show(times.cold),
                seconds(times.complete),
                seconds(times.warm),
                times
                    .rss_bytes_max
                    .map_or_else(|| "-".to_owned(), megabytes),
            ]
        })
        .collect();
    let head = [
        "",
        "mount",
        "stat all, warm",
        "read all, nothing local",
        "all local, caches dropped",
        "warm",
        "peak memory",
    ];
    let text = table(&head, &rows);
    Ok(format!(
        "{text}\nOne thread reads all files in the order of their names. draught reads from its registry \
         on loopback, nydusd from a local directory.\n"
    ))
}

/// Medians of each time by itself.
fn median(runs: usize, mut run: impl FnMut() -> Result<Times>) -> Result<Times> {
    let mut all = Vec::new();
    for _ in 0..runs {
        all.push(run()?);
    }
    let middle = |field: &dyn Fn(&Times) -> Duration| {
        let mut times: Vec<_> = all.iter().map(field).collect();
        times.sort_unstable();
        times.get(runs / 2).copied().unwrap_or_default()
    };
    let first = all.first().context("measure at least once")?;
    Ok(Times {
        mount: first
            .mount
            .map(|_| middle(&|times| times.mount.unwrap_or_default())),
        stat: middle(&|times| times.stat),
        cold: first
            .cold
            .map(|_| middle(&|times| times.cold.unwrap_or_default())),
        complete: middle(&|times| times.complete),
        warm: middle(&|times| times.warm),
        rss_bytes_max: all.iter().filter_map(|times| times.rss_bytes_max).max(),
    })
}

/// What is done to every mounted tree; `cold` says whether nothing is local at first.
fn times(root: &Path, tree: &Tree, cold: bool) -> Result<Times> {
    let mut times = Times::default();
    drop_caches()?;
    let (files, _) = stat_all(root)?;
    if cold {
        let (bytes, took) = read_all(&files)?;
        ensure!(bytes > 0, "read {}: it is empty", tree.title);
        times.cold = Some(took);
    }
    drop_caches()?;
    times.complete = read_all(&files)?.1;
    times.warm = read_all(&files)?.1;
    stat_all(root)?;
    times.stat = stat_all(root)?.1;
    Ok(times)
}

fn local(root: &Path, runs: usize) -> Result<Times> {
    let tree = root.display().to_string();
    median(runs, || {
        drop_caches()?;
        let (files, _) = stat_all(root).with_context(|| tree.clone())?;
        drop_caches()?;
        let complete = read_all(&files)?.1;
        let warm = read_all(&files)?.1;
        stat_all(root)?;
        let stat = stat_all(root)?.1;
        Ok(Times {
            complete,
            warm,
            stat,
            ..Times::default()
        })
    })
}

/// What EROFS makes of the same tree, uncompressed.
fn local_erofs(scratch: &Scratch, tree: &Tree, dir: &Path) -> Result<MountGuard> {
    let image = scratch.join("local.erofs");
    process::run(
        Command::new("mkfs.erofs")
            .arg("--quiet")
            .arg(&image)
            .arg(&tree.rootfs),
    );
    erofs::mount(&image, &[], dir)
}

/// Ours: from a registry on loopback, with a state directory that has nothing.
fn ours(program: &Program, scratch: &Scratch, tree: &Tree) -> Result<Times> {
    let (_registry, address) = program.registry(&registry_dir(scratch))?;
    program.forget()?;
    let dir = scratch.join("mounted");
    fs_err::create_dir_all(&dir)?;
    let reference = format!("{address}/bench:lazy");
    let dir_text = dir.display().to_string();
    drop_caches()?;
    let start = std::time::Instant::now();
    program.run(&["mount", &reference, &dir_text])?;
    let mount = start.elapsed();
    let guard = Unmount { program, dir: &dir };
    let mut found = times(&dir, tree, true)?;
    let status = program.run(&["ps"])?;
    let worker = status["worker_pid"].as_u64().context("find the worker")?;
    found.rss_bytes_max = Some(memory(worker, "VmHWM:")?);
    found.mount = Some(mount);
    guard.end()?;
    Ok(found)
}

/// Unmounts and stops the daemon, also when a measurement fails.
struct Unmount<'a> {
    program: &'a Program,
    dir: &'a Path,
}

impl Unmount<'_> {
    fn end(self) -> Result<()> {
        self.program.run(&["daemon", "--stop"])?;
        ensure!(
            mounted::below(self.dir).is_empty(),
            "unmount {}",
            self.dir.display()
        );
        Ok(())
    }
}

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        if !mounted::below(self.dir).is_empty() {
            self.program
                .run(&["daemon", "--stop"])
                .map(drop)
                .unwrap_or_default();
        }
    }
}

fn registry_dir(scratch: &Scratch) -> PathBuf {
    scratch.join("registry")
}

/// What we made of a tree, as files for nydusd, and in a registry.
struct Packed {
    bootstrap: PathBuf,
    blobs: PathBuf,
}

impl Packed {
    fn of(program: &Program, scratch: &Scratch, tree: &Tree) -> Result<Self> {
        let layout = scratch.join("packed");
        let from = format!("oci:{}", tree.layout_gzip.display());
        let to = format!("oci:{}:lazy", layout.display());
        program.run(&["convert", &from, &to])?;
        let facts = program.run(&["inspect", &to])?;
        let layers = facts["images"][0]["layers"]
            .as_array()
            .context("find the layers")?;
        let metadata = layers.iter().find(|layer| layer["role"] == "metadata");
        let digest = metadata.and_then(|layer| layer["digest"].as_str());
        let hex = digest
            .and_then(|digest| digest.strip_prefix("sha256:"))
            .context("find the metadata")?;
        let blobs = layout.join("blobs/sha256");
        let bootstrap = scratch.join("bootstrap");
        let layer = fs_err::read(blobs.join(hex))?;
        fs_err::write(
            &bootstrap,
            metadata_from_layer(&layer, BOOTSTRAP_BYTES_MAX)?,
        )?;
        let dir = registry_dir(scratch);
        fs_err::create_dir_all(&dir)?;
        let (_registry, address) = program.registry(&dir)?;
        program.run(&["convert", &from, &format!("{address}/bench:lazy")])?;
        ensure!(bytes_of(&blobs)? > 0, "convert {}", tree.title);
        Ok(Self { bootstrap, blobs })
    }
}

/// nydusd with the same bootstrap and blobs, and an empty cache.
fn nydusd(scratch: &Scratch, packed: &Packed, tree: &Tree) -> Result<Times> {
    let nydus = need::nydus().context("find nydusd")?;
    let (work, dir) = (scratch.join("nydusd"), scratch.join("served"));
    if work.exists() {
        fs_err::remove_dir_all(&work)?;
    }
    fs_err::create_dir_all(&work)?;
    fs_err::create_dir_all(&dir)?;
    drop_caches()?;
    let start = std::time::Instant::now();
    let served = nydus.serve(&packed.bootstrap, &packed.blobs, &work, &dir)?;
    let mount = start.elapsed();
    let mut found = times(&dir, tree, true)?;
    found.mount = Some(mount);
    found.rss_bytes_max = Some(memory(u64::from(served.process.id()), "VmHWM:")?);
    Ok(found)
}
