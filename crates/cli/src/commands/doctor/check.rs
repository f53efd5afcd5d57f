//! What was looked at, and what was found.

use serde::Serialize;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What.
    pub(crate) what: &'static str,
    pub(crate) state: State,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it.
    pub(crate) fix: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Right,
    /// It works, but could be better, or is not for everybody.
    Hint,
    /// It does not work.
    Wrong,
}

impl Check {
    pub(crate) fn right(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            state: State::Right,
            found: found.into(),
            fix: None,
        }
    }

    pub(crate) fn hint(
        what: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            what,
            state: State::Hint,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }

    pub(crate) fn wrong(
        what: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            what,
            state: State::Wrong,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }

    pub(crate) fn is_wrong(&self) -> bool {
        self.state == State::Wrong
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let state = match self.state {
            State::Right => "right",
            State::Hint => "hint ",
            State::Wrong => "WRONG",
        };
        let mut text = format!("{state}  {}: {}\n", self.what, self.found);
        if let Some(fix) = &self.fix {
            text.push_str(&format!("       {fix}\n"));
        }
        text
    }
}
