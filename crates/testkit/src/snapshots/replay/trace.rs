//! Traces as they were recorded.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use draught_containerd::prost_types::Timestamp;
use draught_containerd::snapshots::{Info, Kind};
use draught_containerd::tonic::Code;
use draught_containerd::types::Mount;
use serde_json::Value;

use crate::snapshots::Labels;

/// The traces of this repository; what each is says `traces/README.md`.
pub const NAMES: [&str; 7] = [
    "buildkit-0.32-other-name-no-labels",
    "buildkit-0.32-stargz-name-lazy-esgz",
    "buildkit-0.32-stargz-name-plain-gzip",
    "buildkit-0.32-stargz-name-remote-prepare-fails",
    "containerd-1.6-ctr-remote-rpull-and-run",
    "containerd-2.1-transfer-plain-gzip",
    "containerd-2.3-parallel-unpack-rebase",
];

/// What a client asked and was answered, in the order of the answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Its name.
    pub name: String,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// One call and its answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: usize,
    /// The namespace that it was asked in, if any.
    pub namespace: Option<String>,
    /// The leases that it was asked under.
    pub leases: Vec<String>,
    /// What was asked.
    pub call: Call,
    /// What was answered.
    pub answer: Answer,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the calls' messages")]
pub enum Call {
    /// A snapshot to write into.
    Prepare {
        key: String,
        parent: String,
        labels: Labels,
    },
    /// A snapshot to read only.
    View {
        key: String,
        parent: String,
        labels: Labels,
    },
    /// How it is mounted.
    Mounts { key: String },
    /// Makes it a layer.
    Commit {
        key: String,
        name: String,
        parent: String,
        labels: Labels,
    },
    /// Removes it.
    Remove { key: String },
    /// What is known of it.
    Stat { key: String },
    /// Changes labels.
    Update {
        name: String,
        labels: Labels,
        mask: Vec<String>,
    },
    /// What there is.
    List { filters: Vec<String> },
    /// What it takes.
    Usage { key: String },
    /// Frees what is not needed.
    Cleanup,
}

impl Call {
    /// Its name in the service.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Prepare { .. } => "Prepare",
            Self::View { .. } => "View",
            Self::Mounts { .. } => "Mounts",
            Self::Commit { .. } => "Commit",
            Self::Remove { .. } => "Remove",
            Self::Stat { .. } => "Stat",
            Self::Update { .. } => "Update",
            Self::List { .. } => "List",
            Self::Usage { .. } => "Usage",
            Self::Cleanup => "Cleanup",
        }
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// That it is done.
    Done,
    /// How it is mounted.
    Mounts(Vec<Mount>),
    /// What is known of it.
    Info(Box<Info>),
    /// How many there are.
    Listed(usize),
    /// What it takes.
    Usage {
        /// Bytes.
        size: i64,
        /// Inodes.
        inodes: i64,
    },
    /// That it can't be.
    Refused(Code),
}

impl Trace {
    /// A trace of this repository.
    ///
    /// # Panics
    ///
    /// If there is none of that name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        assert!(NAMES.contains(&name), "there is no trace {name}");
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
        Self::read(&dir.join(format!("{name}.jsonl"))).unwrap()
    }

    /// Reads a file of one JSON object a line.
    ///
    /// # Errors
    ///
    /// If it can't be read, or has a line that is no call with an answer.
    pub fn read(file: &Path) -> Result<Self> {
        let name = file.file_stem().context("the file has no name")?;
        let text = fs_err::read_to_string(file)?;
        Self::parse(&PathBuf::from(name).to_string_lossy(), &text)
    }

    /// Reads lines of JSON.
    ///
    /// # Errors
    ///
    /// If one is no call with an answer.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let lines = text.lines().enumerate().map(|(at, text)| {
            let number = at + 1;
            line(number, text).with_context(|| format!("{name}, line {number}"))
        });
        Ok(Self {
            name: name.to_owned(),
            lines: lines.collect::<Result<_>>()?,
        })
    }
}

fn line(number: usize, text: &str) -> Result<Line> {
    let line: Value = serde_json::from_str(text)?;
    let header = |name: &str| strings(&line["hdr"][name]);
    let call = call(&line["call"], &line["in"])?;
    let answer = match line.get("err").and_then(Value::as_str) {
        Some(words) => Answer::Refused(code(words)),
        None => answer(&call, &line["out"])?,
    };
    Ok(Line {
        number,
        namespace: header("containerd-namespace").pop(),
        leases: header("containerd-lease"),
        call,
        answer,
    })
}

fn strings(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn labels(value: &Value) -> Labels {
    let all = value.as_object().into_iter().flatten();
    all.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn call(name: &Value, message: &Value) -> Result<Call> {
    let text = |field: &str| {
        let value = message.get(field).and_then(Value::as_str);
        value
            .map(str::to_owned)
            .with_context(|| format!("{field} is missing"))
    };
    let labels = || labels(&message["labels"]);
    let name = name.as_str().context("no call is named")?;
    Ok(match name {
        "Prepare" => Call::Prepare {
            key: text("key")?,
            parent: text("parent")?,
            labels: labels(),
        },
        "View" => Call::View {
            key: text("key")?,
            parent: text("parent")?,
            labels: labels(),
        },
        "Mounts" => Call::Mounts { key: text("key")? },
        "Commit" => Call::Commit {
            key: text("key")?,
            name: text("name")?,
            parent: text("parent")?,
            labels: labels(),
        },
        "Remove" => Call::Remove { key: text("key")? },
        "Stat" => Call::Stat { key: text("key")? },
        "Update" => Call::Update {
            name: text("name")?,
            labels: labels(),
            mask: strings(&message["mask"]),
        },
        "List" => Call::List {
            filters: strings(&message["filters"]),
        },
        "Usage" => Call::Usage { key: text("key")? },
        "Cleanup" => Call::Cleanup,
        other => bail!("there is no call {other}"),
    })
}

/// The code that the recording machine's errors had, which end with its words.
fn code(words: &str) -> Code {
    let codes = [
        ("already exists", Code::AlreadyExists),
        ("not found", Code::NotFound),
        ("failed precondition", Code::FailedPrecondition),
        ("invalid argument", Code::InvalidArgument),
        ("unavailable", Code::Unavailable),
        ("not implemented", Code::Unimplemented),
    ];
    let found = codes.iter().find(|(end, _)| words.ends_with(end));
    found.map_or(Code::Unknown, |(_, code)| *code)
}

fn answer(call: &Call, out: &Value) -> Result<Answer> {
    Ok(match call {
        Call::Prepare { .. } | Call::View { .. } | Call::Mounts { .. } => {
            let mounts = out.as_array().context("there are no mounts")?;
            Answer::Mounts(mounts.iter().map(mount).collect())
        }
        Call::Stat { .. } | Call::Update { .. } => Answer::Info(Box::new(info(out)?)),
        Call::List { .. } => {
            let count = out.as_u64().context("there is no count")?;
            Answer::Listed(usize::try_from(count)?)
        }
        Call::Usage { .. } => Answer::Usage {
            size: out["Size"].as_i64().context("there is no size")?,
            inodes: out["Inodes"].as_i64().context("there are no inodes")?,
        },
        Call::Commit { .. } | Call::Remove { .. } | Call::Cleanup => Answer::Done,
    })
}

fn mount(value: &Value) -> Mount {
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    Mount {
        r#type: text("Type"),
        source: text("Source"),
        target: text("Target"),
        options: strings(&value["Options"]),
    }
}

fn info(value: &Value) -> Result<Info> {
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let time = |field: &str| -> Result<Option<Timestamp>> {
        let time = text(field).parse();
        Ok(Some(time.with_context(|| format!("{field} is no time"))?))
    };
    let kind = match value["Kind"].as_str() {
        Some("Active") => Kind::Active,
        Some("View") => Kind::View,
        Some("Committed") => Kind::Committed,
        other => bail!("there is no kind {other:?}"),
    };
    Ok(Info {
        name: text("Name"),
        parent: text("Parent"),
        kind: kind.into(),
        created_at: time("Created")?,
        updated_at: time("Updated")?,
        labels: labels(&value["Labels"]).into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_every_trace_is_understood() {
        let lines = NAMES.map(|name| Trace::named(name).lines.len());
        assert_eq!(lines, [28, 164, 46, 46, 19, 8, 15]);
        let refused = |name| {
            let lines = Trace::named(name).lines;
            let refused = lines.iter().map(|line| &line.answer);
            refused
                .filter(|answer| **answer == Answer::Refused(Code::AlreadyExists))
                .count()
        };
        assert_eq!(refused("containerd-1.6-ctr-remote-rpull-and-run"), 4);
        assert_eq!(refused("buildkit-0.32-stargz-name-lazy-esgz"), 4);
    }

    #[test]
    fn what_is_in_a_line_is_in_the_call() {
        let trace = Trace::named("containerd-2.3-parallel-unpack-rebase");
        let Call::Commit { name, parent, .. } = &trace.lines[5].call else {
            panic!("{:?}", trace.lines[5]);
        };
        assert!(name.starts_with("default/15/sha256:3bfd39"), "{name}");
        assert!(parent.starts_with("default/14/sha256:00bce4"), "{parent}");
        let Answer::Info(info) = &trace.lines[8].answer else {
            panic!("{:?}", trace.lines[8]);
        };
        assert_eq!(info.kind(), Kind::Committed);
        assert_eq!(info.labels.len(), 8);
        let trace = Trace::named("buildkit-0.32-other-name-no-labels");
        assert_eq!(trace.lines[26].leases, ["76311505-UKoY", "69556378-6HAB"]);
        assert_eq!(trace.lines[0].namespace.as_deref(), Some("buildkit"));
    }

    #[test]
    fn a_line_that_is_no_call_is_named() {
        let error = Trace::parse("x", "{\"call\":\"Cleanup\",\"in\":{}}\n{\"call\":\"Sing\"}");
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.starts_with("x, line 2"), "{error}");
    }
}
