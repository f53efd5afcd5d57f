//! What this machine can do, found out by trying it.

use std::io;
use std::path::{Path, PathBuf};

use draught_erofs::{Options, Placement};
use draught_mount::{Ability, Detached, pre_content_events};
use draught_tree::Tree;
use serde::Serialize;

use crate::mounts::FANOTIFY;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// What was tried.
    pub what: &'static str,
    /// Whether it works here.
    pub works: bool,
    /// Why, or why not and what to do about it.
    pub why: String,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// The kernel's release.
    pub kernel: String,
    /// The directory whose filesystem was tried.
    pub directory: PathBuf,
    /// Everything that was tried.
    pub trials: Vec<Trial>,
    /// The transport that mounts would use; none if images can't be mounted here.
    pub transport: Option<&'static str>,
}

/// Tries what mounting needs, on the filesystem of the state directory (which need not exist yet).
#[must_use]
pub fn probe(root: &Path) -> Probe {
    let directory = root
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("/"));
    let trials = vec![
        trial("EROFS mounted from a file", file_backed(directory)),
        trial(
            "pre-content events (fanotify)",
            pre_content_events(directory),
        ),
    ];
    let transport = trials.iter().all(|trial| trial.works).then_some(FANOTIFY);
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    Probe {
        kernel,
        directory: directory.to_path_buf(),
        trials,
        transport,
    }
}

fn trial(what: &'static str, ability: Ability) -> Trial {
    Trial {
        what,
        works: ability.usable,
        why: ability.why,
    }
}

/// Whether an image in a file of that directory can be mounted without a loop device.
fn file_backed(directory: &Path) -> Ability {
    match mount_scratch(directory) {
        Ok(Ok(_detached)) => Ability::yes("a file was mounted, without a loop device"),
        Ok(Err(error)) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let reason = source.unwrap_or_default();
            Ability::no(format!(
                "{error}: {reason}; needs root and Linux 6.12 or later with CONFIG_EROFS_FS and \
                 CONFIG_EROFS_FS_BACKED_BY_FILE"
            ))
        }
        Err(error) => Ability::no(format!("could not write a file to try it with: {error}")),
    }
}

fn mount_scratch(directory: &Path) -> io::Result<Result<Detached, draught_mount::MountError>> {
    let mut image = tempfile::Builder::new()
        .prefix(".probe-")
        .tempfile_in(directory)?;
    draught_erofs::write(
        &Tree::new(),
        &Placement::default(),
        &Options::default(),
        &mut image,
    )
    .map_err(io::Error::other)?;
    Ok(Detached::mount(image.path(), &[]))
}

impl Probe {
    /// Why images can't be mounted here, if they can't.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        if self.transport.is_some() {
            return None;
        }
        let failed = self.trials.iter().filter(|trial| !trial.works);
        let reasons: Vec<String> = failed
            .map(|trial| format!("{}: {}", trial.what, trial.why))
            .collect();
        Some(format!(
            "images can't be mounted on this machine: {}",
            reasons.join("; ")
        ))
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("Linux {}, {}\n", self.kernel, self.directory.display());
        for trial in &self.trials {
            let works = if trial.works { "yes" } else { "no " };
            text.push_str(&format!("  {works}  {}: {}\n", trial.what, trial.why));
        }
        match self.transport {
            Some(transport) => text.push_str(&format!("mounts use: {transport}\n")),
            None => text
                .push_str("images can't be mounted here; converting, checking and serving work\n"),
        }
        text
    }
}
