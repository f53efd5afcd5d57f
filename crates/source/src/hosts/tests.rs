use std::time::Duration;

use super::*;

fn parse(text: &str) -> HostsFile {
    HostsFile::parse(text.as_bytes()).unwrap()
}

fn url(host: &HostSettings) -> &str {
    host.url.as_ref().map_or("", |url| url.as_str())
}

#[test]
fn a_whole_file_is_read_in_its_order() {
    let file = parse(
        r#"
        server = "https://registry-1.docker.io"
        ca = "server.pem"

        [host."https://z.example"]
          capabilities = ["pull"]
          ca = ["one.pem", "/two.pem"]
          client = [["a.cert", "a.key"], ["b.pem", ""], "c.pem"]
          dial_timeout = "1s500ms"

        [host."http://10.0.0.1:5000/prefix"]
          capabilities = ["Pull", "resolve"]
          skip_verify = true
          [host."http://10.0.0.1:5000/prefix".header]
            x-one = "1"
            x-two = ["2", "3"]

        [host."a.example/api"]
          override_path = true
          client = "all.pem"
        "#,
    );
    let urls: Vec<_> = file.hosts.iter().map(url).collect();
    assert_eq!(
        urls,
        [
            "https://z.example/v2/",
            "http://10.0.0.1:5000/prefix/v2/",
            "https://a.example/api/"
        ]
    );
    let [z, ten, a] = file.hosts.as_slice() else {
        panic!("three hosts");
    };
    assert_eq!((z.pull, z.resolve, z.push), (true, false, false));
    assert_eq!(z.ca, ["one.pem", "/two.pem"].map(std::path::PathBuf::from));
    let pair = |certificate: &str, key: Option<&str>| ClientFiles {
        certificate: certificate.into(),
        key: key.map(Into::into),
    };
    let pairs = [
        pair("a.cert", Some("a.key")),
        pair("b.pem", None),
        pair("c.pem", None),
    ];
    assert_eq!(z.client, pairs);
    assert_eq!(z.dial_timeout, Some(Duration::from_millis(1500)));
    assert_eq!((ten.pull, ten.resolve, ten.push), (true, true, false));
    assert!(ten.skip_verify);
    assert_eq!(ten.header.get_all("x-two").iter().count(), 2);
    assert!(!format!("{ten:?}").contains("\"1\""), "{ten:?}");
    assert_eq!((a.pull, a.resolve, a.push), (true, true, true));
    assert_eq!(a.client, [pair("all.pem", None)]);
    assert_eq!(url(&file.server), "https://registry-1.docker.io/v2/");
    assert_eq!(file.server.ca, ["server.pem"].map(std::path::PathBuf::from));
    assert!(file.unknown.is_empty());
}

#[test]
fn an_empty_file_is_the_registry_itself() {
    let file = parse("");
    assert_eq!(file.server, HostSettings::default());
    assert!(file.hosts.is_empty());
    // What containerd's examples write.
    assert_eq!(parse("server = \"\"").server.url, None);
}

#[test]
fn urls_get_the_path_of_the_interface_unless_they_keep_their_own() {
    for (text, keeps, expect) in [
        ("https://r.example", false, "https://r.example/v2/"),
        ("https://r.example/", false, "https://r.example/v2/"),
        ("https://r.example/v2", false, "https://r.example/v2/"),
        ("https://r.example/a", false, "https://r.example/a/v2/"),
        ("https://r.example/a/", true, "https://r.example/a/"),
        ("https://r.example", true, "https://r.example/"),
        ("r.example:5000", false, "https://r.example:5000/v2/"),
    ] {
        let file = parse(&format!("server = {text:?}\noverride_path = {keeps}"));
        assert_eq!(url(&file.server), expect, "{text} {keeps}");
    }
}

#[test]
fn fields_that_are_new_are_named() {
    let file = parse("proxy = \"http://p\"\n[host.\"https://a\"]\nshape = 1");
    let mut unknown = file.unknown;
    unknown.sort();
    assert_eq!(unknown, ["host.\"https://a\".shape", "proxy"]);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, expect) in [
        ("server = 5", "line 1: server: not a string"),
        (
            "\nserver = \"ftp://x\"",
            "line 2: server: neither http:// nor https://",
        ),
        (
            "server = \"https://a:b@x\"",
            "line 1: server: credentials belong into a file of credentials",
        ),
        (
            "server = \"https://x?y\"",
            "line 1: server: has a query or a fragment",
        ),
        ("host = 1", "line 1: host: not a table of hosts"),
        (
            "[host]\n\"https://x\" = 1",
            "line 2: host.\"https://x\": not a table",
        ),
        (
            "[host.\"https://\"]",
            "line 1: host.\"https://\": not a URL",
        ),
        (
            "[host.\"https://x\"]\ncapabilities = [\"pull\", \"fly\"]",
            "line 2: host.\"https://x\".capabilities: a capability other than pull, resolve and push",
        ),
        (
            "capabilities = \"pull\"",
            "line 1: capabilities: not a list of strings",
        ),
        (
            "ca = 1",
            "line 1: ca: neither a string nor a list of strings",
        ),
        ("ca = [1]", "line 1: ca: not a string"),
        ("client = [[\"a\"]]", "line 1: client: not a pair"),
        (
            "client = [1]",
            "line 1: client: neither a string nor a pair",
        ),
        (
            "skip_verify = \"yes\"",
            "line 1: skip_verify: neither true nor false",
        ),
        (
            "override_path = 1",
            "line 1: override_path: neither true nor false",
        ),
        ("header = 1", "line 1: header: not a table"),
        (
            "[header]\n\"a b\" = \"c\"",
            "line 2: header.a b: not the name of a header",
        ),
        (
            "[header]\na = \"b\\n\"",
            "line 2: header.a: characters that no header can carry",
        ),
        (
            "dial_timeout = \"1\"",
            "line 1: dial_timeout: not a duration such as 10s",
        ),
        (
            "dial_timeout = \"1h\"",
            "line 1: dial_timeout: longer than 5m",
        ),
    ] {
        let error = HostsFile::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), expect, "{text}");
    }
    let error = HostsFile::parse(b"server = \"a\"\nserver ==").unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
    assert_eq!(
        HostsFile::parse(b"\xff").unwrap_err(),
        HostsFileError::NotText
    );
}
