//! What the tests need besides Rust: installed only if it is missing, and kept.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};

use super::machine::Machine;
use crate::run::{cargo, command, run, say, succeeds};

/// Debian packages, with what each is for.
const PACKAGES: &[(&str, &str)] = &[
    ("attr", "extended attributes in tests of trees"),
    ("buildah", "builds and pushes real images"),
    ("busybox-static", "a container's programs in one file"),
    ("ca-certificates", "crates and packages come over TLS"),
    ("cmake", "builds nydus"),
    ("containerd", "a real client of registries"),
    ("docker-registry", "a real registry"),
    ("e2fsprogs", "ext4, to compare with"),
    ("erofs-utils", "fsck.erofs judges our images"),
    ("fuse3", "mounts nydusd, and what ordinary users serve"),
    ("gcc", "links Rust programs and builds zstd"),
    ("jq", "looks into JSON output"),
    ("libc6-dev", "links Rust programs and builds zstd"),
    ("make", "builds nydus"),
    ("mmdebstrap", "makes the base image"),
    ("perl", "the demonstration's other runtime"),
    (
        "python3",
        "the demonstration's runtime, and maps files into memory in tests",
    ),
    ("runc", "runs containers"),
    ("skopeo", "copies images between registries and layouts"),
    ("stargz-snapshotter", "ctr-remote, a peer to compare with"),
    ("strace", "counts system calls"),
    ("time", "the memory of what is measured"),
    ("uidmap", "unprivileged mounts"),
    ("umoci", "unpacks layers as a reference"),
    ("zstd", "compresses layers as a reference"),
];

/// The test runner and its version.
const NEXTEST: (&str, &str) = ("cargo-nextest", "0.9.143");

/// The peer whose format we write and whose tools judge what we write.
const NYDUS: (&str, &str) = ("nydus-rs", "2.2.0");

/// What `cargo install` leaves of nydus, under the cache.
const NYDUS_PROGRAMS: &[&str] = &["nydus/bin/nydus-image", "nydus/bin/nydusd"];

/// Installs all that is missing and can be installed.
pub(crate) fn install(machine: &Machine) -> Result<()> {
    if machine.complete() {
        packages()?;
        fuse_for_everybody()?;
        fs_err::create_dir_all(&machine.cache)?;
        nydus(&machine.cache)?;
        base_tar(&machine.cache)?;
    } else {
        say("not root on Debian: tests that need mounts or real tools will say SKIPPED");
    }
    nextest()
}

/// Whether dpkg has the package installed.
fn installed(package: &str) -> bool {
    let query = ["--show", "--showformat=${db:Status-Status}", package];
    command("dpkg-query", &query)
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn packages() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .map(|(package, _)| *package)
        .filter(|package| !installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!(
        "installing Debian packages: {}",
        missing.join(" ")
    ));
    run(command("apt-get", &["update", "--quiet"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    let mut install = command(
        "apt-get",
        &["install", "--yes", "--quiet", "--no-install-recommends"],
    );
    // Messages go to standard error: standard output is for results.
    install
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(std::io::stderr());
    run(&mut install).context("install the packages that the tests need")
}

/// Lets ordinary users mount through FUSE, as udev does where it runs; in a container nobody may have.
fn fuse_for_everybody() -> Result<()> {
    let device = Path::new("/dev/fuse");
    let everybody = 0o666;
    let Ok(metadata) = fs_err::metadata(device) else {
        return Ok(());
    };
    let mut permissions = metadata.permissions();
    if permissions.mode() & everybody != everybody {
        say("letting ordinary users use /dev/fuse, as udev does");
        permissions.set_mode(everybody);
        fs_err::set_permissions(device, permissions)?;
    }
    Ok(())
}

fn nydus(cache: &Path) -> Result<()> {
    let complete = NYDUS_PROGRAMS.iter().all(|name| cache.join(name).is_file());
    if complete {
        return Ok(());
    }
    let (package, version) = NYDUS;
    say(&format!(
        "building {package} {version}, some four minutes, once"
    ));
    let mut install = cargo(&["install", "--locked", package, "--version", version]);
    // From a neutral directory, so that no toolchain file or cargo configuration of a workspace
    // changes how a foreign program is built.
    install
        .arg("--root")
        .arg(cache.join("nydus"))
        .current_dir(cache);
    run(&mut install).context("build nydus")
}

fn base_tar(cache: &Path) -> Result<()> {
    let target = cache.join("base.tar");
    if target.is_file() {
        return Ok(());
    }
    say("making a Debian base image with mmdebstrap, a minute or two, once");
    // A name of its own until it is whole: an interrupted run must not leave half a tar behind.
    let partial = cache.join("base.tar.partial");
    let mut make = command("mmdebstrap", &["--quiet", "--variant=minbase", "bookworm"]);
    make.arg("--format=tar").arg(&partial);
    run(&mut make).context("make the base image")?;
    Ok(fs_err::rename(partial, target)?)
}

fn nextest() -> Result<()> {
    let (package, version) = NEXTEST;
    if succeeds(&mut cargo(&["nextest", "--version"])) {
        return Ok(());
    }
    say(&format!("building {package} {version}, some minutes, once"));
    let mut install = cargo(&["install", "--locked", package, "--version", version]);
    install.current_dir(std::env::temp_dir());
    run(&mut install).context("build the test runner")
}
