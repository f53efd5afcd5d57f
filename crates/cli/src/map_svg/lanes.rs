//! Spans of time as bars in lanes: what overlaps in time stands in different lanes, and what cannot
//! be told apart on the screen is one bar.

/// Something that took time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span {
    /// Which one it is, for who draws it.
    pub(crate) index: usize,
    pub(crate) from_ms: f64,
    pub(crate) to_ms: f64,
    pub(crate) bytes: u64,
    pub(crate) failed: bool,
}

/// A bar: a span, or several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bar {
    /// From the top.
    pub(crate) lane: usize,
    /// Where it begins and ends, in units of the picture.
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// The span, or the longest of them.
    pub(crate) index: usize,
    pub(crate) longest_ms: f64,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    /// Whether they failed: what failed is one bar only with what failed, too.
    pub(crate) failed: bool,
}

/// How time becomes place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Axis {
    pub(crate) left: f64,
    pub(crate) width: f64,
    pub(crate) end_ms: f64,
}

impl Axis {
    /// Where a time is; what is later than the end is at the end.
    pub(crate) fn at(&self, ms: f64) -> f64 {
        self.left + self.width * (ms / self.end_ms).clamp(0.0, 1.0)
    }

    pub(crate) fn right(&self) -> f64 {
        self.left + self.width
    }
}

/// A bar is at least that wide, or nobody sees it; one that failed has to be seen among others.
const WIDTH_MIN: f64 = 1.6;
const WIDTH_MIN_FAILED: f64 = 4.0;

/// Packs spans into at most `lanes_max` lanes and draws them as at most `bars_max` bars (or one a
/// lane and outcome). What failed follows what it lies on. Spans that begin after the axis' end are left out.
pub(crate) fn pack(
    mut spans: Vec<Span>,
    axis: &Axis,
    lanes_max: usize,
    bars_max: usize,
) -> Vec<Bar> {
    spans.retain(|span| span.from_ms <= axis.end_ms);
    spans.sort_by(|a, b| a.from_ms.total_cmp(&b.from_ms).then(a.index.cmp(&b.index)));
    let mut lanes: Vec<Vec<Span>> = Vec::new();
    for span in spans {
        let ended = |lane: &Vec<Span>| lane.last().is_none_or(|last| last.to_ms <= span.from_ms);
        let free = lanes.iter().position(ended);
        // More at a time than there are lanes: they are merged with what they overlap.
        let lane = free.unwrap_or_else(|| lanes.len().min(lanes_max.saturating_sub(1)));
        match lanes.get_mut(lane) {
            Some(lane) => lane.push(span),
            None => lanes.push(vec![span]),
        }
    }
    let mut gap = 0.2;
    loop {
        let bars: Vec<Bar> = lanes
            .iter()
            .enumerate()
            .flat_map(|(at, lane)| {
                let mut bars = merge(lane, false, at, axis, gap);
                bars.extend(merge(lane, true, at, axis, gap));
                bars
            })
            .collect();
        if bars.len() <= bars_max || gap > axis.width {
            return bars;
        }
        gap *= 2.0;
    }
}

/// The spans of a lane that failed, or did not, as bars that are more than `gap` apart.
fn merge(spans: &[Span], failed: bool, lane: usize, axis: &Axis, gap: f64) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    let width_min = if failed { WIDTH_MIN_FAILED } else { WIDTH_MIN };
    for span in spans.iter().filter(|span| span.failed == failed) {
        let from = axis.at(span.from_ms);
        let to = axis.at(span.to_ms).max(from + width_min).min(axis.right());
        let took_ms = span.to_ms - span.from_ms;
        // A bar that is wide enough to be seen beside its neighbour stays one.
        let fine = to - from > 2.0 * width_min;
        match bars.last_mut() {
            Some(bar) if from < bar.to + gap && !(fine && gap < 1.0 && from >= bar.to) => {
                bar.to = bar.to.max(to);
                bar.count += 1;
                bar.bytes = bar.bytes.saturating_add(span.bytes);
                if took_ms > bar.longest_ms {
                    (bar.longest_ms, bar.index) = (took_ms, span.index);
                }
            }
            _ => bars.push(Bar {
                lane,
                from: from.min(axis.right() - width_min),
                to,
                index: span.index,
                longest_ms: took_ms,
                count: 1,
                bytes: span.bytes,
                failed,
            }),
        }
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    const AXIS: Axis = Axis {
        left: 100.0,
        width: 1000.0,
        end_ms: 1000.0,
    };

    fn span(index: usize, from_ms: f64, to_ms: f64) -> Span {
        Span {
            index,
            from_ms,
            to_ms,
            bytes: 1,
            failed: false,
        }
    }

    #[test]
    fn what_overlaps_stands_in_different_lanes() {
        let spans = vec![
            span(0, 0.0, 100.0),
            span(1, 50.0, 150.0),
            span(2, 100.0, 200.0),
        ];
        let bars = pack(spans, &AXIS, 4, 100);
        let lanes: Vec<_> = bars.iter().map(|bar| (bar.index, bar.lane)).collect();
        assert_eq!(lanes, [(0, 0), (2, 0), (1, 1)]);
        assert_eq!((bars[0].from, bars[0].to), (100.0, 200.0));
    }

    #[test]
    fn lanes_and_bars_are_bounded_and_nothing_is_lost() {
        let spans: Vec<_> = (0..8192_u32)
            .map(|it| Span {
                failed: it % 3 == 0,
                ..span(0, f64::from(it % 997), f64::from(it % 997 + it % 7))
            })
            .collect();
        let bars = pack(spans, &AXIS, 16, 500);
        assert!(bars.len() <= 500);
        assert!(bars.iter().all(|bar| bar.lane < 16));
        assert_eq!(bars.iter().map(|bar| bar.count).sum::<u64>(), 8192);
    }

    #[test]
    fn bars_stay_within_the_axis() {
        for bar in pack(
            vec![span(0, 1000.0, 5e9), span(1, 999.9, 1000.0)],
            &AXIS,
            2,
            9,
        ) {
            assert!(bar.from < bar.to && bar.to <= AXIS.right());
        }
    }
}
