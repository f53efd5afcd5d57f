//! What has to be there before anything can be read: converted images, where each contender wants
//! them.

use std::path::Path;

use anyhow::Result;

use super::contender::Contender;
use super::lazily::Lazily;
use super::locally::{LocalErofs, Unpacked};
use super::nydusd::Nydusd;
use super::unserved::Unserved;
use crate::bench::draught::{Draught, Registry};
use crate::bench::image::{Image, oci};
use crate::bench::interrupt::Interrupt;
use crate::bench::measure;
use crate::run::say;

/// Converts the image for all contenders, and gives them with ours first.
pub(super) fn set<'a>(
    draught: &'a Draught,
    registry: &Registry,
    image: &Image,
    filesystem: &str,
    scratch: &Path,
    interrupt: &Interrupt,
) -> Result<Vec<Box<dyn Contender + 'a>>> {
    let (letter, _) = image.which.words();
    let name = |kind: &str| format!("bench/{}-{kind}", letter.to_lowercase());
    let (pushed, batched) = (
        registry.reference(&name("plain")),
        registry.reference(&name("batched")),
    );
    let layout = scratch.join("layout");
    let from = oci(&image.gzip_layout);
    for (to, args) in [
        (&pushed, &[][..]),
        (&batched, &["--batch-size", "128KiB"][..]),
        (&oci(&layout), &[][..]),
    ] {
        interrupt.check()?;
        say(&format!("converting to read it: {to}"));
        measure::run(
            &mut draught.convert(scratch, &from, to, args),
            &scratch.join("convert.log"),
        )?;
    }
    let reference = pushed.clone();
    let mut contenders: Vec<Box<dyn Contender + 'a>> = Vec::new();
    for (name, reference) in [
        ("draught", pushed),
        ("draught, batches of 128KiB", batched),
        ("draught, local layout", oci(&layout)),
    ] {
        contenders.push(Box::new(Lazily {
            draught,
            name,
            reference,
        }));
    }
    contenders.push(Box::new(Unserved::make(draught, &reference, scratch)?));
    if let Some(nydusd) = Nydusd::prepare(&layout, scratch)? {
        contenders.push(Box::new(nydusd));
    }
    if let Some(local) = LocalErofs::make(&image.tree, scratch)? {
        contenders.push(Box::new(local));
    }
    contenders.push(Box::new(Unpacked {
        filesystem: filesystem.to_owned(),
        tree: image.tree.clone(),
    }));
    Ok(contenders)
}
