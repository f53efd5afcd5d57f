//! TLS: spoken to every host that is not listed, and only with those who can prove who they are.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{chain, repository, settings};
use draught_oci::{Descriptor, Document, Manifest, Selector, media_type};
use draught_source::{Client, Settings, SourceError};
use draught_testkit::{Process, Scratch, need, net, process};

struct Scene {
    _server: Process,
    _scratch: Scratch,
    addr: SocketAddr,
    certificate: PathBuf,
    manifest: Vec<u8>,
}

/// OpenSSL's test server, which serves the files below its directory, with a certificate for its address that
/// it signed itself.
fn scene(openssl: &Path) -> Scene {
    let addr = net::free_addr();
    let scratch = Scratch::new();
    let dir = scratch.dir("www/v2/a/manifests");
    let config = Descriptor::of(media_type::CONFIG, b"{}");
    let manifest = Document::write(Manifest::new(config, vec![])).into_bytes();
    fs_err::write(dir.join("x"), &manifest).unwrap();
    let (certificate, key) = (scratch.join("certificate.pem"), scratch.join("key.pem"));
    process::run(
        Command::new(openssl)
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args([
                "-subj",
                "/CN=test",
                "-days",
                "2",
                "-addext",
                &format!("subjectAltName=IP:{}", addr.ip()),
            ])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate),
    );
    let mut command = Command::new(openssl);
    command
        .args(["s_server", "-WWW", "-quiet", "-accept", &addr.to_string()])
        .arg("-cert")
        .arg(&certificate)
        .arg("-key")
        .arg(&key)
        .current_dir(scratch.join("www"));
    let mut server = Process::start(&mut command, &scratch.join("server.log")).unwrap();
    server
        .wait_until(Duration::from_secs(30), || TcpStream::connect(addr).is_ok())
        .unwrap();
    Scene {
        _server: server,
        _scratch: scratch,
        addr,
        certificate,
        manifest,
    }
}

fn client(addr: SocketAddr, tls_ca: Vec<PathBuf>) -> Client {
    Client::new(Settings {
        loopback_tls: vec![addr.ip().to_string()],
        tls_ca,
        attempts: 1,
        ..settings()
    })
}

#[tokio::test]
async fn a_registry_with_a_known_authority_is_read_over_tls() {
    let Some(openssl) = need::tool("openssl") else {
        return;
    };
    let scene = scene(&openssl);
    let directory = scene.certificate.parent().unwrap().join("authorities");
    fs_err::create_dir(&directory).unwrap();
    fs_err::copy(&scene.certificate, directory.join("registry.crt")).unwrap();
    for ca in [scene.certificate.clone(), directory] {
        let place = repository(&client(scene.addr, vec![ca]), scene.addr, "a").await;
        let found = place
            .manifest(&Selector::Tag("x".to_owned()))
            .await
            .unwrap();
        assert_eq!(found.bytes(), scene.manifest);
    }
}

#[tokio::test]
async fn a_registry_without_a_known_authority_is_not_read() {
    let Some(openssl) = need::tool("openssl") else {
        return;
    };
    let scene = scene(&openssl);
    let stranger = self::scene(&openssl).certificate.clone();
    // A file that is gone by now, and one that is none.
    let gone = repository(&client(scene.addr, vec![stranger]), scene.addr, "a").await;
    let tag = Selector::Tag("x".to_owned());
    let error = gone.manifest(&tag).await.unwrap_err();
    assert!(matches!(error, SourceError::Tls { .. }), "{error}");

    let other = self::scene(&openssl);
    let place = repository(
        &client(scene.addr, vec![other.certificate.clone()]),
        scene.addr,
        "a",
    )
    .await;
    let error = place.manifest(&tag).await.unwrap_err();
    assert!(chain(&error).contains("certificate"), "{}", chain(&error));
}
