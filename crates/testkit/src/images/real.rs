//! Real images: a distribution's, and one that a builder made on top of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

use super::{Layer, Packing, cached, write_layout};
use crate::need;

/// How the base is made.
const BASE_RECIPE: [&str; 3] = ["--quiet", "--variant=minbase", "bookworm"];

/// What is built on it: layers that add much, replace, remove, and remove and make anew.
const DOCKERFILE: &str = r#"FROM scratch
ADD base.tar /
RUN apt-get update -q && apt-get install -q -y --no-install-recommends python3 python3-pip libcap2-bin \
 && rm -rf /var/lib/apt/lists/* /var/log/*.log /var/log/apt
RUN rm -rf /usr/share/doc /usr/share/man && mkdir -p /usr/share/doc/new && echo new >/usr/share/doc/new/file
RUN mkdir -p /app && cp /usr/bin/env /app/env && setcap cap_net_raw+ep /app/env \
 && ln /app/env /app/hard && ln -s env /app/soft && mkfifo /app/pipe && chmod 1777 /app
RUN rm -rf /app/hard /etc/apt/apt.conf.d && chown -R 1000:1000 /app && touch -d @0 /app/soft -h
CMD ["python3", "-c", "print('hello')"]
"#;

/// Shown when a real image can't be made; the tests that want it are skipped.
fn or_skip(made: anyhow::Result<PathBuf>) -> Option<PathBuf> {
    match made {
        Ok(path) => Some(path),
        Err(error) => {
            need::skip(&format!("an image could not be made: {error:#}"));
            None
        }
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {words}");
    Ok(())
}

/// A root filesystem of Debian's smallest kind as a tar archive: 170 MB, 7,500 files. `base.tar` in
/// the cache's directory; if it is not there it is made by `mmdebstrap` in a minute. Skips if that is
/// not possible.
#[must_use]
pub fn base_tar() -> Option<PathBuf> {
    let there = need::cache_dir().join("base.tar");
    if there.exists() {
        return Some(there);
    }
    let mmdebstrap = need::tool("mmdebstrap")?;
    let made = cached("base", BASE_RECIPE.join(" ").as_bytes(), |dir| {
        run(Command::new(mmdebstrap)
            .args(BASE_RECIPE)
            .arg(dir.join("base.tar")))
    });
    or_skip(made.map(|dir| dir.join("base.tar")))
}

/// An OCI layout (tag `latest`) with [`base_tar`] as its only layer, gzipped. Skips if there is none.
#[must_use]
pub fn minbase() -> Option<PathBuf> {
    let base = base_tar()?;
    or_skip(cached("minbase", identity(&base).as_bytes(), |dir| {
        let archive = Box::new(fs_err::File::open(&base)?);
        let packing = Packing::Gzip;
        write_layout(dir, vec![Layer { archive, packing }])
    }))
}

/// An OCI layout (tag `latest`) that `buildah` made: Python on [`base_tar`], five layers with
/// whiteouts, capabilities, replaced directories and hard links; some 250 MB. Skips if it can't be made.
#[must_use]
pub fn python() -> Option<PathBuf> {
    built("python", DOCKERFILE)
}

/// An OCI layout (tag `latest`) that `buildah` made of a Dockerfile that begins as ours do: `FROM scratch`
/// and `ADD base.tar /`. It is kept under `name`. Skips if it can't be made.
#[must_use]
pub fn built(name: &str, dockerfile: &str) -> Option<PathBuf> {
    let base = base_tar()?;
    let buildah = need::tool("buildah")?;
    let recipe = format!("{}\n{dockerfile}", identity(&base));
    or_skip(cached(name, recipe.as_bytes(), |dir| {
        let scratch = crate::Scratch::new();
        let context = scratch.dir("context");
        fs_err::hard_link(&base, context.join("base.tar"))
            .or_else(|_| fs_err::copy(&base, context.join("base.tar")).map(drop))?;
        fs_err::write(context.join("Dockerfile"), dockerfile)?;
        let with_store = || {
            let mut command = Command::new(&buildah);
            command
                .env("BUILDAH_ISOLATION", "chroot")
                .args(["--storage-driver", "overlay", "--root"])
                .arg(scratch.join("store"))
                .arg("--runroot")
                .arg(scratch.join("run"));
            command
        };
        let built = run(with_store()
            .args(["bud", "-q", "--layers", "--network", "host", "-t", "made"])
            .arg(&context));
        let pushed = built.and_then(|()| {
            let mut to = std::ffi::OsString::from("oci:");
            to.push(dir);
            to.push(":latest");
            run(with_store().args(["push", "-q", "made"]).arg(to))
        });
        // The store keeps an overlay mounted: give it back whatever happened. What stays mounted is
        // reported when the scratch directory is dropped.
        drop(with_store().args(["rm", "--all"]).output());
        for mount in crate::mounted::below(scratch.path()).iter().rev() {
            rustix::mount::unmount(&mount.dir, rustix::mount::UnmountFlags::DETACH)?;
        }
        pushed
    }))
}

/// What changes when the base is made anew.
fn identity(base: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs_err::metadata(base);
    let of = |meta: std::fs::Metadata| format!("{} bytes, {} s", meta.size(), meta.mtime());
    meta.map_or_else(|error| error.to_string(), of)
}
