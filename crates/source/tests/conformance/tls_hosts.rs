//! TLS as files about hosts say: authorities, certificates of ours, and none at all; with docker's registry.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{chain, noise, push_image, repository, settings};
use draught_oci::Selector;
use draught_source::{Client, CredentialFiles, Hosts, Settings, SourceError};
use draught_testkit::{Process, Scratch, need, net, process};

/// `me` with this password, as htpasswd has it.
const HTPASSWD: &str = "me:$2b$04$mA0/pvzTWMyrMVPDjarMOOrkkZiUqw6yHUm6S5kTgZkbEDQ5vjluu\n";
const PASSWORD: &str = "hunter2:with:colons";

/// docker's registry with TLS and names, which wants to see a certificate of ours.
struct Scene {
    _server: Process,
    scratch: Scratch,
    addr: SocketAddr,
}

fn openssl(openssl: &Path, arguments: &[&str], dir: &Path) {
    process::run(Command::new(openssl).args(arguments).current_dir(dir));
}

/// An authority of its own, and a certificate by it for the server and one for us.
fn certificates(program: &Path, dir: &Path, ip: std::net::IpAddr) {
    let key = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ];
    let new = |arguments: &[&str]| {
        let all: Vec<&str> = key.iter().chain(arguments).copied().collect();
        openssl(program, &all, dir);
    };
    new(&[
        "-subj",
        "/CN=authority",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
    ]);
    new(&[
        "-subj",
        "/CN=stranger",
        "-keyout",
        "stranger.key",
        "-out",
        "stranger.crt",
    ]);
    let by = [
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    let signed = |name: &str, more: &[&str]| {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.cert"));
        let out = ["-subj", "/CN=server", "-keyout", &key, "-out", &certificate];
        new(&[&by, more, &out].concat());
    };
    let name = format!("subjectAltName=IP:{ip}");
    signed("server", &["-addext", &name]);
    signed("client", &["-addext", "extendedKeyUsage=clientAuth"]);
}

fn scene() -> Option<Scene> {
    let (openssl, registry) = (need::tool("openssl")?, need::tool("docker-registry")?);
    let scratch = Scratch::new();
    let addr = net::free_addr();
    certificates(&openssl, scratch.path(), addr.ip());
    fs_err::write(scratch.join("htpasswd"), HTPASSWD).unwrap();
    let config = serde_json::json!({
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": true}},
        "storage": {"filesystem": {"rootdirectory": scratch.dir("storage")}},
        "auth": {"htpasswd": {"realm": "test", "path": scratch.join("htpasswd")}},
        "http": {
            "addr": addr.to_string(),
            "tls": {
                "certificate": scratch.join("server.cert"),
                "key": scratch.join("server.key"),
                "clientcas": [scratch.join("ca.crt")],
            },
        },
    });
    let file = scratch.join("registry.yml");
    fs_err::write(&file, config.to_string()).unwrap();
    let mut command = Command::new(registry);
    command.arg("serve").arg(&file);
    let mut server = Process::start(&mut command, &scratch.join("registry.log")).unwrap();
    server
        .wait_until(Duration::from_secs(30), || TcpStream::connect(addr).is_ok())
        .unwrap();
    Some(Scene {
        _server: server,
        scratch,
        addr,
    })
}

impl Scene {
    /// A directory with nothing in it yet, as the registry's own.
    fn hosts_dir(&self, root: &str) -> PathBuf {
        let name = format!("{root}/{}:{}", self.addr.ip(), self.addr.port());
        self.scratch.dir(name)
    }

    fn client(&self, root: &str) -> Client {
        let file = self.scratch.join("config.json");
        let host = self.addr;
        let text = format!(
            "{{\"auths\":{{\"{host}\":{{\"username\":\"me\",\"password\":\"{PASSWORD}\"}}}}}}"
        );
        fs_err::write(&file, text).unwrap();
        Client::new(Settings {
            loopback_tls: vec![self.addr.to_string()],
            hosts: Hosts::of(vec![self.scratch.join(root)]),
            credentials: CredentialFiles::of(vec![file]).into(),
            attempts: 1,
            ..settings()
        })
    }
}

async fn works(client: &Client, addr: SocketAddr) -> Result<(), SourceError> {
    let place = repository(client, addr, "a/b").await;
    let image = push_image(&place, "x", noise(1, 1000)).await;
    let found = place.manifest(&Selector::Tag("x".to_owned())).await?;
    assert_eq!(found.digest(), image.digest());
    Ok(())
}

#[tokio::test]
async fn a_registry_is_spoken_to_as_its_file_says() {
    let Some(scene) = scene() else {
        return;
    };
    let root = "certs.d";
    let file = scene.hosts_dir(root).join("hosts.toml");
    let path = |name: &str| scene.scratch.join(name).display().to_string();
    let (ca, cert, key) = (path("ca.crt"), path("client.cert"), path("client.key"));
    let both = path("both.pem");
    let text = [&cert, &key].map(|path| fs_err::read_to_string(path).unwrap());
    fs_err::write(&both, text.concat()).unwrap();
    let (strange_cert, strange_key) = (path("stranger.crt"), path("stranger.key"));
    for text in [
        format!("ca = {ca:?}\nclient = [[{cert:?}, {key:?}]]"),
        format!("ca = [{ca:?}]\nclient = {both:?}"),
        format!("ca = {ca:?}\nclient = [{both:?}]\ndial_timeout = \"3s\""),
        // The server says by whom ours must be.
        format!("ca = {ca:?}\nclient = [[{strange_cert:?}, {strange_key:?}], {both:?}]"),
        format!("skip_verify = true\nclient = {both:?}"),
        format!(
            "server = \"https://{}\"\nca = {ca:?}\nclient = {both:?}",
            scene.addr
        ),
    ] {
        fs_err::write(&file, &text).unwrap();
        works(&scene.client(root), scene.addr)
            .await
            .unwrap_or_else(|error| panic!("{text}: {}", chain(&error)));
    }
    let tag = Selector::Tag("x".to_owned());
    for (text, expect) in [
        (format!("client = {both:?}"), "certificate"),
        (format!("ca = {ca:?}"), "connection"),
        (
            format!("ca = {strange_cert:?}\nclient = {both:?}"),
            "certificate",
        ),
        (format!("ca = {ca:?}\nclient = {ca:?}"), "ca.crt"),
        (
            format!("ca = {:?}", path("is-not-there.pem")),
            "is-not-there.pem",
        ),
    ] {
        fs_err::write(&file, &text).unwrap();
        let place = repository(&scene.client(root), scene.addr, "a/b").await;
        let error = place.manifest(&tag).await.unwrap_err();
        assert!(chain(&error).contains(expect), "{text}: {}", chain(&error));
    }
}

#[tokio::test]
async fn a_directory_as_docker_has_it_says_who_we_are() {
    let Some(scene) = scene() else {
        return;
    };
    let root = "docker";
    let dir = scene.hosts_dir(root);
    for name in ["ca.crt", "client.cert", "client.key"] {
        fs_err::copy(scene.scratch.join(name), dir.join(name)).unwrap();
    }
    let client = scene.client(root);
    works(&client, scene.addr).await.unwrap();
    // Certificates that are replaced count without a restart.
    fs_err::copy(scene.scratch.join("stranger.crt"), dir.join("ca.crt")).unwrap();
    let begun = std::time::Instant::now();
    let place = repository(&client, scene.addr, "a/b").await;
    while let Ok(_found) = place.manifest(&Selector::Tag("x".to_owned())).await {
        let elapsed = begun.elapsed();
        assert!(
            elapsed < Duration::from_secs(20),
            "the change is not noticed"
        );
    }
    fs_err::remove_file(dir.join("client.key")).unwrap();
    let place = repository(&scene.client(root), scene.addr, "a/b").await;
    let error = place.manifest(&Selector::Tag("x".to_owned())).await;
    let error = chain(&error.unwrap_err());
    assert!(error.contains("client.cert has no key"), "{error}");
}
