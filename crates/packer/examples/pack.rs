//! Packs layers into a blob each, and says how long it took and how much memory.
//!
//! `pack [--batch BYTES] [--threads N] [--lz4|--none] LAYER...`, where a layer is a tar file,
//! compressed or not, or a directory.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use draught_packer::{Directory, ImagePacker, LayerInput, PackOptions};
use draught_tree::Compression;

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut options = PackOptions {
        spool_dir: PathBuf::from("/var/tmp"),
        ..PackOptions::default()
    };
    let mut layers = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--batch" => options.batch_bytes = args.next().ok_or("--batch BYTES")?.parse()?,
            "--threads" => {
                options.threads = args.next().ok_or("--threads N")?.parse::<NonZeroUsize>()?
            }
            "--lz4" => options.compression = Compression::Lz4Block,
            "--none" => options.compression = Compression::None,
            _ => layers.push(PathBuf::from(arg)),
        }
    }
    let start = Instant::now();
    let mut packer = ImagePacker::new(options)?;
    for layer in layers {
        let (report, blob) = if layer.is_dir() {
            packer.add_directory(&mut Directory::open(&layer)?, &())?
        } else {
            packer.add_layer(LayerInput::new(fs_err::File::open(&layer)?), &())?
        };
        println!(
            "{}: {} bytes, {} entries, {} chunks ({} new, {} in the blob) -> {} bytes {}",
            layer.display(),
            report.decoded_bytes,
            report.entries,
            report.chunks,
            report.new_chunks,
            blob.as_ref().map_or(0, |blob| blob.info.chunks),
            report.blob_bytes,
            blob.map_or_else(String::new, |blob| blob.content.digest().to_string()),
        );
    }
    let status = fs_err::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or_default();
    println!("{:.2} s, {peak}", start.elapsed().as_secs_f64());
    Ok(())
}
