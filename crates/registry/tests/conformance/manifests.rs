//! Manifests and tags.

use draught_digest::Digest;
use draught_testkit::http::Request;
use serde_json::{Value, json};

use crate::repository::{OCI_INDEX, OCI_MANIFEST, Repository, assert_error};

crate::conformance! {
    both:
        a_manifest_comes_back_byte_by_byte_by_tag_and_by_digest
        a_tag_moves
        an_unknown_manifest_is_unknown
        a_manifest_whose_blobs_are_missing_is_refused
        an_index_whose_manifests_are_missing_is_refused
        an_index_can_be_pushed
        a_manifest_of_another_digest_is_refused
        what_is_no_manifest_is_refused
        a_docker_manifest_keeps_its_type
    ;
    ours:
        a_client_that_has_a_manifest_does_not_get_it_again
        a_manifest_without_a_type_gets_the_one_that_fits
        a_manifest_that_is_too_large_is_refused
        a_manifest_of_another_type_than_it_says_is_refused
        a_tag_can_be_set_only_if_it_is_what_one_thinks
        a_layer_that_lies_elsewhere_need_not_be_there
}

fn digest_of(manifest: &Value) -> Digest {
    Digest::sha256(manifest.to_string().as_bytes())
}

async fn a_manifest_comes_back_byte_by_byte_by_tag_and_by_digest(repository: &Repository) {
    let mut manifest = repository.image("one").await;
    manifest["annotations"] = json!({"some.key": "a value"});
    let answer = repository.put_manifest("v1", &manifest).await;
    assert_eq!(answer.status(), 201);
    let digest = digest_of(&manifest).to_string();
    assert_eq!(answer.header("docker-content-digest"), Some(&*digest));
    for reference in ["v1", &digest] {
        for method in ["GET", "HEAD"] {
            let request = repository.request(method, &format!("manifests/{reference}"));
            let answer = repository
                .send(request.header("Accept", OCI_MANIFEST))
                .await;
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
            assert_eq!(answer.header("docker-content-digest"), Some(&*digest));
            let length = manifest.to_string().len().to_string();
            assert_eq!(answer.header("content-length"), Some(&*length));
            if method == "GET" {
                assert_eq!(answer.body, manifest.to_string().as_bytes());
            }
        }
    }
}

async fn a_tag_moves(repository: &Repository) {
    let first = repository.push_image("latest", "one").await;
    let second = repository.push_image("latest", "two").await;
    let ask = async |reference: &str| {
        let request = repository.request("GET", &format!("manifests/{reference}"));
        repository
            .send(request.header("Accept", OCI_MANIFEST))
            .await
    };
    let answer = ask("latest").await;
    assert_eq!(
        answer.header("docker-content-digest"),
        Some(&*second.to_string())
    );
    assert_eq!(ask(&first.to_string()).await.status(), 200);
}

async fn an_unknown_manifest_is_unknown(repository: &Repository) {
    repository.push_image("latest", "one").await;
    for reference in ["v2", &Digest::sha256(b"no").to_string()] {
        let answer = repository
            .ask("GET", &format!("manifests/{reference}"))
            .await;
        assert_error(&answer, 404, "MANIFEST_UNKNOWN");
        let answer = repository
            .ask("HEAD", &format!("manifests/{reference}"))
            .await;
        assert_eq!(answer.status(), 404);
    }
}

async fn a_manifest_whose_blobs_are_missing_is_refused(repository: &Repository) {
    let good = repository.image("one").await;
    for place in ["/config/digest", "/layers/0/digest"] {
        let mut manifest = good.clone();
        *manifest.pointer_mut(place).unwrap() = Digest::sha256(b"no").to_string().into();
        let answer = repository.put_manifest("latest", &manifest).await;
        assert_error(&answer, 400, "MANIFEST_BLOB_UNKNOWN");
    }
    let answer = repository.ask("GET", "manifests/latest").await;
    assert_eq!(answer.status(), 404);
}

fn index_of(digest: &Digest, bytes: usize) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [{
            "mediaType": OCI_MANIFEST,
            "digest": digest.to_string(),
            "size": bytes,
            "platform": {"os": "linux", "architecture": "amd64"},
        }],
    })
}

async fn an_index_whose_manifests_are_missing_is_refused(repository: &Repository) {
    let index = index_of(&Digest::sha256(b"no"), 2);
    let answer = repository.put_manifest("latest", &index).await;
    assert_error(&answer, 400, "MANIFEST_BLOB_UNKNOWN");
}

async fn an_index_can_be_pushed(repository: &Repository) {
    let manifest = repository.image("one").await;
    let digest = digest_of(&manifest);
    assert_eq!(
        repository
            .put_manifest(&digest.to_string(), &manifest)
            .await
            .status(),
        201
    );
    let index = index_of(&digest, manifest.to_string().len());
    assert_eq!(
        repository.put_manifest("latest", &index).await.status(),
        201
    );
    let request = repository
        .request("GET", "manifests/latest")
        .header("Accept", OCI_INDEX);
    let answer = repository.send(request).await;
    assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
    assert_eq!(answer.body, index.to_string().as_bytes());
}

async fn a_manifest_of_another_digest_is_refused(repository: &Repository) {
    let manifest = repository.image("one").await;
    let claimed = Digest::sha256(b"something else").to_string();
    let answer = repository.put_manifest(&claimed, &manifest).await;
    assert_error(&answer, 400, "DIGEST_INVALID");
}

async fn what_is_no_manifest_is_refused(repository: &Repository) {
    for text in [
        "",
        "{",
        "[]",
        "\"text\"",
        "{\"schemaVersion\":2,\"config\":7}",
    ] {
        let put = repository.request("PUT", "manifests/latest");
        let put = put.header("Content-Type", OCI_MANIFEST).body(text);
        let answer = repository.send(put).await;
        assert_error(&answer, 400, "MANIFEST_INVALID");
    }
}

async fn a_docker_manifest_keeps_its_type(repository: &Repository) {
    let mut manifest = repository.image("one").await;
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    manifest["mediaType"] = media_type.into();
    assert_eq!(
        repository.put_manifest("latest", &manifest).await.status(),
        201
    );
    let request = repository
        .request("GET", "manifests/latest")
        .header("Accept", media_type);
    let answer = repository.send(request).await;
    assert_eq!(answer.header("content-type"), Some(media_type));
}

async fn a_client_that_has_a_manifest_does_not_get_it_again(repository: &Repository) {
    let digest = repository.push_image("latest", "one").await;
    let request = repository.request("GET", "manifests/latest");
    let answer = repository
        .send(request.header("If-None-Match", format!("\"{digest}\"")))
        .await;
    assert_eq!((answer.status(), answer.body.len()), (304, 0));
}

async fn a_manifest_without_a_type_gets_the_one_that_fits(repository: &Repository) {
    let mut manifest = repository.image("one").await;
    manifest.as_object_mut().unwrap().remove("mediaType");
    let put = repository
        .request("PUT", "manifests/latest")
        .body(manifest.to_string());
    assert_eq!(repository.send(put).await.status(), 201);
    let answer = repository.ask("GET", "manifests/latest").await;
    assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
}

async fn a_manifest_that_is_too_large_is_refused(repository: &Repository) {
    let mut manifest = repository.image("one").await;
    manifest["annotations"] = json!({"a": "x".repeat(4 << 20)});
    let answer = repository.put_manifest("latest", &manifest).await;
    assert_error(&answer, 413, "SIZE_INVALID");
    manifest["annotations"] = json!({"a": "x".repeat((4 << 20) - 2000)});
    assert_eq!(
        repository.put_manifest("latest", &manifest).await.status(),
        201
    );
}

async fn a_manifest_of_another_type_than_it_says_is_refused(repository: &Repository) {
    let manifest = repository.image("one").await;
    for content_type in [OCI_INDEX, "text/plain"] {
        let put = repository.request("PUT", "manifests/latest");
        let put = put
            .header("Content-Type", content_type)
            .body(manifest.to_string());
        assert_error(&repository.send(put).await, 400, "MANIFEST_INVALID");
    }
}

async fn a_tag_can_be_set_only_if_it_is_what_one_thinks(repository: &Repository) {
    let one = repository.image("one").await;
    let two = repository.image("two").await;
    let put = async |manifest: &Value, condition: (&str, String)| {
        let put: Request = repository.request("PUT", "manifests/cache");
        let put = put
            .header("Content-Type", OCI_MANIFEST)
            .header(condition.0, condition.1);
        repository.send(put.body(manifest.to_string())).await
    };
    let is = |manifest: &Value| ("If-Match", format!("\"{}\"", digest_of(manifest)));
    let absent = || ("If-None-Match", "*".to_owned());
    assert_error(&put(&two, is(&one)).await, 412, "PRECONDITION_FAILED");
    assert_eq!(put(&one, absent()).await.status(), 201);
    assert_error(&put(&two, absent()).await, 412, "PRECONDITION_FAILED");
    assert_eq!(put(&two, is(&one)).await.status(), 201);
    assert_error(&put(&one, is(&one)).await, 412, "PRECONDITION_FAILED");
    let answer = repository.ask("HEAD", "manifests/cache").await;
    let digest = digest_of(&two).to_string();
    assert_eq!(answer.header("docker-content-digest"), Some(&*digest));
}

async fn a_layer_that_lies_elsewhere_need_not_be_there(repository: &Repository) {
    let mut manifest = repository.image("one").await;
    manifest["layers"][0]["digest"] = Digest::sha256(b"no").to_string().into();
    manifest["layers"][0]["urls"] = json!(["https://example.invalid/layer"]);
    assert_eq!(
        repository.put_manifest("latest", &manifest).await.status(),
        201
    );
}
