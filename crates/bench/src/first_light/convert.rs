//! What converting costs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use draught_testkit::{Containerd, Scratch, need, process};

use super::images::Tree;
use super::program::Program;
use crate::measure::{Cost, bytes_of, cost, median};
use crate::table::{megabytes, ratio, seconds, table};

/// One line of the table.
struct Line {
    what: &'static str,
    cost: Cost,
    bytes: u64,
}

/// Measures all ways to pack a tree; a table.
pub(crate) fn measure(program: &Path, tree: &Tree, runs: usize) -> Result<String> {
    let mut lines = vec![zstd(tree, runs)?];
    lines.push(ours(
        "draught convert, from tar",
        program,
        tree,
        &tree.layout_tar,
        &[],
        runs,
    )?);
    lines.push(ours(
        "draught convert, from tar.gz",
        program,
        tree,
        &tree.layout_gzip,
        &[],
        runs,
    )?);
    let batches = ["--batch-size", "128KiB"];
    let what = "draught convert --batch-size 128KiB, from tar";
    lines.push(ours(what, program, tree, &tree.layout_tar, &batches, runs)?);
    lines.extend(nydus(
        "nydus-image create, from tar",
        "tar-rafs",
        &tree.tar,
        runs,
    )?);
    lines.extend(nydus(
        "nydus-image create, from a directory",
        "directory",
        &tree.rootfs,
        runs,
    )?);
    lines.extend(estargz(tree, runs)?);
    let first = lines.first().context("measure something")?.cost.time;
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            vec![
                line.what.to_owned(),
                seconds(line.cost.time),
                ratio(line.cost.time, first),
                megabytes(line.bytes),
                megabytes(line.cost.rss_bytes_max),
            ]
        })
        .collect();
    Ok(table(
        &["", "time", "to zstd's", "size", "peak memory"],
        &rows,
    ))
}

fn zstd(tree: &Tree, runs: usize) -> Result<Line> {
    let scratch = Scratch::new();
    let out = scratch.join("tar.zst");
    let mut command = Command::new("zstd");
    command
        .args(["-3", "-T2", "-q", "-f"])
        .arg(&tree.tar)
        .arg("-o")
        .arg(&out);
    let cost = median(runs, || Ok(()), || cost(&command))?;
    Ok(Line {
        what: "zstd -3 -T2, of the tar",
        cost,
        bytes: bytes_of(&out)?,
    })
}

fn ours(
    what: &'static str,
    program: &Path,
    tree: &Tree,
    layout: &Path,
    args: &[&str],
    runs: usize,
) -> Result<Line> {
    let scratch = Scratch::new();
    let program = Program::new(program, &scratch);
    let out = scratch.join("out");
    let (from, to) = (
        format!("oci:{}", layout.display()),
        format!("oci:{}:new", out.display()),
    );
    let command = program.command(&[&["convert", &from, &to], args].concat());
    let clean = || {
        if out.exists() {
            fs_err::remove_dir_all(&out)?;
        }
        Ok(())
    };
    let cost = median(runs, clean, || cost(&command)).with_context(|| tree.title.clone())?;
    Ok(Line {
        what,
        cost,
        bytes: bytes_of(&out.join("blobs"))?,
    })
}

fn nydus(what: &'static str, kind: &str, source: &Path, runs: usize) -> Result<Option<Line>> {
    let Some(nydus) = need::nydus() else {
        return Ok(None);
    };
    let scratch = Scratch::new();
    let out = scratch.join("out");
    let mut command = Command::new(&nydus.image);
    command.args([
        "create",
        "--log-level",
        "warn",
        "--fs-version",
        "6",
        "--compressor",
        "zstd",
    ]);
    command.args(["--type", kind, "--whiteout-spec", "none"]);
    command
        .arg("--bootstrap")
        .arg(out.join("bootstrap"))
        .arg("--blob-dir")
        .arg(&out)
        .arg(source);
    let clean = || {
        if out.exists() {
            fs_err::remove_dir_all(&out)?;
        }
        Ok(fs_err::create_dir(&out)?)
    };
    let cost = median(runs, clean, || cost(&command))?;
    Ok(Some(Line {
        what,
        cost,
        bytes: bytes_of(&out)?,
    }))
}

/// The client only is measured for memory; the work is done by it as well.
fn estargz(tree: &Tree, runs: usize) -> Result<Option<Line>> {
    const FROM: &str = "bench.invalid/tree:gzip";
    const TO: &str = "bench.invalid/tree:estargz";
    let (Some(containerd), Some(_)) = (Containerd::start(&[]), need::tool("ctr-remote")) else {
        return Ok(None);
    };
    let scratch = Scratch::new();
    let archive = scratch.join("image.tar");
    process::run(
        Command::new("tar")
            .arg("-C")
            .arg(&tree.layout_gzip)
            .arg("-cf")
            .arg(&archive)
            .arg("."),
    );
    let mut import = containerd.ctr();
    import
        .args(["images", "import", "--no-unpack", "--index-name", FROM])
        .arg(&archive);
    process::run(&mut import);
    let mut command = containerd.client("ctr-remote");
    command.args(["images", "convert", "--estargz", "--oci", FROM, TO]);
    let forget = || {
        let mut remove = containerd.ctr();
        // With its content, or the next run would find it; there is none before the first.
        remove
            .args(["images", "remove", "--sync", TO])
            .output()
            .map(drop)?;
        Ok(())
    };
    let cost = median(runs, forget, || cost(&command))?;
    let exported = scratch.join("exported.tar");
    let mut export = containerd.ctr();
    process::run(export.args(["images", "export"]).arg(&exported).arg(TO));
    let what = "ctr-remote image convert --estargz, from tar.gz";
    Ok(Some(Line {
        what,
        cost,
        bytes: bytes_of(&exported)?,
    }))
}
