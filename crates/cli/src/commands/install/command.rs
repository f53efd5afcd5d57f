//! The command.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use toml::{Table, Value};

use super::changes::{Action, Change, read};
use super::snippet::{self, Cri};
use super::version::{self, Version};
use super::{edit, unit};
use crate::args::Format;
use crate::commands::doctor::{self, Check};
use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;

/// Our own file among those that containerd imports.
const DROP_IN: &str = "conf.d/draught.toml";
const UNIT: &str = "etc/systemd/system/draught.service";
const UNIT_NAME: &str = "draught.service";
/// What there is while systemd runs the machine.
const SYSTEMD_RUNS: &str = "/run/systemd/system";
/// For a node without any containerd yet.
const VERSION_DEFAULT: Version = Version { major: 2, minor: 1 };

/// Set this node up: containerd uses draught as a snapshotter, systemd runs it
///
/// Writes a file of its own beside containerd's configuration, and into that configuration only what has to
/// stand there: each such line says so, what gives way stays as a comment, and a copy of the file as it was is
/// kept. Again is fine. --uninstall takes all of it out again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Take out what was put in
    #[arg(long)]
    uninstall: bool,

    /// Have systemd start it, or upgrade what runs to this program, and restart containerd if its configuration
    /// changed
    #[arg(long)]
    now: bool,

    /// The snapshotter's name in containerd. nerdctl asks lazily only if the name has "stargz" or "nydus" in it
    #[arg(long, value_name = "NAME", default_value = doctor::NAME, value_parser = plugin_name)]
    name: String,

    /// Where the snapshotter listens
    #[arg(long, value_name = "SOCKET", default_value = doctor::SNAPSHOTTER)]
    snapshotter: PathBuf,

    /// containerd's configuration
    #[arg(
        long,
        value_name = "FILE",
        default_value = doctor::CONTAINERD_CONFIG
    )]
    containerd_config: PathBuf,

    /// containerd's socket
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "CONTAINERD_ADDRESS",
        default_value = doctor::CONTAINERD
    )]
    containerd: PathBuf,

    /// The version of containerd [default: the one that runs, or is installed]
    #[arg(long, value_name = "VERSION")]
    containerd_version: Option<Version>,

    /// Whether Kubernetes' containers (CRI) are to use it
    #[arg(long, value_enum, default_value_t = Switch::On)]
    cri: Switch,

    /// Whether systemd is to run it
    #[arg(long, value_enum, default_value_t = Switch::On)]
    systemd: Switch,

    /// The program that systemd starts [default: this one]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,

    /// Write below this directory, as if it were the root of the system
    #[arg(long, value_name = "DIR", default_value = "/", conflicts_with = "now")]
    prefix: PathBuf,
}

/// Accepts what TOML takes as a name without quotes, and containerd as an identifier.
fn plugin_name(text: &str) -> Result<String, &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err("write letters, digits and hyphens");
    }
    Ok(text.to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// In the shape that `--format json` prints.
#[derive(Debug, Serialize)]
struct Report {
    files: Vec<Change>,
    /// Commands that remain to be run.
    next: Vec<String>,
    /// What was found when the result was tested.
    checks: Vec<Check>,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let mut files = if args.uninstall {
        args.removed()?
    } else {
        args.wanted(settings)?
    };
    files.retain(|change| !args.uninstall || change.action != Action::Keep);
    let next = args.next(&files);
    let mut report = Report {
        files,
        next,
        checks: Vec::new(),
    };
    if !args.dry_run {
        for change in &report.files {
            change.apply()?;
        }
        if args.now {
            for command in std::mem::take(&mut report.next) {
                carry_out(&command)?;
            }
        }
        let is_this_system = args.prefix == Path::new("/");
        if is_this_system && !args.uninstall {
            report.checks = doctor::connections(&doctor::Subject {
                root: settings.root.clone(),
                name: args.name.clone(),
                snapshotter: args.snapshotter.clone(),
                containerd: args.containerd.clone(),
                containerd_config: args.containerd_config.clone(),
            });
        }
    }
    match settings.format {
        Format::Json => output::json(&report)?,
        Format::Text => output::data(&report.text())?,
    }
    // What is not started yet can't answer yet.
    let is_wrong = args.now && report.checks.iter().any(Check::is_wrong);
    Ok(if is_wrong {
        Outcome::Faults
    } else {
        Outcome::Done
    })
}

/// Runs one of our own command lines.
fn carry_out(line: &str) -> Result<()> {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    let status = command.args(words).status();
    let status = status.with_context(|| format!("run {line}"))?;
    if !status.success() {
        bail!("run {line}: {status}");
    }
    Ok(())
}

impl Args {
    /// A path of the system that is written to.
    fn at(&self, path: &Path) -> PathBuf {
        self.prefix.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn drop_in(&self) -> PathBuf {
        let dir = self.containerd_config.parent().unwrap_or(Path::new("/"));
        dir.join(DROP_IN)
    }

    fn wanted(&self, settings: &Settings) -> Result<Vec<Change>> {
        let version = self.containerd_version;
        let version = version.or_else(|| version::find(&self.containerd));
        let version = version.unwrap_or_else(|| {
            output::say(&format!(
                "no containerd was found: writing for {VERSION_DEFAULT}, --containerd-version names another"
            ));
            VERSION_DEFAULT
        });
        let mut files = self.for_containerd(version, &settings.root)?;
        if self.systemd == Switch::On {
            let program = match &self.program {
                Some(program) => program.clone(),
                None => std::env::current_exe().context("find this program")?,
            };
            let unit = unit::text(&program, &settings.root, &self.snapshotter)?;
            files.push(Change::to(self.at(Path::new(UNIT)), Some(unit))?);
        }
        Ok(files)
    }

    /// containerd's configuration, and ours beside it.
    fn for_containerd(&self, version: Version, root: &Path) -> Result<Vec<Change>> {
        let path = self.at(&self.containerd_config);
        let theirs = edit::without_ours(&read(&path)?.unwrap_or_default());
        let table = parsed(&theirs, &path)?;
        let config_version = match table.get("version").map(Value::as_integer) {
            Some(Some(version @ (2 | 3))) => version,
            None if table.is_empty() => snippet::config_version(version),
            _ => bail!(
                "read {}: only versions 2 and 3 of the configuration are known; `containerd config migrate` \
                 prints it in the current one",
                path.display()
            ),
        };
        let mut edited = theirs.clone();
        if table.is_empty() {
            edited.push_str(&edit::ours(&format!("version = {config_version}")));
            edited.push('\n');
        }
        let drop_in = self.drop_in();
        if !doctor::imports(&table).any(|pattern| doctor::matches(pattern, &drop_in)) {
            edited = edit::import(&edited, &snippet::quoted(&drop_in));
        }
        let mut ours = format!(
            "# Written by draught install; what is changed here is lost at the next one.\nversion = {config_version}\n\n{}",
            snippet::proxy(&self.name, version, &self.snapshotter, root)
        );
        let mut files = Vec::new();
        let cri = Cri::in_config(config_version);
        if self.cri == Switch::On && !Cri::is_disabled(&table) {
            if cri.section(&table).is_some() {
                // A section in another file takes the place of the whole section, not of two settings.
                edited = edit::set(&edited, &cri.head(), &Cri::lines(&self.name));
                checked(cri, &self.name, &edited, &path)?;
            } else if let Some(other) = self.imported_with(cri, &table)? {
                files.push(other);
            } else {
                ours.push_str(&format!("\n{}", snippet::cri(&self.name, config_version)));
            }
        }
        let imports = parsed(&edited, &path)?;
        if !doctor::imports(&imports).any(|pattern| doctor::matches(pattern, &drop_in)) {
            bail!(
                "edit {}: add {} to its imports by hand",
                path.display(),
                drop_in.display()
            );
        }
        files.push(Change::to(self.at(&drop_in), Some(ours))?);
        files.push(Change::to(path, Some(edited))?.theirs());
        Ok(files)
    }

    /// The imported file that has CRI's section, with our settings in it.
    fn imported_with(&self, cri: Cri, table: &Table) -> Result<Option<Change>> {
        for path in self.imported(table) {
            let theirs = edit::without_ours(&read(&path)?.unwrap_or_default());
            if cri.section(&parsed(&theirs, &path)?).is_some() {
                let edited = edit::set(&theirs, &cri.head(), &Cri::lines(&self.name));
                checked(cri, &self.name, &edited, &path)?;
                return Ok(Some(Change::to(path, Some(edited))?.theirs()));
            }
        }
        Ok(None)
    }

    /// Other files that are imported.
    fn imported(&self, table: &Table) -> Vec<PathBuf> {
        let ours = self.at(&self.drop_in());
        let patterns = doctor::imports(table);
        let all = patterns.flat_map(|pattern| doctor::expand(&self.at(Path::new(pattern))));
        all.filter(|path| *path != ours).collect()
    }

    fn removed(&self) -> Result<Vec<Change>> {
        let path = self.at(&self.containerd_config);
        let text = read(&path)?.unwrap_or_default();
        let table = parsed(&text, &path)?;
        let theirs = self.imported(&table).into_iter().chain([path]);
        let mut files = Vec::new();
        for path in theirs {
            let Some(text) = read(&path)? else {
                continue;
            };
            let left = edit::without_ours(&text);
            // Nothing of anybody's is left: it was made by us.
            let left = Some(left).filter(|left| !left.is_empty() || text.is_empty());
            files.push(Change::to(path, left)?);
        }
        for path in [self.drop_in(), Path::new("/").join(UNIT)] {
            files.push(Change::to(self.at(&path), None)?);
        }
        Ok(files)
    }

    /// What remains to be done by systemd.
    fn next(&self, files: &[Change]) -> Vec<String> {
        if !Path::new(SYSTEMD_RUNS).exists() {
            return Vec::new();
        }
        let unit = self.at(&Path::new("/").join(UNIT));
        let changed = |is_unit: bool| {
            let mut files = files.iter().filter(|file| (file.path == unit) == is_unit);
            files.any(|file| file.action != Action::Keep)
        };
        let mut next = Vec::new();
        if self.systemd == Switch::On && self.uninstall {
            next.push(format!("systemctl disable --now {UNIT_NAME}"));
        }
        if self.systemd == Switch::On && changed(true) {
            next.push("systemctl daemon-reload".to_owned());
        }
        if self.systemd == Switch::On && !self.uninstall {
            next.push(format!("systemctl enable {UNIT_NAME}"));
            // Either is an upgrade of what runs that no reader notices; a unit's new options need a new start.
            let verb = if changed(true) {
                "restart"
            } else {
                "reload-or-restart"
            };
            next.push(format!("systemctl {verb} {UNIT_NAME}"));
        }
        if changed(false) {
            next.push("systemctl restart containerd.service".to_owned());
        }
        next
    }
}

fn parsed(text: &str, path: &Path) -> Result<Table> {
    text.parse()
        .with_context(|| format!("understand {}", path.display()))
}

/// Whether the edited text says what it is to say.
fn checked(cri: Cri, name: &str, edited: &str, path: &Path) -> Result<()> {
    let table: Option<Table> = edited.parse().ok();
    if table.is_some_and(|table| cri.problem(&table, name).is_none()) {
        return Ok(());
    }
    let lines = Cri::lines(name).map(|(_, line)| line).join(" and ");
    bail!(
        "edit {}: it is written in a way that is not understood here; put {lines} into {} by hand, and run this \
         again with --cri off",
        path.display(),
        cri.head()
    );
}

impl Report {
    fn text(&self) -> String {
        let mut text: String = self.files.iter().map(Change::text).collect();
        for check in &self.checks {
            text.push_str(&check.text());
        }
        if !self.next.is_empty() {
            text.push_str("then run\n");
            self.next
                .iter()
                .for_each(|line| text.push_str(&format!("  {line}\n")));
        }
        text
    }
}
