//! The unit of systemd.

use std::path::Path;

use anyhow::{Result, bail};

/// As it is in the repository, for the usual paths.
const UNIT: &str = include_str!("../../../../../packaging/draught.service");
/// The command lines' beginning in it.
const PROGRAM: &str = "/usr/local/bin/draught";
const ROOT: &str = "/var/lib/draught";
const SOCKET: &str = "/run/draught/snapshotter.sock";

/// The unit for these paths.
pub(crate) fn text(program: &Path, root: &Path, socket: &Path) -> Result<String> {
    let mut text = String::new();
    for line in UNIT.lines() {
        let is_command = line.starts_with("ExecStart=") || line.starts_with("ExecReload=");
        if is_command {
            let line = line
                .replace(SOCKET, &word(socket)?)
                .replace(ROOT, &word(root)?)
                .replacen(PROGRAM, &word(program)?, 1);
            text.push_str(&line);
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    Ok(text)
}

/// A path as it stands in a command line of a unit.
fn word(path: &Path) -> Result<String> {
    let Some(text) = path.to_str().filter(|text| text.starts_with('/')) else {
        bail!("put {} into a unit: name an absolute path", path.display());
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,=".contains(c);
    if !text.chars().all(is_plain) {
        bail!("put {text:?} into a unit: choose a path without spaces and special characters");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_put_in_where_they_belong() {
        let [program, root, socket] = ["/opt/d", "/srv/x", "/run/y.sock"].map(Path::new);
        let unit = text(program, root, socket).unwrap();
        assert!(unit.contains("ExecStart=/opt/d --root /srv/x daemon --snapshotter /run/y.sock\n"));
        assert!(unit.contains("ExecReload=/opt/d --root /srv/x daemon --upgrade\n"));
        let usual = [PROGRAM, ROOT, SOCKET].map(Path::new);
        assert_eq!(text(usual[0], usual[1], usual[2]).unwrap(), UNIT);
        assert!(text(Path::new("/opt/%n"), root, socket).is_err());
        assert!(text(Path::new("draught"), root, socket).is_err());
    }
}
