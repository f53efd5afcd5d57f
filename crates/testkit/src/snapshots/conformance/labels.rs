//! Labels, and changing them.

use anyhow::{Context as _, Result, ensure};
use draught_containerd::snapshots::{Info, Kind};
use draught_containerd::tonic::Code;

use super::stage::{Stage, equal, labels, labels_of, none};
use crate::snapshots::Labels;

/// Keys as clients have them: with dots, slashes, capitals.
const DOTTED: &str = "containerd.io/snapshot/some.thing.else";

fn update(stage: &Stage, name: &str, to: &[(&str, &str)], mask: &[&str]) -> Result<Info> {
    let info = Info {
        name: name.to_owned(),
        labels: labels(to).into_iter().collect(),
        ..Info::default()
    };
    let mask: Vec<String> = mask.iter().map(|it| (*it).to_owned()).collect();
    let updated = stage.client.update(info, &mask);
    let updated = updated.with_context(|| format!("failed to update {mask:?}"))?;
    let stat = stage.stat(name)?;
    equal(
        "what the update answers",
        &labels_of(&updated),
        &labels_of(&stat),
    )?;
    equal("what the update answers", &updated.name, &stat.name)?;
    equal("what the update answers", &updated.parent, &stat.parent)?;
    equal("what the update answers", updated.kind(), stat.kind())?;
    Ok(stat)
}

fn has(info: &Info, expected: &Labels) -> Result<()> {
    equal("labels", &labels_of(info), expected)
}

/// A layer with labels.
fn labelled(stage: &Stage, name: &str, with: &Labels) -> Result<String> {
    let (key, name) = (stage.name(&format!("{name}-key")), stage.name(name));
    stage.prepare(&key, "")?;
    let committed = stage.client.commit(&name, &key, with, "");
    committed.context("failed to commit with labels")?;
    stage.made(&name);
    Ok(name)
}

pub(super) fn labels_come_back(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    let long = "v".repeat(3000);
    let some = labels(&[("a", "1"), (DOTTED, "2 = \"3\", ü"), ("long", &long)]);
    let (active, view) = (stage.name("active"), stage.name("view"));
    stage.prepare_with(&active, &layer, &some)?;
    let viewed = stage.client.view(&view, &layer, &some);
    viewed.context("failed to view with labels")?;
    stage.made(&view);
    has(&stage.stat(&active)?, &some)?;
    has(&stage.stat(&view)?, &some)?;
    has(&stage.stat(&layer)?, &none())
}

pub(super) fn labels_of_the_commit_are_those_of_the_layer(stage: &Stage) -> Result<()> {
    let (key, name) = (stage.name("key"), stage.name("layer"));
    stage.prepare_with(&key, "", &labels(&[("prepared", "1"), ("both", "1")]))?;
    let committed = labels(&[("committed", "2"), ("both", "2")]);
    let done = stage.client.commit(&name, &key, &committed, "");
    done.context("failed to commit with labels")?;
    stage.made(&name);
    has(&stage.stat(&name)?, &committed)
}

pub(super) fn an_empty_label_is_none(stage: &Stage) -> Result<()> {
    let key = stage.name("key");
    stage.prepare_with(&key, "", &labels(&[("empty", ""), ("full", "1")]))?;
    has(&stage.stat(&key)?, &labels(&[("full", "1")]))
}

pub(super) fn all_labels_are_replaced(stage: &Stage) -> Result<()> {
    let layer = labelled(stage, "layer", &labels(&[("a", "1"), ("b", "2")]))?;
    let info = update(stage, &layer, &[("b", "3"), (DOTTED, "4")], &[])?;
    has(&info, &labels(&[("b", "3"), (DOTTED, "4")]))?;
    let info = update(stage, &layer, &[("c", "5")], &["labels"])?;
    has(&info, &labels(&[("c", "5")]))?;
    has(&update(stage, &layer, &[], &[])?, &none())
}

pub(super) fn one_label_is_changed_by_its_mask(stage: &Stage) -> Result<()> {
    let layer = labelled(stage, "layer", &labels(&[("a", "1"), (DOTTED, "2")]))?;
    let mask = format!("labels.{DOTTED}");
    // What the mask does not name is not looked at.
    let info = update(stage, &layer, &[("a", "9"), (DOTTED, "3")], &[&mask])?;
    has(&info, &labels(&[("a", "1"), (DOTTED, "3")]))?;
    let new = [("x.1", "4"), ("x.2", "5"), ("x.3", "6")];
    let info = update(stage, &layer, &new, &["labels.x.1", "labels.x.3"])?;
    has(
        &info,
        &labels(&[("a", "1"), (DOTTED, "3"), ("x.1", "4"), ("x.3", "6")]),
    )
}

pub(super) fn a_label_is_removed_by_its_mask(stage: &Stage) -> Result<()> {
    let some = labels(&[("a", "1"), ("b", "2"), ("c", "3"), (DOTTED, "4")]);
    let layer = labelled(stage, "layer", &some)?;
    // Blanked, as BuildKit does, and left out.
    let mask = format!("labels.{DOTTED}");
    let info = update(stage, &layer, &[(DOTTED, "")], &[&mask, "labels.b"])?;
    has(&info, &labels(&[("a", "1"), ("c", "3")]))?;
    let info = update(stage, &layer, &[], &["labels.never.there"])?;
    has(&info, &labels(&[("a", "1"), ("c", "3")]))
}

pub(super) fn labels_are_changed_in_every_state(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    let (active, view) = (stage.name("active"), stage.name("view"));
    stage.prepare(&active, &layer)?;
    stage.view(&view, &layer)?;
    for (name, kind) in [
        (&layer, Kind::Committed),
        (&active, Kind::Active),
        (&view, Kind::View),
    ] {
        let info = update(stage, name, &[("a", "1")], &["labels.a"])?;
        has(&info, &labels(&[("a", "1")]))?;
        equal("kind", info.kind(), kind)?;
    }
    Ok(())
}

pub(super) fn nothing_else_is_changed(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    let upper = stage.empty("upper", &layer)?;
    let before = stage.stat(&upper)?;
    let wrong = Info {
        name: upper.clone(),
        parent: stage.name("somebody"),
        kind: Kind::Active.into(),
        labels: labels(&[("a", "1")]).into_iter().collect(),
        ..Info::default()
    };
    // Without a mask only labels are taken.
    stage.client.update(wrong.clone(), &[]).context("update")?;
    let after = stage.is(&upper, &layer, Kind::Committed)?;
    has(&after, &labels(&[("a", "1")]))?;
    equal("created_at", after.created_at, before.created_at)?;
    for field in ["parent", "kind", "name", "created_at", "nonsense"] {
        match stage.client.update(wrong.clone(), &[field.to_owned()]) {
            Ok(_) => anyhow::bail!("{field} can be changed"),
            Err(status) => equal(field, status.code(), Code::InvalidArgument)?,
        }
        stage.is(&upper, &layer, Kind::Committed)?;
    }
    Ok(())
}

pub(super) fn times_move_with_updates(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    let made = stage.stat(&layer)?;
    let time = |time: Option<draught_containerd::prost_types::Timestamp>| {
        let time = time.context("a time is missing")?;
        anyhow::Ok((time.seconds, time.nanos))
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let now = i64::try_from(now.as_secs())?;
    let (created, _) = time(made.created_at)?;
    // The model of the checks has a clock of its own; nobody's is in the future.
    ensure!(
        created > 0 && created <= now + 1,
        "it was made at {created}, and now is {now}"
    );
    equal("stat again", &stage.stat(&layer)?, &made)?;
    let first = update(stage, &layer, &[("a", "1")], &[])?;
    ensure!(
        time(first.updated_at)? > time(made.updated_at)?,
        "an update leaves updated_at at {:?}",
        first.updated_at
    );
    let second = update(stage, &layer, &[("a", "2")], &["labels.a"])?;
    ensure!(
        time(second.updated_at)? > time(first.updated_at)?,
        "an update by mask leaves updated_at at {:?}",
        second.updated_at
    );
    equal("created_at", second.created_at, made.created_at)
}
