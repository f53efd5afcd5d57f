//! Deleting.

use draught_digest::Digest;
use serde_json::json;

use crate::repository::{OCI_MANIFEST, Repository, assert_error, bytes};

crate::conformance! {
    both:
        a_deleted_blob_is_gone_here_and_stays_elsewhere
        a_deleted_manifest_is_gone
        what_is_not_there_can_not_be_deleted
    ;
    ours:
        a_deleted_tag_leaves_the_manifest
        a_deleted_manifest_takes_its_tags_along
        a_blob_can_be_pushed_again_after_it_was_deleted
}

async fn a_deleted_blob_is_gone_here_and_stays_elsewhere(repository: &Repository) {
    let other = repository.named("other");
    let digest = repository.push_blob(&bytes(100)).await;
    other.push_blob(&bytes(100)).await;
    let answer = repository.ask("DELETE", &format!("blobs/{digest}")).await;
    assert_eq!(answer.status(), 202);
    let answer = repository.ask("GET", &format!("blobs/{digest}")).await;
    assert_error(&answer, 404, "BLOB_UNKNOWN");
    assert_eq!(
        other.ask("GET", &format!("blobs/{digest}")).await.body,
        bytes(100)
    );
}

async fn a_deleted_manifest_is_gone(repository: &Repository) {
    let digest = repository.push_image("latest", "one").await;
    let answer = repository
        .ask("DELETE", &format!("manifests/{digest}"))
        .await;
    assert_eq!(answer.status(), 202);
    for reference in ["latest", &digest.to_string()] {
        let request = repository.request("GET", &format!("manifests/{reference}"));
        let answer = repository
            .send(request.header("Accept", OCI_MANIFEST))
            .await;
        assert_eq!(answer.status(), 404);
    }
}

async fn what_is_not_there_can_not_be_deleted(repository: &Repository) {
    repository.push_image("latest", "one").await;
    let digest = Digest::sha256(b"no");
    let answer = repository.ask("DELETE", &format!("blobs/{digest}")).await;
    assert_eq!(answer.status(), 404);
    let answer = repository
        .ask("DELETE", &format!("manifests/{digest}"))
        .await;
    assert_eq!(answer.status(), 404);
}

async fn a_deleted_tag_leaves_the_manifest(repository: &Repository) {
    let digest = repository.push_image("latest", "one").await;
    repository.push_image("other", "one").await;
    assert_eq!(
        repository.ask("DELETE", "manifests/latest").await.status(),
        202
    );
    assert_error(
        &repository.ask("DELETE", "manifests/latest").await,
        404,
        "MANIFEST_UNKNOWN",
    );
    assert_eq!(
        repository.ask("GET", "manifests/latest").await.status(),
        404
    );
    assert_eq!(
        repository
            .ask("GET", &format!("manifests/{digest}"))
            .await
            .status(),
        200
    );
    assert_eq!(
        repository.ask("GET", "tags/list").await.json()["tags"],
        json!(["other"])
    );
}

async fn a_deleted_manifest_takes_its_tags_along(repository: &Repository) {
    let digest = repository.push_image("a", "one").await;
    repository.push_image("b", "one").await;
    repository.push_image("c", "two").await;
    let answer = repository
        .ask("DELETE", &format!("manifests/{digest}"))
        .await;
    assert_eq!(answer.status(), 202);
    assert_eq!(
        repository.ask("GET", "tags/list").await.json()["tags"],
        json!(["c"])
    );
}

async fn a_blob_can_be_pushed_again_after_it_was_deleted(repository: &Repository) {
    for _ in 0..3 {
        let digest = repository.push_blob(&bytes(100)).await;
        let answer = repository.ask("DELETE", &format!("blobs/{digest}")).await;
        assert_eq!(answer.status(), 202);
        let mount = repository
            .ask("POST", &format!("blobs/uploads/?mount={digest}"))
            .await;
        assert_eq!(
            mount.status(),
            202,
            "the last repository that had it gave it up"
        );
    }
}
