//! Progress on standard error, as the person or the program that watches wants it.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use serde::Serialize;

use crate::args::Progress;
use crate::output;
use crate::units::Size;

/// How often a plain line comes at most: often enough to see that it lives, seldom enough for a log.
const PLAIN_PERIOD: Duration = Duration::from_secs(2);

/// How often a JSON line comes at most: as often as a person looks at what a program draws from it.
const JSON_PERIOD: Duration = Duration::from_millis(250);

/// Redraws of the bar in a second.
const BAR_HERTZ: u8 = 10;

/// Tells of one piece of work; can be shared between threads. Nothing is left on the terminal when it
/// is dropped.
#[derive(Debug)]
pub(crate) struct Reporter {
    /// What is being done, as a verb: "convert".
    work: &'static str,
    how: How,
    state: Mutex<State>,
}

#[derive(Debug)]
enum How {
    Bar(ProgressBar),
    Plain,
    Json,
    None,
}

#[derive(Debug)]
struct State {
    part: String,
    done_bytes: u64,
    total_bytes: Option<u64>,
    told: Option<Instant>,
}

/// A line for programs.
#[derive(Debug, Serialize)]
struct Line<'a> {
    event: &'static str,
    work: &'static str,
    part: &'a str,
    done_bytes: u64,
    total_bytes: Option<u64>,
}

impl Reporter {
    /// Begins to tell. `how` has been resolved.
    pub(crate) fn new(work: &'static str, how: Progress) -> Self {
        let how = match how {
            Progress::Bar => How::Bar(bar()),
            Progress::Plain => How::Plain,
            Progress::Json => How::Json,
            Progress::None | Progress::Auto => How::None,
        };
        Self {
            work,
            how,
            state: Mutex::new(State {
                part: String::new(),
                done_bytes: 0,
                total_bytes: None,
                told: None,
            }),
        }
    }

    /// The part of the work that begins; it is always told.
    pub(crate) fn part(&self, part: impl Into<String>) {
        let mut state = self.state.lock();
        state.part = part.into();
        if let How::Bar(bar) = &self.how {
            bar.set_message(state.part.clone());
        }
        self.tell(&mut state, false);
    }

    /// How much there is to do, in bytes, if it is known, and how much of it is done.
    pub(crate) fn bytes(&self, done_bytes: u64, total_bytes: Option<u64>) {
        let mut state = self.state.lock();
        state.done_bytes = done_bytes;
        state.total_bytes = total_bytes;
        let period = match &self.how {
            How::Bar(bar) => {
                if bar.length().is_some() != total_bytes.is_some() {
                    shape(bar, total_bytes.is_some());
                }
                bar.set_position(done_bytes);
                total_bytes.map_or_else(|| bar.unset_length(), |total| bar.set_length(total));
                return;
            }
            How::None => return,
            How::Plain => PLAIN_PERIOD,
            How::Json => JSON_PERIOD,
        };
        if state.told.is_none_or(|told| told.elapsed() >= period) {
            self.tell(&mut state, true);
        }
    }

    /// Tells it, with amounts if they are what is new.
    fn tell(&self, state: &mut State, has_amount: bool) {
        match &self.how {
            How::Bar(_) | How::None => return,
            How::Plain => {
                let done = Size(state.done_bytes);
                let amount = match (state.done_bytes, state.total_bytes) {
                    _ if !has_amount => String::new(),
                    (_, None) => format!(", {done}"),
                    (_, Some(total)) => format!(", {done} of {}", Size(total)),
                };
                output::say(&format!("{}: {}{amount}", self.work, state.part));
            }
            How::Json => {
                let line = Line {
                    event: "progress",
                    work: self.work,
                    part: &state.part,
                    done_bytes: state.done_bytes,
                    total_bytes: state.total_bytes,
                };
                if let Ok(line) = serde_json::to_string(&line) {
                    output::say(&line);
                }
            }
        }
        state.told = Some(Instant::now());
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(BAR_HERTZ));
    shape(&bar, false);
    // Turns while nothing is told, so that one sees that it lives.
    bar.enable_steady_tick(JSON_PERIOD);
    bar
}

/// How the bar looks when it is known how much there is to do, and when not.
fn shape(bar: &ProgressBar, is_measured: bool) {
    let template = if is_measured {
        "{spinner} {msg}  {binary_bytes} of {binary_total_bytes} {wide_bar} {eta}"
    } else {
        "{spinner} {msg}  {elapsed}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}
