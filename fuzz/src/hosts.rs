//! What operators write about the hosts of registries.

use draught_source::HostsFile;

/// A file that is accepted names hosts by URLs that paths can be put after, and shows no header.
pub(crate) fn file(data: &[u8]) {
    let file = match HostsFile::parse(data) {
        Ok(file) => file,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(file.hosts.iter().all(|host| host.url.is_some()));
    for host in file.hosts.iter().chain([&file.server]) {
        if let Some(url) = &host.url {
            assert!(["http", "https"].contains(&url.scheme()), "{url}");
            assert!(url.path().ends_with('/'), "{url}");
            assert!(url.password().is_none() && url.query().is_none(), "{url}");
            assert!(url.join("a/blobs/sha256:0").is_ok(), "{url}");
        }
        assert!(host.header.values().all(|value| value.is_sensitive()));
    }
    // The same bytes, the same file.
    assert_eq!(HostsFile::parse(data).as_ref(), Ok(&file));
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let whole = r#"server = "https://registry-1.docker.io"
ca = "ca.pem"

[host."https://mirror.example:5000/prefix"]
  capabilities = ["pull", "resolve"]
  ca = ["one.pem", "two.pem"]
  client = [["a.cert", "a.key"], ["b.pem", ""]]
  dial_timeout = "1.5s"
  [host."https://mirror.example:5000/prefix".header]
    x-token = ["a", "b"]

[host."http://10.0.0.1"]
  skip_verify = true
  override_path = true
"#;
    let inline = "host = {\"a.example\" = {client = \"a.pem\", header = {a = \"b\"}}}\n";
    [whole, inline, "server = \"\"\nproxy = 1\n"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}
