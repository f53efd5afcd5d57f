//! The parts of small traces.

use draught_node::{ImageTrace, TraceArea, TraceBlob, TraceFault, TraceFetch, TracePriority};

/// A trace of an image that was mounted and nothing else.
pub(crate) fn empty() -> ImageTrace {
    ImageTrace {
        reference: "registry.example/empty:1".to_owned(),
        digest: "sha256:0000".to_owned(),
        transport: "erofs".to_owned(),
        age_ms: 0,
        bytes_total: 0,
        bytes_present: 0,
        bytes_fetched: 0,
        bytes_shared: 0,
        blobs: Vec::new(),
        fetches: Vec::new(),
        faults: Vec::new(),
        areas: Vec::new(),
        dropped: 0,
    }
}

pub(crate) fn fault(at_ms: u64, waited_us: u64, path: &str) -> TraceFault {
    TraceFault {
        at_ms,
        waited_us,
        path: path.to_owned(),
        offset: 4096,
        bytes: 8192,
        ok: true,
    }
}

pub(crate) fn fetch(at_ms: u64, took_ms: u64, bytes: u64) -> TraceFetch {
    TraceFetch {
        at_ms,
        took_ms,
        blob: 0,
        start: 0,
        bytes,
        priority: TracePriority::Demand,
        ok: true,
    }
}

/// A file of which nothing is here.
pub(crate) fn area(path: &str, bytes: u64) -> TraceArea {
    TraceArea {
        path: path.to_owned(),
        bytes,
        present: 0,
        shared: 0,
        touched_at_ms: None,
    }
}

pub(crate) fn blob(digest: &str, stored_bytes: u64, source: &str) -> TraceBlob {
    TraceBlob {
        digest: digest.to_owned(),
        stored_bytes,
        source: source.to_owned(),
    }
}
