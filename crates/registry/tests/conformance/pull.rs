//! Reading blobs.

use draught_digest::Digest;
use draught_testkit::http::{Connection, Request};
use tokio::net::TcpStream;

use crate::repository::{Repository, assert_error, bytes};

crate::conformance! {
    both:
        the_base_says_that_this_is_a_registry
        a_blob_comes_back_as_it_was_pushed
        a_large_blob_comes_back_whole
        a_head_says_what_a_get_would
        a_range_is_that_part_of_the_blob
        an_unknown_blob_is_unknown
        names_can_not_leave_the_directory
    ;
    ours:
        a_range_behind_the_end_is_refused
        a_client_that_has_a_blob_does_not_get_it_again
        several_ranges_are_answered_with_the_whole
        an_empty_blob_can_be_read
        a_connection_serves_one_range_after_the_other
        methods_that_make_no_sense_are_named
        digests_of_other_algorithms_are_refused_by_name
}

async fn the_base_says_that_this_is_a_registry(repository: &Repository) {
    let answer = repository.send(Request::new("GET", "/v2/")).await;
    assert_eq!(answer.status(), 200);
    let version = answer.header("docker-distribution-api-version");
    assert_eq!(version, Some("registry/2.0"));
}

async fn a_blob_comes_back_as_it_was_pushed(repository: &Repository) {
    let content = bytes(1000);
    let digest = repository.push_blob(&content).await;
    let answer = repository.ask("GET", &format!("blobs/{digest}")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.body, content);
    assert_eq!(
        answer.header("docker-content-digest"),
        Some(&*digest.to_string())
    );
    assert_eq!(answer.header("content-length"), Some("1000"));
}

async fn a_large_blob_comes_back_whole(repository: &Repository) {
    let content = bytes(5_000_001);
    let digest = repository.push_blob(&content).await;
    let answer = repository.ask("GET", &format!("blobs/{digest}")).await;
    assert_eq!(Digest::sha256(&answer.body), digest);
    let request = repository.request("GET", &format!("blobs/{digest}"));
    let answer = repository
        .send(request.header("Range", "bytes=1000000-4000000"))
        .await;
    assert_eq!(answer.body, &content[1_000_000..=4_000_000]);
}

async fn a_head_says_what_a_get_would(repository: &Repository) {
    let digest = repository.push_blob(&bytes(1000)).await;
    let answer = repository.ask("HEAD", &format!("blobs/{digest}")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("content-length"), Some("1000"));
    assert_eq!(
        answer.header("docker-content-digest"),
        Some(&*digest.to_string())
    );
    let answer = repository
        .ask("HEAD", &format!("blobs/{}", Digest::sha256(b"no")))
        .await;
    assert_eq!(answer.status(), 404);
}

async fn a_range_is_that_part_of_the_blob(repository: &Repository) {
    let content = bytes(1000);
    let digest = repository.push_blob(&content).await;
    for (range, expect, said) in [
        ("bytes=0-0", 0..1, "bytes 0-0/1000"),
        ("bytes=10-19", 10..20, "bytes 10-19/1000"),
        ("bytes=990-", 990..1000, "bytes 990-999/1000"),
        ("bytes=990-5000", 990..1000, "bytes 990-999/1000"),
        ("bytes=-10", 990..1000, "bytes 990-999/1000"),
        ("bytes=0-999", 0..1000, "bytes 0-999/1000"),
    ] {
        let request = repository.request("GET", &format!("blobs/{digest}"));
        let answer = repository.send(request.header("Range", range)).await;
        assert_eq!(answer.status(), 206, "{range}");
        assert_eq!(answer.header("content-range"), Some(said));
        assert_eq!(answer.body, &content[expect], "{range}");
    }
}

async fn a_range_behind_the_end_is_refused(repository: &Repository) {
    let digest = repository.push_blob(&bytes(1000)).await;
    let request = repository.request("GET", &format!("blobs/{digest}"));
    let answer = repository
        .send(request.header("Range", "bytes=1000-"))
        .await;
    assert_eq!(answer.status(), 416);
    assert_eq!(answer.header("content-range"), Some("bytes */1000"));
}

async fn an_unknown_blob_is_unknown(repository: &Repository) {
    let digest = Digest::sha256(b"never pushed");
    let answer = repository.ask("GET", &format!("blobs/{digest}")).await;
    assert_error(&answer, 404, "BLOB_UNKNOWN");
    // Not even when another repository has it.
    let digest = repository
        .named("other")
        .push_blob(b"pushed elsewhere")
        .await;
    let answer = repository.ask("GET", &format!("blobs/{digest}")).await;
    assert_error(&answer, 404, "BLOB_UNKNOWN");
}

async fn names_can_not_leave_the_directory(repository: &Repository) {
    for path in [
        "/v2/../manifests/latest",
        "/v2/a/../../b/manifests/latest",
        "/v2/%2e%2e/%2e%2e/manifests/latest",
        "/v2/a/manifests/../../../x",
        "/v2/a/manifests/..%2f..%2fx",
        "/v2/a/blobs/sha256:../../../etc/passwd",
        "/v2/a%00b/manifests/latest",
        "/v2/UPPER/manifests/latest",
    ] {
        let answer = repository.send(Request::new("GET", path)).await;
        // docker's registry redirects some of these to what they mean.
        assert!(
            (300..500).contains(&answer.status()),
            "{path}: {}",
            answer.status()
        );
    }
}

async fn a_client_that_has_a_blob_does_not_get_it_again(repository: &Repository) {
    let digest = repository.push_blob(&bytes(1000)).await;
    let etag = format!("\"{digest}\"");
    let get = || repository.request("GET", &format!("blobs/{digest}"));
    let answer = repository.send(get().header("If-None-Match", &etag)).await;
    assert_eq!((answer.status(), answer.body.len()), (304, 0));
    let range = get().header("Range", "bytes=0-9");
    let answer = repository
        .send(range.clone().header("If-Range", &etag))
        .await;
    assert_eq!((answer.status(), answer.body.len()), (206, 10));
    let answer = repository
        .send(range.header("If-Range", "\"something else\""))
        .await;
    assert_eq!((answer.status(), answer.body.len()), (200, 1000));
}

async fn several_ranges_are_answered_with_the_whole(repository: &Repository) {
    let digest = repository.push_blob(&bytes(1000)).await;
    let request = repository.request("GET", &format!("blobs/{digest}"));
    let answer = repository
        .send(request.header("Range", "bytes=0-1,5-6"))
        .await;
    assert_eq!((answer.status(), answer.body.len()), (200, 1000));
}

async fn an_empty_blob_can_be_read(repository: &Repository) {
    let digest = repository.push_blob(b"").await;
    let answer = repository.ask("GET", &format!("blobs/{digest}")).await;
    assert_eq!((answer.status(), answer.body.len()), (200, 0));
    assert_eq!(answer.header("content-length"), Some("0"));
    let request = repository.request("GET", &format!("blobs/{digest}"));
    let answer = repository.send(request.header("Range", "bytes=0-")).await;
    assert_error(&answer, 416, "RANGE_INVALID");
}

async fn a_connection_serves_one_range_after_the_other(repository: &Repository) {
    let content = bytes(2_000_000);
    let digest = repository.push_blob(&content).await;
    let mut connection = Connection::new(TcpStream::connect(repository.addr()).await.unwrap());
    for at in [0_usize, 1_500_000, 7, 1_999_000] {
        let range = format!("bytes={at}-{}", at + 999);
        let request = repository
            .request("GET", &format!("blobs/{digest}"))
            .header("Range", range);
        let answer = request
            .send_on(&mut connection, repository.addr())
            .await
            .unwrap();
        assert_eq!(answer.body, &content[at..at + 1000]);
        let missing = repository.request("GET", &format!("blobs/{}", Digest::sha256(b"no")));
        let answer = missing
            .send_on(&mut connection, repository.addr())
            .await
            .unwrap();
        assert_error(&answer, 404, "BLOB_UNKNOWN");
    }
}

async fn methods_that_make_no_sense_are_named(repository: &Repository) {
    for (method, rest) in [
        ("PATCH", "manifests/latest"),
        ("PUT", "tags/list"),
        ("GET", "blobs/uploads/"),
    ] {
        let answer = repository.ask(method, rest).await;
        assert_error(&answer, 405, "UNSUPPORTED");
        assert!(answer.header("allow").is_some());
    }
    let answer = repository.send(Request::new("GET", "/elsewhere")).await;
    assert_error(&answer, 404, "UNSUPPORTED");
}

async fn digests_of_other_algorithms_are_refused_by_name(repository: &Repository) {
    let sha512 = format!("sha512:{}", "0".repeat(128));
    let answer = repository.ask("GET", &format!("blobs/{sha512}")).await;
    assert_error(&answer, 400, "DIGEST_INVALID");
    assert!(
        answer.json()["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("sha512")
    );
    let answer = repository
        .ask("POST", "blobs/uploads/?digest-algorithm=sha512")
        .await;
    assert_error(&answer, 400, "DIGEST_INVALID");
}
