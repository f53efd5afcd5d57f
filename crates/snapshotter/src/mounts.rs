//! How a snapshot is mounted: what is handed to whoever asks.

use std::path::{Path, PathBuf};

use draught_containerd::types::Mount;

use crate::record::Kind;

/// Whether this kernel's overlayfs has inode indexes, which are wrong for lower directories that are used twice.
pub(crate) fn has_index() -> bool {
    Path::new("/sys/module/overlay/parameters/index").exists()
}

/// The one mount of a snapshot. `lower` are directories, the uppermost first.
pub(crate) fn mount(
    kind: Kind,
    files: &Path,
    work: &Path,
    lower: &[PathBuf],
    has_index: bool,
) -> Mount {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let bind = |source: &Path, access: &str| Mount {
        r#type: "bind".to_owned(),
        source: text(source),
        target: String::new(),
        options: vec![access.to_owned(), "rbind".to_owned()],
    };
    let mut options = Vec::new();
    match (kind, lower) {
        (Kind::View | Kind::Committed, []) => return bind(files, "ro"),
        (Kind::View | Kind::Committed, [one]) => return bind(one, "ro"),
        (Kind::Active, []) => return bind(files, "rw"),
        (Kind::Active, _) => {
            options.push(format!("workdir={}", text(work)));
            options.push(format!("upperdir={}", text(files)));
        }
        (Kind::View | Kind::Committed, _) => {}
    }
    let lower: Vec<String> = lower.iter().map(|path| text(path)).collect();
    options.push(format!("lowerdir={}", lower.join(":")));
    if has_index {
        options.push("index=off".to_owned());
    }
    Mount {
        r#type: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options,
    }
}
