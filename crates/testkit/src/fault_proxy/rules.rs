//! Which requests break, and how.

use std::time::Duration;

use super::counts::Kind;

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is answered with this status, and does not reach the registry.
    Status(u16),
    /// As [`Status`](Self::Status), and the client is told to come back after so many seconds.
    RetryAfter(u16, u64),
    /// It waits so long before it reaches the registry.
    Delay(Duration),
    /// It is never answered.
    Hang,
    /// Its connection is reset without an answer.
    Reset,
    /// The connection is reset after so many bytes of the response's body.
    ResetAfter(u64),
    /// The response's body stops after so many bytes, and nothing ever follows.
    StallAfter(u64),
    /// The response's body ends after so many bytes though more were announced.
    TruncateAfter(u64),
    /// The response's body ends after so many bytes, and that is what is announced.
    ShortenTo(u64),
    /// The response's body comes at so many bytes per second.
    Bandwidth(u64),
    /// The range is ignored: the answer is 200 with the whole body.
    IgnoreRange,
    /// The byte at this offset of the blob arrives with all its bits turned, in whatever range.
    FlipByte(u64),
    /// It is sent to the same resource at the proxy's second address, with 307, as registries do
    /// that keep their blobs in an object store. There, a request that carries credentials for
    /// the registry is refused with 400, as an object store would.
    Redirect,
}

/// Names a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleId(u64);

/// A fault, and the requests that it meets.
#[derive(Debug, Clone)]
pub struct Rule {
    fault: Fault,
    method: Option<String>,
    kind: Option<Kind>,
    part: Option<String>,
    skip: u64,
    times: u64,
}

impl Rule {
    /// Meets every request.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            method: None,
            kind: None,
            part: None,
            skip: 0,
            times: u64::MAX,
        }
    }

    /// Meets only requests by this method.
    #[must_use]
    pub fn on_method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Meets only requests for this kind of thing.
    #[must_use]
    pub fn on(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Meets only requests for blobs.
    #[must_use]
    pub fn on_blobs(self) -> Self {
        self.on(Kind::Blob)
    }

    /// Meets only requests for manifests.
    #[must_use]
    pub fn on_manifests(self) -> Self {
        self.on(Kind::Manifest)
    }

    /// Meets only requests whose path contains `part`, such as a digest.
    #[must_use]
    pub fn on_path(mut self, part: impl ToString) -> Self {
        self.part = Some(part.to_string());
        self
    }

    /// Spares the first `count` requests that it would meet.
    #[must_use]
    pub fn after(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Meets so many requests and then no more.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }

    fn meets(&self, method: &str, path: &str) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.kind.is_none_or(|wanted| wanted == Kind::of(path))
            && self
                .part
                .as_ref()
                .is_none_or(|part| path.contains(part.as_str()))
    }
}

#[derive(Debug)]
struct Active {
    id: RuleId,
    rule: Rule,
    hits: u64,
}

/// The rules in force.
#[derive(Debug, Default)]
pub(super) struct Rules {
    active: Vec<Active>,
    /// Hits of the rules that were lifted.
    past: Vec<(RuleId, u64)>,
    next: u64,
}

impl Rules {
    pub(super) fn inject(&mut self, rule: Rule) -> RuleId {
        let id = RuleId(self.next);
        self.next += 1;
        self.active.push(Active { id, rule, hits: 0 });
        id
    }

    pub(super) fn lift(&mut self, wanted: impl Fn(RuleId) -> bool) {
        let lifted = self.active.extract_if(.., |active| wanted(active.id));
        self.past
            .extend(lifted.map(|active| (active.id, active.hits)));
    }

    pub(super) fn hits(&self, id: RuleId) -> u64 {
        let active = self.active.iter().map(|active| (active.id, active.hits));
        let mut all = active.chain(self.past.iter().copied());
        all.find(|(other, _)| *other == id)
            .map_or(0, |(_, hits)| hits)
    }

    /// The faults of one request, in the order in which they were injected.
    pub(super) fn meet(&mut self, method: &str, path: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        for active in &mut self.active {
            if !active.rule.meets(method, path) || active.hits >= active.rule.times {
                continue;
            }
            if active.rule.skip > 0 {
                active.rule.skip -= 1;
                continue;
            }
            active.hits += 1;
            faults.push(active.rule.fault.clone());
        }
        faults
    }
}
