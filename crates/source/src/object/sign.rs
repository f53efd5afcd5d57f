//! Signatures, and where the credentials for them come from.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::request::Parts;
use reqsign_aliyun_oss as oss;
use reqsign_aws_v4 as aws;
use reqsign_core::{
    Context, ErrorKind, FileRead, HttpSend, ProvideCredential, ProvideCredentialChain, StaticEnv,
};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};

use super::error::ObjectError;
use super::location::{BucketLocation, Service};
use crate::http::{Body, Request, url_host};
use crate::registry::Client;

/// Bytes of a file with credentials, at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of an answer with credentials, at most.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What signs requests to a bucket. Credentials are looked up when they are needed and before they end.
#[derive(Debug)]
pub(super) struct Signer {
    kind: Kind,
    /// Whether the last look-up found none.
    none: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Kind {
    S3(reqsign_core::Signer<aws::Credential>),
    Oss(reqsign_core::Signer<oss::Credential>),
}

/// Credentials, and a note of whether there are any: without, requests are anonymous, which is no error.
struct Noting<C> {
    chain: ProvideCredentialChain<C>,
    none: Arc<AtomicBool>,
}

impl<C> fmt::Debug for Noting<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Noting").finish_non_exhaustive()
    }
}

impl<C: Send + Sync + Unpin + 'static> ProvideCredential for Noting<C> {
    type Credential = C;

    async fn provide_credential(&self, context: &Context) -> reqsign_core::Result<Option<C>> {
        let found = self.chain.provide_credential(context).await;
        let none = matches!(found, Ok(None));
        self.none.store(none, Ordering::Relaxed);
        found
    }
}

impl Signer {
    pub(super) fn new(
        bucket: &BucketLocation,
        region: Option<&str>,
        client: &Client,
    ) -> Result<Self, ObjectError> {
        let credentials = &client.settings().object_credentials;
        let variables = credentials.variables.iter();
        let context = Context::new()
            .with_file_read(Files)
            .with_env(StaticEnv {
                home_dir: credentials.home.clone(),
                envs: variables
                    .map(|(name, value)| (name.clone(), value.expose().to_owned()))
                    .collect(),
            })
            .with_http_send(Network {
                client: client.clone(),
                instance: bucket.instance_credentials,
            });
        let none = Arc::new(AtomicBool::new(false));
        let kind = match bucket.service {
            Service::S3 => {
                let region = region.ok_or(ObjectError::NoRegion)?;
                let signer = aws::RequestSigner::new("s3", region);
                let chain = s3_credentials(bucket.instance_credentials);
                let none = Arc::clone(&none);
                let provider = Noting { chain, none };
                Kind::S3(reqsign_core::Signer::new(context, provider, signer))
            }
            Service::Oss => {
                let signer = oss::RequestSigner::new(&bucket.bucket);
                let signer = match region {
                    Some(region) => signer
                        .with_region(region)
                        .with_signing_version(oss::SigningVersion::V4),
                    // The first signature needs no region, and is all that services which are alike have.
                    None => signer.with_signing_version(oss::SigningVersion::V1),
                };
                let chain = oss_credentials(bucket.instance_credentials);
                let none = Arc::clone(&none);
                let provider = Noting { chain, none };
                Kind::Oss(reqsign_core::Signer::new(context, provider, signer))
            }
        };
        Ok(Self { kind, none })
    }

    /// Signs a request, if there are credentials to sign with.
    pub(super) async fn sign(&self, parts: &mut Parts) -> Result<(), ObjectError> {
        let signed = match &self.kind {
            Kind::S3(signer) => signer.sign(parts, None).await,
            Kind::Oss(signer) => signer.sign(parts, None).await,
        };
        if signed.is_err() && self.none.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Kind::Oss(_) = &self.kind
            && let Some(header) = parts.headers.get_mut(AUTHORIZATION)
            && let Some(written) = as_oss_writes(header)
        {
            *header = written;
        }
        // What the library says may have a part of a file in it.
        signed.map_err(|error| ObjectError::Sign {
            why: match error.kind() {
                ErrorKind::CredentialInvalid => "they are malformed, or have expired",
                ErrorKind::PermissionDenied => "they may not be used",
                ErrorKind::ConfigInvalid => "their configuration is not usable",
                ErrorKind::RateLimited => "the service that gives them is asked too often",
                ErrorKind::RequestInvalid | ErrorKind::Unexpected => "the signature failed",
            },
        })
    }
}

/// A signature as Alibaba's own programs write it: no spaces, and no list of additional headers that is empty.
/// What was signed is the same.
fn as_oss_writes(header: &HeaderValue) -> Option<HeaderValue> {
    let text = header.to_str().ok()?;
    let text = text.replace(", ", ",").replace("AdditionalHeaders=,", "");
    let mut written = HeaderValue::from_str(&text).ok()?;
    written.set_sensitive(true);
    Some(written)
}

/// Environment, files, and the role that the environment of a pod names. Nothing runs a program. The
/// machine is asked only if somebody wants that.
fn s3_credentials(instance: bool) -> ProvideCredentialChain<aws::Credential> {
    let chain = ProvideCredentialChain::new()
        .push(aws::EnvCredentialProvider::new())
        .push(aws::ProfileCredentialProvider::new())
        .push(aws::AssumeRoleWithWebIdentityCredentialProvider::default());
    if !instance {
        return chain;
    }
    chain
        .push(aws::ECSCredentialProvider::default())
        .push(aws::IMDSv2CredentialProvider::default())
}

/// The same at Alibaba.
fn oss_credentials(instance: bool) -> ProvideCredentialChain<oss::Credential> {
    let chain = ProvideCredentialChain::new()
        .push(oss::EnvCredentialProvider::new())
        .push(oss::OssProfileCredentialProvider::new())
        .push(oss::CredentialsFileCredentialProvider::new())
        .push(oss::ConfigFileCredentialProvider::new())
        .push(oss::AssumeRoleWithOidcCredentialProvider::new());
    if !instance {
        return chain;
    }
    chain.push(oss::EcsRamRoleCredentialProvider::new())
}

/// Files of credentials.
#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        use tokio::io::AsyncReadExt as _;

        let failed = |_| reqsign_core::Error::config_invalid("the file can't be read");
        let file = fs_err::tokio::File::open(path).await.map_err(failed)?;
        let mut bytes = Vec::new();
        let mut file = file.take(FILE_BYTES_MAX);
        file.read_to_end(&mut bytes).await.map_err(failed)?;
        Ok(bytes)
    }
}

/// Services that give credentials: over TLS, or, where that is wanted, those of this machine.
#[derive(Debug)]
struct Network {
    client: Client,
    instance: bool,
}

impl HttpSend for Network {
    async fn http_send(
        &self,
        request: http::Request<Bytes>,
    ) -> reqsign_core::Result<http::Response<Bytes>> {
        let refused = |why: &'static str| reqsign_core::Error::config_invalid(why);
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|_| refused("not a URL"))?;
        let settings = self.client.settings();
        let plain = self.instance || settings.is_plain_http(&url_host(&url));
        if url.scheme() != "https" && !plain {
            return Err(refused("plain HTTP is not allowed for credentials"));
        }
        let mut request = Request::new(parts.method, url).with_body(Body::Bytes(body));
        request.headers = parts.headers;
        let failed = |error| reqsign_core::Error::unexpected("no answer").with_source(Asked(error));
        let answer = self.client.authority().send_straight(&request).await;
        let answer = answer.map_err(failed)?;
        let mut response = http::Response::new(Bytes::new());
        *response.status_mut() = answer.status();
        response.headers_mut().clone_from(answer.headers());
        *response.body_mut() = answer
            .bytes("credentials", ANSWER_BYTES_MAX)
            .await
            .map_err(failed)?;
        Ok(response)
    }
}

/// Why a service that gives credentials did not.
#[derive(Debug, thiserror::Error)]
#[error("asking for credentials failed")]
struct Asked(#[source] crate::error::SourceError);
