//! From `Prepare` to `Remove`.

use anyhow::{Context as _, Result, ensure};
use draught_containerd::snapshots::Kind;
use draught_containerd::tonic::Code;

use super::stage::{Stage, equal, none, refused};
use crate::snapshots::Shape;

pub(super) fn a_snapshot_is_prepared_committed_and_removed(stage: &Stage) -> Result<()> {
    let (key, name) = (stage.name("key"), stage.name("layer"));
    let mounts = stage.prepare(&key, "")?;
    ensure!(
        matches!(Shape::of(&mounts)?, Shape::Directory { .. }),
        "{mounts:?} is no directory to write into"
    );
    stage.within(&mounts, |dir| Ok(fs_err::write(dir.join("file"), b"1")?))?;
    stage.commit(&name, &key)?;
    refused("the key", stage.client.stat(&key), Code::NotFound)?;
    stage.is(&name, "", Kind::Committed)?;
    let child = stage.name("child");
    let mounts = stage.prepare(&child, &name)?;
    ensure!(
        matches!(Shape::of(&mounts)?, Shape::Overlay { .. }),
        "{mounts:?} is no overlay to write into"
    );
    let content = stage.within(&mounts, |dir| Ok(fs_err::read(dir.join("file"))?))?;
    equal("what was written", &content[..], b"1")?;
    stage.client.remove(&child).context("remove the child")?;
    stage.client.remove(&name).context("remove the layer")?;
    refused("the layer", stage.client.stat(&name), Code::NotFound)
}

pub(super) fn kinds_are_told(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    let (active, view) = (stage.name("active"), stage.name("view"));
    stage.prepare(&active, &layer)?;
    stage.view(&view, &layer)?;
    stage.is(&layer, "", Kind::Committed)?;
    stage.is(&active, &layer, Kind::Active)?;
    stage.is(&view, &layer, Kind::View)?;
    let upper = stage.name("upper");
    stage.commit(&upper, &active)?;
    stage.is(&upper, &layer, Kind::Committed).map(drop)
}

pub(super) fn a_view_is_of_a_committed_snapshot_and_can_not_be_written_to(
    stage: &Stage,
) -> Result<()> {
    let mut parent = String::new();
    for layer in ["first", "second"] {
        parent = stage.layer(layer, &parent, |dir| {
            Ok(fs_err::write(dir.join(layer), b"x")?)
        })?;
        let view = stage.name(&format!("view-{layer}"));
        let mounts = stage.view(&view, &parent)?;
        let shape = Shape::of(&mounts)?;
        equal("the view", &shape, &Shape::ReadOnly)?;
        stage.within(&mounts, |dir| {
            ensure!(dir.join(layer).exists(), "{layer} is not in it");
            let written = fs_err::write(dir.join("new"), b"");
            ensure!(written.is_err(), "a file can be made in a view");
            let written = fs_err::write(dir.join(layer), b"");
            ensure!(written.is_err(), "a file can be changed in a view");
            Ok(())
        })?;
    }
    let active = stage.name("active");
    stage.prepare(&active, &parent)?;
    let view = stage.client.view(&stage.name("wrong"), &active, &none());
    refused("a view of what is written", view, Code::InvalidArgument)
}

pub(super) fn a_view_without_a_parent_is_empty(stage: &Stage) -> Result<()> {
    let view = stage.name("view");
    let mounts = stage.view(&view, "")?;
    equal("the view", &Shape::of(&mounts)?, &Shape::ReadOnly)?;
    let names = stage.within(&mounts, |dir| Ok(fs_err::read_dir(dir)?.count()))?;
    equal("the number of names in it", names, 0)?;
    stage.is(&view, "", Kind::View).map(drop)
}

pub(super) fn mounts_stay_the_same(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    for parent in ["", &layer] {
        let (active, view) = (
            stage.name(&format!("active{parent}")),
            stage.name(&format!("view{parent}")),
        );
        let prepared = stage.prepare(&active, parent)?;
        let viewed = stage.view(&view, parent)?;
        for _ in 0..2 {
            let again = stage.client.mounts(&active).context("mounts")?;
            equal("mounts of the active one", &again, &prepared)?;
            let again = stage.client.mounts(&view).context("mounts")?;
            equal("mounts of the view", &again, &viewed)?;
        }
    }
    Ok(())
}

pub(super) fn names_are_free_again_after_removal(stage: &Stage) -> Result<()> {
    let layer = stage.layer("layer", "", |dir| Ok(fs_err::write(dir.join("old"), b"")?))?;
    stage.client.remove(&layer).context("remove")?;
    stage.layer("layer", "", |dir| {
        ensure!(!dir.join("old").exists(), "it has what was removed");
        Ok(())
    })?;
    let key = stage.name("active");
    for _ in 0..2 {
        let mounts = stage.prepare(&key, &layer)?;
        stage.within(&mounts, |dir| {
            let old = dir.join("old");
            ensure!(!old.exists(), "it has what was removed");
            Ok(fs_err::write(old, b"")?)
        })?;
        stage.client.remove(&key).context("remove the active one")?;
    }
    Ok(())
}

pub(super) fn a_key_is_free_again_after_its_commit(stage: &Stage) -> Result<()> {
    let key = stage.name("key");
    for name in ["one", "two"] {
        let mounts = stage.prepare(&key, "")?;
        stage.within(&mounts, |dir| {
            ensure!(!dir.join("file").exists(), "it has what was committed");
            Ok(fs_err::write(dir.join("file"), b"")?)
        })?;
        stage.commit(&stage.name(name), &key)?;
    }
    Ok(())
}

pub(super) fn cleanup_leaves_what_is_there(stage: &Stage) -> Result<()> {
    let layer = stage.layer("layer", "", |dir| {
        Ok(fs_err::write(dir.join("file"), b"1")?)
    })?;
    let active = stage.name("active");
    let mounts = stage.prepare(&active, &layer)?;
    stage.within(&mounts, |dir| Ok(fs_err::write(dir.join("own"), b"2")?))?;
    match stage.client.cleanup() {
        // Containerd before 2.0 has no such call for its own.
        Err(status) if status.code() == Code::Unimplemented => {}
        other => other.context("cleanup")?,
    }
    stage.is(&layer, "", Kind::Committed)?;
    let mounts = stage.client.mounts(&active).context("mounts")?;
    stage.within(&mounts, |dir| {
        equal("the file", &fs_err::read(dir.join("file"))?[..], b"1")?;
        equal("its own", &fs_err::read(dir.join("own"))?[..], b"2")
    })
}

pub(super) fn everything_is_listed(stage: &Stage) -> Result<()> {
    let mut expected = Vec::new();
    let layer = stage.empty("layer", "")?;
    for number in 0..7 {
        let (active, view) = (
            stage.name(&format!("active-{number}")),
            stage.name(&format!("view-{number}")),
        );
        stage.prepare(&active, &layer)?;
        stage.view(&view, &layer)?;
        expected.extend([active, view]);
    }
    expected.push(layer);
    expected.sort();
    equal("the list", &stage.listed(&[])?, &expected)?;
    // What is listed says what a question after it says.
    let all = stage.client.list(&[]).context("list")?;
    let own = all.iter().filter(|it| it.name.starts_with(stage.prefix()));
    for info in own {
        equal("the listed one", info, &stage.stat(&info.name)?)?;
    }
    Ok(())
}

pub(super) fn a_parent_may_come_at_the_commit(stage: &Stage) -> Result<()> {
    let keys = ["one", "two", "three"].map(|name| (name, stage.name(&format!("{name}-key"))));
    // All at once, as layers are unpacked in parallel.
    for (name, key) in &keys {
        let mounts = stage.prepare(key, "")?;
        stage.within(&mounts, |dir| {
            fs_err::write(dir.join("last"), name)?;
            Ok(fs_err::write(dir.join(name), name)?)
        })?;
    }
    let mut parent = String::new();
    for (name, key) in &keys {
        let committed = stage.name(name);
        let done = stage.client.commit(&committed, key, &none(), &parent);
        done.with_context(|| format!("commit {key} on {parent:?}"))?;
        stage.made(&committed);
        stage.is(&committed, &parent, Kind::Committed)?;
        parent = committed;
    }
    let mounts = stage.view(&stage.name("view"), &parent)?;
    stage.within(&mounts, |dir| {
        for (name, _) in &keys {
            equal(
                "a layer's file",
                fs_err::read_to_string(dir.join(name))?.as_str(),
                *name,
            )?;
        }
        equal(
            "the last",
            fs_err::read_to_string(dir.join("last"))?.as_str(),
            "three",
        )
    })
}
