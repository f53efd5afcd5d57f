//! A small image of the machine's own programs.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{Layer, Packing, cached, write_layout_running};
use crate::need;

/// The programs in it.
pub const TOOLS: [&str; 12] = [
    "sh",
    "sleep",
    "cat",
    "ls",
    "echo",
    "stat",
    "sha256sum",
    "cp",
    "rm",
    "mkdir",
    "touch",
    "true",
];

/// An OCI layout (tag `latest`) with one layer: [`TOOLS`] in `/bin` and what they need; it sleeps where
/// nothing else is asked for. Some megabytes. Skips if it can't be made.
#[must_use]
pub fn tools() -> Option<PathBuf> {
    let programs: Option<Vec<PathBuf>> = TOOLS.iter().map(|name| need::tool(name)).collect();
    let programs = programs?;
    let recipe: Vec<String> = programs.iter().map(|file| identity(file)).collect();
    let made = cached("tools", recipe.join("\n").as_bytes(), |dir| {
        make(&programs, dir)
    });
    match made {
        Ok(dir) => Some(dir),
        Err(error) => {
            need::skip(&format!("an image could not be made: {error:#}"));
            None
        }
    }
}

fn identity(file: &Path) -> String {
    let meta = fs_err::metadata(file);
    let meta = meta.map(|meta| (meta.size(), meta.mtime()));
    format!("{} {meta:?}", file.display())
}

fn make(programs: &[PathBuf], dir: &Path) -> anyhow::Result<()> {
    let root = tempfile::tempdir_in(dir)?;
    let root = root.path();
    for sub in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs_err::create_dir(root.join(sub))?;
    }
    for program in programs {
        let name = program.file_name().context("a program has no name")?;
        fs_err::copy(program, root.join("bin").join(name))?;
        let listed = Command::new("ldd").arg(program).output()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let libraries = listed.split_whitespace().filter(|it| it.starts_with('/'));
        for library in libraries.map(Path::new) {
            let to = root.join(library.strip_prefix("/")?);
            if let Some(parent) = to.parent() {
                fs_err::create_dir_all(parent)?;
            }
            fs_err::copy(library, to)?;
        }
    }
    let mut pack = Command::new("tar");
    pack.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    pack.args(["--mtime=@0", "-c", "-C"]).arg(root).arg(".");
    let packed = pack.output()?;
    ensure!(packed.status.success(), "tar: {packed:?}");
    let layer = Layer {
        archive: Box::new(&packed.stdout[..]),
        packing: Packing::Gzip,
    };
    write_layout_running(dir, vec![layer], &["/bin/sleep", "infinity"])
}
