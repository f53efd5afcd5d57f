//! One connection: requests in, faults applied, answers out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::counts::LogId;
use super::link::{Pacer, SLICE_BYTES};
use super::proxy::Shared;
use super::rules::Fault;
use crate::http::{Connection, Framing, Head};

/// Which of the proxy's two addresses a connection came to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// The registry.
    Registry {
        /// Where redirected requests go.
        store: SocketAddr,
    },
    /// The object store behind it.
    Store,
}

/// Serves one connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, client: Connection, place: Place) {
    let mut relay = Relay {
        shared,
        client,
        place,
        upstream: None,
        id: 0,
    };
    // A broken connection is what the client sees too; there is nobody else to tell.
    drop(relay.run().await);
}

struct Relay {
    shared: Arc<Shared>,
    client: Connection,
    place: Place,
    upstream: Option<Connection>,
    /// The request being served.
    id: LogId,
}

/// What happens to a response's body.
#[derive(Debug, Default)]
struct BodyPlan {
    reset_after: Option<u64>,
    stall_after: Option<u64>,
    truncate_after: Option<u64>,
    shorten_to: Option<u64>,
    flips: Vec<u64>,
    bytes_per_s: Option<u64>,
}

/// Whether another request may follow on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Request,
    Close,
}

impl Relay {
    async fn run(&mut self) -> io::Result<()> {
        let round_trip = self.shared.link.lock().round_trip;
        tokio::time::sleep(round_trip).await;
        while let Some(head) = self.read_head().await? {
            let range = head.header("range");
            let id = self
                .shared
                .recorder
                .lock()
                .begin(head.word(0), head.word(1), range);
            self.id = id;
            if let Some(entry) = self.shared.recorder.lock().entry(id) {
                entry.authorized = head.header("authorization").is_some();
            }
            let result = self.request(head).await;
            if let Some(entry) = self.shared.recorder.lock().entry(id) {
                entry.ended = true;
            }
            if result? == Next::Close {
                break;
            }
        }
        Ok(())
    }

    async fn read_head(&mut self) -> io::Result<Option<Head>> {
        let head = self.client.read_head().await;
        if head
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)
        {
            // As servers do, so that clients that tried TLS see that this is HTTP.
            let refusal = Head {
                start: "HTTP/1.1 400 Bad Request".to_owned(),
                headers: vec![("Connection".to_owned(), "close".to_owned())],
            };
            self.client.write_head(&refusal).await?;
        }
        head
    }

    async fn request(&mut self, mut head: Head) -> io::Result<Next> {
        let round_trip = self.shared.link.lock().round_trip;
        tokio::time::sleep(round_trip).await;
        let target = head.word(1).to_owned();
        let path = target.split('?').next().unwrap_or_default().to_owned();
        if let Some(next) = self.authenticate(&head, &path).await? {
            return Ok(next);
        }
        let faults = self.shared.rules.lock().meet(head.word(0), &path);
        if !faults.is_empty()
            && let Some(entry) = self.shared.recorder.lock().entry(self.id)
        {
            entry.faulty = true;
        }
        let mut plan = BodyPlan::default();
        for fault in faults {
            match fault {
                Fault::Status(status) => return self.refuse(&head, status, &[]).await,
                Fault::RetryAfter(status, seconds) => {
                    let headers = [("Retry-After", seconds.to_string())];
                    return self.refuse(&head, status, &headers).await;
                }
                Fault::Redirect => {
                    if let Place::Registry { store } = self.place {
                        let headers = [("Location", format!("http://{store}{target}"))];
                        return self.refuse(&head, 307, &headers).await;
                    }
                }
                Fault::Delay(time) => tokio::time::sleep(time).await,
                Fault::Hang => std::future::pending().await,
                Fault::Reset => return self.reset(),
                Fault::IgnoreRange => head.remove("range"),
                Fault::ResetAfter(bytes) => plan.reset_after = Some(bytes),
                Fault::StallAfter(bytes) => plan.stall_after = Some(bytes),
                Fault::TruncateAfter(bytes) => plan.truncate_after = Some(bytes),
                Fault::ShortenTo(bytes) => plan.shorten_to = Some(bytes),
                Fault::FlipByte(offset) => plan.flips.push(offset),
                Fault::Bandwidth(bytes_per_s) => plan.bytes_per_s = Some(bytes_per_s),
            }
        }
        self.forward(head, plan).await
    }

    /// The token server, and the demand for its tokens.
    async fn authenticate(&mut self, head: &Head, path: &str) -> io::Result<Option<Next>> {
        if let Place::Store = self.place {
            let secret = head.header("authorization").is_some();
            return match secret {
                true => self.refuse(head, 400, &[]).await.map(Some),
                false => Ok(None),
            };
        }
        if !self.shared.tokens.lock().required() {
            return Ok(None);
        }
        if path == "/token" {
            let (status, document) = self.shared.tokens.lock().answer(head);
            let body = document.to_string();
            return self
                .answer(head, status, &[], body.as_bytes())
                .await
                .map(Some);
        }
        let challenge = self.shared.tokens.lock().challenge(head, path);
        match challenge {
            None => Ok(None),
            Some(challenge) => {
                let headers = [("WWW-Authenticate", challenge)];
                self.refuse(head, 401, &headers).await.map(Some)
            }
        }
    }

    fn reset(&self) -> io::Result<Next> {
        self.client.stream().set_zero_linger()?;
        Ok(Next::Close)
    }

    async fn refuse(
        &mut self,
        head: &Head,
        status: u16,
        headers: &[(&str, String)],
    ) -> io::Result<Next> {
        let document = serde_json::json!({
            "errors": [{"code": "UNKNOWN", "message": "a fault injected by a test"}]
        });
        self.answer(head, status, headers, document.to_string().as_bytes())
            .await
    }

    /// Answers without asking the registry.
    async fn answer(
        &mut self,
        request: &Head,
        status: u16,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> io::Result<Next> {
        // The client must be able to send all of its body, or it never reads the answer.
        if !waits_for_leave(request) {
            let mut framing = request.request_framing()?;
            while let Some(piece) = self.client.read_piece(&mut framing).await? {
                self.shared.recorder.lock().received(self.id, piece.len());
            }
        }
        let mut head = Head {
            start: format!("HTTP/1.1 {status} Injected"),
            headers: Vec::new(),
        };
        head.set("Content-Type", "application/json");
        head.set("Content-Length", body.len().to_string());
        for (name, value) in headers {
            head.set(name, value.clone());
        }
        self.began(status);
        self.client.write_head(&head).await?;
        if request.word(0) != "HEAD" {
            self.shared.recorder.lock().sent(self.id, body.len());
            self.client.write_piece(body, Framing::Length(0)).await?;
        }
        // Whoever waits for leave to send a body may send it after all.
        Ok(if waits_for_leave(request) {
            Next::Close
        } else {
            Next::Request
        })
    }

    fn began(&self, status: u16) {
        if let Some(entry) = self.shared.recorder.lock().entry(self.id) {
            entry.status = Some(status);
        }
    }

    async fn forward(&mut self, mut head: Head, plan: BodyPlan) -> io::Result<Next> {
        let method = head.word(0).to_owned();
        let closes = |head: &Head| {
            head.header("connection")
                .is_some_and(|value| value.eq_ignore_ascii_case("close"))
        };
        let client_closes = closes(&head);
        if waits_for_leave(&head) {
            head.remove("expect");
            let leave = Head {
                start: "HTTP/1.1 100 Continue".to_owned(),
                headers: Vec::new(),
            };
            self.client.write_head(&leave).await?;
        }
        let Ok(mut answer) = self.ask(&head).await else {
            self.upstream = None;
            return self.refuse_without_upstream(&head).await;
        };
        let mut framing = answer.response_framing(&method)?;
        let upstream_closes = closes(&answer) || framing == Framing::UntilClose;
        if let (Some(bytes), Framing::Length(all)) = (plan.shorten_to, framing)
            && bytes < all
        {
            answer.set("Content-Length", bytes.to_string());
        }
        self.began(answer.status());
        self.client.write_head(&answer).await?;
        let next = self.relay_body(&answer, &mut framing, plan).await?;
        if upstream_closes || framing != Framing::Length(0) {
            self.upstream = None;
        }
        match client_closes || upstream_closes {
            true => Ok(Next::Close),
            false => Ok(next),
        }
    }

    async fn refuse_without_upstream(&mut self, head: &Head) -> io::Result<Next> {
        let mut bodyless = head.clone();
        // What there was of a body has been read, or its rest can't be.
        bodyless.remove("content-length");
        bodyless.remove("transfer-encoding");
        self.refuse(&bodyless, 502, &[]).await?;
        Ok(Next::Close)
    }

    /// Sends a request upstream with its body, and reads the head of the answer.
    async fn ask(&mut self, head: &Head) -> io::Result<Head> {
        let mut framing = head.request_framing()?;
        let bodyless = framing == Framing::Length(0);
        // A connection that was kept may have been closed at the other end meanwhile.
        if let Some(mut upstream) = self.upstream.take()
            && bodyless
            && upstream.write_head(head).await.is_ok()
            && let Ok(Some(answer)) = final_head(&mut upstream).await
        {
            self.upstream = Some(upstream);
            return Ok(answer);
        }
        let addr = *self.shared.upstream.lock();
        let mut upstream = Connection::new(TcpStream::connect(addr).await?);
        upstream.write_head(head).await?;
        let as_sent = framing;
        while let Some(piece) = self.client.read_piece(&mut framing).await? {
            self.shared.recorder.lock().received(self.id, piece.len());
            // A server that refuses early stops reading; its answer is still to be had.
            if upstream.write_piece(&piece, as_sent).await.is_err() {
                break;
            }
        }
        drop(upstream.write_end(as_sent).await);
        let answer = final_head(&mut upstream)
            .await?
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        self.upstream = Some(upstream);
        Ok(answer)
    }

    async fn relay_body(
        &mut self,
        answer: &Head,
        framing: &mut Framing,
        plan: BodyPlan,
    ) -> io::Result<Next> {
        let as_sent = *framing;
        let base = range_start(answer);
        let link = *self.shared.link.lock();
        let own = Pacer::new();
        let Some(mut upstream) = self.upstream.take() else {
            return Ok(Next::Close);
        };
        let mut sent_bytes = 0;
        while let Some(piece) = upstream.read_piece(framing).await? {
            let mut piece = Vec::from(piece);
            flip(&mut piece, base + sent_bytes, &plan.flips);
            let mut rest = piece.as_slice();
            while !rest.is_empty() {
                let stop = plan.stop_at(sent_bytes);
                let slow = plan.bytes_per_s.is_some() || link.bytes_per_s.is_some();
                let slice_max = if slow { SLICE_BYTES } else { rest.len() };
                let room = stop.map_or(u64::MAX, |(at, _)| at.saturating_sub(sent_bytes));
                let bytes = rest.len().min(slice_max);
                let bytes = bytes.min(usize::try_from(room).unwrap_or(usize::MAX));
                if bytes == 0 {
                    return self.stop(stop.map(|(_, how)| how)).await;
                }
                if let Some(bytes_per_s) = plan.bytes_per_s {
                    own.pass(bytes, bytes_per_s).await;
                }
                if let Some(bytes_per_s) = link.bytes_per_s {
                    self.shared.pacer.pass(bytes, bytes_per_s).await;
                }
                let (now, later) = rest.split_at(bytes);
                // Counted first: whoever has received a byte finds it counted.
                self.shared.recorder.lock().sent(self.id, bytes);
                self.client.write_piece(now, as_sent).await?;
                sent_bytes += bytes as u64;
                rest = later;
            }
        }
        if let Some((at, how)) = plan.stop_at(sent_bytes)
            && at == sent_bytes
            && how == Stop::Reset
        {
            return self.stop(Some(how)).await;
        }
        self.client.write_end(as_sent).await?;
        self.upstream = Some(upstream);
        Ok(Next::Request)
    }

    async fn stop(&mut self, how: Option<Stop>) -> io::Result<Next> {
        match how {
            Some(Stop::Stall) => std::future::pending().await,
            Some(Stop::Reset) => {
                // A reset overtakes what the client has not read yet: let it read.
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.reset()
            }
            // The announced length was cut as well: the body is complete, as far as one can tell.
            Some(Stop::Shorten) => Ok(Next::Close),
            Some(Stop::Truncate) | None => Ok(Next::Close),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Reset,
    Stall,
    Truncate,
    Shorten,
}

impl BodyPlan {
    /// Where the body stops early, and how: the earliest of the places that are not yet passed.
    fn stop_at(&self, sent_bytes: u64) -> Option<(u64, Stop)> {
        [
            (self.reset_after, Stop::Reset),
            (self.stall_after, Stop::Stall),
            (self.truncate_after, Stop::Truncate),
            (self.shorten_to, Stop::Shorten),
        ]
        .into_iter()
        .filter_map(|(at, how)| Some((at?, how)))
        .filter(|(at, _)| *at >= sent_bytes)
        .min_by_key(|(at, _)| *at)
    }
}

/// Whether the client sends its body only when told to.
fn waits_for_leave(head: &Head) -> bool {
    head.header("expect")
        .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
}

/// The head of the answer proper, behind any that only say that it will come.
async fn final_head(upstream: &mut Connection) -> io::Result<Option<Head>> {
    loop {
        match upstream.read_head().await? {
            Some(head) if head.status() / 100 == 1 => {}
            other => return Ok(other),
        }
    }
}

/// The offset in the blob of a body's first byte.
fn range_start(answer: &Head) -> u64 {
    answer
        .header("content-range")
        .and_then(|value| value.strip_prefix("bytes "))
        .and_then(|value| value.split('-').next()?.parse().ok())
        .unwrap_or(0)
}

/// Turns the bits of those bytes of `piece`, which begins at `at`, whose offset is in `flips`.
fn flip(piece: &mut [u8], at: u64, flips: &[u64]) {
    for offset in flips {
        let index = offset
            .checked_sub(at)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(byte) = index.and_then(|index| piece.get_mut(index)) {
            *byte = !*byte;
        }
    }
}
