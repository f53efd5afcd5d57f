//! Many callers at once.

use std::sync::Barrier;

use anyhow::{Context as _, Result, ensure};
use draught_containerd::snapshots::Kind;
use draught_containerd::tonic::{Code, Status};

use super::stage::{Stage, equal, none};
use crate::snapshots::Snapshots;

/// Callers.
const CALLERS: usize = 16;

/// What every caller makes.
const EACH: usize = 8;

/// Calls from many threads at the same moment; each has its own connection.
fn at_once<T: Send>(
    stage: &Stage,
    call: impl Fn(&Snapshots, usize) -> Result<T, Status> + Sync,
) -> Result<Vec<Result<T, Status>>> {
    let target = stage.client.target().clone();
    let clients: Result<Vec<Snapshots>> =
        (0..CALLERS).map(|_| Snapshots::connect(&target)).collect();
    let (clients, barrier) = (clients?, Barrier::new(CALLERS));
    Ok(std::thread::scope(|scope| {
        let callers: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(number, client)| {
                let (barrier, call) = (&barrier, &call);
                scope.spawn(move || {
                    barrier.wait();
                    call(client, number)
                })
            })
            .collect();
        callers.into_iter().map(|it| it.join().unwrap()).collect()
    }))
}

/// Fails unless one won and all others were told that it exists.
fn one_won<T>(what: &str, answers: &[Result<T, Status>]) -> Result<()> {
    let winners = answers.iter().filter(|answer| answer.is_ok()).count();
    equal(&format!("how many got {what}"), winners, 1)?;
    for answer in answers {
        if let Err(status) = answer {
            ensure!(
                status.code() == Code::AlreadyExists,
                "another who wanted {what} was told {status}"
            );
        }
    }
    Ok(())
}

pub(super) fn one_of_many_gets_a_key(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    for parent in ["", &layer] {
        let key = stage.name(&format!("key{}", parent.len()));
        stage.made(&key);
        let answers = at_once(stage, |client, _| client.prepare(&key, parent, &none()))?;
        one_won("the key", &answers)?;
        stage.is(&key, parent, Kind::Active)?;
    }
    Ok(())
}

pub(super) fn one_of_many_gets_a_name(stage: &Stage) -> Result<()> {
    let key = |number: usize| stage.name(&format!("key-{number}"));
    for number in 0..CALLERS {
        stage.prepare(&key(number), "")?;
    }
    let keys: Vec<String> = (0..CALLERS).map(key).collect();
    let name = stage.name("layer");
    stage.made(&name);
    let answers = at_once(stage, |client, number| {
        client.commit(&name, &keys[number], &none(), "")
    })?;
    one_won("the name", &answers)?;
    stage.is(&name, "", Kind::Committed)?;
    // All others are as they were.
    equal("what is left", stage.listed(&[])?.len(), CALLERS)
}

pub(super) fn many_work_at_once(stage: &Stage) -> Result<()> {
    let layer = stage.empty("layer", "")?;
    let name =
        |number: usize, each: usize, what: &str| stage.name(&format!("{what}-{number}-{each}"));
    let names: Vec<Vec<[String; 3]>> = (0..CALLERS)
        .map(|number| {
            let each = (0..EACH).map(|each| {
                ["key", "layer", "child"].map(|what| {
                    let name = name(number, each, what);
                    stage.made(&name);
                    name
                })
            });
            each.collect()
        })
        .collect();
    let answers = at_once(stage, |client, number| {
        for [key, committed, child] in &names[number] {
            client.prepare(key, &layer, &none())?;
            client.stat(key)?;
            client.mounts(key)?;
            client.commit(committed, key, &none(), "")?;
            client.prepare(child, committed, &none())?;
            client.usage(child)?;
            client.list(&[format!("parent=={committed}")])?;
            client.remove(child)?;
        }
        Ok(())
    })?;
    for answer in answers {
        answer.context("one of many failed")?;
    }
    equal("what is left", stage.listed(&[])?.len(), CALLERS * EACH + 1)?;
    for [_, committed, _] in names.iter().flatten() {
        stage.is(committed, &layer, Kind::Committed)?;
    }
    Ok(())
}
