//! What the demonstration found, for programs and for people.

use std::time::Duration;

use serde::Serialize;

use super::inside::Ran;
use crate::output;
use crate::units::{Seconds, Size, percent};

/// In the shape that `--format json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) image: String,
    /// The program's first line.
    pub(crate) said: String,
    pub(crate) files: u64,
    pub(crate) file_bytes: u64,
    pub(crate) convert_seconds: f64,
    pub(crate) transport: String,
    pub(crate) why_transport: String,
    pub(crate) full: Way,
    pub(crate) lazy: Way,
}

/// One way to start a container.
#[derive(Debug, Serialize)]
pub(crate) struct Way {
    /// What the image has in the registry, in bytes.
    pub(crate) stored_bytes: u64,
    /// What was drawn from the registry until the program had run.
    pub(crate) drawn_bytes: u64,
    /// What it takes on the disk then.
    pub(crate) disk_bytes: u64,
    /// Until the program could be started: pulled and unpacked, or mounted.
    pub(crate) ready_seconds: f64,
    /// From there to the program's first output.
    pub(crate) output_seconds: f64,
    /// The same when it is started again.
    pub(crate) again_seconds: f64,
}

impl Way {
    /// Times of a way; the bytes are not known yet.
    pub(crate) fn new(ready: Duration, ran: &Ran, again: &Ran) -> Self {
        Self {
            stored_bytes: 0,
            drawn_bytes: 0,
            disk_bytes: 0,
            ready_seconds: ready.as_secs_f64(),
            output_seconds: ran.first_output.as_secs_f64(),
            again_seconds: again.first_output.as_secs_f64(),
        }
    }

    fn total_seconds(&self) -> f64 {
        self.ready_seconds + self.output_seconds
    }
}

fn seconds(seconds: f64) -> String {
    Seconds(Duration::from_secs_f64(seconds)).to_string()
}

impl Report {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let (full, lazy) = (&self.full, &self.lazy);
        let row = |name: &str, cell: &dyn Fn(&Way) -> String, note: String| {
            vec![name.to_owned(), cell(full), cell(lazy), note]
        };
        let size = |bytes: fn(&Way) -> u64| move |way: &Way| Size(bytes(way)).to_string();
        let time = |time: fn(&Way) -> f64| move |way: &Way| seconds(time(way));
        let blank = String::new;
        let factor = full.total_seconds() / lazy.total_seconds().max(1e-6);
        let rows = [
            row("", &|_| blank(), blank()),
            row(
                "image in the registry",
                &size(|way| way.stored_bytes),
                blank(),
            ),
            row(
                "drawn from the registry",
                &size(|way| way.drawn_bytes),
                percent(lazy.drawn_bytes, full.drawn_bytes),
            ),
            row(
                "on the disk",
                &size(|way| way.disk_bytes),
                percent(lazy.disk_bytes, full.disk_bytes),
            ),
            row("ready to start", &time(|way| way.ready_seconds), blank()),
            row(
                "then, to first output",
                &time(|way| way.output_seconds),
                blank(),
            ),
            row(
                "in all",
                &time(Way::total_seconds),
                format!("{factor:.1} times as fast"),
            ),
            row("started again", &time(|way| way.again_seconds), blank()),
        ];
        let mut rows = rows.to_vec();
        if let Some(head) = rows.first_mut() {
            *head = ["", "pull and unpack", "lazy", ""]
                .map(str::to_owned)
                .to_vec();
        }
        format!(
            "{}: {} files, {}\nthe program said: {}\n\n{}\nconverted in {}; mounted by {}: {}\n",
            self.image,
            self.files,
            Size(self.file_bytes),
            self.said,
            output::table(&rows),
            seconds(self.convert_seconds),
            self.transport,
            self.why_transport,
        )
    }
}
