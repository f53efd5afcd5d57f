//! Conversations that real clients had with other snapshotters, held again with the one under test.
//!
//! A trace ([`Trace`]) is what a client asked and was answered. [`replay`] asks the same, with the names of
//! an image that the test made in the place of those of the recording machine ([`Mapping`]), mounts and
//! fills what a client would, and tells by line and call where an answer means something else. What is
//! compared is meaning: names that the snapshotter makes up itself are matched by their relations.
//!
//! ```no_run
//! use draught_testkit::snapshots::{Target, replay};
//! # let (socket, layout) = (std::path::Path::new(""), std::path::Path::new(""));
//! let image = replay::Image::of_layout("127.0.0.1:5000/test:esgz", layout).unwrap();
//! let trace = replay::Trace::named("containerd-1.6-ctr-remote-rpull-and-run");
//! let target = Target::new(socket, "draught", "default");
//! let report = replay::replay(&trace, &image, &target, &replay::Options::default()).unwrap();
//! report.assert_same();
//! ```

mod compare;
mod image;
mod mapping;
mod relations;
mod run;
#[cfg(test)]
mod tests;
mod trace;

pub use compare::{Difference, Got};
pub use image::{Image, ImageLayer};
pub use mapping::Mapping;
pub use run::{Options, Report, replay};
pub use trace::{Answer, Call, Line, NAMES, Trace};
