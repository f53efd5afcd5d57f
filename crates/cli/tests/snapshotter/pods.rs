//! Kubernetes' way: pods through containerd's CRI plugin.

use draught_testkit::containerd::{Config, CriConfig, Proxy};
use draught_testkit::cri::Cri;
use draught_testkit::{Containerd, Scratch, images};

use crate::stage::{BASE, Form, MIDDLE, Stage, archive};

#[test]
fn pods_run_on_lazily_pulled_images() {
    let scratch = Scratch::new();
    let socket = scratch.join("snapshotter.sock");
    let with = |registry: &draught_testkit::TestRegistry| {
        let pause = registry.push_layout(&images::tools()?, "pause")?;
        let config = Config {
            snapshotters: vec![Proxy::new("draught", &socket)],
            cri: Some(CriConfig::new("draught", &pause)),
        };
        Containerd::start_with(&config)
    };
    let Some(stage) = Stage::with(scratch, with) else {
        return;
    };
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
    let deadline = std::time::Instant::now() + crate::stage::PATIENCE;
    while !stage.status()["mounts"].as_array().unwrap().is_empty() {
        assert!(std::time::Instant::now() < deadline, "{}", stage.log());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
