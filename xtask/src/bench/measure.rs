//! What a program costs, and starting from cold.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use wait4::Wait4 as _;

use crate::run::shown;

/// Bytes of a program's output that an error quotes: the end, where the reason is.
const OUTPUT_TAIL_BYTES: usize = 2048;

/// What a program cost, its own children included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// From its start to its end.
    pub(crate) wall_s: f64,
    /// Processor time, in user and kernel mode.
    pub(crate) cpu_s: f64,
    /// The largest resident set; the kernel never reports less than ours when it was started, some
    /// megabytes.
    pub(crate) peak_rss_bytes: u64,
}

/// Runs a command to its end; what it prints goes to the file `log`.
pub(crate) fn run(command: &mut Command, log: &Path) -> Result<Cost> {
    let out = fs_err::File::create(log)?.into_file();
    command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out);
    let begun = Instant::now();
    let child = command
        .spawn()
        .with_context(|| format!("start {}", shown(command)))?;
    let used = child.wait4()?;
    let wall_s = begun.elapsed().as_secs_f64();
    if !used.status.success() {
        let words = fs_err::read(log).unwrap_or_default();
        let tail = words
            .get(words.len().saturating_sub(OUTPUT_TAIL_BYTES)..)
            .unwrap_or_default();
        let tail = String::from_utf8_lossy(tail);
        bail!(
            "run {}: it ended with {}:\n{tail}",
            shown(command),
            used.status
        );
    }
    let cpu = used.rusage.utime + used.rusage.stime;
    Ok(Cost {
        wall_s,
        cpu_s: cpu.as_secs_f64(),
        peak_rss_bytes: used.rusage.maxrss,
    })
}

/// Runs a command to its end and gives what it printed on standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", shown(command)))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!(
            "run {}: it ended with {}:\n{words}",
            shown(command),
            output.status
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes back what is dirty, so that what is measured next does not pay for what was before.
pub(crate) fn settle() {
    rustix::fs::sync();
}

/// Empties the machine's page cache, and its caches of inodes and directory entries.
pub(crate) fn drop_caches() -> Result<()> {
    settle();
    fs_err::write("/proc/sys/vm/drop_caches", "3").context("drop the page cache (it needs root)")
}

/// The bytes that a directory and all in it take on disk. Holes take none.
pub(crate) fn allocated(dir: &Path) -> Result<u64> {
    // What stat calls a block, whatever the filesystem's own are.
    const STAT_BLOCK_BYTES: u64 = 512;
    let mut sum = fs_err::symlink_metadata(dir)?.blocks() * STAT_BLOCK_BYTES;
    for entry in fs_err::read_dir(dir)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() {
            allocated(&entry.path())?
        } else {
            entry.metadata()?.blocks() * STAT_BLOCK_BYTES
        };
    }
    Ok(sum)
}

/// What a running process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Its largest resident set until now.
    pub(crate) peak_rss_bytes: u64,
    /// Its resident set now.
    pub(crate) rss_bytes: u64,
    /// The part of its resident set that is memory of its own, now.
    pub(crate) own_rss_bytes: u64,
    /// Processor time until now, in user and kernel mode.
    pub(crate) cpu_s: f64,
}

/// What these processes have used so far, together.
pub(crate) fn usage(pids: &[u32]) -> Result<Usage> {
    let mut sum = Usage::default();
    for pid in pids {
        let status = fs_err::read_to_string(format!("/proc/{pid}/status"))?;
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
            Some(kib * 1024)
        };
        sum.peak_rss_bytes += bytes("VmHWM:").context("find VmHWM of a process")?;
        sum.rss_bytes += bytes("VmRSS:").context("find VmRSS of a process")?;
        sum.own_rss_bytes += bytes("RssAnon:").context("find RssAnon of a process")?;
        sum.cpu_s += cpu_s(*pid)?;
    }
    Ok(sum)
}

fn cpu_s(pid: u32) -> Result<f64> {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold blanks: what comes after it are the fields from the third.
    let (_, fields) = stat.rsplit_once(')').context("understand /proc/PID/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok());
    let user = ticks(11).context("find utime of a process")?;
    let system = ticks(12).context("find stime of a process")?;
    let hertz = rustix::param::clock_ticks_per_second();
    let hertz = u32::try_from(hertz).context("the clock ticks too fast")?;
    Ok(f64::from(user + system) / f64::from(hertz))
}
