//! The suite against containerd's own overlays, and against models that are wrong in one way.

use super::*;
use crate::snapshots::Target;
use crate::snapshots::model::{Fault, Model};
use crate::{Containerd, need};

#[test]
fn containerds_own_overlays_pass() {
    let Some(containerd) = Containerd::start(&[]) else {
        return;
    };
    let lease = containerd.lease("conformance");
    let target = Target::new(containerd.socket(), "overlayfs", "conformance").leased(&lease);
    let report = run(&target, &Options::default());
    report.assert_all_passed();
    assert_eq!(report.outcomes.len(), CHECKS.len());
}

fn run_model(fault: Option<Fault>, only: Option<&str>) -> Report {
    let model = Model {
        fault,
        ..Model::default()
    };
    let serving = model.serve();
    let target = Target::new(serving.socket(), "model", "conformance");
    let options = Options {
        rebase: true,
        only: only.map(str::to_owned),
    };
    run(&target, &options)
}

#[test]
fn a_plain_snapshotter_passes() {
    if !need::root() {
        return;
    }
    let report = run_model(None, None);
    report.assert_all_passed();
    assert_eq!(report.outcomes.len(), CHECKS.len() + 3);
}

#[test]
fn every_fault_fails_the_check_that_is_about_it() {
    if !need::root() {
        return;
    }
    for (fault, check) in [
        (Fault::AddsLabels, "labels::labels_come_back"),
        (Fault::CommitsOverNames, "refusals::a_name_is_given_once"),
        (
            Fault::CommitsViews,
            "refusals::only_active_snapshots_are_committed",
        ),
        (Fault::CountsNothing, "usage::what_is_written_counts"),
        (
            Fault::ForgetsCommitLabels,
            "labels::labels_of_the_commit_are_those_of_the_layer",
        ),
        (Fault::ForgetsLabels, "filters::labels_are_found"),
        (Fault::ForgetsParents, "life::kinds_are_told"),
        (Fault::GivesKeysTwice, "parallel::one_of_many_gets_a_key"),
        (
            Fault::IgnoresFilters,
            "filters::several_are_any_and_a_comma_is_all",
        ),
        (
            Fault::IgnoresMasks,
            "labels::one_label_is_changed_by_its_mask",
        ),
        (Fault::KeepsTimes, "labels::times_move_with_updates"),
        (Fault::ListsTooFew, "life::everything_is_listed"),
        (Fault::LosesWrites, "files::what_is_written_is_in_the_layer"),
        (
            Fault::MountsCommitted,
            "refusals::what_is_committed_is_not_mounted",
        ),
        (Fault::MovesWrites, "files::siblings_do_not_see_each_other"),
        (
            Fault::PreparesOnActive,
            "refusals::a_parent_must_be_committed",
        ),
        (
            Fault::RemovesParents,
            "refusals::a_snapshot_with_children_stays",
        ),
        (Fault::SaysActiveOfViews, "life::kinds_are_told"),
        (Fault::UpdatesAnything, "labels::nothing_else_is_changed"),
        (
            Fault::WritesViews,
            "life::a_view_is_of_a_committed_snapshot_and_can_not_be_written_to",
        ),
        (
            Fault::WrongCodeForUnknown,
            "refusals::what_is_unknown_is_not_found",
        ),
    ] {
        // That it passes otherwise is said above.
        let failed = run_model(Some(fault), Some(check)).failed();
        assert_eq!(failed, [check], "{fault:?}");
    }
}
