//! What becomes of files: planned whole, then carried out.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Is put behind the name of a file of somebody's, for how it was before the first change.
const BACKUP: &str = ".before-draught";
/// Mode of files that are new.
const MODE: u32 = 0o644;

/// What becomes of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    /// Where it is.
    pub(crate) path: PathBuf,
    pub(crate) action: Action,
    /// What is in it then; null when it is gone.
    pub(crate) text: Option<String>,
    #[serde(skip)]
    was: Option<String>,
    /// Whether it is somebody's, so that what it was is kept.
    #[serde(skip)]
    is_theirs: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Create,
    Change,
    Remove,
    /// It is as it should be.
    Keep,
}

/// What is in a file; none if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    match fs_err::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("look at what is there"),
    }
}

impl Change {
    /// A file gets this text, or is removed.
    pub(crate) fn to(path: PathBuf, text: Option<String>) -> Result<Self> {
        let was = read(&path)?;
        let action = match (&was, &text) {
            (was, text) if was == text => Action::Keep,
            (None, _) => Action::Create,
            (_, None) => Action::Remove,
            _ => Action::Change,
        };
        Ok(Self {
            path,
            action,
            text,
            was,
            is_theirs: false,
        })
    }

    /// The same of somebody's file.
    pub(crate) fn theirs(self) -> Self {
        Self {
            is_theirs: true,
            ..self
        }
    }

    /// Carries it out. Whoever looks sees the old file or the new one.
    pub(crate) fn apply(&self) -> Result<()> {
        let path = &self.path;
        match (self.action, &self.text) {
            (Action::Keep, _) => Ok(()),
            (_, None) => fs_err::remove_file(path).context("remove what was installed"),
            (_, Some(text)) => {
                if let Some(was) = self.was.as_ref().filter(|_| self.is_theirs) {
                    self.keep(was)?;
                }
                replace(path, text).with_context(|| format!("write {}", path.display()))
            }
        }
    }

    /// Keeps what was there before anything was changed by us.
    fn keep(&self, was: &str) -> Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(BACKUP);
        let backup = PathBuf::from(name);
        let is_first = !fs_err::exists(&backup)?;
        if is_first {
            replace(&backup, was).with_context(|| format!("write {}", backup.display()))?;
        }
        Ok(())
    }

    /// For people: what happens, and which lines are new (+) or go (-).
    pub(crate) fn text(&self) -> String {
        let verb = match self.action {
            Action::Create => "create",
            Action::Change => "change",
            Action::Remove => "remove",
            Action::Keep => "keep",
        };
        let mut text = format!("{verb} {}\n", self.path.display());
        if self.action == Action::Keep {
            return text;
        }
        let was: Vec<&str> = self.was.iter().flat_map(|it| it.lines()).collect();
        let is: Vec<&str> = self.text.iter().flat_map(|it| it.lines()).collect();
        // Only lines of ours come and go: where they stand is clear from what is in them.
        let gone = was.iter().filter(|line| !is.contains(line));
        let new = is
            .iter()
            .filter(|line| !was.contains(line) || self.was.is_none());
        gone.for_each(|line| text.push_str(&format!("  - {line}\n")));
        new.for_each(|line| text.push_str(&format!("  + {line}\n")));
        text
    }
}

fn replace(path: &Path, text: &str) -> Result<()> {
    // What a link names is replaced, not the link.
    let target = fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = target.parent().unwrap_or(Path::new("/"));
    fs_err::create_dir_all(dir)?;
    let mode = fs_err::metadata(&target).map(|it| it.permissions().mode());
    let mut scratch = tempfile::Builder::new()
        .prefix(".draught-")
        .permissions(std::fs::Permissions::from_mode(MODE))
        .tempfile_in(dir)?;
    scratch.write_all(text.as_bytes())?;
    if let Ok(mode) = mode {
        let permissions = std::fs::Permissions::from_mode(mode & 0o7777);
        scratch.as_file().set_permissions(permissions)?;
    }
    scratch.as_file().sync_all()?;
    scratch.persist(&target)?;
    Ok(())
}
