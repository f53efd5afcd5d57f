//! Containers on lazily pulled images.

use draught_testkit::fault_proxy::{Fault, Rule};

use crate::stage::{BASE, Form, MIDDLE, Stage, TOP, archive};

/// All of an image's files, as a container sees them.
const LOOK: &str = "cd /; find bin etc data -xdev -exec stat -c '%n %F %a %u:%g' {} \\; | \
                    busybox sort; busybox sha256sum data/random data/which data/deep/top data/middle";

fn layers(stage: &Stage) -> [Vec<u8>; 3] {
    let scratch = &stage.scratch;
    [
        archive(scratch, "base", BASE),
        archive(scratch, "middle", MIDDLE),
        archive(scratch, "top", TOP),
    ]
}

/// What containerd's own snapshotter shows of an image.
#[track_caller]
pub(crate) fn reference_look(stage: &Stage, reference: &str, script: &str) -> String {
    stage.ctr(&["images", "pull", "--plain-http", reference]);
    let id = &stage.id("reference");
    let mut run = stage.containerd.ctr();
    run.args(["run", "--rm", reference, id, "/bin/sh", "-c", script]);
    crate::stage::succeed(&run.output().unwrap())
}

#[test]
fn lazily_pulled_images_run() {
    let Some(stage) = Stage::new() else { return };
    let [base, middle, top] = layers(&stage);
    let plain = stage.push(
        "plain:1",
        &[
            (Form::Plain, &base),
            (Form::Plain, &middle),
            (Form::Plain, &top),
        ],
    );
    let expected = reference_look(&stage, &plain, LOOK);
    assert!(expected.contains("data/opaque/new"), "{expected}");
    let lazy = stage.push(
        "lazy:1",
        &[
            (Form::Lazy, &base),
            (Form::Lazy, &middle),
            (Form::Lazy, &top),
        ],
    );
    let nydus = stage.registry.reference("nydus:1");
    stage.draught(&["convert", &plain, &nydus]);
    for (reference, count) in [(&lazy, 3), (&nydus, 2)] {
        stage.pull(reference);
        let layers = stage.layers(reference);
        assert!(layers.len() >= count, "{layers:?}");
        assert!(layers.values().all(|(lazy, _)| *lazy), "{layers:?}");
        assert_eq!(stage.run(reference, "look", LOOK), expected, "{reference}");
        // They are small.
        assert_eq!(stage.mount_of(reference)["prefetch_all"], true);
    }
    // Each image is one filesystem.
    let status = stage.status();
    assert_eq!(status["mounts"].as_array().unwrap().len(), 2, "{status}");
    // What is pulled without asking is pulled as ever.
    stage.ctr(&[
        "images",
        "pull",
        "--plain-http",
        "--snapshotter",
        "draught",
        &plain,
    ]);
    assert_eq!(stage.run(&plain, "eager", LOOK), expected);
}

#[test]
fn what_a_container_does_not_read_is_not_fetched() {
    let Some(stage) = Stage::new() else { return };
    let lazy = stage.push_large("large:1");
    let nydus = stage.registry.reference("large:2");
    stage.draught(&["convert", &lazy, &nydus]);
    for reference in [&lazy, &nydus] {
        // Each on a node that has nothing of the other.
        stage.pull(reference);
        assert_eq!(
            stage.run(reference, "starts", "cat /data/which"),
            "middle\n"
        );
        let mount = stage.mount_of(reference);
        assert_eq!(mount["prefetch_all"], false, "{mount}");
        let fetched = mount["bytes_fetched"].as_u64().unwrap();
        assert!((1..16_000_000).contains(&fetched), "{mount}");
        let read = |command: &[&str]| stage.run(reference, "reads", &command.join(" "));
        stage.assert_read(1, read);
        stage.ctr(&["images", "remove", "--sync", reference]);
        stage.eventually(|| stage.mounts() == 0);
    }
}

#[test]
fn a_corrupted_blob_is_an_error_and_never_other_bytes() {
    let Some(stage) = Stage::new() else { return };
    let lazy = stage.push_large("corrupt:1");
    stage.pull(&lazy);
    let long = stage.run_long(&lazy);
    // Within the third of four files of random bytes, which no packing makes smaller.
    let rule = Rule::new(Fault::FlipByte(40_000_000)).on_blobs();
    let rule = stage.registry.proxy().inject(rule);
    let mut exec = stage.containerd.ctr();
    exec.args([
        "tasks",
        "exec",
        "--exec-id",
        "e",
        &long,
        "/bin/cat",
        "/data/unread-2",
    ]);
    let output = exec.output().unwrap();
    let file = fs_err::read(stage.scratch.join("large.d/data/unread-2")).unwrap();
    assert!(
        !output.status.success(),
        "{} {}",
        output.stdout.len(),
        stage.log()
    );
    assert!(file.starts_with(&output.stdout), "other bytes");
    assert!(stage.registry.proxy().hits(rule) > 0);
    stage.registry.proxy().lift(rule);
    stage.assert_read(2, |command| stage.exec(&long, "again", command));
    stage.end_long(&long);
}

#[test]
fn containers_write_run_as_others_and_are_execed_into() {
    let Some(stage) = Stage::new() else { return };
    let [base, middle, top] = layers(&stage);
    let lazy = stage.push(
        "lazy:2",
        &[
            (Form::Lazy, &base),
            (Form::Lazy, &middle),
            (Form::Lazy, &top),
        ],
    );
    stage.pull(&lazy);
    let script = "cd /data; echo changed > which; rm -r opaque; mkdir opaque; echo more >> random; \
                  mv top moved; chmod 700 deep; cat which; ls -R . | busybox sort | busybox tail -n 3; \
                  busybox tail -c 5 random";
    let seen = stage.run(&lazy, "writes", script);
    assert!(
        seen.starts_with("changed\n") && seen.ends_with("more\n"),
        "{seen}"
    );
    // The image is what it was.
    assert_eq!(
        stage.run(&lazy, "again", "cat /data/which; cat /data/opaque/new"),
        "top\nnew\n"
    );
}

#[test]
fn running_containers_are_execed_into_and_their_snapshots_seen() {
    let Some(stage) = Stage::new() else { return };
    let [base, middle, top] = layers(&stage);
    let all = [
        (Form::Lazy, &*base),
        (Form::Lazy, &*middle),
        (Form::Lazy, &*top),
    ];
    let lazy = stage.push("lazy:5", &all);
    stage.pull(&lazy);
    let long = stage.run_long(&lazy);
    let seen = stage.exec(&long, "e1", &["/bin/cat", "/data/which"]);
    assert_eq!(seen, "top\n");
    let script = "id -u; cat /data/which; touch /data/x 2> /dev/null; touch /tmp/x && echo wrote";
    let exec = [
        "tasks",
        "exec",
        "--user",
        "1000:1000",
        "--exec-id",
        "e3",
        &long,
        "/bin/sh",
        "-c",
        script,
    ];
    assert_eq!(stage.ctr(&exec), "1000\ntop\nwrote\n");
    // While it runs, its snapshots are seen, differ by what was written, and can't be removed.
    stage.exec(&long, "e2", &["/bin/sh", "-c", "echo w > /data/written"]);
    let listed = stage.ctr(&["snapshots", "--snapshotter", "draught", "list"]);
    assert_eq!(
        listed
            .lines()
            .filter(|line| line.contains("Committed"))
            .count(),
        3,
        "{listed}"
    );
    assert!(
        listed
            .lines()
            .any(|line| line.starts_with(&*long) && line.contains("Active")),
        "{listed}"
    );
    let usage = stage.ctr(&["snapshots", "--snapshotter", "draught", "usage", &long]);
    assert!(usage.contains(&*long), "{usage}");
    let diff = stage.scratch.join("diff.tar");
    let output = stage
        .containerd
        .ctr()
        .args(["snapshots", "--snapshotter", "draught", "diff", &long])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    fs_err::write(&diff, &output.stdout).unwrap();
    let mut tar = std::process::Command::new("tar");
    let names = draught_testkit::process::run(tar.arg("-tzf").arg(&diff));
    assert!(names.lines().any(|name| name == "data/written"), "{names}");
    stage.end_long(&long);
}

#[test]
fn what_is_removed_is_freed() {
    let Some(stage) = Stage::new() else { return };
    let [base, middle, _] = layers(&stage);
    let lazy = stage.push("lazy:3", &[(Form::Lazy, &base), (Form::Lazy, &middle)]);
    stage.pull(&lazy);
    stage.run(&lazy, "reads", "cat /data/* > /dev/null 2>&1; true");
    let present = |stage: &Stage| {
        let df: serde_json::Value =
            serde_json::from_str(&stage.draught(&["df", "--format", "json"])).unwrap();
        df["bytes_present"].as_u64().unwrap()
    };
    assert!(present(&stage) > 3_000_000);
    stage.ctr(&["images", "remove", "--sync", &lazy]);
    stage.eventually(|| {
        let layers = stage.status()["layers"].as_array().unwrap().len();
        stage.mounts() == 0 && layers == 0 && present(&stage) == 0
    });
    let listed = stage.ctr(&["snapshots", "--snapshotter", "draught", "list"]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    // And comes again.
    stage.pull(&lazy);
    assert_eq!(stage.run(&lazy, "back", "cat /data/which"), "middle\n");
}

#[test]
fn fifty_containers_start_at_once() {
    let Some(stage) = Stage::new() else { return };
    let [base, middle, top] = layers(&stage);
    let lazy = stage.push(
        "lazy:4",
        &[
            (Form::Lazy, &base),
            (Form::Lazy, &middle),
            (Form::Lazy, &top),
        ],
    );
    stage.pull(&lazy);
    let sums = "$(sha256sum /data/random /data/middle)";
    let sum = stage.run(&lazy, "sum", &format!("echo \"{sums}\""));
    assert!(sum.contains("/data/middle"), "{sum}");
    // By its exit status: under load containerd's shim may lose what a container prints at its end.
    let script = format!("test \"{sums}\" = '{}'", sum.trim_end());
    let wrong = format!("test \"{sums}\" = '{}'", sum.replace('a', "b"));
    assert!(!stage.try_run(&lazy, "wrong", &wrong).status.success());
    std::thread::scope(|scope| {
        let each: Vec<_> = (0..50)
            .map(|number| {
                let (stage, lazy, script) = (&stage, &lazy, &script);
                scope.spawn(move || stage.run(lazy, &format!("many-{number}"), script))
            })
            .collect();
        each.into_iter().for_each(|one| drop(one.join().unwrap()));
    });
}

#[test]
fn what_was_pulled_lazily_can_be_made_whole() {
    let Some(stage) = Stage::new() else { return };
    let [base, middle, top] = layers(&stage);
    let all = [
        (Form::Lazy, &*base),
        (Form::Lazy, &*middle),
        (Form::Lazy, &*top),
    ];
    let lazy = stage.push("whole:1", &all);
    stage.pull(&lazy);
    stage.run(&lazy, "reads", "cat /data/random > /dev/null");
    let file = stage.scratch.join("exported.tar");
    let file = file.to_str().unwrap();
    let mut export = stage.containerd.ctr();
    let output = export
        .args(["images", "export", file, &lazy])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("not found"),
        "{said}"
    );
    let socket = stage.containerd.socket().to_str().unwrap().to_owned();
    stage.draught(&[
        "materialize",
        &lazy,
        "--containerd",
        &socket,
        "--namespace",
        "default",
    ]);
    stage.ctr(&["images", "export", file, &lazy]);
    // What another containerd imports of it is the image.
    let plain = reference_look(&stage, &lazy, LOOK);
    stage.ctr(&["images", "remove", "--sync", &lazy]);
    stage.ctr(&["images", "import", "--snapshotter", "draught", file]);
    let seen = stage.run(&lazy, "imported", LOOK);
    assert_eq!(seen, plain);
    let copy = stage.registry.reference("whole-copy:1");
    stage.ctr(&["images", "tag", &lazy, &copy]);
    stage.ctr(&["images", "push", "--plain-http", &copy]);
    stage.draught(&["check", &copy]);
}
