//! Many layers.

use anyhow::{Result, ensure};

use super::stage::{Stage, equal};
use crate::snapshots::Shape;

/// As many as images have: registries and builders refuse more than 127, few have more than this.
const LAYERS: usize = 64;

pub(super) fn sixty_four_layers_are_one_tree(stage: &Stage) -> Result<()> {
    let mut parent = String::new();
    for number in 0..LAYERS {
        let name = format!("layer-{number}");
        parent = stage.layer(&name, &parent, |dir| {
            fs_err::write(dir.join(format!("file-{number}")), name.as_bytes())?;
            fs_err::write(dir.join("last"), name.as_bytes())?;
            if number % 8 == 7 {
                fs_err::remove_file(dir.join(format!("file-{}", number - 4)))?;
            }
            Ok(())
        })?;
    }
    let check = |dir: &std::path::Path| {
        let names = fs_err::read_dir(dir)?.count();
        equal("names", names, LAYERS - LAYERS / 8 + 1)?;
        for number in 0..LAYERS {
            let file = dir.join(format!("file-{number}"));
            if number % 8 == 3 {
                ensure!(!file.exists(), "file-{number} is there");
                continue;
            }
            let content = fs_err::read_to_string(file)?;
            equal("a layer's file", content, format!("layer-{number}"))?;
        }
        let last = fs_err::read_to_string(dir.join("last"))?;
        equal("the last", last, format!("layer-{}", LAYERS - 1))
    };
    let view = stage.view(&stage.name("view"), &parent)?;
    equal("the view", &Shape::of(&view)?, &Shape::ReadOnly)?;
    stage.within(&view, check)?;
    let active = stage.prepare(&stage.name("active"), &parent)?;
    stage.within(&active, |dir| {
        check(dir)?;
        fs_err::write(dir.join("own"), b"")?;
        Ok(fs_err::remove_file(dir.join("file-0"))?)
    })?;
    stage.within(&view, check)
}
