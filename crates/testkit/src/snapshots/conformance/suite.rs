//! The checks, and running them.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow};

use super::stage::Stage;
use super::{deep, files, filters, labels, life, parallel, refusals, usage};
use crate::snapshots::{Snapshots, Target};

/// What the snapshotter can besides what all can.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Parents may come at the commit (`rebase`, new in containerd 2.2).
    pub rebase: bool,
    /// Only checks whose name has this in it.
    pub only: Option<String>,
}

/// A check: a claim, and how it is tried.
#[derive(Clone, Copy)]
pub struct Check {
    /// What is claimed.
    pub name: &'static str,
    pub(super) run: fn(&Stage) -> Result<()>,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check").field("name", &self.name).finish()
    }
}

macro_rules! checks {
    ($($module:ident: $($name:ident)*;)*) => {
        &[$($(Check {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: $module::$name,
        },)*)*]
    };
}

/// All checks that every snapshotter has to pass.
pub const CHECKS: &[Check] = checks! {
    life: a_snapshot_is_prepared_committed_and_removed
          kinds_are_told
          a_view_is_of_a_committed_snapshot_and_can_not_be_written_to
          a_view_without_a_parent_is_empty
          mounts_stay_the_same
          names_are_free_again_after_removal
          a_key_is_free_again_after_its_commit
          cleanup_leaves_what_is_there
          everything_is_listed;
    refusals: a_parent_must_exist
              a_parent_must_be_committed
              a_key_is_given_once
              a_name_is_given_once
              only_active_snapshots_are_committed
              what_is_unknown_is_not_found
              what_is_committed_is_not_mounted
              a_snapshot_with_children_stays;
    labels: labels_come_back
            labels_of_the_commit_are_those_of_the_layer
            an_empty_label_is_none
            all_labels_are_replaced
            one_label_is_changed_by_its_mask
            a_label_is_removed_by_its_mask
            labels_are_changed_in_every_state
            nothing_else_is_changed
            times_move_with_updates;
    filters: names_and_kinds
             parents
             values_are_quoted
             labels_are_found
             several_are_any_and_a_comma_is_all
             nonsense_is_refused;
    usage: what_is_written_counts
           a_committed_snapshot_keeps_its_usage
           a_view_takes_nothing;
    files: what_is_written_is_in_the_layer
           layers_do_not_see_what_is_above_them
           siblings_do_not_see_each_other
           what_is_removed_is_gone
           a_directory_made_anew_is_empty
           all_kinds_and_attributes_are_kept
           hard_links_stay_links;
    deep: sixty_four_layers_are_one_tree;
    parallel: one_of_many_gets_a_key
              one_of_many_gets_a_name
              many_work_at_once;
};

/// Checks of what only some can.
const REBASE_CHECKS: &[Check] = &[
    Check {
        name: "life::a_parent_may_come_at_the_commit",
        run: life::a_parent_may_come_at_the_commit,
    },
    Check {
        name: "refusals::a_parent_that_comes_late_must_be_committed",
        run: refusals::a_parent_that_comes_late_must_be_committed,
    },
    Check {
        name: "refusals::a_parent_is_not_changed_by_the_commit",
        run: refusals::a_parent_is_not_changed_by_the_commit,
    },
];

/// How a check went.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// Nothing, or what was wrong.
    pub failed: Option<String>,
}

/// How all checks went.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Of every check that was run.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Names of the checks that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        let failed = self.outcomes.iter().filter(|it| it.failed.is_some());
        failed.map(|it| it.name).collect()
    }

    /// Fails with everything that was wrong.
    ///
    /// # Panics
    ///
    /// If anything was, or nothing was checked.
    #[track_caller]
    pub fn assert_all_passed(&self) {
        let mut words = String::new();
        for outcome in &self.outcomes {
            if let Some(failed) = &outcome.failed {
                writeln!(words, "{}: {failed}", outcome.name).unwrap();
            }
        }
        assert!(words.is_empty(), "{words}");
        assert!(!self.outcomes.is_empty(), "nothing was checked");
    }
}

/// Runs the checks one after the other, each with names that no other has; needs root.
///
/// What a check makes it removes again, as far as the snapshotter lets it.
#[must_use]
pub fn run(target: &Target, options: &Options) -> Report {
    let more = REBASE_CHECKS.iter().filter(|_| options.rebase);
    let wanted = CHECKS.iter().chain(more).filter(|check| {
        let only = options.only.as_deref();
        only.is_none_or(|part| check.name.contains(part))
    });
    let mut report = Report::default();
    for check in wanted {
        let result = one(check, target);
        report.outcomes.push(Outcome {
            name: check.name,
            failed: result.err().map(|error| format!("{error:#}")),
        });
    }
    report
}

fn one(check: &Check, target: &Target) -> Result<()> {
    let stage = Stage::new(Snapshots::connect(target)?, check.name);
    let result = catch_unwind(AssertUnwindSafe(|| (check.run)(&stage)));
    let result = result.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
        Err(anyhow!("{}", words.unwrap_or_default()))
    });
    // What is left of a check that failed is not told as well.
    result.and(stage.clear())
}
