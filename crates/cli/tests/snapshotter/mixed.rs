//! Images of which some layers can't be lazy.

use crate::containers::reference_look;
use crate::stage::{BASE, Form, MIDDLE, Stage, TOP, archive};

/// All files, with what matters of each, and what they hold.
const LOOK: &str = "cd /; find . -xdev -not -path './proc*' -not -path './sys*' -not -path './dev*' \
                    -not -path './run*' -exec stat -c '%n %F %a %u:%g' {} \\; | busybox sort; \
                    find data -type f | busybox sort | busybox xargs sha256sum";

#[test]
fn layers_that_are_not_lazy_are_pulled_wherever_they_are() {
    let Some(stage) = Stage::new() else { return };
    let scratch = &stage.scratch;
    let archives = [
        archive(scratch, "base", BASE),
        archive(scratch, "middle", MIDDLE),
        archive(scratch, "top", TOP),
    ];
    let with = |forms: [Form; 3]| {
        let layers = forms.into_iter().zip(&archives);
        layers
            .map(|(form, archive)| (form, archive.as_slice()))
            .collect::<Vec<_>>()
    };
    use Form::{Lazy, Plain};
    let plain = stage.push("mixed:plain", &with([Plain, Plain, Plain]));
    let expected = reference_look(&stage, &plain, LOOK);
    for (index, forms) in [
        [Plain, Lazy, Lazy],
        [Lazy, Plain, Lazy],
        [Lazy, Lazy, Plain],
        [Plain, Lazy, Plain],
        [Plain, Plain, Lazy],
        [Lazy, Plain, Plain],
        [Lazy, Lazy, Lazy],
    ]
    .into_iter()
    .enumerate()
    {
        let reference = stage.push(&format!("mixed:{index}"), &with(forms));
        stage.pull(&reference);
        let layers = stage.layers(&reference);
        let lazy = layers.values().filter(|(lazy, _)| *lazy).count();
        let expect = forms.iter().filter(|form| **form == Lazy).count();
        assert_eq!(lazy, expect, "{forms:?}: {layers:?} {}", stage.log());
        for (lazy, why) in layers.values() {
            let said = why
                .as_deref()
                .is_some_and(|why| why.contains("table of contents"));
            assert_eq!(said, !lazy, "{layers:?}");
        }
        let said = stage.logged("a layer is not lazy: the client pulls it");
        let mut of_image = said
            .iter()
            .filter(|fields| fields["image"] == reference.as_str());
        assert!(
            of_image.all(|fields| fields["snapshot"].is_string() && fields["why"].is_string()),
            "{said:?}"
        );
        assert_eq!(stage.run(&reference, "mixed", LOOK), expected, "{forms:?}");
        let status = stage.status();
        let mounts = status["mounts"].as_array().unwrap();
        assert_eq!(mounts.len(), 1, "{forms:?}: {status}");
        stage.ctr(&["images", "remove", "--sync", &reference]);
        stage.eventually(|| stage.mounts() == 0);
    }
}

/// A layer that tar would not write: these entries only.
fn layer(entries: &[(&str, draught_tree::EntryKind)]) -> Vec<u8> {
    let mut writer = draught_tar::Writer::new(Vec::new());
    for (path, kind) in entries {
        let entry = draught_tree::Entry {
            path: path.as_bytes().into(),
            meta: draught_tree::Meta {
                mode: 0o755,
                ..draught_tree::Meta::default()
            },
            kind: kind.clone(),
        };
        writer.entry(&entry).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn a_layer_that_needs_what_is_not_read_here_is_pulled() {
    let Some(stage) = Stage::new() else { return };
    let base = archive(&stage.scratch, "base", &format!("{BASE} chmod 710 data"));
    // The directory is the lower layer's, and so is what is known of it.
    let implying = layer(&[("data/pipe", draught_tree::EntryKind::Fifo)]);
    let script = "stat -c '%n %a %F' /data /data/pipe; cat /data/which";
    let expected = "/data 710 directory\n/data/pipe 755 fifo\nbase\n";
    let reference = stage.push(
        "implied:1",
        &[(Form::Plain, &base), (Form::Lazy, &implying)],
    );
    stage.pull(&reference);
    assert_eq!(stage.run(&reference, "implied", script), expected);
    let layers = stage.layers(&reference);
    assert!(layers.values().all(|(lazy, _)| !lazy), "{layers:?}");
    let mut whys = layers.values().filter_map(|(_, why)| why.as_deref());
    assert!(whys.any(|why| why.contains("no entry")), "{layers:?}");
}

#[test]
fn a_link_into_the_layer_below_is_served() {
    let Some(stage) = Stage::new() else { return };
    let base = archive(&stage.scratch, "base", BASE);
    let target = b"data/which".as_slice().into();
    let link = layer(&[
        ("data", draught_tree::EntryKind::Directory),
        ("data/link", draught_tree::EntryKind::HardLink(target)),
    ]);
    let reference = stage.push("link:1", &[(Form::Lazy, &base), (Form::Lazy, &link)]);
    stage.pull(&reference);
    let script = "cat /data/link; stat -c %h /data/which";
    assert_eq!(stage.run(&reference, "link", script), "base\n2\n");
}
