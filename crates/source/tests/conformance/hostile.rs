//! Servers that lie. Each ends in an error of the right class, in bounded time and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Script, answer, chain, client, payload, repository, settings};
use draught_digest::Digest;
use draught_oci::{Descriptor, Document, Index, Manifest, Platform, Selector, media_type};
use draught_source::{Class, Client, Repository, Settings, Source as _, SourceError};

async fn place(script: &Script) -> Repository {
    repository(&client(), script.addr(), "a").await
}

fn tag() -> Selector {
    Selector::Tag("x".to_owned())
}

fn manifest() -> Vec<u8> {
    let config = Descriptor::of(media_type::CONFIG, b"{}");
    Document::write(Manifest::new(config, vec![])).into_bytes()
}

async fn manifest_error(answer: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> SourceError {
    let script = Script::start(move |_| answer());
    place(&script).await.manifest(&tag()).await.unwrap_err()
}

const TYPE: (&str, &str) = ("content-type", media_type::MANIFEST);

#[tokio::test]
async fn manifests_that_are_none_are_refused() {
    let of = |headers: &'static [(&str, &str)], body: &[u8]| {
        let body = body.to_vec();
        move || answer("200 OK", headers, &body)
    };
    let mut other = manifest();
    other.push(b' ');
    for (error, class) in [
        (manifest_error(of(&[TYPE], b"")).await, Class::Corrupt),
        (manifest_error(of(&[TYPE], b"{}")).await, Class::Corrupt),
        (
            manifest_error(of(&[("content-type", "text/html")], b"<html>")).await,
            Class::Corrupt,
        ),
        (
            manifest_error(of(&[("content-type", media_type::INDEX)], &manifest())).await,
            Class::Corrupt,
        ),
        (
            manifest_error(of(&[TYPE], &vec![b' '; (4 << 20) + 1])).await,
            Class::Corrupt,
        ),
        (
            manifest_error(of(&[TYPE, ("content-length", "99999999999999")], b"{")).await,
            Class::Corrupt,
        ),
        (
            manifest_error(of(
                &[
                    TYPE,
                    (
                        "docker-content-digest",
                        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                    ),
                ],
                &manifest(),
            ))
            .await,
            Class::Corrupt,
        ),
    ] {
        assert_eq!(error.class(), class, "{error}");
    }
}

#[tokio::test]
async fn a_manifest_with_another_digest_is_refused() {
    let script = Script::start(|_| answer("200 OK", &[TYPE], &manifest()));
    let place = place(&script).await;
    let right = Selector::Digest(Digest::sha256(&manifest()));
    place.manifest(&right).await.unwrap();
    let wrong = Selector::Digest(Digest::sha256(b"another"));
    let error = place.manifest(&wrong).await.unwrap_err();
    assert!(matches!(error, SourceError::Mismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_body_without_an_end_is_not_collected() {
    let endless = || {
        let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n".to_vec();
        bytes.resize(32 << 20, b' ');
        bytes
    };
    let error = manifest_error(endless).await;
    assert!(matches!(error, SourceError::TooLong { .. }), "{error}");
    let script = Script::start(move |_| endless());
    let place = place(&script).await;
    place.tags().await.unwrap_err();
    place.referrers(&Digest::sha256(b"")).await.unwrap_err();
    let digest = Digest::sha256(b"");
    assert_eq!(
        place.read_range(&digest, 1000..1010).await.unwrap(),
        "          "
    );
    let blob = Descriptor::new(media_type::LAYER_TAR, digest, 1000);
    let stream = place.blob(&blob).await.unwrap();
    let error = stream.into_bytes(1000).await.unwrap_err();
    assert_eq!(error.class(), Class::Corrupt, "{error}");
}

#[tokio::test]
async fn indexes_within_indexes_have_an_end() {
    // One index that names itself can't be made; a tag server that answers each digest with another can't
    // either. So a chain.
    let mut documents = vec![manifest()];
    for _ in 0..10 {
        let media_type = if documents.len() == 1 {
            media_type::MANIFEST
        } else {
            media_type::INDEX
        };
        let inner = Descriptor::of(media_type, documents.last().unwrap());
        let inner = inner.with_platform(Platform::host());
        documents.push(Document::write(Index::new(vec![inner])).into_bytes());
    }
    let script = Script::start(move |seen| {
        let found = documents
            .iter()
            .find(|document| seen.target.ends_with(&Digest::sha256(document).to_string()));
        answer("200 OK", &[], found.unwrap_or(&documents[10]))
    });
    let error = place(&script)
        .await
        .image(&tag(), &Platform::host())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("indexes"), "{error}");
}

#[tokio::test]
async fn answers_for_other_ranges_are_refused() {
    for range in [
        "bytes 0-9/100",
        "bytes 11-20/100",
        "bytes 10-18/100",
        "bytes 10-20/100",
        "bytes 10-19/15",
        "bytes */100",
        "items 10-19/100",
        "",
    ] {
        let script = Script::start(move |_| {
            answer(
                "206 Partial Content",
                &[("content-range", range)],
                b"0123456789",
            )
        });
        let error = place(&script)
            .await
            .read_range(&Digest::sha256(b""), 10..20)
            .await
            .unwrap_err();
        assert!(
            matches!(error, SourceError::ContentRange { .. }),
            "{range}: {error}"
        );
    }
    let script = Script::start(|_| {
        let headers = [("content-range", "bytes 10-19/100")];
        answer("206 Partial Content", &headers, b"0123456789 and more")
    });
    let read = place(&script)
        .await
        .read_range(&Digest::sha256(b""), 10..20)
        .await
        .unwrap();
    assert_eq!(read, "0123456789");
}

#[tokio::test]
async fn redirects_that_lead_nowhere_are_not_followed() {
    for target in [
        "file:///etc/passwd",
        "ftp://example.com/",
        "http://example.com/",
        "gopher:x",
        "http://",
        "//",
        "/loop",
    ] {
        let seen = Arc::new(AtomicU64::new(0));
        let counted = seen.clone();
        let script = Script::start(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            answer("307 Temporary Redirect", &[("location", target)], b"")
        });
        let error = place(&script).await.manifest(&tag()).await.unwrap_err();
        assert!(
            matches!(error, SourceError::Redirect { .. }),
            "{target}: {error}"
        );
        assert_eq!(error.class(), Class::Refused);
        assert!(seen.load(Ordering::SeqCst) <= 11);
    }
}

#[tokio::test]
async fn a_signed_url_is_in_no_error() {
    let elsewhere = Script::start(|_| answer("500 Internal Server Error", &[], b""));
    let target = format!("http://{}/blob?signature=hunter2", elsewhere.addr());
    let script =
        Script::start(move |_| answer("307 Temporary Redirect", &[("location", &target)], b""));
    let digest = Digest::sha256(b"");
    let error = place(&script)
        .await
        .read_range(&digest, 0..10)
        .await
        .unwrap_err();
    assert!(!chain(&error).contains("hunter2"), "{error:?}");
    let gone = {
        let gone = Script::start(|_| Vec::new());
        format!("http://{}/blob?signature=hunter2", gone.addr())
    };
    let script =
        Script::start(move |_| answer("307 Temporary Redirect", &[("location", &gone)], b""));
    let error = place(&script)
        .await
        .read_range(&digest, 0..10)
        .await
        .unwrap_err();
    assert!(matches!(error, SourceError::Transport { .. }), "{error}");
    assert!(!chain(&error).contains("hunter2"), "{}", chain(&error));
}

#[tokio::test]
async fn lists_are_followed_over_pages_and_not_for_ever() {
    let script = Script::start(|seen| {
        let page = seen
            .target
            .rsplit_once("page=")
            .map_or(0, |(_, page)| page.parse().unwrap());
        let link = format!("</v2/a/tags/list?page={}>; rel=\"next\"", page + 1);
        let body = format!("{{\"name\":\"a\",\"tags\":[\"t{page}\"]}}");
        let headers = [("link", link.as_str())];
        answer(
            "200 OK",
            if page < 3 { &headers } else { &[] },
            body.as_bytes(),
        )
    });
    assert_eq!(
        place(&script).await.tags().await.unwrap(),
        ["t0", "t1", "t2", "t3"]
    );

    let script = Script::start(|_| {
        let headers = [("link", "</v2/a/tags/list?again=1>; rel=\"next\"")];
        answer("200 OK", &headers, b"{\"tags\":null}")
    });
    let error = place(&script).await.tags().await.unwrap_err();
    assert_eq!(error.class(), Class::Refused, "{error}");
}

#[tokio::test]
async fn uploads_that_make_no_sense_end_in_an_error() {
    for (status, headers) in [
        ("202 Accepted", &[][..]),
        ("202 Accepted", &[("location", "http://example.com/up")]),
        ("201 Created", &[]),
        ("400 Bad Request", &[]),
    ] {
        let script = Script::start(move |seen| match seen.method.as_str() {
            "HEAD" => answer("404 Not Found", &[], b""),
            _ => answer(status, headers, b""),
        });
        let descriptor = Descriptor::of(media_type::LAYER_TAR, b"x");
        let pushed = place(&script)
            .await
            .push_blob(&descriptor, &payload(b"x"), &[])
            .await;
        let error = pushed.unwrap_err();
        assert_eq!(
            error.class(),
            Class::Refused,
            "{status} {headers:?}: {error}"
        );
    }
}

#[tokio::test]
async fn what_is_no_http_is_unavailable() {
    for bytes in [
        "",
        "SSH-2.0-OpenSSH_9\r\n",
        "HTTP/1.1 200",
        "HTTP/1.1 abc OK\r\n\r\n",
    ] {
        let error = manifest_error(move || bytes.as_bytes().to_vec()).await;
        assert!(error.is_unavailable(), "{bytes:?}: {error}");
    }
}

#[tokio::test]
async fn a_range_that_comes_by_drops_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        let head = "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-4095/4096\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let client = Client::new(Settings {
        stall_timeout: Duration::from_millis(200),
        ..settings()
    });
    let place = repository(&client, addr, "a").await;
    let begun = Instant::now();
    let error = place
        .read_range(&Digest::sha256(b""), 0..4096)
        .await
        .unwrap_err();
    assert!(matches!(error, SourceError::TooSlow { .. }), "{error}");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    server.await.unwrap();
}
