//! Work on names and attributes, in a root filesystem as containers have it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use draught_testkit::snapshots::{Labels, mount_all};

use super::program::COMPILER;
use super::side::{Side, Whose};
use crate::bench::image::oci;
use crate::bench::measure;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::counted::Counted;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::Unit;
use crate::run::{command, say};

/// What a work may take of what it takes on an overlay.
const TIMES_MOST: f64 = 1.05;

/// How often the warm works are done in each run: they take milliseconds.
const WARM_TIMES: u32 = 5;

/// How long everything that is read may take to be local, from loopback.
const LOCAL_MAX: Duration = Duration::from_secs(300);

const COLUMNS: &[Column] = &[
    Column("find_s", "find /", Unit::Seconds),
    Column("ls_s", "ls -lR /", Unit::Seconds),
    Column("python_s", "python imports all it has", Unit::Seconds),
    Column("git_s", "git status", Unit::Seconds),
];

/// The works: the column, and what is run.
const WORKS: [(&str, &[&str]); 4] = [
    ("find_s", &["/usr/bin/find", "/", "-xdev", "-size", "+1"]),
    ("ls_s", &["/bin/ls", "-lR", "/"]),
    (
        "python_s",
        &[
            "/usr/bin/python3",
            "-B",
            "-c",
            "import sys, importlib\n\
             for name in sorted(sys.stdlib_module_names):\n\
             \x20   if name in ('antigravity', 'this', 'idlelib'): continue\n\
             \x20   try: importlib.import_module(name)\n\
             \x20   except Exception: pass\n",
        ],
    ),
    (
        "git_s",
        &["/usr/bin/git", "-C", "/src", "status", "--short"],
    ),
];

const FIRST: &str = "draught, nothing local";
const OURS_COLD: &str = "draught, page cache dropped";
const THEIRS_COLD: &str = "overlayfs, page cache dropped";
const OURS_WARM: &str = "draught, warm";
const THEIRS_WARM: &str = "overlayfs, warm";

/// Measures all works on both.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Report> {
    let registry = bench.registry()?;
    let counted = Counted::before(&registry);
    let from = oci(&COMPILER.layout()?);
    let plain = registry.reference("bench/overlayfs");
    let mut copy = command("skopeo", &["copy", "--quiet", "--insecure-policy"]);
    copy.args(["--dest-tls-verify=false", &from]);
    measure::output(copy.arg(format!("docker://{plain}")))?;
    let scratch = bench.fresh("convert")?;
    let (to, form) = (registry.reference("bench/draught"), ["--to", "estargz"]);
    measure::output(&mut bench.draught.convert(&scratch, &from, &to, &form))?;
    let mut sheet = Sheet::new("Works in a container's root", COLUMNS);
    for run in 1..=bench.runs {
        for whose in Whose::BOTH {
            say(&format!("{}, run {run} of {}", whose.name(), bench.runs));
            let reference = counted.reference(&format!("bench/{}", whose.name()));
            measure_one(bench, &mut sheet, whose, &reference)?;
        }
    }
    let mut bars = Vec::new();
    for (ours, theirs, words) in [
        (OURS_COLD, THEIRS_COLD, "page cache dropped"),
        (OURS_WARM, THEIRS_WARM, "warm"),
    ] {
        for Column(key, work, _) in COLUMNS {
            bars.push(Bar::at_most(
                format!("{work}, {words}, over an overlay on {}", bench.filesystem),
                TIMES_MOST,
                Unit::Times,
                sheet.ratio(ours, theirs, key),
            ));
        }
    }
    Ok(Report {
        notes: vec![
            "The image of the compiler, mounted as a container's root; each work is a program of the image in a chroot, \
             output thrown away. Warm: medians of several."
                .to_owned(),
        ],
        sheets: vec![sheet],
        bars,
    })
}

fn measure_one(bench: &Bench<'_>, sheet: &mut Sheet, whose: Whose, reference: &str) -> Result<()> {
    let work = bench.fresh("work")?;
    let side = Side::start(bench, whose, &work)?;
    side.pull(reference)?;
    let client = side.through_containerd()?;
    let mounts = client.prepare("bench", &side.top()?, &Labels::new())?;
    let dir = work.join("mount");
    fs_err::create_dir_all(&dir)?;
    let mounted = mount_all(&mounts, &dir)?;
    let ours = whose == Whose::Draught;
    if ours {
        for (key, argv) in WORKS {
            bench.interrupt.check()?;
            measure::drop_caches()?;
            sheet.record(FIRST, key, run(&dir, argv, &work)?);
        }
        wait_until_quiet(&side)?;
    }
    let (cold, warm) = if ours {
        (OURS_COLD, OURS_WARM)
    } else {
        (THEIRS_COLD, THEIRS_WARM)
    };
    for (key, argv) in WORKS {
        bench.interrupt.check()?;
        // Once before: git writes its index, and what is read is local.
        run(&dir, argv, &work)?;
        measure::drop_caches()?;
        sheet.record(cold, key, run(&dir, argv, &work)?);
        let warm_s: Result<Vec<f64>> = (0..WARM_TIMES).map(|_| run(&dir, argv, &work)).collect();
        let warm_s = crate::bench::results::median(warm_s?).context("nothing was measured")?;
        sheet.record(warm, key, warm_s);
    }
    drop(mounted);
    client.remove("bench")?;
    Ok(())
}

/// Waits until the daemon fetches no more, so that nothing of that is measured.
fn wait_until_quiet(side: &Side<'_>) -> Result<()> {
    const QUIET: Duration = Duration::from_secs(1);
    let Some(node) = side.node() else {
        return Ok(());
    };
    let begun = Instant::now();
    let mut before = None;
    loop {
        let status = node.ask(&["ps"])?;
        if before.as_ref() == Some(&status) {
            return Ok(());
        }
        if begun.elapsed() > LOCAL_MAX {
            bail!("wait for the daemon: it never stops to fetch");
        }
        before = Some(status);
        std::thread::sleep(QUIET);
    }
}

/// Runs a program of the image with its root there; seconds.
fn run(root: &Path, argv: &[&str], work: &Path) -> Result<f64> {
    let mut chroot: Command = command("chroot", &[]);
    chroot
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .arg(root)
        .args(argv);
    Ok(measure::run(&mut chroot, &work.join("program.log"))?.wall_s)
}
