//! What can't be done, and how that is said.

use anyhow::Result;
use draught_containerd::snapshots::{Info, Kind};
use draught_containerd::tonic::Code;

use super::stage::{Stage, none, refused};

pub(super) fn a_parent_must_exist(stage: &Stage) -> Result<()> {
    let (key, parent) = (stage.name("key"), stage.name("nobody"));
    let prepared = stage.client.prepare(&key, &parent, &none());
    refused("a snapshot of nobody", prepared, Code::NotFound)?;
    let viewed = stage.client.view(&key, &parent, &none());
    refused("a view of nobody", viewed, Code::NotFound)?;
    refused("what was refused", stage.client.stat(&key), Code::NotFound)
}

pub(super) fn a_parent_must_be_committed(stage: &Stage) -> Result<()> {
    let (layer, active, view) = (
        stage.empty("layer", "")?,
        stage.name("active"),
        stage.name("view"),
    );
    stage.prepare(&active, &layer)?;
    stage.view(&view, &layer)?;
    for parent in [&active, &view] {
        let key = stage.name("key");
        let prepared = stage.client.prepare(&key, parent, &none());
        refused(
            &format!("a snapshot on {parent}"),
            prepared,
            Code::InvalidArgument,
        )?;
        let viewed = stage.client.view(&key, parent, &none());
        refused(
            &format!("a view of {parent}"),
            viewed,
            Code::InvalidArgument,
        )?;
        refused("what was refused", stage.client.stat(&key), Code::NotFound)?;
    }
    Ok(())
}

pub(super) fn a_key_is_given_once(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    let (active, view) = (stage.name("active"), stage.name("view"));
    stage.prepare(&active, &layer)?;
    stage.view(&view, &layer)?;
    for key in [&active, &view, &layer] {
        let prepared = stage.client.prepare(key, "", &none());
        refused(&format!("{key} again"), prepared, Code::AlreadyExists)?;
        let viewed = stage.client.view(key, &layer, &none());
        refused(&format!("a view {key}"), viewed, Code::AlreadyExists)?;
    }
    Ok(())
}

pub(super) fn a_name_is_given_once(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    let (key, other) = (stage.name("key"), stage.name("other"));
    stage.prepare(&key, "")?;
    stage.prepare(&other, "")?;
    for name in [&layer, &other] {
        let committed = stage.client.commit(name, &key, &none(), "");
        refused(&format!("{name} again"), committed, Code::AlreadyExists)?;
    }
    // It is as it was, and can be committed.
    stage.commit(&stage.name("new"), &key)
}

pub(super) fn only_active_snapshots_are_committed(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    let (view, name) = (stage.name("view"), stage.name("name"));
    stage.view(&view, &layer)?;
    let committed = stage.client.commit(&name, &view, &none(), "");
    refused("a commit of a view", committed, Code::FailedPrecondition)?;
    let committed = stage.client.commit(&name, &layer, &none(), "");
    refused(
        "a commit of what is committed",
        committed,
        Code::FailedPrecondition,
    )?;
    let nobody = stage.name("nobody");
    let committed = stage.client.commit(&name, &nobody, &none(), "");
    refused("a commit of nobody", committed, Code::NotFound)?;
    let key = stage.name("layer-key");
    let committed = stage.client.commit(&name, &key, &none(), "");
    refused("a second commit of a key", committed, Code::NotFound)?;
    refused("what was refused", stage.client.stat(&name), Code::NotFound)
}

pub(super) fn what_is_unknown_is_not_found(stage: &Stage) -> Result<()> {
    let (client, nobody) = (&stage.client, stage.name("nobody"));
    refused("stat", client.stat(&nobody), Code::NotFound)?;
    refused("mounts", client.mounts(&nobody), Code::NotFound)?;
    refused("usage", client.usage(&nobody), Code::NotFound)?;
    refused("remove", client.remove(&nobody), Code::NotFound)?;
    let info = Info {
        name: nobody,
        ..Info::default()
    };
    refused("update", client.update(info, &[]), Code::NotFound)
}

pub(super) fn what_is_committed_is_not_mounted(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    let mounts = stage.client.mounts(&layer);
    refused("mounts of a layer", mounts, Code::FailedPrecondition)
}

pub(super) fn a_snapshot_with_children_stays(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    let upper = stage.empty("upper", &layer)?;
    let (active, view) = (stage.name("active"), stage.name("view"));
    let remove = |name: &str, child: &str| {
        let removed = stage.client.remove(name);
        refused(
            &format!("removing what has {child}"),
            removed,
            Code::FailedPrecondition,
        )
    };
    remove(&layer, "a layer")?;
    stage.prepare(&active, &upper)?;
    remove(&upper, "an active snapshot")?;
    stage.client.remove(&active)?;
    stage.view(&view, &upper)?;
    remove(&upper, "a view")?;
    stage.client.remove(&view)?;
    stage.client.remove(&upper)?;
    stage.client.remove(&layer)?;
    Ok(())
}

pub(super) fn a_parent_that_comes_late_must_be_committed(stage: &Stage) -> Result<()> {
    let (key, active, name) = (stage.name("key"), stage.name("active"), stage.name("name"));
    stage.prepare(&key, "")?;
    stage.prepare(&active, "")?;
    let committed = stage
        .client
        .commit(&name, &key, &none(), &stage.name("nobody"));
    refused("a late parent that is nobody", committed, Code::NotFound)?;
    let committed = stage.client.commit(&name, &key, &none(), &active);
    refused(
        "a late parent that is written to",
        committed,
        Code::FailedPrecondition,
    )?;
    stage.commit(&name, &key)
}

pub(super) fn a_parent_is_not_changed_by_the_commit(stage: &Stage) -> Result<()> {
    let (layer, other) = (stage.empty("layer", "")?, stage.empty("other", "")?);
    let (key, name) = (stage.name("key"), stage.name("name"));
    stage.prepare(&key, &layer)?;
    let committed = stage.client.commit(&name, &key, &none(), &other);
    refused("another parent", committed, Code::InvalidArgument)?;
    // To say the same again is to say nothing new.
    stage.client.commit(&name, &key, &none(), &layer)?;
    stage.made(&name);
    stage.is(&name, &layer, Kind::Committed).map(drop)
}
