//! The language of `List`'s filters.

use anyhow::{Result, ensure};
use draught_containerd::tonic::Code;

use super::stage::{Stage, equal, labels};

/// Checks which snapshots a list of filters finds, by their short names.
fn finds(stage: &Stage, filters: &[&str], expected: &[&str]) -> Result<()> {
    // Values that begin with an at sign stand for names of this check.
    let filters: Vec<String> = filters
        .iter()
        .map(|filter| filter.replace('@', &stage.name("")))
        .collect();
    let mut expected: Vec<String> = expected.iter().map(|it| stage.name(it)).collect();
    expected.sort();
    equal(&format!("{filters:?}"), &stage.listed(&filters)?, &expected)
}

/// Three snapshots of three kinds: `layer`, `active` and `view`; and `upper`, which is committed on `layer`.
fn family(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    stage.prepare(&stage.name("active"), &layer)?;
    stage.view(&stage.name("view"), &layer)?;
    stage.empty("upper", &layer).map(drop)
}

pub(super) fn names_and_kinds(stage: &Stage) -> Result<()> {
    family(stage)?;
    finds(stage, &["name==@layer"], &["layer"])?;
    finds(stage, &["name==@nobody"], &[])?;
    finds(stage, &["name!=@layer"], &["active", "upper", "view"])?;
    finds(stage, &["name~=\"^@l\""], &["layer"])?;
    finds(stage, &["name~=\"view$\""], &["view"])?;
    finds(stage, &["kind==active"], &["active"])?;
    finds(stage, &["kind==view"], &["view"])?;
    finds(stage, &["kind==committed"], &["layer", "upper"])?;
    finds(stage, &["kind!=committed"], &["active", "view"])
}

pub(super) fn parents(stage: &Stage) -> Result<()> {
    family(stage)?;
    finds(stage, &["parent==@layer"], &["active", "upper", "view"])?;
    finds(stage, &["parent==\"\""], &["layer"])?;
    finds(stage, &["parent!=\"\""], &["active", "upper", "view"])?;
    finds(stage, &["parent==@upper"], &[])
}

pub(super) fn values_are_quoted(stage: &Stage) -> Result<()> {
    family(stage)?;
    finds(stage, &["name==\"@layer\""], &["layer"])?;
    let key = stage.name("key");
    let value = "one, two == \"three\" \\ four";
    stage.prepare_with(&key, "", &labels(&[("said", value)]))?;
    finds(
        stage,
        &["labels.said==\"one, two == \\\"three\\\" \\\\ four\""],
        &["key"],
    )?;
    finds(stage, &["labels.said==\"one, two\""], &[])
}

pub(super) fn labels_are_found(stage: &Stage) -> Result<()> {
    let chain = format!("sha256:{}", "0a".repeat(32));
    let reference = "containerd.io/snapshot.ref";
    let family = [
        ("both", labels(&[(reference, &chain), ("plain", "1")])),
        ("plain", labels(&[("plain", "2")])),
        ("none", labels(&[])),
    ];
    for (name, labels) in family {
        stage.prepare_with(&stage.name(name), "", &labels)?;
    }
    let quoted = format!("labels.\"{reference}\"");
    finds(stage, &[&format!("{quoted}=={chain}")], &["both"])?;
    // As containerd asks after a lazy layer.
    let asked = format!("{quoted}=={chain},parent==\"\"");
    finds(stage, &[&asked], &["both"])?;
    let asked = format!("{quoted}=={chain},parent==\"somebody\"");
    finds(stage, &[&asked], &[])?;
    finds(stage, &[&quoted], &["both"])?;
    finds(stage, &["labels.plain"], &["both", "plain"])?;
    finds(stage, &["labels.plain==2"], &["plain"])?;
    finds(stage, &["labels.plain!=2"], &["both", "none"])?;
    finds(stage, &["labels.plain~=\"^1\""], &["both"])?;
    finds(stage, &["labels.\"never.there\""], &[])
}

pub(super) fn several_are_any_and_a_comma_is_all(stage: &Stage) -> Result<()> {
    family(stage)?;
    finds(
        stage,
        &["kind==active", "name==@layer"],
        &["active", "layer"],
    )?;
    finds(stage, &["kind==committed,parent==@layer"], &["upper"])?;
    finds(stage, &["kind==active,name==@layer"], &[])?;
    finds(
        stage,
        &[
            "kind==committed,parent==@layer",
            "kind==view,parent==@layer",
        ],
        &["upper", "view"],
    )
}

pub(super) fn nonsense_is_refused(stage: &Stage) -> Result<()> {
    for nonsense in ["name==\"open", "==", "name==a,", "name=a"] {
        match stage.client.list(&[nonsense.to_owned()]) {
            Ok(listed) => anyhow::bail!("{nonsense} is a filter, which finds {listed:?}"),
            // Containerd 1.6 says so in words, and in its code that it knows no code for that.
            Err(status) => {
                let code = status.code();
                let refused = matches!(code, Code::InvalidArgument | Code::Unknown);
                ensure!(refused, "{nonsense} is {code:?}, should be InvalidArgument");
            }
        }
    }
    Ok(())
}
