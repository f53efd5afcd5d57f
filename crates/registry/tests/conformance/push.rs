//! Writing blobs.

use draught_digest::Digest;
use draught_testkit::http::{Connection, Head};
use tokio::net::TcpStream;

use crate::repository::{Repository, assert_error, bytes, location};

crate::conformance! {
    both:
        a_blob_can_be_streamed_and_then_named
        a_blob_can_come_in_chunks
        the_last_chunk_can_come_with_the_name
        an_upload_says_how_far_it_is
        a_cancelled_upload_is_gone
        bytes_of_another_digest_are_refused
        an_upload_without_a_digest_is_refused
        an_upload_nobody_began_is_unknown
        a_blob_can_be_mounted_from_another_repository
        a_mount_that_can_not_be_is_an_upload
        one_blob_can_be_pushed_by_many_at_once
    ;
    ours:
        a_blob_can_come_in_one_request
        a_chunk_out_of_order_is_refused_and_the_upload_goes_on
        a_chunk_of_another_length_than_it_says_is_refused
        what_came_before_a_connection_broke_is_kept
        a_broken_single_request_leaves_no_blob
        a_mount_without_a_source_takes_it_from_anywhere
        an_upload_belongs_to_its_repository
        an_upload_that_is_done_takes_no_more
}

async fn assert_stored(repository: &Repository, content: &[u8]) {
    let digest = Digest::sha256(content);
    let answer = repository.ask("GET", &format!("blobs/{digest}")).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.body == content, "the blob is not what was pushed");
}

async fn a_blob_can_be_streamed_and_then_named(repository: &Repository) {
    let content = bytes(3_000_000);
    let at = repository.start_upload().await;
    let patch = repository.upload("PATCH", &at, "").chunked();
    let patch = patch.header("Content-Type", "application/octet-stream");
    let answer = repository.send(patch.body(&*content)).await;
    assert_eq!(answer.status(), 202);
    assert_eq!(answer.header("range"), Some("0-2999999"));
    let parameters = format!("digest={}", Digest::sha256(&content));
    let put = repository.upload("PUT", &location(&answer), &parameters);
    let answer = repository.send(put).await;
    assert_eq!(answer.status(), 201);
    assert!(location(&answer).ends_with(&format!("/blobs/{}", Digest::sha256(&content))));
    assert_stored(repository, &content).await;
}

async fn a_blob_can_come_in_chunks(repository: &Repository) {
    let content = bytes(2500);
    let mut at = repository.start_upload().await;
    let mut begin = 0;
    for chunk in content.chunks(1000) {
        let end = begin + chunk.len();
        let patch = repository.upload("PATCH", &at, "").body(chunk);
        let patch = patch.header("Content-Range", format!("{begin}-{}", end - 1));
        let answer = repository
            .send(patch.header("Content-Type", "application/octet-stream"))
            .await;
        assert_eq!(answer.status(), 202);
        assert_eq!(answer.header("range"), Some(&*format!("0-{}", end - 1)));
        at = location(&answer);
        begin = end;
    }
    let parameters = format!("digest={}", Digest::sha256(&content));
    let answer = repository
        .send(repository.upload("PUT", &at, &parameters))
        .await;
    assert_eq!(answer.status(), 201);
    assert_stored(repository, &content).await;
}

async fn the_last_chunk_can_come_with_the_name(repository: &Repository) {
    let content = bytes(2000);
    let at = repository.start_upload().await;
    let patch = repository.upload("PATCH", &at, "").body(&content[..1500]);
    let answer = repository.send(patch).await;
    // docker's clients write the colon as an escape.
    let digest = Digest::sha256(&content).to_string().replace(':', "%3A");
    let put = repository.upload("PUT", &location(&answer), &format!("digest={digest}"));
    let answer = repository.send(put.body(&content[1500..])).await;
    assert_eq!(answer.status(), 201);
    assert_stored(repository, &content).await;
}

async fn an_upload_says_how_far_it_is(repository: &Repository) {
    let at = repository.start_upload().await;
    let answer = repository.send(repository.upload("GET", &at, "")).await;
    assert_eq!(
        (answer.status(), answer.header("range")),
        (204, Some("0-0"))
    );
    let patch = repository.upload("PATCH", &at, "").body(bytes(100));
    let answer = repository.send(patch).await;
    let answer = repository
        .send(repository.upload("GET", &location(&answer), ""))
        .await;
    assert_eq!(
        (answer.status(), answer.header("range")),
        (204, Some("0-99"))
    );
}

async fn a_cancelled_upload_is_gone(repository: &Repository) {
    let at = repository.start_upload().await;
    let answer = repository.send(repository.upload("DELETE", &at, "")).await;
    assert_eq!(answer.status(), 204);
    let answer = repository.send(repository.upload("GET", &at, "")).await;
    assert_error(&answer, 404, "BLOB_UPLOAD_UNKNOWN");
}

async fn bytes_of_another_digest_are_refused(repository: &Repository) {
    let claimed = Digest::sha256(b"something else");
    let at = repository.start_upload().await;
    let put = repository.upload("PUT", &at, &format!("digest={claimed}"));
    let answer = repository.send(put.body(bytes(100))).await;
    assert_error(&answer, 400, "DIGEST_INVALID");
    for digest in [claimed, Digest::sha256(&bytes(100))] {
        let answer = repository.ask("HEAD", &format!("blobs/{digest}")).await;
        assert_eq!(answer.status(), 404);
    }
}

async fn an_upload_without_a_digest_is_refused(repository: &Repository) {
    for parameters in ["", "digest=", "digest=sha256:12", "digest=nothing"] {
        let at = repository.start_upload().await;
        let put = repository.upload("PUT", &at, parameters);
        let answer = repository.send(put.body(bytes(10))).await;
        assert_error(&answer, 400, "DIGEST_INVALID");
    }
}

async fn an_upload_nobody_began_is_unknown(repository: &Repository) {
    let id = "blobs/uploads/6b3c9a93-af5d-473f-a4cf-9710022185cd";
    assert_eq!(repository.ask("GET", id).await.status(), 404);
    assert_eq!(repository.ask("PATCH", id).await.status(), 404);
    assert_eq!(repository.ask("DELETE", id).await.status(), 404);
}

async fn a_blob_can_be_mounted_from_another_repository(repository: &Repository) {
    let other = repository.named("other/image");
    let digest = other.push_blob(&bytes(100)).await;
    let rest = format!("blobs/uploads/?mount={digest}&from=other%2Fimage");
    let answer = repository.ask("POST", &rest).await;
    assert_eq!(answer.status(), 201);
    assert!(location(&answer).ends_with(&format!("some/image/blobs/{digest}")));
    assert_stored(repository, &bytes(100)).await;
}

async fn a_mount_that_can_not_be_is_an_upload(repository: &Repository) {
    let content = bytes(100);
    let digest = Digest::sha256(&content);
    let rest = format!("blobs/uploads/?mount={digest}&from=other/image");
    let answer = repository.ask("POST", &rest).await;
    assert_eq!(answer.status(), 202);
    let put = repository.upload("PUT", &location(&answer), &format!("digest={digest}"));
    assert_eq!(repository.send(put.body(&*content)).await.status(), 201);
    assert_stored(repository, &content).await;
}

async fn one_blob_can_be_pushed_by_many_at_once(repository: &Repository) {
    let content = bytes(300_000);
    let names = ["a", "b", "c", "some/image", "some/image", "some/image"];
    let pushes = names.map(|name| {
        let (repository, content) = (repository.named(name), content.clone());
        tokio::spawn(async move { repository.push_blob(&content).await })
    });
    for push in pushes {
        push.await.unwrap();
    }
    for name in names {
        assert_stored(&repository.named(name), &content).await;
    }
}

async fn a_blob_can_come_in_one_request(repository: &Repository) {
    for count in [0, 1, 3_000_000] {
        let content = bytes(count);
        let digest = Digest::sha256(&content);
        let post = repository.request("POST", &format!("blobs/uploads/?digest={digest}"));
        let answer = repository.send(post.body(&*content)).await;
        assert_eq!(answer.status(), 201);
        assert_eq!(location(&answer), format!("/v2/some/image/blobs/{digest}"));
        assert_stored(repository, &content).await;
    }
    let post = repository.request(
        "POST",
        &format!("blobs/uploads/?digest={}", Digest::sha256(b"x")),
    );
    assert_error(
        &repository.send(post.body("y")).await,
        400,
        "DIGEST_INVALID",
    );
}

async fn a_chunk_out_of_order_is_refused_and_the_upload_goes_on(repository: &Repository) {
    let content = bytes(300);
    let at = repository.start_upload().await;
    let patch = |range: &str, part: &[u8]| {
        repository
            .upload("PATCH", &at, "")
            .header("Content-Range", range)
            .body(part)
    };
    assert_eq!(
        repository
            .send(patch("0-99", &content[..100]))
            .await
            .status(),
        202
    );
    for range in ["0-99", "99-198", "101-200", "200-299", "x"] {
        let answer = repository.send(patch(range, &content[100..200])).await;
        assert_error(&answer, 416, "BLOB_UPLOAD_INVALID");
        assert_eq!(answer.header("range"), Some("0-99"));
        assert_eq!(location(&answer), at);
    }
    assert_eq!(
        repository
            .send(patch("100-199", &content[100..200]))
            .await
            .status(),
        202
    );
    let parameters = format!("digest={}", Digest::sha256(&content));
    let put = repository
        .upload("PUT", &at, &parameters)
        .header("Content-Range", "200-299");
    assert_eq!(
        repository.send(put.body(&content[200..])).await.status(),
        201
    );
    assert_stored(repository, &content).await;
}

async fn a_chunk_of_another_length_than_it_says_is_refused(repository: &Repository) {
    let at = repository.start_upload().await;
    let patch = repository
        .upload("PATCH", &at, "")
        .header("Content-Range", "0-99");
    let answer = repository.send(patch.body(bytes(99))).await;
    assert_error(&answer, 416, "BLOB_UPLOAD_INVALID");
}

/// Sends a request that announces more than it has, and goes away.
async fn break_off(repository: &Repository, path: &str, method: &str, content: &[u8]) {
    let mut connection = Connection::new(TcpStream::connect(repository.addr()).await.unwrap());
    let head = Head {
        start: format!("{method} {path} HTTP/1.1"),
        headers: vec![
            ("Host".to_owned(), repository.addr().to_string()),
            (
                "Content-Length".to_owned(),
                (content.len() + 1000).to_string(),
            ),
        ],
    };
    connection.write_head(&head).await.unwrap();
    let framing = head.request_framing().unwrap();
    connection.write_piece(content, framing).await.unwrap();
}

async fn what_came_before_a_connection_broke_is_kept(repository: &Repository) {
    let content = bytes(3_000_000);
    let at = repository.start_upload().await;
    break_off(repository, &at, "PATCH", &content[..2_500_000]).await;
    // The status waits for the request before it to end, but it may come first.
    let next = loop {
        let answer = repository.send(repository.upload("GET", &at, "")).await;
        assert_eq!(answer.status(), 204);
        let last = answer.header("range").unwrap().strip_prefix("0-").unwrap();
        match last.parse::<usize>().unwrap() {
            0 => tokio::task::yield_now().await,
            last => break last + 1,
        }
    };
    let put = repository.upload("PUT", &at, &format!("digest={}", Digest::sha256(&content)));
    let put = put.header("Content-Range", format!("{next}-2999999"));
    let answer = repository.send(put.body(&content[next..])).await;
    assert_eq!(answer.status(), 201, "from {next}");
    assert_stored(repository, &content).await;
}

async fn a_broken_single_request_leaves_no_blob(repository: &Repository) {
    let content = bytes(100_000);
    let digest = Digest::sha256(&content);
    let path = format!("/v2/some/image/blobs/uploads/?digest={digest}");
    break_off(repository, &path, "POST", &content).await;
    let answer = repository.ask("HEAD", &format!("blobs/{digest}")).await;
    assert_eq!(answer.status(), 404);
}

async fn a_mount_without_a_source_takes_it_from_anywhere(repository: &Repository) {
    let digest = repository.named("other").push_blob(&bytes(100)).await;
    let answer = repository
        .ask("POST", &format!("blobs/uploads/?mount={digest}"))
        .await;
    assert_eq!(answer.status(), 201);
    assert_stored(repository, &bytes(100)).await;
}

async fn an_upload_belongs_to_its_repository(repository: &Repository) {
    let at = repository.start_upload().await;
    let elsewhere = at.replace("some/image", "other");
    for method in ["GET", "PATCH", "PUT", "DELETE"] {
        let answer = repository
            .send(repository.upload(method, &elsewhere, ""))
            .await;
        assert_error(&answer, 404, "BLOB_UPLOAD_UNKNOWN");
    }
    assert_eq!(
        repository
            .send(repository.upload("GET", &at, ""))
            .await
            .status(),
        204
    );
}

async fn an_upload_that_is_done_takes_no_more(repository: &Repository) {
    let at = repository.start_upload().await;
    let parameters = format!("digest={}", Digest::sha256(b"x"));
    let put = || repository.upload("PUT", &at, &parameters).body("x");
    assert_eq!(repository.send(put()).await.status(), 201);
    assert_error(&repository.send(put()).await, 404, "BLOB_UPLOAD_UNKNOWN");
}
