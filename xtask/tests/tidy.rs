//! House rules that a compiler does not check. Every failure says what to do about it.
#![expect(
    clippy::unwrap_used,
    reason = "a check that cannot read its input must fail, loudly"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[path = "tidy/licence.rs"]
mod licence;
#[path = "tidy/words.rs"]
mod words;

/// The layers, lowest first: a crate may depend on crates of lower layers only. Crates of tests
/// (`testkit`, `fuzz`) and chores (`xtask`) stand outside: nothing but tests depends on them.
const LAYERS: &[&[&str]] = &[
    &["draught-digest", "draught-sys"],
    &["draught-tree", "draught-oci", "draught-containerd"],
    &["draught-tar", "draught-codec", "draught-profile"],
    &["draught-erofs"],
    &["draught-rafs", "draught-estargz"],
    &["draught-importer", "draught-fill", "draught-store"],
    &["draught-mount", "draught-source"],
    &["draught-node", "draught-packer"],
    &["draught-registry", "draught-snapshotter"],
    &["draught"],
];

/// Crates outside the layers; only as a dev-dependency may a crate of a layer use them.
const OUTSIDE: &[&str] = &["draught-fuzz", "draught-testkit", "xtask"];

/// Crates that may spell the name of a lazy format.
const FORMAT_CRATES: &[&str] = &[
    "rafs",
    "estargz",
    "importer",
    "packer",
    "snapshotter",
    "cli",
    "testkit",
];

/// Names of lazy formats. Sources are cut into words first, so that "drafts" is not one of them.
const FORMAT_NAMES: &[&str] = &[
    "nydus",
    "rafs",
    "stargz",
    "estargz",
    "zran",
    "soci",
    "ztoc",
    "zstdchunked",
    "seekindex",
];

/// Dependencies that only some crates may have, and why.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    (
        "anyhow",
        &["draught", "draught-testkit", "xtask"],
        "libraries have error enums whose fields are facts (thiserror)",
    ),
    (
        "libc",
        &["draught-sys"],
        "unsafe calls live in sys; use rustix or add a safe function to sys",
    ),
    (
        "tokio",
        &[
            "draught-source",
            "draught-node",
            "draught-packer",
            "draught-containerd",
            "draught-registry",
            "draught-snapshotter",
            "draught-testkit",
            "draught",
        ],
        "it is a sans-io or a synchronous crate: let the caller do the waiting",
    ),
    (
        "reqwest",
        &["draught-source", "draught-testkit"],
        "all traffic to registries goes through source",
    ),
];

/// Lines that a source file may have at most.
const FILE_LINES_MAX: usize = 800;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All files of the repository with one of these extensions, as paths relative to it.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![workspace().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs_err::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let name = entry.file_name();
            if entry.file_type().unwrap().is_dir() {
                // Hidden ones: .git, and what editors leave behind. Of these only .ci and
                // .config are ours.
                let hidden = name.as_encoded_bytes().starts_with(b".");
                let ours = [".ci", ".config", ".cargo"].iter().any(|own| name == *own);
                if name != "target" && (!hidden || ours) {
                    directories.push(path);
                }
            } else if extensions
                .iter()
                .any(|wanted| path.extension().is_some_and(|has| has == *wanted))
            {
                found.push(path.strip_prefix(workspace()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs_err::read_to_string(workspace().join(path)).unwrap()
}

/// The packages of the workspace as cargo describes them.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Names of a package's dependencies that are part of what is built, not of its tests.
fn normal_dependencies(package: &Value) -> Vec<&str> {
    let dependencies = package["dependencies"].as_array().unwrap();
    let built = dependencies.iter().filter(|it| text(it, "kind") != "dev");
    built.map(|it| text(it, "name")).collect()
}

fn layer_of(package: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&package))
}

/// Fails with all faults at once, each on its line.
#[track_caller]
fn none(faults: &[String], what_to_do: &str) {
    assert!(
        faults.is_empty(),
        "\n{}\n=> {what_to_do}\n",
        faults.join("\n")
    );
}

#[test]
fn every_crate_has_a_layer() {
    let faults: Vec<String> = packages()
        .iter()
        .map(|package| text(package, "name").to_owned())
        .filter(|name| layer_of(name).is_none() && !OUTSIDE.contains(&name.as_str()))
        .collect();
    none(
        &faults,
        "add the crate to LAYERS in xtask/tests/tidy.rs, as low as it can stand",
    );
}

#[test]
fn dependencies_point_down() {
    let mut faults = Vec::new();
    for package in &packages() {
        let name = text(package, "name");
        let Some(layer) = layer_of(name) else {
            continue;
        };
        for dependency in normal_dependencies(package) {
            let below = layer_of(dependency).is_none_or(|other| other < layer);
            if !below || OUTSIDE.contains(&dependency) {
                faults.push(format!("{name} depends on {dependency}"));
            }
        }
    }
    none(
        &faults,
        "edges point down only (LAYERS): move the shared part to a lower crate, or hand it over \
         as an argument; testkit may be a dev-dependency only",
    );
}

#[test]
fn some_dependencies_belong_to_some_crates() {
    let mut faults = Vec::new();
    for package in &packages() {
        let name = text(package, "name");
        for dependency in normal_dependencies(package) {
            for (guarded, allowed, why) in ONLY_IN {
                if dependency == *guarded && !allowed.contains(&name) {
                    faults.push(format!("{name} depends on {dependency}: {why}"));
                }
            }
        }
    }
    none(
        &faults,
        "drop the dependency, or argue the exception in ONLY_IN of xtask/tests/tidy.rs",
    );
}

#[test]
fn libraries_have_no_features() {
    let faults: Vec<String> = packages()
        .iter()
        .filter(|package| {
            package["features"]
                .as_object()
                .is_some_and(|it| !it.is_empty())
        })
        .map(|package| text(package, "name").to_owned())
        .collect();
    none(
        &faults,
        "remove [features]: everything is always built, the machine is probed at run time",
    );
}

#[test]
fn formats_are_named_by_their_own_crates_only() {
    let mut faults = Vec::new();
    for path in files(&["rs"]) {
        let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
        let ["crates", name, rest @ ..] = parts.as_slice() else {
            continue;
        };
        // Tests may call any format's tools: they are oracles.
        let is_test = rest
            .iter()
            .any(|part| matches!(*part, "tests" | "tests.rs"));
        if FORMAT_CRATES.contains(name) || is_test {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            for word in words::words(line) {
                if FORMAT_NAMES.contains(&word.as_str()) {
                    faults.push(format!("{}:{}: {word}", path.display(), number + 1));
                }
            }
        }
    }
    none(
        &faults,
        "a format's quirk becomes a field of the tree or the chunk map, named for what it means; \
         only the format crates, importer, packer and cli name formats",
    );
}

#[test]
fn files_are_short() {
    let faults: Vec<String> = files(&["rs"])
        .iter()
        .map(|path| (path, read(path).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    none(
        &faults,
        "split the file by concept (300 lines is the aim) and its tests into foo/tests.rs",
    );
}

#[test]
fn module_roots_only_declare() {
    let mut faults = Vec::new();
    for path in files(&["rs"])
        .iter()
        .filter(|path| path.ends_with("mod.rs") && path.iter().all(|part| part != "tests"))
    {
        let source = read(path);
        let logic = source.lines().find(|line| {
            let line = line
                .trim_start()
                .trim_start_matches("pub ")
                .trim_start_matches("pub(crate) ");
            ["fn ", "async fn ", "impl ", "impl<"]
                .iter()
                .any(|start| line.starts_with(start))
        });
        faults.extend(logic.map(|line| format!("{}: {}", path.display(), line.trim())));
    }
    none(
        &faults,
        "mod.rs declares and re-exports; move the code to a file named for what it does",
    );
}

#[test]
fn unsafe_code_is_forbidden_outside_sys() {
    let mut faults = Vec::new();
    let crate_roots = files(&["rs"])
        .into_iter()
        .filter(|path| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs"));
    for path in crate_roots.filter(|path| !path.starts_with("crates/sys")) {
        if !read(&path)
            .lines()
            .any(|line| line == "#![forbid(unsafe_code)]")
        {
            faults.push(path.display().to_string());
        }
    }
    none(
        &faults,
        "add #![forbid(unsafe_code)] below the crate's documentation",
    );
}

#[test]
fn crates_say_what_they_are() {
    let mut faults = Vec::new();
    for path in files(&["rs"]) {
        let root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        if root && !read(&path).starts_with("//! This crate is ") {
            faults.push(path.display().to_string());
        }
    }
    none(
        &faults,
        "the first line of a crate finishes the sentence \"//! This crate is …\"",
    );
}

#[test]
fn every_dependency_has_a_sentence() {
    let manifest = read(Path::new("Cargo.toml"));
    let table = manifest.split("[workspace.dependencies]").nth(1).unwrap();
    let table = table.split("\n[").next().unwrap();
    let mut faults = Vec::new();
    let mut comment = String::new();
    // The dependency whose sentence also covers its relatives (serde and serde_json).
    let mut family = String::new();
    for line in table.lines() {
        if let Some(sentence) = line.strip_prefix('#') {
            comment = sentence.trim().to_owned();
        } else if let Some((name, _)) = line.split_once(" = ") {
            let stem = name.split(['-', '_']).next().unwrap_or(name);
            if !comment.ends_with('.') && family != stem {
                faults.push(name.to_owned());
            }
            comment.clear();
            stem.clone_into(&mut family);
        }
    }
    none(
        &faults,
        "put a comment above the dependency in the root Cargo.toml: one sentence, with a full \
         stop, that says why it is here",
    );
}

#[test]
fn manifests_inherit_licence_and_lints() {
    let mut faults = Vec::new();
    for package in &packages() {
        let name = text(package, "name");
        if text(package, "license") != "Apache-2.0" {
            faults.push(format!("{name}: write license.workspace = true"));
        }
        if text(package, "description").is_empty() {
            faults.push(format!("{name}: describe it in one line"));
        }
        if !fs_err::read_to_string(text(package, "manifest_path"))
            .unwrap()
            .contains("[lints]\nworkspace = true")
        {
            faults.push(format!("{name}: write [lints] workspace = true"));
        }
    }
    none(&faults, "complete the crate's Cargo.toml");
}

#[test]
fn nothing_is_left_for_later_and_no_test_is_ignored() {
    let forbidden = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ig", "nore"),
    ];
    let mut faults = Vec::new();
    for path in files(&["rs"]) {
        for (number, line) in read(&path).lines().enumerate() {
            for found in forbidden.iter().filter(|it| line.contains(**it)) {
                faults.push(format!("{}:{}: {found}", path.display(), number + 1));
            }
        }
    }
    none(
        &faults,
        "finish it or leave it out; a test that needs a tool asks testkit for it",
    );
}

#[test]
fn no_path_of_somebodys_machine_is_in_the_repository() {
    let forbidden = [
        concat!("/wo", "rk/"),
        concat!("/var/", "tmp/"),
        concat!("/ro", "ot/.cargo"),
    ];
    let mut faults = Vec::new();
    for path in files(&["rs", "toml", "md", "sh", "json", "yml"]) {
        for (number, line) in read(&path).lines().enumerate() {
            for found in forbidden.iter().filter(|it| line.contains(**it)) {
                faults.push(format!("{}:{}: {found}", path.display(), number + 1));
            }
        }
    }
    none(
        &faults,
        "make the path an argument, a scratch directory or an environment variable",
    );
}

#[test]
fn licences_of_dependencies_are_allowed() {
    let allowed = licence::allowed(&read(Path::new("deny.toml")));
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let faults: Vec<String> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| !licence::satisfied(text(package, "license"), &allowed))
        .map(|package| format!("{}: {:?}", text(package, "name"), text(package, "license")))
        .collect();
    none(
        &faults,
        "use another crate, or, if Apache-2.0 programs may include that licence, allow it in \
         deny.toml",
    );
}
