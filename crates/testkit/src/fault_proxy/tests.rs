//! The proxy in front of a server that echoes what it was asked.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::{Auth, Fault, FaultProxy, Kind, Link, Rule};
use crate::http::{Connection, Framing, Head, Request, Response};

const BLOB: &str = "/v2/a/blobs/sha256:00";
const BODY_BYTES: usize = 100_000;

fn body() -> Vec<u8> {
    (0..BODY_BYTES)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect()
}

/// A server that has [`body`] at every path, understands ranges, and says how many bytes it was
/// sent.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer_all(Connection::new(stream)));
            }
        });
    });
    addr
}

async fn answer_all(mut client: Connection) {
    while let Ok(Some(head)) = client.read_head().await {
        let mut framing = head.request_framing().unwrap();
        let mut received = 0;
        while let Some(piece) = client.read_piece(&mut framing).await.unwrap() {
            received += piece.len();
        }
        let whole = body();
        let range = head.header("range").map(|range| {
            let (first, last) = range
                .strip_prefix("bytes=")
                .unwrap()
                .split_once('-')
                .unwrap();
            first.parse::<usize>().unwrap()..last.parse::<usize>().unwrap() + 1
        });
        let mut answer = Head {
            start: "HTTP/1.1 200 OK".to_owned(),
            headers: vec![("Received".to_owned(), received.to_string())],
        };
        let mut part = whole.as_slice();
        if let Some(range) = range {
            answer.start = "HTTP/1.1 206 Partial Content".to_owned();
            let said = format!("bytes {}-{}/{BODY_BYTES}", range.start, range.end - 1);
            answer.set("Content-Range", said);
            part = &whole[range];
        }
        let framing = match head.word(1).contains("chunked") {
            true => {
                answer.set("Transfer-Encoding", "chunked");
                Framing::Chunked
            }
            false => {
                answer.set("Content-Length", part.len().to_string());
                Framing::Length(0)
            }
        };
        client.write_head(&answer).await.unwrap();
        if head.word(0) != "HEAD" {
            // The client may go away in the middle: some tests do.
            for piece in part.chunks(7919) {
                if client.write_piece(piece, framing).await.is_err() {
                    return;
                }
            }
            if client.write_end(framing).await.is_err() {
                return;
            }
        }
    }
}

fn proxy() -> FaultProxy {
    FaultProxy::start(serve())
}

async fn fetch(proxy: &FaultProxy) -> std::io::Result<Response> {
    Request::new("GET", BLOB).send(proxy.addr()).await
}

#[tokio::test]
async fn what_passes_is_the_same_and_is_counted() {
    let proxy = proxy();
    let answer = fetch(&proxy).await.unwrap();
    assert_eq!(answer.body, body());
    let answer = Request::new("GET", "/v2/a/manifests/chunked?x=1")
        .send(proxy.addr())
        .await
        .unwrap();
    assert_eq!(answer.body, body());
    let answer = Request::new("HEAD", BLOB).send(proxy.addr()).await.unwrap();
    assert_eq!(answer.header("content-length"), Some("100000"));
    assert_eq!(answer.body, b"");

    let counts = proxy.counts();
    assert_eq!(counts.blobs().requests, 2);
    assert_eq!(counts.blobs().sent_bytes, 100_000);
    assert_eq!(counts.manifests().requests, 1);
    assert_eq!(counts.manifests().sent_bytes, 100_000);
    assert_eq!(counts.matching("HEAD", "sha256:00").requests, 1);
    assert_eq!(counts.since(&counts).total().requests, 0);
    let log = proxy.log();
    assert_eq!(log[1].query, "x=1");
    assert_eq!(log[1].status, Some(200));
    assert!(!log[1].faulty);
}

#[tokio::test]
async fn request_bodies_pass_in_either_framing() {
    let proxy = proxy();
    for request in [
        Request::new("PUT", "/x"),
        Request::new("PUT", "/x").chunked(),
    ] {
        let answer = request.body(body()).send(proxy.addr()).await.unwrap();
        assert_eq!(answer.header("received"), Some("100000"));
    }
    assert_eq!(proxy.counts().total().received_bytes, 200_000);
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let proxy = proxy();
    let mut connection = Connection::new(TcpStream::connect(proxy.addr()).await.unwrap());
    for _ in 0..5 {
        let request = Request::new("GET", BLOB).header("Range", "bytes=10-19");
        let answer = request
            .send_on(&mut connection, proxy.addr())
            .await
            .unwrap();
        assert_eq!(answer.status(), 206);
        assert_eq!(answer.body, &body()[10..20]);
    }
    assert_eq!(proxy.log()[4].range.as_deref(), Some("bytes=10-19"));
}

#[tokio::test]
async fn a_rule_meets_what_it_says_and_as_often() {
    let proxy = proxy();
    let rule = proxy.inject(Rule::new(Fault::Status(500)).on_blobs().after(1).times(2));
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(fetch(&proxy).await.unwrap().status());
    }
    assert_eq!(seen, [200, 500, 500, 200, 200]);
    assert_eq!(proxy.hits(rule), 2);
    let rule = proxy.inject(Rule::new(Fault::RetryAfter(503, 7)).on_path("sha256:00"));
    assert_eq!(
        fetch(&proxy).await.unwrap().header("retry-after"),
        Some("7")
    );
    let other = Request::new("GET", "/v2/")
        .send(proxy.addr())
        .await
        .unwrap();
    assert_eq!(other.status(), 200);
    proxy.lift(rule);
    assert_eq!(fetch(&proxy).await.unwrap().status(), 200);
    assert_eq!(proxy.hits(rule), 1);
    assert_eq!(
        proxy.log().iter().filter(|request| request.faulty).count(),
        3
    );
}

#[tokio::test]
async fn a_body_can_break_off_in_every_way() {
    let proxy = proxy();
    let check = async |fault: Fault| {
        proxy.inject(Rule::new(fault).times(1));
        let before = proxy.counts();
        let result = fetch(&proxy).await;
        (result, proxy.counts().since(&before).total().sent_bytes)
    };
    let (result, bytes) = check(Fault::ResetAfter(1234)).await;
    assert_eq!(
        result.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert_eq!(bytes, 1234);
    let (result, bytes) = check(Fault::TruncateAfter(1234)).await;
    assert_eq!(
        result.unwrap_err().kind(),
        std::io::ErrorKind::UnexpectedEof
    );
    assert_eq!(bytes, 1234);
    let (result, _) = check(Fault::ShortenTo(1234)).await;
    assert_eq!(result.unwrap().body, &body()[..1234]);
    let (result, bytes) = check(Fault::Reset).await;
    assert!(result.is_err());
    assert_eq!(bytes, 0);
    assert_eq!(fetch(&proxy).await.unwrap().body, body());
}

#[tokio::test]
async fn what_hangs_never_ends() {
    let proxy = proxy();
    for fault in [Fault::Hang, Fault::StallAfter(10)] {
        proxy.inject(Rule::new(fault).times(1));
        let result = tokio::time::timeout(Duration::from_millis(100), fetch(&proxy)).await;
        assert!(result.is_err());
    }
    assert_eq!(fetch(&proxy).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_byte_is_flipped_in_whatever_range_it_comes() {
    let proxy = proxy();
    proxy.inject(Rule::new(Fault::FlipByte(50_000)));
    let mut expect = body();
    expect[50_000] = !expect[50_000];
    assert_eq!(fetch(&proxy).await.unwrap().body, expect);
    for (first, last) in [
        (50_000, 50_000),
        (49_990, 50_010),
        (0, 49_999),
        (50_001, 60_000),
    ] {
        let range = format!("bytes={first}-{last}");
        let request = Request::new("GET", BLOB).header("Range", range);
        let answer = request.send(proxy.addr()).await.unwrap();
        assert_eq!(answer.body, &expect[first..=last]);
    }
}

#[tokio::test]
async fn a_range_can_be_ignored() {
    let proxy = proxy();
    proxy.inject(Rule::new(Fault::IgnoreRange));
    let request = Request::new("GET", BLOB).header("Range", "bytes=1-2");
    let answer = request.send(proxy.addr()).await.unwrap();
    assert_eq!((answer.status(), answer.body.len()), (200, BODY_BYTES));
}

#[tokio::test]
async fn who_connects_while_it_is_down_is_refused() {
    let proxy = proxy();
    let addr = proxy.addr();
    let mut kept = Connection::new(TcpStream::connect(addr).await.unwrap());
    Request::new("GET", BLOB)
        .send_on(&mut kept, addr)
        .await
        .unwrap();
    proxy.go_down();
    let refused = fetch(&proxy).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(
        Request::new("GET", BLOB)
            .send_on(&mut kept, addr)
            .await
            .is_err()
    );
    proxy.come_up();
    assert_eq!(proxy.addr(), addr);
    assert_eq!(fetch(&proxy).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_server_that_is_gone_is_a_bad_gateway() {
    let proxy = FaultProxy::start(crate::net::free_addr());
    assert_eq!(fetch(&proxy).await.unwrap().status(), 502);
    proxy.move_upstream(serve());
    assert_eq!(fetch(&proxy).await.unwrap().status(), 200);
}

#[tokio::test]
async fn time_passes_on_a_slow_link() {
    let proxy = proxy();
    let timed = async || {
        let begun = Instant::now();
        assert_eq!(fetch(&proxy).await.unwrap().body, body());
        begun.elapsed()
    };
    proxy.set_link(Link {
        round_trip: Duration::from_millis(40),
        bytes_per_s: None,
    });
    let elapsed = timed().await;
    assert!(
        elapsed >= Duration::from_millis(80),
        "{elapsed:?}: connection and request"
    );
    proxy.set_link(Link {
        round_trip: Duration::ZERO,
        bytes_per_s: Some(1_000_000),
    });
    let elapsed = timed().await;
    assert!(
        elapsed >= Duration::from_millis(90),
        "{elapsed:?}: 100 kB at 1 MB/s"
    );
    proxy.set_link(Link::default());
    proxy.inject(Rule::new(Fault::Bandwidth(1_000_000)));
    proxy.inject(Rule::new(Fault::Delay(Duration::from_millis(40))));
    let elapsed = timed().await;
    assert!(
        elapsed >= Duration::from_millis(130),
        "{elapsed:?}: delay and bandwidth"
    );
}

async fn token(proxy: &FaultProxy, scope: &str, basic: Option<&str>) -> Response {
    let mut request = Request::new("GET", &format!("/token?service=draught-test&scope={scope}"));
    if let Some(basic) = basic {
        request = request.header("Authorization", format!("Basic {basic}"));
    }
    request.send(proxy.addr()).await.unwrap()
}

#[tokio::test]
async fn a_token_opens_its_repository_until_it_expires() {
    let proxy = proxy();
    let user = Some(("me".to_owned(), "a:b".to_owned()));
    proxy.require_tokens(Some(Auth {
        user,
        ..Auth::default()
    }));
    let answer = fetch(&proxy).await.unwrap();
    assert_eq!(answer.status(), 401);
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(
        challenge.contains("scope=\"repository:a:pull\""),
        "{challenge}"
    );
    assert!(challenge.contains(&format!("realm=\"http://{}/token\"", proxy.addr())));

    assert_eq!(token(&proxy, "repository:a:pull", None).await.status(), 401);
    // "me:a:b"
    let answer = token(&proxy, "repository%3Aa%3Apull", Some("bWU6YTpi")).await;
    let bearer = format!("Bearer {}", answer.json()["token"].as_str().unwrap());
    let ask = async |method: &str, path: &str| {
        let request = Request::new(method, path).header("Authorization", &bearer);
        request.send(proxy.addr()).await.unwrap()
    };
    assert_eq!(ask("GET", BLOB).await.status(), 200);
    assert_eq!(ask("GET", "/v2/").await.status(), 200);
    let refused = ask("PUT", "/v2/a/manifests/1").await;
    assert_eq!(refused.status(), 401);
    assert!(
        refused
            .header("www-authenticate")
            .unwrap()
            .contains("insufficient_scope")
    );
    assert_eq!(ask("GET", "/v2/b/blobs/sha256:00").await.status(), 401);

    proxy.expire_tokens();
    let expired = ask("GET", BLOB).await;
    assert_eq!(expired.status(), 401);
    assert!(
        expired
            .header("www-authenticate")
            .unwrap()
            .contains("invalid_token")
    );
    assert_eq!(proxy.tokens_issued(), 1);
    assert_eq!(proxy.counts().of(Kind::Token).requests, 2);
    proxy.require_tokens(None);
    assert_eq!(fetch(&proxy).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_redirect_leads_to_a_store_that_wants_no_credentials() {
    let proxy = proxy();
    proxy.inject(Rule::new(Fault::Redirect).on_blobs());
    let answer = fetch(&proxy).await.unwrap();
    assert_eq!(answer.status(), 307);
    let location = answer.header("location").unwrap();
    let store: SocketAddr = location
        .strip_prefix("http://")
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert_ne!(store, proxy.addr());
    assert_eq!(
        Request::new("GET", BLOB).send(store).await.unwrap().body,
        body()
    );
    let with_secret = Request::new("GET", BLOB).header("Authorization", "Bearer x");
    assert_eq!(with_secret.send(store).await.unwrap().status(), 400);
}

#[tokio::test]
async fn who_speaks_something_else_is_told_so_at_once() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let proxy = proxy();
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x02\x00").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}
