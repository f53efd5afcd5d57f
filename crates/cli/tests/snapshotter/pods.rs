//! Kubernetes' way: pods through containerd's CRI plugin.

use draught_testkit::containerd::{Config, CriConfig, Proxy};
use draught_testkit::cri::Cri;
use draught_testkit::cri::messages::AuthConfig;
use draught_testkit::fault_proxy::Auth;
use draught_testkit::{Containerd, Scratch, images};

use rustix::process::{Pid, Signal, kill_process};

use crate::stage::{BASE, Form, MIDDLE, Stage, archive};

/// A stage with a containerd that runs pods.
fn stage() -> Option<Stage> {
    let scratch = Scratch::new();
    let socket = scratch.join("snapshotter.sock");
    Stage::with(scratch, |registry| {
        let pause = registry.push_layout(&images::tools()?, "pause")?;
        Containerd::start_with(&Config {
            snapshotters: vec![Proxy::new("draught", &socket)],
            cri: Some(CriConfig::new("draught", &pause)),
        })
    })
}

#[test]
fn credentials_of_a_pull_are_used_for_its_image_and_outlive_the_worker() {
    let Some(stage) = stage() else { return };
    let middle = archive(&stage.scratch, "middle", MIDDLE);
    let lazy = stage.push_large("secret:1");
    let first = stage.push("first:1", &[(Form::Lazy, &middle)]);
    let other = stage.push("other:1", &[(Form::Lazy, &middle)]);
    let cri = Cri::connect(stage.containerd.socket()).unwrap();
    // The pod's own image is public.
    let logs = stage.scratch.dir("logs");
    let pod = cri.run_pod("pod", &logs).unwrap();
    stage.registry.proxy().require_tokens(Some(Auth {
        user: Some(("somebody".to_owned(), "a: secret".to_owned())),
        ..Auth::default()
    }));
    let kubelet = Cri::connect(&stage.images_socket()).unwrap();
    assert!(kubelet.pull(&lazy, None).is_err());
    let auth = AuthConfig {
        username: "somebody".to_owned(),
        password: "a: secret".to_owned(),
        ..AuthConfig::default()
    };
    // One after the other: what came last has to outlive the worker too.
    kubelet.pull(&first, Some(auth.clone())).unwrap();
    kubelet.pull(&lazy, Some(auth)).unwrap();
    let layers = stage.layers(&lazy);
    assert!(
        !layers.is_empty() && layers.values().all(|(lazy, _)| *lazy),
        "{layers:?}"
    );
    let pid = i32::try_from(stage.status()["worker_pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    stage.registry.proxy().expire_tokens();
    let container = cri
        .create(&pod, "reads", &lazy, &["/bin/sleep", "3600"])
        .unwrap();
    cri.start(&container).unwrap();
    stage.assert_read(0, |command| cri.exec(&container, command).unwrap().stdout);
    // Nobody gave any for the other one.
    let refused =
        stage.draught_fails(&["mount", &other, stage.scratch.dir("mnt").to_str().unwrap()]);
    assert!(
        refused.contains("401") || refused.contains("credential"),
        "{refused}"
    );
    // Neither the log nor anything on disk knows the secret.
    assert!(!stage.log().contains("a: secret"));
    let mut grep = std::process::Command::new("grep");
    let found = grep
        .args(["-r", "-l", "-a", "-F", "a: secret"])
        .arg(stage.root());
    let found = found.output().unwrap();
    assert!(
        found.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&found.stdout)
    );
    cri.stop(&container).unwrap();
    cri.remove(&container).unwrap();
    cri.stop_pod(&pod).unwrap();
    cri.remove_pod(&pod).unwrap();
}

#[test]
fn pods_run_on_lazily_pulled_images() {
    let Some(stage) = stage() else { return };
    let base = archive(&stage.scratch, "base", BASE);
    let middle = archive(&stage.scratch, "middle", MIDDLE);
    let lazy = stage.push("pods:1", &[(Form::Lazy, &base), (Form::Lazy, &middle)]);
    let nydus = stage.registry.reference("pods:2");
    stage.draught(&["convert", &lazy, &nydus]);
    let cri = Cri::connect(stage.containerd.socket()).unwrap();
    for (index, image) in [&lazy, &nydus].into_iter().enumerate() {
        cri.pull(image, None).unwrap();
        let layers = stage.layers(image);
        assert!(!layers.is_empty(), "{}", stage.log());
        assert!(layers.values().all(|(lazy, _)| *lazy), "{layers:?}");
        let logs = stage.scratch.dir(format!("logs-{index}"));
        let pod = cri.run_pod(&format!("pod-{index}"), &logs).unwrap();
        let container = cri
            .create(&pod, "sleeps", image, &["/bin/sleep", "3600"])
            .unwrap();
        cri.start(&container).unwrap();
        let seen = cri.exec(&container, &["/bin/cat", "/data/which"]).unwrap();
        assert_eq!((seen.stdout.as_str(), seen.exit_code), ("middle\n", 0));
        cri.stop(&container).unwrap();
        cri.remove(&container).unwrap();
        cri.stop_pod(&pod).unwrap();
        cri.remove_pod(&pod).unwrap();
        cri.remove_image(image).unwrap();
    }
    stage.eventually(|| stage.mounts() == 0);
}
