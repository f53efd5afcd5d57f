//! The same facts for people.

use super::facts::{ContentFacts, ImageFacts, Report};
use crate::output;
use crate::units::{Size, percent};

/// Width of the names of facts.
const NAME_WIDTH: usize = 12;

/// The report as lines of text.
pub(crate) fn write(report: &Report) -> String {
    let mut text = String::new();
    fact(&mut text, "image", &report.reference);
    fact(&mut text, "digest", &report.digest);
    if report.images.len() != 1 {
        fact(&mut text, "images", &report.images.len().to_string());
    }
    for image in &report.images {
        if report.images.len() != 1 {
            text.push('\n');
            fact(&mut text, "digest", &image.digest);
        }
        write_image(&mut text, image);
    }
    text
}

fn fact(text: &mut String, name: &str, value: &str) {
    text.push_str(&format!("{name:<NAME_WIDTH$} {value}\n"));
}

fn write_image(text: &mut String, image: &ImageFacts) {
    fact(text, "platform", &image.platform);
    fact(text, "format", &image.format);
    match &image.why_not_lazy {
        Some(why) => fact(text, "lazy", &format!("no, {why}")),
        None => fact(text, "lazy", "yes"),
    }
    if let Some(created) = &image.created {
        fact(text, "created", created);
    }
    for (name, words) in [("entrypoint", &image.entrypoint), ("command", &image.cmd)] {
        if !words.is_empty() {
            fact(text, name, &words.join(" "));
        }
    }
    fact(text, "stored", &Size(image.stored_bytes).to_string());
    if let Some(content) = &image.content {
        write_content(text, content);
    }
    text.push('\n');
    let mut rows = vec![["layer", "role", "size"].map(str::to_owned).to_vec()];
    for layer in &image.layers {
        let size = Size(layer.bytes).to_string();
        rows.push(vec![layer.digest.clone(), layer.role.to_owned(), size]);
    }
    text.push_str(&output::table(&rows));
}

fn write_content(text: &mut String, content: &ContentFacts) {
    let files = format!(
        "{} ({} directories, {} symbolic links, {} devices and pipes, {} names)",
        content.files, content.directories, content.symlinks, content.specials, content.names
    );
    fact(text, "files", &files);
    let stored = content.blobs.iter().map(|blob| blob.stored_bytes).sum();
    let bytes = format!(
        "{}, {} stored ({})",
        Size(content.file_bytes),
        Size(stored),
        percent(stored, content.file_bytes)
    );
    fact(text, "content", &bytes);
    let chunks = format!(
        "{} of at most {} in {} extents of {} blobs, {}, {}",
        content.chunks,
        Size(content.chunk_bytes_max.into()),
        content.extents,
        content.blobs.len(),
        content.compressor,
        content.digester
    );
    fact(text, "chunks", &chunks);
    fact(text, "metadata", &Size(content.metadata_bytes).to_string());
    if content.prefetch > 0 {
        fact(
            text,
            "prefetch",
            &format!("{} files and directories", content.prefetch),
        );
    }
}
