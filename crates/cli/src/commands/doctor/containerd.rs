//! containerd, and what it knows of us.

use std::path::Path;

use draught_containerd::connect;
use draught_containerd::introspection::introspection_client::IntrospectionClient;
use draught_containerd::introspection::{Plugin, PluginsRequest};
use toml::Table;

use super::check::Check;
use super::command::Subject;
use super::{config, daemon};
use crate::asynchronous;
use crate::commands::install::{Cri, Version, ask_version};

const SNAPSHOTTERS: &str = "io.containerd.snapshotter.v1";
/// Types of the plugin that serves Kubernetes, old and new.
const CRI: &[(&str, &str)] = &[
    ("io.containerd.grpc.v1", "cri"),
    ("io.containerd.cri.v1", "images"),
];
/// From this version on clients ask lazily by themselves.
const ASKS_LAZILY: Version = Version { major: 2, minor: 1 };
/// What does so for older ones.
const CTR_REMOTE: &str = "ctr-remote";
const INSTALL: &str = "register it: draught install, then restart containerd";

/// What it says of itself.
struct Answers {
    version: Version,
    version_text: String,
    plugins: Vec<Plugin>,
}

async fn answers(socket: &Path) -> anyhow::Result<Answers> {
    let (version, version_text) = ask_version(socket).await?;
    let mut client = IntrospectionClient::new(connect(socket).await?);
    let request = PluginsRequest {
        filters: Vec::new(),
    };
    let response = client.plugins(request).await;
    let response = response.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    Ok(Answers {
        version,
        version_text,
        plugins: response.into_inner().plugins,
    })
}

pub(crate) fn checks(subject: &Subject) -> Vec<Check> {
    let socket = &subject.containerd;
    let asked = asynchronous::block_on(async {
        let answers = tokio::time::timeout(daemon::PATIENCE, answers(socket)).await;
        answers.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer")))
    });
    let answers = match asked {
        Ok(answers) => answers,
        Err(error) => {
            return vec![Check::wrong(
                "containerd",
                format!("{error:#}"),
                "start it, or name its socket with --containerd",
            )];
        }
    };
    let mut checks = vec![Check::right(
        "containerd",
        format!("{}, version {}", socket.display(), answers.version_text),
    )];
    checks.extend(plugin(&answers, subject));
    checks.push(cri(&answers, &subject.containerd_config, &subject.name));
    checks.push(remote_client(&answers));
    checks
}

/// Whether it has us, and reaches us.
fn plugin(answers: &Answers, subject: &Subject) -> Vec<Check> {
    let what = "containerd's plugin";
    let name = &subject.name;
    let mut plugins = answers.plugins.iter();
    let found = plugins.find(|plugin| plugin.r#type == SNAPSHOTTERS && plugin.id == *name);
    let Some(plugin) = found else {
        return vec![Check::wrong(
            what,
            format!("it has no snapshotter {name}"),
            INSTALL,
        )];
    };
    if let Some(error) = &plugin.init_err {
        return vec![Check::wrong(
            what,
            error.message.clone(),
            "see containerd's log",
        )];
    }
    // containerd answers most questions itself: who is to be asked is where it would ask.
    let told = plugin.exports.get("address").map(Path::new);
    let socket = told.unwrap_or(&subject.snapshotter);
    let at = socket.display();
    let asked = asynchronous::block_on(async { Ok(daemon::ask(socket).await) });
    let mut checks = vec![match asked.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(()) => Check::right(what, format!("{name} is registered and answers at {at}")),
        Err(error) => Check::wrong(
            what,
            format!("{name} is registered and does not answer at {at}: {error}"),
            "the daemon does not run with --snapshotter, or containerd's configuration names another socket",
        ),
    }];
    let asks = "enable_remote_snapshot_annotations";
    if answers.version >= ASKS_LAZILY
        && plugin.exports.get(asks).map(String::as_str) != Some("true")
    {
        checks.push(Check::wrong(
            "lazy pulls",
            format!("the plugin does not export {asks} = \"true\": nothing is lazy"),
            INSTALL,
        ));
    }
    checks
}

/// Whether Kubernetes' containers come from us.
fn cri(answers: &Answers, path: &Path, name: &str) -> Check {
    let what = "Kubernetes (CRI)";
    let is_there = answers.plugins.iter().any(|plugin| {
        let named = CRI.contains(&(plugin.r#type.as_str(), plugin.id.as_str()));
        named && plugin.init_err.is_none()
    });
    if !is_there {
        return Check::right(what, "containerd has it not: not needed without Kubernetes");
    }
    let files = config::files(path);
    let mut settings: Option<(Cri, Table)> = None;
    for (file, table) in files {
        let table = match table {
            Ok(table) => table,
            Err(error) => {
                let found = format!("{}: {error:#}", file.display());
                return Check::wrong(
                    what,
                    found,
                    "without it CRI uses overlayfs: draught install",
                );
            }
        };
        let version = table.get("version").and_then(toml::Value::as_integer);
        let cri = Cri::in_config(version.unwrap_or(2));
        // The last file that has the section counts.
        if settings.is_none() || cri.section(&table).is_some() {
            settings = Some((cri, table));
        }
    }
    let problem = settings.and_then(|(cri, table)| cri.problem(&table, name));
    match problem {
        None => Check::right(
            what,
            format!("{} uses {name}, with annotations", path.display()),
        ),
        Some(problem) => Check::wrong(
            what,
            format!("{}: {problem}", path.display()),
            "draught install, then restart containerd; or leave Kubernetes to overlayfs",
        ),
    }
}

/// Whether there is a client that asks lazily.
fn remote_client(answers: &Answers) -> Check {
    let what = "clients";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_it = std::env::split_paths(&path).any(|dir| dir.join(CTR_REMOTE).is_file());
    let version = answers.version;
    if version >= ASKS_LAZILY {
        return Check::right(what, format!("ctr and nerdctl of {version} ask lazily"));
    }
    if has_it {
        return Check::right(
            what,
            format!("{CTR_REMOTE} asks lazily for containerd {version}"),
        );
    }
    Check::hint(
        what,
        format!("ctr of {version} never asks lazily"),
        format!("by hand use nerdctl, or {CTR_REMOTE} of Debian's package stargz-snapshotter"),
    )
}
