//! `hosts.toml`: bytes to what it says.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::duration;

/// Bytes of such a file: a few hundred are usual.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;

/// Hosts in one file. Each may be asked before a read fails.
const HOSTS_MAX: usize = 64;

/// Longest `dial_timeout`: a reader waits that long before the next host is asked.
const DIAL_TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// What a host may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Blobs, and manifests by their digest: what can be verified.
    Pull,
    /// What a tag stands for: the host is believed.
    Resolve,
}

impl Capability {
    /// As the file has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Resolve => "resolve",
        }
    }
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostsFileError {
    /// It is too long to be one.
    #[error("it is over the limit of {FILE_BYTES_MAX} bytes")]
    TooLong,
    /// It is not text.
    #[error("it is not UTF-8")]
    NotText,
    /// It is not TOML. The text is not repeated: it may hold what should not be shown.
    #[error("it is not TOML: line {line}: {message}")]
    Toml {
        /// Where, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A field makes no sense.
    #[error("line {line}: {field}: {problem}")]
    Field {
        /// Where, from 1.
        line: usize,
        /// Which, with the tables that it is in.
        field: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// A certificate of ours with its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientFiles {
    /// The certificate and those that vouch for it.
    pub certificate: PathBuf,
    /// Its key; none: in the same file.
    pub key: Option<PathBuf>,
}

/// One host of a file. Paths are as the file has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// Where it is, ending with a slash; none for a server that is the registry itself.
    pub url: Option<Url>,
    /// Whether it has blobs, and manifests by digest.
    pub pull: bool,
    /// Whether it is believed what a tag stands for.
    pub resolve: bool,
    /// Whether it may be written to.
    pub push: bool,
    /// Files of certificate authorities, besides the system's.
    pub ca: Vec<PathBuf>,
    /// Who we are to it.
    pub client: Vec<ClientFiles>,
    /// Whether anybody may claim to be it.
    pub skip_verify: bool,
    /// Sent with every request to it; marked as sensitive.
    pub header: HeaderMap,
    /// How long a connection may take; none: as usual.
    pub dial_timeout: Option<Duration>,
}

/// What a `hosts.toml` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsFile {
    /// Asked first, in this order.
    pub hosts: Vec<HostSettings>,
    /// Asked when none of them can help.
    pub server: HostSettings,
    /// Fields that it has and we don't know.
    pub unknown: Vec<String>,
}

impl Default for HostSettings {
    /// The registry itself, as it is spoken to anyway.
    fn default() -> Self {
        Self {
            url: None,
            pull: true,
            resolve: true,
            push: true,
            ca: Vec::new(),
            client: Vec::new(),
            skip_verify: false,
            header: HeaderMap::new(),
            dial_timeout: None,
        }
    }
}

type Key<'i> = Spanned<Cow<'i, str>>;
type Value<'i> = Spanned<DeValue<'i>>;

/// What a reader of fields carries along.
struct Reader<'i> {
    text: &'i str,
    unknown: Vec<String>,
}

impl HostsFile {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// When it is not TOML, or a field that we know makes no sense. Other fields are listed as unknown.
    pub fn parse(bytes: &[u8]) -> Result<Self, HostsFileError> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(HostsFileError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| HostsFileError::NotText)?;
        let mut reader = Reader {
            text,
            unknown: Vec::new(),
        };
        let table = DeTable::parse(text).map_err(|error| HostsFileError::Toml {
            line: reader.line(error.span().unwrap_or_default()),
            message: error.message().to_owned(),
        })?;
        let mut server_url = None;
        let mut hosts = Vec::new();
        let mut own = Vec::new();
        for (key, value) in table.get_ref() {
            match key.get_ref().as_ref() {
                "server" => server_url = Some((value, reader.text("server", value)?)),
                "host" => hosts = reader.hosts(value)?,
                _ => own.push((key, value)),
            }
        }
        let mut server = reader.host("", own)?;
        if let Some((value, url)) = server_url.filter(|(_, url)| !url.is_empty()) {
            let keeps_path = keeps_path(table.get_ref());
            let url = url_of(url, keeps_path)
                .map_err(|problem| reader.wrong("server", value.span(), problem))?;
            server.url = Some(url);
        }
        Ok(Self {
            hosts,
            server,
            unknown: reader.unknown,
        })
    }
}

/// Whether a table says `override_path = true`.
fn keeps_path(table: &DeTable<'_>) -> bool {
    table.iter().any(|(key, value)| {
        key.get_ref() == "override_path" && value.get_ref().as_bool() == Some(true)
    })
}

/// The URL below which a host has its repositories.
fn url_of(text: &str, keeps_path: bool) -> Result<Url, &'static str> {
    let text = if text.starts_with("http://") || text.starts_with("https://") {
        Cow::Borrowed(text)
    } else if text.contains("://") {
        return Err("neither http:// nor https://");
    } else {
        Cow::Owned(format!("https://{text}"))
    };
    let mut url = Url::parse(&text).map_err(|_| "not a URL")?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials belong into a file of credentials");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or a fragment");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    let path = if keeps_path || path.ends_with("/v2") {
        path
    } else {
        format!("{path}/v2")
    };
    url.set_path(&format!("{path}/"));
    Ok(url)
}

impl<'i> Reader<'i> {
    /// The line that a place is in.
    fn line(&self, at: Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..at.start).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn wrong(&self, field: &str, at: Range<usize>, problem: &'static str) -> HostsFileError {
        HostsFileError::Field {
            line: self.line(at),
            field: field.to_owned(),
            problem,
        }
    }

    fn text<'v>(&self, field: &str, value: &'v Value<'i>) -> Result<&'v str, HostsFileError> {
        let text = value.get_ref().as_str();
        text.ok_or_else(|| self.wrong(field, value.span(), "not a string"))
    }

    /// A string, or a list of them.
    fn texts<'v>(&self, field: &str, value: &'v Value<'i>) -> Result<Vec<&'v str>, HostsFileError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(vec![text]),
            DeValue::Array(list) => list.iter().map(|one| self.text(field, one)).collect(),
            _ => Err(self.wrong(
                field,
                value.span(),
                "neither a string nor a list of strings",
            )),
        }
    }

    fn flag(&self, field: &str, value: &Value<'i>) -> Result<bool, HostsFileError> {
        let flag = value.get_ref().as_bool();
        flag.ok_or_else(|| self.wrong(field, value.span(), "neither true nor false"))
    }

    /// The table `host`, in the order of the file.
    fn hosts(&mut self, value: &Value<'i>) -> Result<Vec<HostSettings>, HostsFileError> {
        let not_a_table = "not a table of hosts";
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.wrong("host", value.span(), not_a_table));
        };
        if table.len() > HOSTS_MAX {
            return Err(self.wrong("host", value.span(), "too many hosts"));
        }
        let mut ordered: Vec<_> = table.iter().collect();
        ordered.sort_by_key(|(key, _)| key.span().start);
        let mut hosts = Vec::new();
        for (key, value) in ordered {
            let name = format!("host.{:?}", key.get_ref());
            let DeValue::Table(fields) = value.get_ref() else {
                return Err(self.wrong(&name, value.span(), "not a table"));
            };
            let url = url_of(key.get_ref(), keeps_path(fields))
                .map_err(|problem| self.wrong(&name, key.span(), problem))?;
            let mut host = self.host(&format!("{name}."), fields.iter().collect())?;
            host.url = Some(url);
            hosts.push(host);
        }
        Ok(hosts)
    }

    /// The fields of one host.
    fn host(
        &mut self,
        prefix: &str,
        fields: Vec<(&Key<'i>, &Value<'i>)>,
    ) -> Result<HostSettings, HostsFileError> {
        let mut host = HostSettings::default();
        for (key, value) in fields {
            let field = format!("{prefix}{}", key.get_ref());
            match key.get_ref().as_ref() {
                "capabilities" => self.capabilities(&field, value, &mut host)?,
                "ca" => {
                    let files = self.texts(&field, value)?;
                    host.ca = files.into_iter().map(PathBuf::from).collect();
                }
                "client" => host.client = self.client(&field, value)?,
                "skip_verify" => host.skip_verify = self.flag(&field, value)?,
                // Read with the URL.
                "override_path" => drop(self.flag(&field, value)?),
                "header" => host.header = self.header(&field, value)?,
                "dial_timeout" => host.dial_timeout = self.dial_timeout(&field, value)?,
                _ => self.unknown.push(field),
            }
        }
        Ok(host)
    }

    fn capabilities(
        &self,
        field: &str,
        value: &Value<'i>,
        host: &mut HostSettings,
    ) -> Result<(), HostsFileError> {
        let DeValue::Array(list) = value.get_ref() else {
            return Err(self.wrong(field, value.span(), "not a list of strings"));
        };
        // containerd takes an empty list for none given.
        if list.is_empty() {
            return Ok(());
        }
        (host.pull, host.resolve, host.push) = (false, false, false);
        for one in list {
            match self.text(field, one)?.to_ascii_lowercase().as_str() {
                "pull" => host.pull = true,
                "resolve" => host.resolve = true,
                "push" => host.push = true,
                _ => {
                    let problem = "a capability other than pull, resolve and push";
                    return Err(self.wrong(field, one.span(), problem));
                }
            }
        }
        Ok(())
    }

    fn client(&self, field: &str, value: &Value<'i>) -> Result<Vec<ClientFiles>, HostsFileError> {
        let alone = |file: &str| ClientFiles {
            certificate: PathBuf::from(file),
            key: None,
        };
        let list = match value.get_ref() {
            DeValue::String(file) => return Ok(vec![alone(file)]),
            DeValue::Array(list) => list,
            _ => return Err(self.wrong(field, value.span(), "neither a string nor a list")),
        };
        let mut files = Vec::new();
        for one in list {
            files.push(match one.get_ref() {
                DeValue::String(file) => alone(file),
                DeValue::Array(_) => {
                    let pair = self.texts(field, one)?;
                    let [certificate, key] = pair.as_slice() else {
                        return Err(self.wrong(field, one.span(), "not a pair"));
                    };
                    ClientFiles {
                        certificate: PathBuf::from(certificate),
                        key: Some(PathBuf::from(key)).filter(|_| !key.is_empty()),
                    }
                }
                _ => return Err(self.wrong(field, one.span(), "neither a string nor a pair")),
            });
        }
        Ok(files)
    }

    fn header(&self, field: &str, value: &Value<'i>) -> Result<HeaderMap, HostsFileError> {
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.wrong(field, value.span(), "not a table"));
        };
        let mut header = HeaderMap::new();
        for (key, value) in table {
            let field = format!("{field}.{}", key.get_ref());
            let name = HeaderName::from_bytes(key.get_ref().as_bytes())
                .map_err(|_| self.wrong(&field, key.span(), "not the name of a header"))?;
            for text in self.texts(&field, value)? {
                let mut text = HeaderValue::from_str(text).map_err(|_| {
                    self.wrong(&field, value.span(), "characters that no header can carry")
                })?;
                // Some people keep a token here.
                text.set_sensitive(true);
                header
                    .try_append(name.clone(), text)
                    .map_err(|_| self.wrong(&field, value.span(), "too many headers"))?;
            }
        }
        Ok(header)
    }

    fn dial_timeout(
        &self,
        field: &str,
        value: &Value<'i>,
    ) -> Result<Option<Duration>, HostsFileError> {
        let text = self.text(field, value)?;
        if text.is_empty() {
            return Ok(None);
        }
        match duration::parse(text) {
            // As in containerd, none means that there is no limit of its own.
            Some(Duration::ZERO) => Ok(None),
            Some(timeout) if timeout <= DIAL_TIMEOUT_MAX => Ok(Some(timeout)),
            Some(_) => Err(self.wrong(field, value.span(), "longer than 5m")),
            None => Err(self.wrong(field, value.span(), "not a duration such as 10s")),
        }
    }
}
