//! Whether an answer means the same as the recorded one.

use std::collections::BTreeSet;
use std::fmt;

use draught_containerd::snapshots::Info;
use draught_containerd::tonic::Code;
use draught_containerd::types::Mount;

use super::relations::Relations;
use super::trace::{Answer, Call, Line};
use crate::snapshots::{Labels, Shape};

/// Says that a snapshot is lazy; what it says is not the same with all.
const REMOTE: &str = "containerd.io/snapshot/remote";

/// Says by which chain of layers a lazy snapshot is looked for.
const REF: &str = "containerd.io/snapshot.ref";

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub enum Got {
    /// It is done.
    Done,
    /// How it is mounted.
    Mounts(Vec<Mount>),
    /// What is known of it.
    Info(Box<Info>),
    /// What there is.
    Listed(Vec<Info>),
    /// What it takes.
    Usage {
        /// Bytes.
        size: i64,
        /// Inodes.
        inodes: i64,
    },
    /// It can't be: the code, and the words.
    Refused(Code, String),
}

/// An answer that means something else than the recorded one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The line of the trace.
    pub line: usize,
    /// The call.
    pub call: String,
    /// What was expected, and what came.
    pub words: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, {}: {}", self.line, self.call, self.words)
    }
}

/// In how far `got` means something else than the line says, in words.
pub(super) fn compare(
    line: &Line,
    got: &Got,
    relations: &mut Relations,
    own_labels: Option<&str>,
) -> Vec<String> {
    match (&line.answer, got) {
        (Answer::Refused(expected), Got::Refused(code, words)) => {
            let same = expected == code;
            let words = || format!("expected {expected:?}, came {code:?}: {words}");
            (!same).then(words).into_iter().collect()
        }
        (Answer::Refused(expected), other) => {
            vec![format!("expected {expected:?}, came {}", shown(other))]
        }
        (expected, Got::Refused(code, words)) => {
            vec![format!(
                "expected {}, came {code:?}: {words}",
                wanted(expected)
            )]
        }
        (Answer::Done, Got::Done) => Vec::new(),
        (Answer::Mounts(expected), Got::Mounts(got)) => mounts(expected, got, relations),
        (Answer::Info(expected), Got::Info(got)) => info(expected, got, relations, own_labels),
        (Answer::Listed(expected), Got::Listed(got)) => list(&line.call, *expected, got, relations),
        (Answer::Usage { .. }, Got::Usage { size, inodes }) => {
            let negative = *size < 0 || *inodes < 0;
            let words = || format!("expected a usage, came {size} bytes, {inodes} inodes");
            negative.then(words).into_iter().collect()
        }
        (expected, other) => {
            vec![format!(
                "expected {}, came {}",
                wanted(expected),
                shown(other)
            )]
        }
    }
}

fn wanted(answer: &Answer) -> String {
    match answer {
        Answer::Done => "success".to_owned(),
        Answer::Mounts(_) => "mounts".to_owned(),
        Answer::Info(_) => "an info".to_owned(),
        Answer::Listed(count) => format!("{count} snapshots"),
        Answer::Usage { .. } => "a usage".to_owned(),
        Answer::Refused(code) => format!("{code:?}"),
    }
}

fn shown(got: &Got) -> String {
    format!("{got:?}")
}

fn mounts(expected: &[Mount], got: &[Mount], relations: &mut Relations) -> Vec<String> {
    let expected = match Shape::of(expected) {
        Ok(shape) => shape,
        Err(error) => return vec![format!("the trace itself has mounts for nobody: {error:#}")],
    };
    let shape = match Shape::of(got) {
        Ok(shape) => shape,
        Err(error) => return vec![format!("expected {expected}, came {error:#}")],
    };
    if std::mem::discriminant(&expected) != std::mem::discriminant(&shape) {
        return vec![format!("expected {expected}, came {shape}: {got:?}")];
    }
    match (expected.writable(), shape.writable()) {
        (Some(there), Some(here)) if !relations.writable(there, here) => vec![format!(
            "what is written does not go where it went before, or goes where another snapshot's \
             goes: {}",
            here.display()
        )],
        _ => Vec::new(),
    }
}

fn info(
    expected: &Info,
    got: &Info,
    relations: &mut Relations,
    own_labels: Option<&str>,
) -> Vec<String> {
    let mut words = Vec::new();
    let mut check = |what: &str, expected: String, got: String| {
        if expected != got {
            words.push(format!("{what}: expected {expected:?}, came {got:?}"));
        }
    };
    check("name", relations.here(&expected.name), got.name.clone());
    check(
        "parent",
        relations.here(&expected.parent),
        got.parent.clone(),
    );
    let kind = |info: &Info| format!("{:?}", info.kind());
    check("kind", kind(expected), kind(got));
    let (expected_labels, got_labels) = (labels(expected), labels(got));
    let keys: BTreeSet<_> = expected_labels.keys().chain(got_labels.keys()).collect();
    for key in keys {
        let own = own_labels.is_some_and(|prefix| key.starts_with(prefix));
        if own && !expected_labels.contains_key(key) {
            continue;
        }
        let value = |labels: &Labels| {
            labels.get(key).map_or_else(
                || "nothing".to_owned(),
                |value| {
                    if key == REMOTE {
                        "something".to_owned()
                    } else {
                        value.clone()
                    }
                },
            )
        };
        check(
            &format!("label {key}"),
            value(&expected_labels),
            value(&got_labels),
        );
    }
    words.extend(relations.times(expected, got));
    words
}

/// Labels; one with an empty value is none.
fn labels(info: &Info) -> Labels {
    let all = info.labels.clone().into_iter();
    all.filter(|(_, value)| !value.is_empty()).collect()
}

fn list(call: &Call, expected: usize, got: &[Info], relations: &mut Relations) -> Vec<String> {
    let names: BTreeSet<&str> = got.iter().map(|info| info.name.as_str()).collect();
    let mut words = Vec::new();
    if names.len() != got.len() {
        words.push("a snapshot was listed more than once".to_owned());
    }
    let Call::List { filters } = call else {
        return words;
    };
    if filters.is_empty() {
        // What else there was on the recording machine is not known: all that the conversation made has to
        // be there.
        let missing: Vec<&str> = relations
            .all_here()
            .filter(|it| !names.contains(it))
            .collect();
        if !missing.is_empty() {
            words.push(format!("these are not listed: {missing:?}"));
        }
        return words;
    }
    if got.len() != expected {
        let came: Vec<&Info> = got.iter().collect();
        words.push(format!("expected {expected} snapshots, came {came:?}"));
        return words;
    }
    for info in got {
        for filter in filters {
            let reference = info.labels.get(REF).map_or("", String::as_str);
            let wanted = format!("labels.\"{REF}\"=={reference},parent==\"{}\"", info.parent);
            if *filter != wanted {
                words.push(format!("{filter} does not match {info:?}"));
            }
        }
        relations.list(&info.name);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::trace::Trace;
    use super::*;

    const LAZY: &str = "containerd-1.6-ctr-remote-rpull-and-run";

    /// The recorded answers, as if they came.
    fn as_recorded(line: &Line) -> Got {
        match &line.answer {
            Answer::Done => Got::Done,
            Answer::Mounts(mounts) => Got::Mounts(mounts.clone()),
            Answer::Info(info) => Got::Info(info.clone()),
            Answer::Usage { size, inodes } => Got::Usage {
                size: *size,
                inodes: *inodes,
            },
            Answer::Refused(code) => Got::Refused(*code, "as recorded".to_owned()),
            Answer::Listed(_) => Got::Listed(Vec::new()),
        }
    }

    /// Compares one line after nothing else was said.
    #[track_caller]
    fn words(trace: &str, number: usize, change: impl FnOnce(&mut Got)) -> Vec<String> {
        let trace = Trace::named(trace);
        let line = &trace.lines[number - 1];
        let mut got = as_recorded(line);
        change(&mut got);
        compare(line, &got, &mut Relations::new(), Some("draught."))
    }

    #[track_caller]
    fn one(words: &[String], part: &str) {
        assert!(
            words.len() == 1 && words[0].contains(part),
            "{part} is not what {words:?} says"
        );
    }

    fn change_info(change: impl FnOnce(&mut Info)) -> impl FnOnce(&mut Got) {
        |got| match got {
            Got::Info(info) => change(info),
            other => panic!("{other:?}"),
        }
    }

    fn change_mount(change: impl FnOnce(&mut Mount)) -> impl FnOnce(&mut Got) {
        |got| match got {
            Got::Mounts(mounts) => change(&mut mounts[0]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_recorded_is_the_same_as_itself() {
        for number in [1, 3, 6, 13, 14, 18, 19] {
            assert_eq!(words(LAZY, number, |_| {}), [""; 0], "line {number}");
        }
    }

    #[test]
    fn another_code_is_found_and_success_instead_of_it() {
        let got = words(LAZY, 1, |got| {
            *got = Got::Refused(Code::NotFound, "no".to_owned());
        });
        one(&got, "expected AlreadyExists, came NotFound: no");
        let mounts = || Got::Mounts(Vec::new());
        one(&words(LAZY, 1, |got| *got = mounts()), "came Mounts");
        let refused = Got::Refused(Code::Unavailable, "gone".to_owned());
        one(
            &words(LAZY, 18, |got| *got = refused.clone()),
            "expected success, came Unavailable: gone",
        );
        one(
            &words(LAZY, 14, |got| *got = refused),
            "expected mounts, came Unavailable",
        );
        one(&words(LAZY, 3, |got| *got = mounts()), "expected an info");
    }

    #[test]
    fn every_field_of_an_info_counts() {
        use draught_containerd::snapshots::Kind;
        let changed = |change: fn(&mut Info)| words(LAZY, 6, change_info(change));
        one(&changed(|info| info.name.push('x')), "name: expected");
        one(&changed(|info| info.parent.clear()), "parent: expected");
        one(
            &changed(|info| info.kind = Kind::Active.into()),
            "kind: expected \"Committed\", came \"Active\"",
        );
        one(
            &changed(|info| drop(info.labels.remove(REMOTE))),
            "remote: expected \"something\", came \"nothing\"",
        );
        let digest = "containerd.io/snapshot/remote/stargz.digest";
        let other = |info: &mut Info| {
            info.labels.insert(
                "containerd.io/snapshot/remote/stargz.digest".to_owned(),
                "sha256:0".to_owned(),
            );
        };
        one(&changed(other), digest);
        let more = |info: &mut Info| {
            info.labels.insert("more".to_owned(), "1".to_owned());
        };
        one(
            &changed(more),
            "label more: expected \"nothing\", came \"1\"",
        );
        one(&changed(|info| info.updated_at = None), "a time is missing");
        one(
            &changed(|info| info.updated_at.as_mut().unwrap().seconds -= 1),
            "before it was made",
        );
        // Not another thing: what is its own, what is empty, how laziness is said.
        let same = |info: &mut Info| {
            info.labels.insert("draught.x".to_owned(), "1".to_owned());
            info.labels.insert("empty".to_owned(), String::new());
            info.labels.insert(REMOTE.to_owned(), "true".to_owned());
        };
        assert_eq!(changed(same), [""; 0]);
    }

    #[test]
    fn mounts_of_another_shape_are_found_and_other_lower_directories_are_none() {
        let changed = |change: fn(&mut Mount)| words(LAZY, 14, change_mount(change));
        let fewer = |mount: &mut Mount| mount.options[2] = "lowerdir=/a".to_owned();
        assert_eq!(changed(fewer), [""; 0]);
        one(
            &changed(|mount| drop(mount.options.drain(..2))),
            "expected an overlay to write into, came a tree to read only",
        );
        one(&changed(|mount| drop(mount.options.remove(0))), "missing");
        one(
            &changed(|mount| mount.options[2] = "lowerdir=a".to_owned()),
            "not absolute",
        );
        one(
            &changed(|mount| mount.r#type = "erofs".to_owned()),
            "not for everybody",
        );
        let bind = |mount: &mut Mount| {
            mount.r#type = "bind".to_owned();
            mount.source = "/a".to_owned();
            mount.options = vec!["rw".to_owned(), "rbind".to_owned()];
        };
        one(&changed(bind), "came a directory to write into");
        let none = |got: &mut Got| *got = Got::Mounts(Vec::new());
        one(&words(LAZY, 14, none), "0 mounts instead of one");
        // A view of several layers may be one tree that is bound.
        let view = words(
            "buildkit-0.32-other-name-no-labels",
            27,
            change_mount(|mount| {
                mount.r#type = "bind".to_owned();
                mount.source = "/a".to_owned();
                mount.options = vec!["ro".to_owned(), "rbind".to_owned()];
            }),
        );
        assert_eq!(view, [""; 0]);
    }

    #[test]
    fn where_is_written_to_stays_and_is_nobody_elses() {
        let trace = Trace::named("buildkit-0.32-other-name-no-labels");
        let mut relations = Relations::new();
        let mut say = |number: usize, upper: &str| {
            let line = &trace.lines[number - 1];
            let mut got = as_recorded(line);
            change_mount(|mount| upper.clone_into(&mut mount.source))(&mut got);
            compare(line, &got, &mut relations, None)
        };
        assert_eq!(say(1, "/mine/1"), [""; 0]);
        assert_eq!(say(2, "/mine/1"), [""; 0]);
        one(&say(3, "/mine/other"), "does not go where it went before");
        one(&say(4, "/mine/1"), "where another snapshot's goes");
    }

    fn listed(infos: Vec<Info>) -> impl FnOnce(&mut Got) {
        |got| *got = Got::Listed(infos)
    }

    /// What line 2 of the lazy pull lists.
    fn lazy_info() -> Info {
        match &Trace::named(LAZY).lines[2].answer {
            Answer::Info(info) => Info::clone(info),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_list_that_lacks_one_or_has_another_is_found() {
        assert_eq!(words(LAZY, 2, listed(vec![lazy_info()])), [""; 0]);
        one(&words(LAZY, 2, listed(vec![])), "expected 1 snapshots");
        let twice = listed(vec![lazy_info(), lazy_info()]);
        assert_eq!(words(LAZY, 2, twice).len(), 2);
        let mut other = lazy_info();
        other.parent = "somebody".to_owned();
        one(&words(LAZY, 2, listed(vec![other])), "does not match");
        let mut other = lazy_info();
        other.labels.remove(REF);
        one(&words(LAZY, 2, listed(vec![other])), "does not match");
    }

    #[test]
    fn a_list_of_everything_has_everything_that_was_made() {
        let trace = Trace::named(LAZY);
        let line = &trace.lines[16];
        let mut relations = Relations::new();
        assert!(relations.name("default/14/t3"));
        let mut info = lazy_info();
        info.name = "default/14/t3".to_owned();
        let got = Got::Listed(vec![info, lazy_info()]);
        assert_eq!(compare(line, &got, &mut relations, None), [""; 0]);
        let got = Got::Listed(vec![lazy_info()]);
        one(
            &compare(line, &got, &mut relations, None),
            "not listed: [\"default/14/t3\"]",
        );
    }

    #[test]
    fn names_that_a_snapshotter_makes_up_are_matched_by_their_relations() {
        let trace = Trace::named(LAZY);
        let mut relations = Relations::new();
        let own_name = |name: &str, parent: &str, number: usize| {
            let Answer::Info(info) = &trace.lines[number - 1].answer else {
                panic!("{number}");
            };
            let (name, parent) = (name.to_owned(), parent.to_owned());
            Info {
                name,
                parent,
                ..Info::clone(info)
            }
        };
        let say = |relations: &mut Relations, number: usize, got: Got| {
            compare(&trace.lines[number - 1], &got, relations, None)
        };
        let info = |info: Info| Got::Info(Box::new(info));
        let first = own_name("mine-1", "", 3);
        let listed = Got::Listed(vec![first.clone()]);
        assert_eq!(say(&mut relations, 2, listed), [""; 0]);
        assert_eq!(say(&mut relations, 3, info(first.clone())), [""; 0]);
        // The same name is expected from now on, also as a parent.
        let mut other = first;
        other.name = "mine-2".to_owned();
        one(
            &say(&mut relations, 3, info(other)),
            "name: expected \"mine-1\"",
        );
        relations.list("mine-2");
        let wrong = own_name("mine-2", "", 6);
        one(
            &say(&mut relations, 6, info(wrong)),
            "parent: expected \"mine-1\"",
        );
        let right = own_name("mine-2", "mine-1", 6);
        assert_eq!(say(&mut relations, 6, info(right)), [""; 0]);
    }

    #[test]
    fn times_move_when_they_moved_and_only_then() {
        let trace = Trace::named("buildkit-0.32-stargz-name-lazy-esgz");
        // Line 18 asks after the last layer, 19 updates it, 23 asks again.
        let say = |updated: [i32; 3]| {
            let mut relations = Relations::new();
            let mut words = Vec::new();
            for (number, nanos) in [18, 19, 23].into_iter().zip(updated) {
                let line = &trace.lines[number - 1];
                let mut got = as_recorded(line);
                change_info(|info| {
                    let created = info.created_at.unwrap();
                    let mut updated = created;
                    updated.nanos = created.nanos + nanos;
                    info.updated_at = Some(updated);
                })(&mut got);
                words.extend(compare(line, &got, &mut relations, None));
            }
            words
        };
        assert_eq!(say([0, 1, 1]), [""; 0]);
        one(&say([0, 0, 0]), "should be later than before");
        one(&say([0, 1, 2]), "should be as before");
    }

    #[test]
    fn a_negative_usage_is_none() {
        let got = words("buildkit-0.32-stargz-name-lazy-esgz", 115, |got| {
            *got = Got::Usage {
                size: -1,
                inodes: 1,
            };
        });
        one(&got, "came -1 bytes");
    }
}
