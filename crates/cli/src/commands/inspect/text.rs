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
    if let Some(content) = &image.content {
        write_blobs(text, content);
        write_shared(text, content);
    }
}

/// How much of each blob is the image's.
fn write_blobs(text: &mut String, content: &ContentFacts) {
    if content.blobs.is_empty() {
        return;
    }
    let heads = [
        "blob", "chunks", "of", "content", "of", "stored", "of", "from",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for blob in &content.blobs {
        rows.push(vec![
            blob.digest.clone(),
            blob.chunks.to_string(),
            blob.blob_chunks.to_string(),
            Size(blob.device_used_bytes).to_string(),
            Size(blob.device_bytes).to_string(),
            Size(blob.stored_used_bytes).to_string(),
            Size(blob.stored_bytes).to_string(),
            blob.from.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    text.push('\n');
    text.push_str(&output::table(&rows));
}

/// What other images have of it.
fn write_shared(text: &mut String, content: &ContentFacts) {
    if content.shared.is_empty() {
        return;
    }
    let heads = ["shared with", "chunks", "content", "of it"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for shared in &content.shared {
        let mut row = vec![shared.with.clone()];
        if shared.comparable {
            row.push(shared.chunks.to_string());
            row.push(Size(shared.chunk_bytes).to_string());
            row.push(percent(shared.chunk_bytes, content.chunk_bytes));
        } else {
            row.extend(["-", "-", "-"].map(str::to_owned));
        }
        rows.push(row);
    }
    text.push('\n');
    text.push_str(&output::table(&rows));
    for shared in content.shared.iter().filter(|shared| !shared.comparable) {
        text.push_str(&format!(
            "{} can't be compared: its chunks are digested with {}, these with {}\n",
            shared.with, shared.digester, content.digester
        ));
    }
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
