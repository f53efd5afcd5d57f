//! The store loses its index, its daemon, or its images, and never a byte of what is left.

use std::sync::atomic::Ordering;
use std::time::Duration;

use draught_testkit::fault_proxy::{Fault, Rule};
use draught_testkit::{need, registry};

use crate::harness::{Numbers, Stage, children, eventually, kill, succeed};
use crate::shared::{assert_right, convert, disk_bytes, mount, status_of, umount};

fn devices(stage: &Stage, ending: &str) -> Vec<std::path::PathBuf> {
    let entries = fs_err::read_dir(stage.root().join("store/devices")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|it| it == ending))
        .collect();
    found.sort();
    found
}

#[test]
fn tables_that_are_damaged_or_lost_cost_sharing_and_nothing_else() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let other = registry();
    let reference = other.reference("other:1");
    convert(&stage, &stage.files, &["--compressor", "lz4"], &reference);
    for (round, damage) in ["flipped", "cut off", "lost"].into_iter().enumerate() {
        stage.start(&[]);
        let first = mount(&stage, &stage.reference(), "first");
        assert_right(&first, &stage.files);
        umount(&stage, &first);
        succeed(&stage.draught(&["daemon", "--stop"]));
        let tables = devices(&stage, "chunks");
        assert!(!tables.is_empty());
        for table in &tables {
            let mut bytes = fs_err::read(table).unwrap();
            let middle = bytes.len() / 2;
            match damage {
                "flipped" => bytes[middle] ^= 1,
                "cut off" => bytes.truncate(middle),
                _ => bytes.clear(),
            }
            if bytes.is_empty() {
                fs_err::remove_file(table).unwrap();
            } else {
                fs_err::write(table, bytes).unwrap();
            }
        }
        stage.start(&[]);
        // It is told, nothing of it is believed, and both images read what they should.
        let dir = mount(&stage, &reference, &format!("other-{round}"));
        assert_right(&dir, &stage.files);
        let warned = stage
            .log()
            .contains("the chunks of a device are not shared");
        assert!(warned, "{damage}: {}", stage.log());
        let status = status_of(&stage, &dir);
        assert_eq!(status["bytes_shared"], 0, "{damage}: {status}");
        let first = mount(&stage, &stage.reference(), "first");
        assert_right(&first, &stage.files);
        umount(&stage, &first);
        umount(&stage, &dir);
        for image in [&stage.reference(), &reference] {
            succeed(&stage.draught(&["rm", image]));
        }
        succeed(&stage.draught(&["gc"]));
        assert_eq!(devices(&stage, "data").len(), 0, "{damage}");
        succeed(&stage.draught(&["daemon", "--stop"]));
    }
}

/// Times that the worker is killed while images come and go.
const KILLS: u64 = 25;

#[test]
fn images_that_come_and_go_while_workers_are_killed_leave_no_wrong_byte_and_nothing_behind() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let mut files = stage.files.clone();
    files.insert("own".to_owned(), Numbers::new(5).bytes(2_000_000));
    let other = stage.registry.reference("other:1");
    convert(&stage, &files, &["--batch-size", "64KiB"], &other);
    stage.start(&[]);
    succeed(&stage.mount());
    let keeper = stage.keeper();
    let dir = stage.scratch.dir("other-mnt");
    let at = dir.to_str().unwrap();
    let compared = std::sync::atomic::AtomicU64::new(0);
    let reads = stage.read_during(4, || {
        let mut numbers = Numbers::new(3);
        for _ in 0..KILLS {
            std::thread::scope(|scope| {
                let wait = Duration::from_micros(numbers.below(250_000));
                scope.spawn(move || {
                    std::thread::sleep(wait);
                    for worker in children(keeper, "draught-worker") {
                        kill(worker);
                    }
                });
                // Each may meet a dying worker; what it did not do is done by the next round.
                let _mounted = stage.draught(&["mount", &other, at]);
                let own = fs_err::read(dir.join("own"));
                if let Ok(own) = own {
                    assert!(own == files["own"], "own has other bytes");
                    compared.fetch_add(1, Ordering::Relaxed);
                }
                let _unmounted = stage.draught(&["umount", at]);
                let _removed = stage.draught(&["rm", &other]);
                let _collected = stage.draught(&["gc"]);
            });
            eventually("a worker runs", || {
                !children(keeper, "draught-worker").is_empty()
            });
        }
    });
    let compared = compared.into_inner();
    need::say(&format!(
        "{KILLS} kills under {reads} reads, {compared} of the other image"
    ));
    assert!(compared > KILLS / 4, "{compared}");
    stage.assert_all_right();
    let _unmounted = stage.draught(&["umount", at]);
    let _removed = stage.draught(&["rm", &other]);
    succeed(&stage.umount());
    succeed(&stage.draught(&["rm", &stage.reference()]));
    succeed(&stage.draught(&["gc"]));
    assert_eq!(devices(&stage, "data").len(), 0);
    assert!(disk_bytes(&stage) < 200_000, "{}", disk_bytes(&stage));
    // And it begins anew as if nothing had been.
    succeed(&stage.mount());
    stage.assert_all_right();
}

#[test]
fn images_that_name_their_chunks_by_another_digest_share_them_too() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let other = registry();
    let reference = other.reference("sha256:1");
    convert(
        &stage,
        &stage.files,
        &["--digester", "sha256", "--chunk-size", "64KiB"],
        &reference,
    );
    stage.start(&[]);
    let first = mount(&stage, &stage.reference(), "first");
    assert_right(&first, &stage.files);
    let metric = |name: &str| {
        let page = succeed(&stage.draught(&["metrics"]));
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("{page} has no {name}"))
    };
    eventually("everything is known by its other digest", || {
        metric("draught_index_twins") >= metric("draught_index_chunks")
    });
    let dir = mount(&stage, &reference, "other");
    other.proxy().reset_counts();
    assert_right(&dir, &stage.files);
    assert_eq!(other.proxy().counts().blobs().sent_bytes, 0);
    let status = status_of(&stage, &dir);
    assert_eq!(status["bytes_shared"], status["bytes_total"], "{status}");
}

#[test]
fn status_and_metrics_say_how_an_image_is_served_and_why() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let name = stage.readable()[0].to_owned();
    assert!(stage.read(&name).unwrap());
    let text = succeed(&stage.draught(&["status", &stage.reference()]));
    let says = |name: &str| {
        let mut lines = text.lines();
        let line = lines.find_map(|line| Some(line.strip_prefix(name)?.trim_start().to_owned()));
        line.unwrap_or_else(|| panic!("{name} in {text}"))
    };
    assert_eq!(
        (says("transport"), says("lazy")),
        ("fanotify".to_owned(), "yes".to_owned())
    );
    for some in ["present", "drawn", "waits"] {
        assert!(!says(some).starts_with('0'), "{some} in {text}");
    }
    assert_eq!(says("last error"), "none");
    let page = succeed(&stage.draught(&["metrics"]));
    let reference = format!("ref=\"{}\"", stage.reference());
    for metric in [
        "draught_image_lazy",
        "draught_image_bytes_present",
        "draught_image_faults_total",
    ] {
        let line = page
            .lines()
            .find(|line| line.starts_with(metric) && line.contains(&reference));
        let value = line.and_then(|line| line.rsplit(' ').next());
        assert!(
            value.is_some_and(|value| value != "0"),
            "{metric} in {page}"
        );
    }
    assert!(page.contains("draught_fault_seconds_bucket"), "{page}");
    // What is wrong is said, with the reason.
    stage.registry.proxy().go_down();
    let unread = stage.readable()[7].to_owned();
    let daemon = stage.draught(&["status", &stage.reference(), "--format", "json"]);
    let before: serde_json::Value = serde_json::from_str(&succeed(&daemon)).unwrap();
    assert!(before.to_string().contains("\"lazy\":true"), "{before}");
    std::thread::scope(|scope| {
        scope.spawn(|| stage.read(&unread));
        eventually("the error is told", || {
            stage.status()["mounts"][0]["last_error"].is_string()
        });
        let told = stage.status()["mounts"][0]["last_error"].clone();
        let text = succeed(&stage.draught(&["status", &stage.reference()]));
        assert!(text.contains(told.as_str().unwrap()), "{told} in {text}");
        stage.registry.proxy().come_up();
    });
    let missing = stage.draught(&["status", "no.such/image:1"]);
    assert!(!missing.status.success());
    assert!(
        String::from_utf8_lossy(&missing.stderr).contains("no.such/image:1"),
        "{missing:?}"
    );
}

#[test]
fn an_image_is_removed_while_its_last_fetch_is_still_under_way() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    let reference = stage.reference();
    let dir = stage.mountpoint.to_str().unwrap().to_owned();
    succeed(&stage.draught(&["mount", &reference, &dir]));
    succeed(&stage.umount());
    let hung = stage
        .registry
        .proxy()
        .inject(Rule::new(Fault::Hang).on_blobs());
    succeed(&stage.draught(&["mount", "--prefetch", "all", &reference, &dir]));
    eventually("something is fetched", || {
        let page = succeed(&stage.draught(&["metrics"]));
        let none = "draught_fetches_under_way 0\n";
        !page.contains(none)
    });
    succeed(&stage.umount());
    succeed(&stage.draught(&["rm", &reference]));
    stage.registry.proxy().lift(hung);
    stage.registry.proxy().cut_connections();
    eventually("its devices are gone", || {
        devices(&stage, "data").is_empty()
    });
    succeed(&stage.mount());
    stage.assert_all_right();
}
