//! What a daemon is told of registries: mirrors, and the kubelet's plugins.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use draught_testkit::fault_proxy::Auth;
use draught_testkit::process::run;
use draught_testkit::registry_in;

use crate::harness::{Stage, children, eventually, kill, succeed};

const PASSWORD: &str = "hunter2";

#[test]
fn a_daemon_reads_from_mirrors_and_asks_plugins_also_after_a_crash() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let registry = stage.registry.addr();
    let copy = stage.scratch.join("mirror");
    run(Command::new("cp")
        .arg("-a")
        .arg(stage.registry.dir())
        .arg(&copy));
    let mirror = registry_in(&copy);
    stage.registry.proxy().reset_counts();
    stage.registry.proxy().require_tokens(Some(Auth {
        user: Some(("me".to_owned(), PASSWORD.to_owned())),
        lifetime: Duration::from_secs(300),
    }));
    let hosts = stage.scratch.dir("certs.d");
    let name = format!("certs.d/{}_{}_", registry.ip(), registry.port());
    let file = stage.scratch.dir(name).join("hosts.toml");
    fs_err::write(file, format!("[host.\"http://{}\"]\n", mirror.addr())).unwrap();
    let plugins = stage.scratch.dir("plugins");
    let script = format!(
        "#!/bin/sh\ncat <<END\n{{\"kind\":\"CredentialProviderResponse\",\
         \"apiVersion\":\"credentialprovider.kubelet.k8s.io/v1\",\"cacheKeyType\":\"Image\",\
         \"auth\":{{\"{registry}\":{{\"username\":\"me\",\"password\":\"{PASSWORD}\"}}}}}}\nEND\n"
    );
    fs_err::write(plugins.join("plugin"), script).unwrap();
    let executable = std::fs::Permissions::from_mode(0o755);
    fs_err::set_permissions(plugins.join("plugin"), executable).unwrap();
    let config = stage.scratch.join("plugins.yaml");
    let text = format!(
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n\
         - name: plugin\n  matchImages: [\"{registry}\"]\n  defaultCacheDuration: 1h\n\
         \x20 apiVersion: credentialprovider.kubelet.k8s.io/v1\n"
    );
    fs_err::write(&config, text).unwrap();
    stage.start(&[
        "--hosts-dir",
        hosts.to_str().unwrap(),
        "--image-credential-provider-config",
        config.to_str().unwrap(),
        "--image-credential-provider-bin-dir",
        plugins.to_str().unwrap(),
    ]);
    succeed(&stage.mount());
    let readable: Vec<_> = stage.readable().into_iter().map(str::to_owned).collect();
    assert!(stage.read(&readable[0]).unwrap());
    let requests =
        |registry: &draught_testkit::TestRegistry| registry.proxy().counts().total().requests;
    assert!(requests(&mirror) > 0);
    assert_eq!(requests(&stage.registry), 0);
    // Another worker knows what this one was told.
    let keeper = stage.keeper();
    let old = children(keeper, "draught-worker");
    old.iter().copied().for_each(kill);
    eventually("another worker serves", || {
        let now = children(keeper, "draught-worker");
        !now.is_empty() && now != old && stage.draught(&["ps"]).status.success()
    });
    mirror.proxy().go_down();
    stage.assert_all_right();
    assert!(stage.registry.proxy().tokens_issued() > 0);
    assert!(!stage.log().contains(PASSWORD));
}
