//! All numbers of a worker as Prometheus reads them, the page that they are on, and pages for probes of health.
//!
//! Origin: Prometheus' text exposition format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

use crate::control::MountStatus;
use crate::worker::Worker;

/// How long the page is without its address after that could not be had: an older worker may hold it still.
const RETRY: Duration = Duration::from_secs(5);
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long a healthy worker may take to say what it serves.
const HEALTH_PATIENCE: Duration = Duration::from_secs(5);

/// A page for a probe: well, or why not.
async fn verdict(
    worker: Arc<Worker>,
    ask: impl FnOnce(&Worker) -> Result<(), String> + Send + 'static,
) -> (StatusCode, String) {
    let asking = tokio::task::spawn_blocking(move || ask(&worker));
    let answer = match tokio::time::timeout(HEALTH_PATIENCE, asking).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err("it crashed when it was asked".to_owned()),
        Err(_) => Err("it does not answer".to_owned()),
    };
    match answer {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Serves the pages for ever.
pub(crate) async fn serve(worker: Arc<Worker>, address: SocketAddr) {
    let measured = Arc::clone(&worker);
    let page = move || {
        let worker = Arc::clone(&measured);
        async move {
            // It looks at files and takes locks.
            let text = tokio::task::spawn_blocking(move || worker.metrics()).await;
            ([(CONTENT_TYPE, TEXT)], text.unwrap_or_default())
        }
    };
    let (healthy, ready) = (Arc::clone(&worker), worker);
    let router = Router::new()
        .route("/metrics", get(page))
        .route(
            "/healthz",
            get(move || verdict(Arc::clone(&healthy), Worker::is_healthy)),
        )
        .route(
            "/readyz",
            get(move || verdict(Arc::clone(&ready), Worker::is_ready)),
        );
    loop {
        let served = match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => axum::serve(listener, router.clone()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::warn!(%address, %error, "metrics can't be served here");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// A metric of each image: its name, what it is, its kind, and where it comes from.
type OfImage = (
    &'static str,
    &'static str,
    &'static str,
    fn(&MountStatus) -> u64,
);

const OF_IMAGES: &[OfImage] = &[
    (
        "draught_image_lazy",
        "Whether reads of the image still come to the daemon.",
        "gauge",
        |it| u64::from(it.lazy),
    ),
    (
        "draught_image_fetches_all",
        "Whether all of the image is fetched without being asked for.",
        "gauge",
        |it| u64::from(it.prefetch_all),
    ),
    (
        "draught_image_bytes",
        "Bytes of the image's chunks.",
        "gauge",
        |it| it.bytes_total,
    ),
    (
        "draught_image_bytes_present",
        "How many of them are on this node.",
        "gauge",
        |it| it.bytes_present,
    ),
    (
        "draught_image_bytes_shared",
        "How many the store knew when the image was attached.",
        "gauge",
        |it| it.bytes_shared,
    ),
    (
        "draught_image_bytes_fetched_total",
        "Stored bytes fetched for the image.",
        "counter",
        |it| it.bytes_fetched,
    ),
    (
        "draught_image_requests_total",
        "Requests for them.",
        "counter",
        |it| it.requests,
    ),
    (
        "draught_image_faults_total",
        "Reads that waited.",
        "counter",
        |it| it.faults,
    ),
    (
        "draught_image_error",
        "Whether something went wrong with the image.",
        "gauge",
        |it| u64::from(it.last_error.is_some()),
    ),
];

impl Worker {
    /// Whether it can say what it serves: what readers need is not held by somebody for ever.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "a probe's question, beside one that can fail"
    )]
    fn is_healthy(&self) -> Result<(), String> {
        let _mounts = self.mounts.status(self);
        Ok(())
    }

    /// Whether an image could be mounted now.
    fn is_ready(&self) -> Result<(), String> {
        self.is_healthy()?;
        let usable = self.store.usage().map(drop);
        usable.map_err(|error| format!("the store can't be used: {error}"))?;
        let transport = self.transports.choose(None).map(drop);
        transport.map_err(|error| error.to_string())
    }

    /// All numbers, in Prometheus' text format.
    pub(crate) fn metrics(&self) -> String {
        let mut page = Page::default();
        let outlook = self.engine.outlook();
        page.head(
            "draught_events_total",
            "Reads that the kernel asked about.",
            "counter",
        );
        page.value("draught_events_total", &[], self.engine.events());
        page.gauge(
            "draught_faults_waiting",
            "Reads that wait.",
            outlook.faults_waiting as u64,
        );
        page.gauge(
            "draught_fetches_under_way",
            "Requests under way.",
            outlook.fetches_under_way as u64,
        );
        page.gauge(
            "draught_sources_backing_off",
            "Images whose source rests after a failure.",
            outlook.sources_backing_off as u64,
        );
        page.head(
            "draught_extents_queued",
            "Extents that are to be fetched.",
            "gauge",
        );
        for (priority, count) in ["demand", "prefetch", "background"]
            .iter()
            .zip(outlook.extents_queued)
        {
            page.value(
                "draught_extents_queued",
                &[("priority", priority)],
                count as u64,
            );
        }
        let index = self.store.index_stats();
        page.gauge(
            "draught_index_chunks",
            "Chunks that the store knows.",
            index.chunks,
        );
        page.gauge(
            "draught_index_twins",
            "Second digests of chunks that the store has learned.",
            index.twins,
        );
        page.gauge(
            "draught_index_bytes",
            "Memory of the index.",
            index.bytes_in_memory,
        );
        page.gauge(
            "draught_devices",
            "Devices that are served.",
            self.engine.all().len() as u64,
        );
        page.gauge(
            "draught_store_bytes",
            "Bytes that the store takes on disk.",
            self.store.usage().unwrap_or(0),
        );
        page.gauge(
            "draught_store_bytes_max",
            "What it may take; 0: as much as it likes.",
            self.cache_bytes_max.unwrap_or(0),
        );
        let over = self.over.lock().as_ref().map_or(0, |over| over.bytes);
        page.gauge(
            "draught_store_bytes_over_limit",
            "By how much it takes more than that, because of mounted images.",
            over,
        );
        self.image_metrics(&mut page);
        if let Some(service) = self.service.get() {
            page.0.push_str(&service.metrics());
        }
        page.0
    }

    fn image_metrics(&self, page: &mut Page) {
        let statuses = self.mounts.status(self);
        let mut by_image = BTreeMap::new();
        for status in statuses {
            by_image.insert(status.digest.clone(), status);
        }
        for (name, help, kind, value) in OF_IMAGES {
            page.head(name, help, kind);
            for status in by_image.values() {
                let labels = [
                    ("ref", status.reference.as_str()),
                    ("digest", status.digest.as_str()),
                ];
                page.value(name, &labels, value(status));
            }
        }
        let name = "draught_fault_seconds";
        page.head(name, "How long reads waited.", "histogram");
        for image in self.engine.images() {
            let digest = image.record.digest.as_str();
            let latency = &image.stats.latency;
            let mut count = 0;
            for (bound_us, cumulative) in latency.cumulative() {
                let bound = seconds(bound_us);
                page.value(
                    &format!("{name}_bucket"),
                    &[("digest", digest), ("le", &bound)],
                    cumulative,
                );
                count = cumulative;
            }
            page.value(
                &format!("{name}_bucket"),
                &[("digest", digest), ("le", "+Inf")],
                count,
            );
            page.text(
                &format!("{name}_sum"),
                &[("digest", digest)],
                &seconds(latency.sum_us()),
            );
            page.value(&format!("{name}_count"), &[("digest", digest)], count);
        }
    }
}

fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// A page of metrics.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _written = self.0.write_fmt(line);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "gauge");
        self.value(name, &[], value);
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.text(name, labels, &value.to_string());
    }

    fn text(&mut self, name: &str, labels: &[(&str, &str)], value: &str) {
        let quoted = |(name, value): &(&str, &str)| {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            format!("{name}=\"{value}\"")
        };
        let labels: Vec<String> = labels.iter().map(quoted).collect();
        if labels.is_empty() {
            self.line(format_args!("{name} {value}\n"));
        } else {
            self.line(format_args!("{name}{{{}}} {value}\n", labels.join(",")));
        }
    }
}
