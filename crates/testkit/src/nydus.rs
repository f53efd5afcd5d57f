//! Nydus' own programs, for tests that compare with them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::need::Nydus;
use crate::{MountGuard, Process, mounted, process};

/// An image as `nydus-image create` leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The bootstrap.
    pub bootstrap: PathBuf,
    /// The directory with the data blobs, whose file names are their ids.
    pub blobs: PathBuf,
}

impl Nydus {
    /// Packs `source`, a directory or whatever `args` say it is, into files in `out`.
    ///
    /// # Panics
    ///
    /// If `nydus-image` fails.
    #[track_caller]
    pub fn create(&self, source: &Path, out: &Path, args: &[&str]) -> Created {
        let blobs = out.join("blobs");
        fs_err::create_dir_all(&blobs).unwrap();
        let bootstrap = out.join("bootstrap");
        let mut command = Command::new(&self.image);
        command.args(["create", "--log-level", "warn", "--fs-version", "6"]);
        command.arg("--bootstrap").arg(&bootstrap);
        command.arg("--blob-dir").arg(&blobs);
        command.args(args).arg(source);
        process::run(&mut command);
        Created { bootstrap, blobs }
    }

    /// Lets `nydus-image check` look at a bootstrap; gives what it printed.
    ///
    /// # Panics
    ///
    /// If it finds something wrong.
    #[track_caller]
    pub fn check(&self, bootstrap: &Path) -> String {
        let mut command = Command::new(&self.image);
        command.args(["check", "--verbose", "--log-level", "warn", "--bootstrap"]);
        process::run(command.arg(bootstrap))
    }

    /// Serves a bootstrap with `nydusd`, by FUSE, at the directory `dir`, with the data blobs in `blobs`
    /// and verification on. `work` is a directory for its cache, configuration and log.
    ///
    /// # Errors
    ///
    /// If it ends, or nothing is mounted within half a minute, with the end of its log.
    pub fn serve(
        &self,
        bootstrap: &Path,
        blobs: &Path,
        work: &Path,
        dir: &Path,
    ) -> anyhow::Result<Served> {
        let backend = serde_json::json!({ "type": "localfs", "config": { "dir": blobs } });
        self.serve_from(bootstrap, &backend, work, dir)
    }

    /// The same, with the data blobs in a backend that is described as `nydusd` wants it.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub fn serve_from(
        &self,
        bootstrap: &Path,
        backend: &serde_json::Value,
        work: &Path,
        dir: &Path,
    ) -> anyhow::Result<Served> {
        /// The machine may be busy with other tests.
        const MOUNT_MAX: Duration = Duration::from_secs(30);
        let cache = work.join("cache");
        fs_err::create_dir_all(&cache)?;
        let config = serde_json::json!({
            "device": {
                "backend": backend,
                "cache": {
                    "type": "blobcache",
                    "validate": true,
                    "config": { "work_dir": cache },
                },
            },
            "mode": "direct",
            "digest_validate": false,
            "enable_xattr": true,
        });
        let config_path = work.join("nydusd.json");
        fs_err::write(&config_path, config.to_string())?;
        let mut command = Command::new(&self.nydusd);
        command.args(["--log-level", "warn", "--rlimit-nofile", "0"]);
        command.arg("--config").arg(&config_path);
        command.arg("--bootstrap").arg(bootstrap);
        command.arg("--apisock").arg(work.join("nydusd.sock"));
        command.arg("--mountpoint").arg(dir);
        let mut process = Process::start(&mut command, &work.join("nydusd.log"))?;
        process.wait_until(MOUNT_MAX, || !mounted::below(dir).is_empty())?;
        Ok(Served {
            mount: MountGuard::adopt(dir),
            process,
        })
    }
}

/// A mount that `nydusd` serves; unmounted when dropped, and `nydusd` with it.
#[derive(Debug)]
pub struct Served {
    /// The mount, dropped before its server.
    pub mount: MountGuard,
    /// The server.
    pub process: Process,
}
