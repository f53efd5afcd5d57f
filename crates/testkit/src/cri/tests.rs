//! Pods on containerd's own overlays.

use std::time::Duration;

use super::*;
use crate::containerd::{Config, CriConfig};
use crate::{Containerd, TestRegistry, images, mounted, registry};

const PATIENCE: Duration = Duration::from_secs(60);

/// A registry with an image of tools, its reference, and a containerd that runs pods.
fn stage() -> Option<(TestRegistry, String, Containerd)> {
    let registry = registry();
    let image = images::tools()?;
    let reference = registry.push_layout(&image, "tools")?;
    let config = Config {
        cri: Some(CriConfig::new("overlayfs", &reference)),
        ..Config::default()
    };
    Some((registry, reference, Containerd::start_with(&config)?))
}

fn snapshots(containerd: &Containerd) -> usize {
    use crate::snapshots::{Snapshots, Target};
    let target = Target::new(containerd.socket(), "overlayfs", "k8s.io");
    Snapshots::connect(&target)
        .unwrap()
        .list(&[])
        .unwrap()
        .len()
}

#[test]
fn a_pod_runs_a_command_and_leaves_nothing_behind() {
    let Some((_registry, reference, containerd)) = stage() else {
        return;
    };
    let cri = Cri::connect(containerd.socket()).unwrap();
    assert_eq!(cri.version().unwrap().0, "containerd");
    assert_eq!(cri.image(&reference).unwrap(), None);
    let id = cri.pull(&reference, None).unwrap();
    let images = cri.images().unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!((&images[0].id, &images[0].repo_tags[0]), (&id, &reference));
    let before = (mounted::below(containerd.dir()), snapshots(&containerd));
    let pod = cri
        .run_pod("a-pod", &containerd.dir().join("logs"))
        .unwrap();
    let echo = ["sh", "-c", "echo seen in the log; exit 7"];
    let once = cri.create(&pod, "once", &reference, &echo).unwrap();
    cri.start(&once).unwrap();
    assert_eq!(cri.wait(&once, PATIENCE).unwrap(), 7);
    assert_eq!(pod.log("once"), "seen in the log\n");
    let stays = cri
        .create(&pod, "stays", &reference, &["sleep", "3600"])
        .unwrap();
    cri.start(&stays).unwrap();
    let told = cri
        .exec(&stays, &["sh", "-c", "echo out; echo err >&2; exit 3"])
        .unwrap();
    assert_eq!(
        (told.stdout.as_str(), told.stderr.as_str(), told.exit_code),
        ("out\n", "err\n", 3)
    );
    assert_eq!(cri.containers().unwrap().len(), 2);
    assert!(mounted::below(containerd.dir()).len() > before.0.len());
    for container in [&once, &stays] {
        cri.stop(container).unwrap();
        cri.remove(container).unwrap();
    }
    cri.stop_pod(&pod).unwrap();
    cri.remove_pod(&pod).unwrap();
    assert_eq!(cri.pods().unwrap(), []);
    let after = (mounted::below(containerd.dir()), snapshots(&containerd));
    assert_eq!(after, before);
    cri.remove_image(&reference).unwrap();
    assert_eq!(cri.images().unwrap(), []);
    let dir = containerd.dir().to_owned();
    drop(containerd);
    assert!(!dir.exists());
}

#[test]
fn credentials_are_passed_on() {
    use crate::fault_proxy::Auth;
    let Some((registry, reference, containerd)) = stage() else {
        return;
    };
    registry.proxy().require_tokens(Some(Auth {
        user: Some(("somebody".to_owned(), "a: secret".to_owned())),
        ..Auth::default()
    }));
    let cri = Cri::connect(containerd.socket()).unwrap();
    assert!(cri.pull(&reference, None).is_err());
    let auth = |password: &str| {
        Some(messages::AuthConfig {
            username: "somebody".to_owned(),
            password: password.to_owned(),
            ..messages::AuthConfig::default()
        })
    };
    assert!(cri.pull(&reference, auth("another")).is_err());
    cri.pull(&reference, auth("a: secret")).unwrap();
}

#[test]
fn containers_live_on_while_containerd_is_gone() {
    let Some((_registry, reference, mut containerd)) = stage() else {
        return;
    };
    let cri = Cri::connect(containerd.socket()).unwrap();
    cri.pull(&reference, None).unwrap();
    let pod = cri
        .run_pod("a-pod", &containerd.dir().join("logs"))
        .unwrap();
    let id = cri
        .create(&pod, "stays", &reference, &["sleep", "3600"])
        .unwrap();
    cri.start(&id).unwrap();
    let write = ["sh", "-c", "echo kept >/kept"];
    assert_eq!(cri.exec(&id, &write).unwrap().exit_code, 0);
    containerd.stop();
    assert!(Cri::connect(containerd.socket()).is_err());
    containerd.start_again();
    for kill in [false, true] {
        if kill {
            containerd.kill();
            containerd.start_again();
        }
        let cri = Cri::connect(containerd.socket()).unwrap();
        let state = cri.status(&id).unwrap().state();
        assert_eq!(state, messages::ContainerState::ContainerRunning);
        assert_eq!(cri.exec(&id, &["cat", "/kept"]).unwrap().stdout, "kept\n");
    }
}
