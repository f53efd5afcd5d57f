//! The same content packed in three ways.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use draught_testkit::images::{Layer, Packing, write_layout};

use super::program;
use crate::bench::image;
use crate::bench::interrupt::Interrupt;
use crate::run::{command, run, say};

/// What gets a layer of its own if it is there; all else is the lowest layer.
const PARTS: [&str; 7] = [
    "etc",
    "var",
    "usr/bin",
    "usr/sbin",
    "usr/share",
    "usr/lib/python3.11",
    "usr/lib/x86_64-linux-gnu",
];

/// One of the ways.
#[derive(Debug)]
pub(super) struct Packed {
    /// What it is, for people.
    pub(super) words: &'static str,
    /// The repository it is pushed to.
    pub(super) name: &'static str,
    /// The image to convert.
    pub(super) layout: PathBuf,
    /// How it is converted.
    pub(super) args: &'static [&'static str],
}

/// Makes the images in `scratch`.
pub(super) fn make(scratch: &Path, interrupt: &Interrupt) -> Result<Vec<Packed>> {
    let archive = program::PYTHON.archive()?;
    let tree = scratch.join("tree");
    fs_err::create_dir_all(&tree)?;
    image::unpack(&archive, &tree)?;
    let parts: Vec<&str> = PARTS
        .into_iter()
        .filter(|part| {
            tree.join(part)
                .symlink_metadata()
                .is_ok_and(|it| it.is_dir())
        })
        .collect();
    say(&format!(
        "packing in three ways, one of {} layers",
        parts.len() + 1
    ));
    let layers = scratch.join("layers");
    fs_err::create_dir_all(&layers)?;
    let mut archives = Vec::new();
    for (number, members) in layers_of(&parts).iter().enumerate() {
        interrupt.check()?;
        archives.push(tar(&tree, members, &layers.join(number.to_string()))?);
    }
    let mut top: Vec<String> = Vec::new();
    for entry in fs_err::read_dir(&tree)? {
        let name = entry?.file_name();
        top.push(name.to_str().context("a name is not UTF-8")?.to_owned());
    }
    top.sort_unstable_by(|a, b| b.cmp(a));
    let backwards = tar(&tree, &top, &layers.join("backwards"))?;
    let ways = [
        ("one layer, zstd", "bench/one", vec![archive], &[][..]),
        (
            "eight layers, lz4",
            "bench/many",
            archives,
            &["--compressor", "lz4"],
        ),
        (
            "one layer backwards, zstd 9 in batches",
            "bench/batched",
            vec![backwards],
            &["--batch-size", "128KiB", "--level", "9"],
        ),
    ];
    let mut packed = Vec::new();
    for (number, (words, name, archives, args)) in ways.into_iter().enumerate() {
        let layout = scratch.join(format!("layout{number}"));
        let layers = archives.iter().map(|archive| {
            let archive = Box::new(fs_err::File::open(archive)?);
            let packing = Packing::Tar;
            Ok(Layer { archive, packing })
        });
        write_layout(&layout, layers.collect::<Result<Vec<_>>>()?)?;
        packed.push(Packed {
            words,
            name,
            layout,
            args,
        });
    }
    Ok(packed)
}

/// For each layer what `tar` is told: the lowest has everything but the parts, then come these, the last
/// first.
fn layers_of(parts: &[&str]) -> Vec<Vec<String>> {
    let mut lowest: Vec<String> = parts
        .iter()
        .map(|part| format!("--exclude=./{part}"))
        .collect();
    lowest.push(".".to_owned());
    let rest = parts.iter().rev().map(|part| vec![format!("./{part}")]);
    std::iter::once(lowest).chain(rest).collect()
}

fn tar(tree: &Path, members: &[String], archive: &Path) -> Result<PathBuf> {
    let mut pack = command("tar", &["--numeric-owner", "--xattrs", "--sort=name"]);
    pack.arg("--xattrs-include=*").arg("-cf").arg(archive);
    pack.arg("-C").arg(tree).args(members);
    run(&mut pack).context("pack a layer")?;
    Ok(archive.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_layer_leaves_out_what_the_others_have() {
        let layers = layers_of(&["etc", "usr/bin"]);
        let expect = [
            vec!["--exclude=./etc", "--exclude=./usr/bin", "."],
            vec!["./usr/bin"],
            vec!["./etc"],
        ];
        assert_eq!(layers, expect);
    }
}
