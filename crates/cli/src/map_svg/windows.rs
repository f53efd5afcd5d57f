//! Which times are drawn: everything, and the start by itself if it would be too small in that.

use draught_node::ImageTrace;

use super::words::float;

/// Times that are drawn from the mount on, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Windows {
    /// The end of the start, if that is worth a timeline of its own.
    pub(crate) start_ms: Option<f64>,
    /// The end of everything.
    pub(crate) all_ms: f64,
}

impl Windows {
    /// The time that is looked at more closely.
    pub(crate) fn closest_ms(&self) -> f64 {
        self.start_ms.unwrap_or(self.all_ms)
    }
}

/// How much of all waiting, or fetching, the start has at most; what comes after it is the tail.
const START_SHARE_MAX: f64 = 0.95;

/// How much of it has to be before a pause that ends the start.
const START_SHARE_MIN: f64 = 0.2;

/// A pause ends the start if it is as long as all before it and this much.
const PAUSE_MS: f64 = 2000.0;

/// How many times longer than the start all of it must be for the start to get a timeline of its own.
const TAIL_FACTOR: f64 = 3.0;

/// Room after the end of the start and after the last event, as factors; and the shortest time that
/// is drawn.
const START_MARGIN: f64 = 1.1;
const MARGIN: f64 = 1.03;
const SHORTEST_MS: f64 = 10.0;

/// A wait or a request.
#[derive(Debug, Clone, Copy)]
struct Event {
    from_ms: f64,
    to_ms: f64,
    /// How long a wait was, how much a request brought.
    weight: f64,
}

/// Chooses the times that are drawn.
pub(crate) fn windows(trace: &ImageTrace) -> Windows {
    let event = |at_ms: u64, took_ms: f64, weight: f64| Event {
        from_ms: float(at_ms),
        to_ms: float(at_ms) + took_ms,
        weight,
    };
    let faults = trace.faults.iter().map(|fault| {
        let waited_ms = float(fault.waited_us) / 1000.0;
        event(fault.at_ms, waited_ms, waited_ms)
    });
    let waits: Vec<Event> = faults.collect();
    let fetches = trace.fetches.iter();
    let fetches = fetches.map(|it| event(it.at_ms, float(it.took_ms), float(it.bytes)));
    let fetches: Vec<Event> = fetches.collect();
    let ends = waits.iter().chain(&fetches).map(|event| event.to_ms);
    let last = ends.reduce(f64::max).unwrap_or_else(|| {
        let touched = trace.areas.iter().filter_map(|area| area.touched_at_ms);
        float(touched.max().unwrap_or(trace.age_ms))
    });
    let all_ms = (last * MARGIN).max(SHORTEST_MS);
    let start = if waits.is_empty() { fetches } else { waits };
    let start_ms = (end_of_start(start) * START_MARGIN).max(SHORTEST_MS);
    let tail = start_ms * TAIL_FACTOR < all_ms;
    Windows {
        start_ms: tail.then_some(start_ms),
        all_ms,
    }
}

/// When nearly everything had come, or when a long pause began after much of it had.
fn end_of_start(mut events: Vec<Event>) -> f64 {
    events.sort_by(|a, b| a.from_ms.total_cmp(&b.from_ms));
    let all: f64 = events.iter().map(|event| event.weight).sum();
    let (mut come, mut end_ms) = (0.0, 0.0_f64);
    for event in events {
        let paused = event.from_ms > end_ms * 2.0 + PAUSE_MS;
        if come >= all * START_SHARE_MAX || (paused && come >= all * START_SHARE_MIN) {
            break;
        }
        come += event.weight;
        end_ms = end_ms.max(event.to_ms);
    }
    end_ms
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[track_caller]
    fn check(faults: &[(u64, u64)], fetches: &[(u64, u64)], start_ms: Option<f64>) {
        let mut trace = example::empty();
        let waits = faults
            .iter()
            .map(|(at_ms, ms)| example::fault(*at_ms, ms * 1000, "a"));
        trace.faults = waits.collect();
        let requests = fetches
            .iter()
            .map(|(at_ms, ms)| example::fetch(*at_ms, *ms, 1000));
        trace.fetches = requests.collect();
        let close = windows(&trace).start_ms;
        assert_eq!(close.map(f64::round), start_ms);
    }

    #[test]
    fn a_long_tail_gives_the_start_a_timeline_of_its_own() {
        check(&[(100, 900)], &[(100, 800)], None);
        check(&[(100, 900)], &[(60_000, 1000)], Some(1100.0));
        check(&[], &[(0, 500), (9000, 10)], Some(550.0));
        check(&[], &[], None);
    }

    #[test]
    fn a_pause_ends_the_start_if_much_was_before_it() {
        check(&[(0, 500), (500, 500), (90_000, 700)], &[], Some(1100.0));
        check(&[(5, 1), (10_000, 900), (11_000, 2000)], &[], None);
    }

    #[test]
    fn without_events_the_touches_count_and_then_the_age() {
        let mut trace = example::empty();
        trace.age_ms = 1000;
        assert_eq!(windows(&trace).all_ms, 1030.0);
        trace.areas = vec![example::area("a", 1)];
        trace.areas[0].touched_at_ms = Some(100);
        assert_eq!(windows(&trace).all_ms, 103.0);
    }
}
