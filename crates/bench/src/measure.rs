//! Time and memory of other programs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What a program took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// From start to end.
    pub(crate) time: Duration,
    /// The most memory that it, or a process that it waited for, held at a time, in bytes.
    pub(crate) rss_bytes_max: u64,
}

/// Runs a command under GNU time.
pub(crate) fn cost(command: &Command) -> Result<Cost> {
    let report = tempfile::NamedTempFile::new()?;
    let mut timed = Command::new("/usr/bin/time");
    timed
        .args(["--format", "%M", "--output"])
        .arg(report.path())
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if let Some(directory) = command.get_current_dir() {
        timed.current_dir(directory);
    }
    let start = Instant::now();
    let output = timed.output().context("start /usr/bin/time")?;
    let time = start.elapsed();
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("run {command:?}: {}: {words}", output.status);
    }
    let kib: u64 = fs_err::read_to_string(report.path())?.trim().parse()?;
    Ok(Cost {
        time,
        rss_bytes_max: kib << 10,
    })
}

/// The median of an odd number of runs by time; `before` is not measured.
pub(crate) fn median(
    runs: usize,
    mut before: impl FnMut() -> Result<()>,
    mut run: impl FnMut() -> Result<Cost>,
) -> Result<Cost> {
    let mut costs = Vec::new();
    for _ in 0..runs {
        before()?;
        costs.push(run()?);
    }
    costs.sort_by_key(|cost| cost.time);
    costs
        .get(runs / 2)
        .copied()
        .context("measure at least once")
}

/// Bytes of all files below a path.
pub(crate) fn bytes_of(path: &Path) -> Result<u64> {
    let stat = fs_err::symlink_metadata(path)?;
    if !stat.is_dir() {
        return Ok(stat.len());
    }
    let mut bytes = 0;
    for entry in fs_err::read_dir(path)? {
        bytes += bytes_of(&entry?.path())?;
    }
    Ok(bytes)
}

/// The memory that a process holds, in bytes; `field` is "VmRSS:" or "VmHWM:".
pub(crate) fn memory(pid: u64, field: &str) -> Result<u64> {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: u64 = kib.context("find the memory of a process")?.parse()?;
    Ok(kib << 10)
}
