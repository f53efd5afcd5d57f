//! Bars: what a measure may be at most.

use serde_json::{Value, json};

use super::unit::Unit;

/// A bar and what was measured.
#[derive(Debug)]
pub(crate) struct Bar {
    words: String,
    most: Option<f64>,
    measured: Option<f64>,
    unit: Unit,
}

impl Bar {
    /// What is measured in `words` may be `most` at most. A bar that could not be measured says so.
    pub(crate) fn at_most(
        words: impl Into<String>,
        most: impl Into<Option<f64>>,
        unit: Unit,
        measured: Option<f64>,
    ) -> Self {
        Self {
            words: words.into(),
            most: most.into(),
            measured,
            unit,
        }
    }

    /// Whether it is met; nothing if that is not known.
    pub(crate) fn is_met(&self) -> Option<bool> {
        Some(self.measured? <= self.most?)
    }

    /// A line for people.
    pub(crate) fn line(&self) -> String {
        let shown = |value: f64| self.unit.shown(value);
        let most = self.most.map_or_else(|| "?".to_owned(), shown);
        let measured = match (self.measured, self.is_met()) {
            (Some(value), Some(true)) => format!("measured {}, met", shown(value)),
            (Some(value), Some(false)) => format!("measured {}, NOT met", shown(value)),
            (Some(value), None) => format!("measured {}, but the bar is not known", shown(value)),
            (None, _) => "not measured".to_owned(),
        };
        format!("* bar: {}, at most {most}: {measured}", self.words)
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "words": self.words,
            "most": self.most,
            "measured": self.measured,
            "met": self.is_met(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_met_up_to_its_limit_and_says_when_nothing_was_measured() {
        #[track_caller]
        fn check(measured: Option<f64>, most: Option<f64>, met: Option<bool>, words: &str) {
            let bar = Bar::at_most("deduplication on over off", most, Unit::Times, measured);
            assert_eq!(bar.is_met(), met);
            let line = bar.line();
            assert!(line.ends_with(words), "{line}");
        }
        check(
            Some(1.05),
            Some(1.05),
            Some(true),
            "at most 1.05 ×: measured 1.05 ×, met",
        );
        check(
            Some(1.06),
            Some(1.05),
            Some(false),
            ": measured 1.06 ×, NOT met",
        );
        check(None, Some(1.05), None, ": not measured");
        check(
            Some(1.0),
            None,
            None,
            "at most ?: measured 1.00 ×, but the bar is not known",
        );
    }
}
