use crate::{DescriptorError, Reference, ReferenceError, Selector};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn check(text: &str, host: &str, repository: &str, tag: Option<&str>) {
    let reference: Reference = text.parse().unwrap();
    assert_eq!(reference.host(), host, "{text}");
    assert_eq!(reference.repository(), repository, "{text}");
    assert_eq!(reference.tag(), tag, "{text}");
}

#[test]
fn what_is_left_out_is_filled_in_as_docker_does() {
    check("debian", "docker.io", "library/debian", None);
    check("debian:12", "docker.io", "library/debian", Some("12"));
    check("user/app", "docker.io", "user/app", None);
    check("docker.io/debian", "docker.io", "library/debian", None);
    check(
        "index.docker.io/user/app:1",
        "docker.io",
        "user/app",
        Some("1"),
    );
    check("localhost/app", "localhost", "app", None);
    check("LOCALHOST/app", "localhost", "app", None);
    check("localhost:5000/app:1", "localhost:5000", "app", Some("1"));
    check("127.0.0.1:5000/a/b/c", "127.0.0.1:5000", "a/b/c", None);
    check("[::1]:5000/app:x", "[::1]:5000", "app", Some("x"));
    check("ghcr.io/a__b/c-d--e.f", "ghcr.io", "a__b/c-d--e.f", None);
    check("Example.COM/app", "example.com", "app", None);
}

#[test]
fn the_digest_is_asked_for_before_the_tag() {
    let reference: Reference = format!("debian:12@{DIGEST}").parse().unwrap();
    assert_eq!(
        reference.selector(),
        Selector::Digest(DIGEST.parse().unwrap())
    );
    assert_eq!(reference.tag(), Some("12"));
    assert_eq!(
        reference.to_string(),
        format!("docker.io/library/debian:12@{DIGEST}")
    );
    let latest: Reference = "debian".parse().unwrap();
    assert_eq!(latest.selector(), Selector::Tag("latest".to_owned()));
}

#[test]
fn printing_and_parsing_agree() {
    for text in [
        "debian",
        "localhost:5000/app:1",
        "[::1]:5000/a",
        "a.b/c/d:e",
    ] {
        let once: Reference = text.parse().unwrap();
        let twice: Reference = once.to_string().parse().unwrap();
        assert_eq!(once, twice);
    }
}

#[test]
fn what_is_no_reference_is_refused() {
    for text in [
        "",
        ":tag",
        "app:",
        "app:-tag",
        &format!("app:{}", "t".repeat(129)),
        "app@",
        "app@sha256:00",
        &format!("app@{DIGEST}@{DIGEST}"),
        "a//b",
        "/app",
        "app/",
        "host.example/",
        "a..b",
        "a___b",
        "-a",
        "a-",
        "user/App",
        "host:port/app",
        "host:99999/app",
        "[::1/app",
        "[zz]:1/app",
        "a b",
        "a/../b",
        "https://example.com/app",
        "app\n",
        &format!("h.example/{}", "a".repeat(250)),
    ] {
        let parsed = text.parse::<Reference>();
        assert!(parsed.is_err(), "{text:?} was taken as {parsed:?}");
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let error = "user/App".parse::<Reference>().unwrap_err();
    assert!(matches!(error, ReferenceError::UpperCase { .. }), "{error}");
    let sha512 = format!("app@sha512:{}", "0".repeat(128));
    let error = sha512.parse::<Reference>().unwrap_err();
    let ReferenceError::Digest { source, .. } = error else {
        panic!("{error}");
    };
    assert!(
        matches!(source, DescriptorError::Algorithm { .. }),
        "{source}"
    );
}
