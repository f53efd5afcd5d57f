//! HTTP/1.1 in the raw, for tests that must see and say exactly what goes over the wire.
//!
//! A client that sends what it is told, and the framing that [`crate::fault_proxy`] is made of.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes of a request's or response's head, at most: what common servers take.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Bytes read from a socket at a time.
const READ_BYTES: usize = 128 << 10;

/// The first line and the headers of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The first line, without its end.
    pub start: String,
    /// Names as they were sent, and values.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self
            .headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_str())
    }

    /// Removes all headers of this name.
    pub fn remove(&mut self, name: &str) {
        self.headers
            .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    }

    /// Puts one header of this name in the place of all.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.into()));
    }

    /// The `index`th word of the first line.
    #[must_use]
    pub fn word(&self, index: usize) -> &str {
        self.start.split(' ').nth(index).unwrap_or_default()
    }

    /// The status of a response, or 0.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or(0)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    fn parse(bytes: &[u8]) -> io::Result<Self> {
        // Header values are Latin-1; what is not ASCII only has to survive being printed.
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.trim().to_owned(), value.trim().to_owned()))
            })
            .collect::<Option<_>>()
            .ok_or_else(|| invalid("a header has no colon"))?;
        Ok(Self { start, headers })
    }

    /// How the body that follows a request's head is delimited.
    ///
    /// # Errors
    ///
    /// If its length is no number.
    pub fn request_framing(&self) -> io::Result<Framing> {
        Ok(self.framing()?.unwrap_or(Framing::Length(0)))
    }

    /// How the body that follows a response's head is delimited, if `method` was asked.
    ///
    /// # Errors
    ///
    /// If its length is no number.
    pub fn response_framing(&self, method: &str) -> io::Result<Framing> {
        if method == "HEAD" || matches!(self.status(), 100..=199 | 204 | 304) {
            return Ok(Framing::Length(0));
        }
        Ok(self.framing()?.unwrap_or(Framing::UntilClose))
    }

    fn framing(&self) -> io::Result<Option<Framing>> {
        let encoding = self.header("transfer-encoding").unwrap_or_default();
        if encoding.to_ascii_lowercase().contains("chunked") {
            return Ok(Some(Framing::Chunked));
        }
        let length = self.header("content-length").map(str::parse);
        let length = length
            .transpose()
            .map_err(|_| invalid("the length is no number"))?;
        Ok(length.map(Framing::Length))
    }
}

fn invalid(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}

/// What is left of a body that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Pieces that each say their length.
    Chunked,
    /// Everything until the other side closes.
    UntilClose,
}

/// One side of a connection, with what was read too far.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    /// Talks over `stream`.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        // Only a matter of speed.
        drop(stream.set_nodelay(true));
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// The socket.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(READ_BYTES);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    async fn fill_or_fail(&mut self) -> io::Result<()> {
        match self.fill().await? {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The next head, or nothing if the other side has closed.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or what comes is no head.
    pub async fn read_head(&mut self) -> io::Result<Option<Head>> {
        loop {
            let end = self
                .buffer
                .windows(4)
                .position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.buffer.split_to(end + 4);
                return Head::parse(&head).map(Some);
            }
            // A client that tries TLS first waits for a word of refusal, or for its patience to end.
            if self
                .buffer
                .first()
                .is_some_and(|byte| !byte.is_ascii_alphabetic())
            {
                return Err(invalid("this is not HTTP"));
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(invalid("the head is too long"));
            }
            if !self.fill().await? {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// The next bytes of a body, or nothing at its end; `framing` is what is left of it.
    ///
    /// # Errors
    ///
    /// If the connection breaks or closes before the end.
    pub async fn read_piece(&mut self, framing: &mut Framing) -> io::Result<Option<Bytes>> {
        match framing {
            Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                if self.buffer.is_empty() {
                    self.fill_or_fail().await?;
                }
                let bytes = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(self.buffer.len());
                *left -= bytes as u64;
                Ok(Some(self.buffer.split_to(bytes).freeze()))
            }
            Framing::Chunked => self.read_chunk(framing).await,
            Framing::UntilClose => {
                if self.buffer.is_empty() && !self.fill().await? {
                    return Ok(None);
                }
                Ok(Some(self.buffer.split().freeze()))
            }
        }
    }

    async fn read_line(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                let line = self.buffer.split_to(end).freeze();
                self.buffer.advance(2);
                return Ok(line);
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(invalid("a line is too long"));
            }
            self.fill_or_fail().await?;
        }
    }

    async fn read_chunk(&mut self, framing: &mut Framing) -> io::Result<Option<Bytes>> {
        let line = self.read_line().await?;
        let size = std::str::from_utf8(&line)
            .ok()
            .and_then(|line| line.split(';').next());
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let size = size.ok_or_else(|| invalid("a chunk has no size"))?;
        if size == 0 {
            while !self.read_line().await?.is_empty() {}
            *framing = Framing::Length(0);
            return Ok(None);
        }
        while self.buffer.len() < size + 2 {
            self.fill_or_fail().await?;
        }
        let piece = self.buffer.split_to(size).freeze();
        self.buffer.advance(2);
        Ok(Some(piece))
    }

    /// Sends a head.
    ///
    /// # Errors
    ///
    /// If the connection breaks.
    pub async fn write_head(&mut self, head: &Head) -> io::Result<()> {
        self.stream.write_all(&head.to_bytes()).await
    }

    /// Sends a piece of a body, wrapped if the body is chunked.
    ///
    /// # Errors
    ///
    /// If the connection breaks.
    pub async fn write_piece(&mut self, piece: &[u8], framing: Framing) -> io::Result<()> {
        if framing != Framing::Chunked {
            return self.stream.write_all(piece).await;
        }
        let size = format!("{:x}\r\n", piece.len());
        self.stream.write_all(size.as_bytes()).await?;
        self.stream.write_all(piece).await?;
        self.stream.write_all(b"\r\n").await
    }

    /// Ends a body.
    ///
    /// # Errors
    ///
    /// If the connection breaks.
    pub async fn write_end(&mut self, framing: Framing) -> io::Result<()> {
        match framing {
            Framing::Chunked => self.stream.write_all(b"0\r\n\r\n").await,
            _ => Ok(()),
        }
    }
}

/// A request that is sent as it stands.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunked: bool,
    declared_bytes: Option<usize>,
}

impl Request {
    /// A request without a body.
    #[must_use]
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            chunked: false,
            declared_bytes: None,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Gives it a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the body in pieces, without saying how long it is.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// Announces a body of another length than it has; the connection is closed after it.
    #[must_use]
    pub fn declare(mut self, bytes: usize) -> Self {
        self.declared_bytes = Some(bytes);
        self
    }

    /// Sends it over a connection of its own and reads the answer.
    ///
    /// # Errors
    ///
    /// If nobody listens at `addr`, or the answer breaks off.
    pub async fn send(&self, addr: SocketAddr) -> io::Result<Response> {
        let mut connection = Connection::new(TcpStream::connect(addr).await?);
        self.send_on(&mut connection, addr).await
    }

    /// Sends it over a connection that may serve more requests, and reads the answer.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn send_on(
        &self,
        connection: &mut Connection,
        addr: SocketAddr,
    ) -> io::Result<Response> {
        let mut head = Head {
            start: format!("{} {} HTTP/1.1", self.method, self.path),
            headers: self.headers.clone(),
        };
        head.set("Host", addr.to_string());
        let framing = if self.chunked {
            head.set("Transfer-Encoding", "chunked");
            Framing::Chunked
        } else {
            let bytes = self.declared_bytes.unwrap_or(self.body.len());
            let has_length = bytes > 0 || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH");
            if has_length {
                head.set("Content-Length", bytes.to_string());
            }
            Framing::Length(0)
        };
        connection.write_head(&head).await?;
        for piece in self.body.chunks(READ_BYTES) {
            connection.write_piece(piece, framing).await?;
        }
        connection.write_end(framing).await?;
        if self.declared_bytes.is_some() {
            connection.stream.shutdown().await?;
        }
        loop {
            let head = connection
                .read_head()
                .await?
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            if head.status() / 100 == 1 {
                continue;
            }
            let mut framing = head.response_framing(&self.method)?;
            let mut body = Vec::new();
            while let Some(piece) = connection.read_piece(&mut framing).await? {
                body.extend_from_slice(&piece);
            }
            return Ok(Response { head, body });
        }
    }
}

/// An answer, complete.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Response {
    /// Status and headers.
    pub head: Head,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// The value of a header, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// If it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }
}
