//! Tags, the catalog, referrers.

use draught_digest::Digest;
use draught_testkit::http::{Request, Response};
use serde_json::{Value, json};

use crate::repository::{OCI_INDEX, OCI_MANIFEST, Repository, assert_error, location};

crate::conformance! {
    both:
        tags_are_listed
        the_tags_of_an_unknown_repository_are_unknown
        the_catalog_is_listed_page_by_page
    ;
    ours:
        tags_are_listed_in_order
        tags_are_listed_page_by_page
        a_page_of_no_size_is_refused
        an_image_without_referrers_has_an_empty_list
        referrers_are_listed_with_type_and_annotations
        referrers_are_filtered_by_type
        many_referrers_come_page_by_page
        a_deleted_referrer_is_no_longer_listed
}

/// The target of `Link: <…>; rel="next"`.
fn next(answer: &Response) -> Option<String> {
    let link = answer.header("link")?;
    let (target, relation) = link.split_once('>').unwrap();
    assert!(relation.contains("rel=\"next\""), "{link}");
    Some(target.trim_start_matches('<').to_owned())
}

/// All pages of a list, beginning at `path`.
async fn pages(repository: &Repository, path: &str, key: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut path = Some(path.to_owned());
    while let Some(this) = path {
        let answer = repository.send(Request::new("GET", &this)).await;
        assert_eq!(answer.status(), 200);
        pages.push(answer.json()[key].as_array().unwrap().clone());
        path = next(&answer);
    }
    pages
}

async fn tags_are_listed(repository: &Repository) {
    for tag in ["b", "a"] {
        repository.push_image(tag, tag).await;
    }
    let document = repository.ask("GET", "tags/list").await.json();
    assert_eq!(document["name"], "some/image");
    for tag in ["a", "b"] {
        assert!(document["tags"].as_array().unwrap().contains(&tag.into()));
    }
}

async fn tags_are_listed_in_order(repository: &Repository) {
    for tag in ["b", "a", "10", "9", "C"] {
        repository.push_image(tag, tag).await;
    }
    let answer = repository.ask("GET", "tags/list").await;
    assert_eq!(answer.status(), 200);
    let expect = json!({"name": "some/image", "tags": ["10", "9", "C", "a", "b"]});
    assert_eq!(answer.json(), expect);
}

async fn the_tags_of_an_unknown_repository_are_unknown(repository: &Repository) {
    let answer = repository
        .named("nothing/here")
        .ask("GET", "tags/list")
        .await;
    assert_error(&answer, 404, "NAME_UNKNOWN");
}

async fn the_catalog_is_listed_page_by_page(repository: &Repository) {
    for name in ["b", "a/z", "a", "a-b", "c/d/e"] {
        repository.named(name).push_image("latest", "one").await;
    }
    let pages = pages(repository, "/v2/_catalog?n=2", "repositories").await;
    let names: Vec<&str> = pages
        .iter()
        .flatten()
        .map(|name| name.as_str().unwrap())
        .collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["a", "a-b", "a/z", "b", "c/d/e"]);
    assert_eq!(pages[0].len(), 2);
    let answer = repository.send(Request::new("GET", "/v2/_catalog")).await;
    assert_eq!(answer.json()["repositories"].as_array().unwrap().len(), 5);
}

async fn tags_are_listed_page_by_page(repository: &Repository) {
    for tag in ["a", "b", "c", "d", "e"] {
        repository.push_image(tag, tag).await;
    }
    let pages = pages(repository, "/v2/some/image/tags/list?n=2", "tags").await;
    assert_eq!(
        pages,
        [
            vec![json!("a"), json!("b")],
            vec![json!("c"), json!("d")],
            vec![json!("e")]
        ]
    );
    let ask = async |query: &str| repository.ask("GET", &format!("tags/list?{query}")).await;
    assert_eq!(ask("n=0").await.json()["tags"], json!([]));
    assert_eq!(ask("n=5").await.header("link"), None);
    assert_eq!(ask("last=c").await.json()["tags"], json!(["d", "e"]));
    assert_eq!(ask("last=bb").await.json()["tags"], json!(["c", "d", "e"]));
    assert_eq!(ask("last=z").await.json()["tags"], json!([]));
}

async fn a_page_of_no_size_is_refused(repository: &Repository) {
    repository.push_image("a", "a").await;
    for n in ["-1", "x", "1.5", "99999999999999999999999"] {
        let answer = repository.ask("GET", &format!("tags/list?n={n}")).await;
        assert_error(&answer, 400, "PAGINATION_NUMBER_INVALID");
    }
}

async fn an_image_without_referrers_has_an_empty_list(repository: &Repository) {
    let digest = Digest::sha256(b"never pushed");
    let answer = repository.ask("GET", &format!("referrers/{digest}")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
    let expect = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []});
    assert_eq!(answer.json(), expect);
    assert_error(
        &repository.ask("GET", "referrers/latest").await,
        400,
        "DIGEST_INVALID",
    );
}

/// Pushes an artifact of this type that refers to `subject`.
async fn refer(
    repository: &Repository,
    subject: &Digest,
    seed: &str,
    kind: Option<&str>,
) -> Digest {
    let mut manifest = repository.image(seed).await;
    if let Some(kind) = kind {
        manifest["artifactType"] = kind.into();
    }
    manifest["annotations"] = json!({"seed": seed});
    manifest["subject"] =
        json!({"mediaType": OCI_MANIFEST, "digest": subject.to_string(), "size": 1});
    let digest = Digest::sha256(manifest.to_string().as_bytes());
    let answer = repository
        .put_manifest(&digest.to_string(), &manifest)
        .await;
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.header("oci-subject"), Some(&*subject.to_string()));
    assert!(location(&answer).ends_with(&digest.to_string()));
    digest
}

async fn referrers_are_listed_with_type_and_annotations(repository: &Repository) {
    // The subject may come later, or never.
    let subject = Digest::sha256(b"an image to come");
    let typed = refer(repository, &subject, "one", Some("application/x.signature")).await;
    let untyped = refer(repository, &subject, "two", None).await;
    let other = Digest::sha256(b"another image");
    refer(repository, &other, "three", Some("application/x.signature")).await;

    let answer = repository.ask("GET", &format!("referrers/{subject}")).await;
    assert_eq!(answer.header("oci-filters-applied"), None);
    let document = answer.json();
    let entries = document["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    for (digest, seed, kind) in [
        (typed, "one", "application/x.signature"),
        // An artifact without a type is of the type of its config.
        (untyped, "two", crate::repository::OCI_CONFIG),
    ] {
        let entry = entries
            .iter()
            .find(|entry| entry["digest"] == digest.to_string())
            .unwrap();
        assert_eq!(entry["mediaType"], OCI_MANIFEST);
        assert_eq!(entry["artifactType"], kind);
        assert_eq!(entry["annotations"], json!({"seed": seed}));
        let pulled = repository.ask("GET", &format!("manifests/{digest}")).await;
        assert_eq!(entry["size"], pulled.body.len());
    }
}

async fn referrers_are_filtered_by_type(repository: &Repository) {
    let subject = repository.push_image("latest", "image").await;
    let signature = refer(repository, &subject, "one", Some("application/x+sig")).await;
    refer(repository, &subject, "two", Some("application/x.sbom")).await;
    let rest = format!("referrers/{subject}?artifactType=application/x%2Bsig");
    let answer = repository.ask("GET", &rest).await;
    assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"));
    let document = answer.json();
    assert_eq!(document["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(document["manifests"][0]["digest"], signature.to_string());
}

async fn many_referrers_come_page_by_page(repository: &Repository) {
    let subject = Digest::sha256(b"much loved");
    let image = repository.image("layer").await;
    let count = 501;
    for number in 0..count {
        let mut manifest = image.clone();
        manifest["artifactType"] = format!("application/x.{}", number % 2).into();
        manifest["annotations"] = json!({"number": number.to_string()});
        manifest["subject"] =
            json!({"mediaType": OCI_MANIFEST, "digest": subject.to_string(), "size": 1});
        let digest = Digest::sha256(manifest.to_string().as_bytes());
        let answer = repository
            .put_manifest(&digest.to_string(), &manifest)
            .await;
        assert_eq!(answer.status(), 201);
    }
    let path = format!("/v2/some/image/referrers/{subject}");
    let all = pages(repository, &path, "manifests").await;
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [500, 1]);
    let path = format!("{path}?artifactType=application/x.0");
    let half = pages(repository, &path, "manifests").await;
    assert_eq!(half.iter().map(Vec::len).sum::<usize>(), 251);
}

async fn a_deleted_referrer_is_no_longer_listed(repository: &Repository) {
    let subject = repository.push_image("latest", "image").await;
    let digest = refer(repository, &subject, "one", Some("application/x.sbom")).await;
    let answer = repository
        .ask("DELETE", &format!("manifests/{digest}"))
        .await;
    assert_eq!(answer.status(), 202);
    let answer = repository.ask("GET", &format!("referrers/{subject}")).await;
    assert_eq!(answer.json()["manifests"], json!([]));
}
