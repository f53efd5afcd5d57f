//! Lines that are put into a file of somebody's, and taken out again.
//!
//! What is put in says so in a comment; what has to give way stays as a comment. So the file is its owner's still,
//! and taking ours out gives what was there before, whatever was changed in between.

/// Ends each line that is ours.
const OURS: &str = "# by draught install";
/// Begins each line that gave way.
const GAVE_WAY: &str = "# by draught install, was: ";

/// A line of ours.
pub(crate) fn ours(line: &str) -> String {
    format!("{line} {OURS}")
}

/// The file without anything of ours.
pub(crate) fn without_ours(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(was) = line.strip_prefix(GAVE_WAY) {
            lines.push(was);
        } else if !line.ends_with(OURS) {
            lines.push(line);
        }
    }
    joined(&lines)
}

fn joined<S: AsRef<str>>(lines: &[S]) -> String {
    lines
        .iter()
        .map(|line| format!("{}\n", line.as_ref()))
        .collect()
}

/// A line without spaces, in one kind of quotes: to be compared.
fn normal(line: &str) -> String {
    let line = line.split('#').next().unwrap_or_default();
    let chars = line.chars().filter(|c| !c.is_whitespace());
    chars.map(|c| if c == '\'' { '"' } else { c }).collect()
}

fn is_head(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

/// The name of what a line sets.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    Some(key.trim().trim_matches(['"', '\'']))
}

/// Sets keys of a table; the table is put at the end if it has no head of its own.
pub(crate) fn set(text: &str, head: &str, settings: &[(&str, String)]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let found = lines.iter().position(|line| normal(line) == normal(head));
    let mut edited: Vec<String> = Vec::new();
    let Some(found) = found else {
        edited.extend(lines.iter().map(|&line| line.to_owned()));
        edited.push(ours(head));
        edited.extend(settings.iter().map(|(_, line)| ours(&format!("  {line}"))));
        return joined(&edited);
    };
    let mut is_inside = false;
    for (index, line) in lines.iter().enumerate() {
        is_inside = is_inside && !is_head(line);
        let gives_way =
            is_inside && key(line).is_some_and(|key| settings.iter().any(|(name, _)| *name == key));
        if gives_way {
            edited.push(format!("{GAVE_WAY}{line}"));
        } else {
            edited.push((*line).to_owned());
        }
        if index == found {
            is_inside = true;
            edited.extend(settings.iter().map(|(_, line)| ours(&format!("  {line}"))));
        }
    }
    joined(&edited)
}

/// Adds a file to those that are imported.
pub(crate) fn import(text: &str, quoted: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let top = lines
        .iter()
        .position(|line| is_head(line))
        .unwrap_or(lines.len());
    let mut edited: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
    let is_imports = |line: &&str| key(line) == Some("imports");
    let found = lines.iter().take(top).position(is_imports);
    if let Some(found) = found {
        let line = lines.get(found).copied().unwrap_or_default();
        // One line, or the first of several.
        match line.rsplit_once(']') {
            Some((before, _)) => {
                let comma = if before.trim_end().ends_with(['[', ',']) {
                    ""
                } else {
                    ", "
                };
                let new = ours(&format!("{before}{comma}{quoted}]"));
                edited.splice(found..=found, [format!("{GAVE_WAY}{line}"), new]);
            }
            None => edited.insert(found + 1, ours(&format!("  {quoted},"))),
        }
        return joined(&edited);
    }
    let after = lines
        .iter()
        .take(top)
        .position(|line| key(line) == Some("version"));
    let at = after.map_or(0, |version| version + 1);
    edited.insert(at, ours(&format!("imports = [{quoted}]")));
    joined(&edited)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
# mine
version = 2
root = '/data'

[plugins]
  [plugins.'io.containerd.grpc.v1.cri']
    sandbox_image = \"pause:3\"
    [plugins.'io.containerd.grpc.v1.cri'.containerd]
      snapshotter = \"overlayfs\" # as ever
      default_runtime_name = \"runc\"
    [plugins.'io.containerd.grpc.v1.cri'.cni]
      snapshotter = \"not this one\"
";

    const HEAD: &str = "[plugins.\"io.containerd.grpc.v1.cri\".containerd]";

    fn settings() -> [(&'static str, String); 1] {
        [("snapshotter", "snapshotter = \"draught\"".to_owned())]
    }

    #[test]
    fn settings_take_the_place_of_others_and_give_it_back() {
        let edited = set(CONFIG, HEAD, &settings());
        let table: toml::Table = edited.parse().unwrap();
        let cri = &table["plugins"]["io.containerd.grpc.v1.cri"];
        assert_eq!(cri["containerd"]["snapshotter"].as_str(), Some("draught"));
        assert_eq!(
            cri["containerd"]["default_runtime_name"].as_str(),
            Some("runc")
        );
        assert_eq!(cri["cni"]["snapshotter"].as_str(), Some("not this one"));
        assert_eq!(without_ours(&edited), CONFIG);
    }

    #[test]
    fn a_table_that_is_not_there_is_put_at_the_end() {
        let edited = set("version = 2\n", HEAD, &settings());
        let table: toml::Table = edited.parse().unwrap();
        let cri = &table["plugins"]["io.containerd.grpc.v1.cri"];
        assert_eq!(cri["containerd"]["snapshotter"].as_str(), Some("draught"));
        assert_eq!(without_ours(&edited), "version = 2\n");
    }

    #[test]
    fn imports_are_added_to_whatever_is_there() {
        for (text, expect) in [
            ("", vec!["/x"]),
            ("version = 2\n[grpc]\n", vec!["/x"]),
            ("imports = []\n", vec!["/x"]),
            ("imports = [\"/a\"] # mine\nversion = 2\n", vec!["/a", "/x"]),
            ("imports = ['/a', ]\n", vec!["/a", "/x"]),
            ("imports = [\n  '/a'\n]\n", vec!["/x", "/a"]),
        ] {
            let edited = import(text, "\"/x\"");
            let table: toml::Table = edited.parse().unwrap_or_else(|e| panic!("{edited}: {e}"));
            let imports = table["imports"].as_array().unwrap();
            let imports: Vec<_> = imports.iter().filter_map(toml::Value::as_str).collect();
            assert_eq!(imports, expect, "{text}");
            assert_eq!(without_ours(&edited), text);
        }
    }
}
