//! What containerd's configuration has to say.
//!
//! Origin: containerd's `docs/man/containerd-config.toml.5.md`, `docs/remote-snapshotter.md`, `docs/cri/config.md`,
//! and what containerd 1.6 and 2.1 were seen to do with it.

use std::path::Path;

use toml::{Table, Value};

use super::version::Version;

/// The first version whose clients pull through the transfer service and ask by what a plugin exports.
const WITH_EXPORTS: Version = Version { major: 2, minor: 1 };

/// Where a version of the configuration has what CRI does with snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cri {
    /// The plugin.
    pub(crate) plugin: &'static str,
    /// Its table with the settings; none: the plugin's own.
    pub(crate) table: Option<&'static str>,
}

impl Cri {
    /// In that version of the configuration.
    pub(crate) fn in_config(version: i64) -> Self {
        if version >= 3 {
            return Self {
                plugin: "io.containerd.cri.v1.images",
                table: None,
            };
        }
        Self {
            plugin: "io.containerd.grpc.v1.cri",
            table: Some("containerd"),
        }
    }

    /// The head of the table.
    pub(crate) fn head(self) -> String {
        let plugin = self.plugin;
        match self.table {
            Some(table) => format!("[plugins.\"{plugin}\".{table}]"),
            None => format!("[plugins.\"{plugin}\"]"),
        }
    }

    /// The settings of a configuration, if it has any.
    pub(crate) fn settings(self, config: &Table) -> Option<&Table> {
        let plugin = self.section(config)?;
        match self.table {
            Some(table) => plugin.get(table)?.as_table(),
            None => Some(plugin),
        }
    }

    /// All that a configuration says of the plugin.
    pub(crate) fn section(self, config: &Table) -> Option<&Table> {
        config
            .get("plugins")?
            .as_table()?
            .get(self.plugin)?
            .as_table()
    }

    /// Whether a configuration does without the plugin.
    pub(crate) fn is_disabled(config: &Table) -> bool {
        let disabled = config.get("disabled_plugins").and_then(Value::as_array);
        let mut disabled = disabled.into_iter().flatten().filter_map(Value::as_str);
        disabled.any(|name| {
            [
                "cri",
                "io.containerd.grpc.v1.cri",
                "io.containerd.cri.v1.images",
            ]
            .contains(&name)
        })
    }

    /// What its settings have to be, as lines.
    pub(crate) fn lines(name: &str) -> [(&'static str, String); 2] {
        [
            ("snapshotter", format!("snapshotter = \"{name}\"")),
            (
                "disable_snapshot_annotations",
                "disable_snapshot_annotations = false".to_owned(),
            ),
        ]
    }

    /// What is wrong with a configuration's settings, if anything is.
    pub(crate) fn problem(self, config: &Table, name: &str) -> Option<String> {
        let settings = self.settings(config);
        let snapshotter = settings.and_then(|it| it.get("snapshotter")?.as_str());
        if snapshotter != Some(name) {
            let is = snapshotter.unwrap_or("not set, which is overlayfs");
            return Some(format!("snapshotter is {is}"));
        }
        let key = "disable_snapshot_annotations";
        let annotations = settings.and_then(|it| it.get(key)?.as_bool());
        // Without it nothing says which image a layer is of, and nothing is lazy.
        (annotations != Some(false)).then(|| format!("{key} is not false"))
    }
}

/// The part that registers the plugin.
pub(crate) fn proxy(name: &str, version: Version, socket: &Path, root: &Path) -> String {
    let mut text = format!(
        "[proxy_plugins.{name}]\n  type = \"snapshot\"\n  address = {}\n",
        quoted(socket)
    );
    if version >= WITH_EXPORTS {
        text.push_str(&format!(
            "  [proxy_plugins.{name}.exports]\n    root = {}\n    enable_remote_snapshot_annotations = \"true\"\n",
            quoted(root)
        ));
    }
    text
}

/// The part that makes CRI use it.
pub(crate) fn cri(name: &str, config_version: i64) -> String {
    let lines = Cri::lines(name)
        .map(|(_, line)| format!("  {line}\n"))
        .concat();
    format!("{}\n{lines}", Cri::in_config(config_version).head())
}

/// The version of configuration that is written for a containerd that has none.
pub(crate) fn config_version(version: Version) -> i64 {
    if version.major >= 2 { 3 } else { 2 }
}

/// A path as TOML has it: JSON's strings are strings there too.
pub(crate) fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}
