//! containerd's configuration as containerd reads it: a file and those that it imports.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Files that are imported, as patterns.
pub(crate) fn imports(table: &Table) -> impl Iterator<Item = &str> {
    let imports = table.get("imports").and_then(Value::as_array);
    imports.into_iter().flatten().filter_map(Value::as_str)
}

/// Whether a pattern stands for a path: it may have a `*` in its last part.
pub(crate) fn matches(pattern: &str, path: &Path) -> bool {
    let pattern = Path::new(pattern);
    if pattern.parent() != path.parent() {
        return false;
    }
    let text = |path: &Path| path.file_name().map(|it| it.to_string_lossy().into_owned());
    let (Some(pattern), Some(name)) = (text(pattern), text(path)) else {
        return false;
    };
    match pattern.split_once('*') {
        Some((begin, end)) => {
            name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
        }
        None => pattern == name,
    }
}

/// The files that a pattern stands for.
pub(crate) fn expand(pattern: &Path) -> Vec<PathBuf> {
    let Some(dir) = pattern.parent() else {
        return Vec::new();
    };
    let entries = fs_err::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut found: Vec<PathBuf> = paths
        .filter(|path| matches(&pattern.to_string_lossy(), path))
        .collect();
    found.sort();
    found
}

/// All files of a configuration, in the order in which they count.
pub(crate) fn files(config: &Path) -> Vec<(PathBuf, anyhow::Result<Table>)> {
    let read =
        |path: &Path| -> anyhow::Result<Table> { Ok(fs_err::read_to_string(path)?.parse()?) };
    let first = read(config);
    let imported: Vec<PathBuf> = first
        .iter()
        .flat_map(|table| imports(table).map(str::to_owned).collect::<Vec<_>>())
        .flat_map(|pattern| expand(Path::new(&pattern)))
        .collect();
    let mut files = vec![(config.to_owned(), first)];
    for path in imported {
        let table = read(&path);
        files.push((path, table));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_files_of_one_directory() {
        let path = Path::new("/etc/containerd/conf.d/draught.toml");
        for (pattern, expect) in [
            ("/etc/containerd/conf.d/*.toml", true),
            ("/etc/containerd/conf.d/draught.toml", true),
            ("/etc/containerd/conf.d/*", true),
            ("/etc/containerd/conf.d/d*.toml", true),
            ("/etc/containerd/conf.d/*.conf", false),
            ("/etc/containerd/*.toml", false),
            ("/etc/containerd/conf.d/draught.toml*draught.toml", false),
        ] {
            assert_eq!(matches(pattern, path), expect, "{pattern}");
        }
    }
}
