//! What happened to an image as one picture: an SVG without scripts, fonts or links to elsewhere.
//!
//! From top to bottom: numbers, a timeline of requests and waits, the files that were waited for, and
//! the image's content as a treemap. Everything that came from an image (paths above all) is hostile
//! until [`escape`] has seen it, and whatever the trace holds, the number of shapes has a bound.

mod canvas;
mod colours;
mod content;
mod escape;
mod facts;
mod header;
mod lanes;
mod layout;
mod legend;
mod picture;
mod table;
mod timeline;
mod tree;
mod waits;
mod windows;
mod words;

#[cfg(test)]
mod example;
#[cfg(test)]
mod tests;

pub(crate) use picture::svg;
