//! What is asked of containerd, in one namespace and under one lease.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use draught_containerd::content::content_client::ContentClient;
use draught_containerd::images::images_client::ImagesClient;
use draught_containerd::leases::leases_client::LeasesClient;
use draught_containerd::prost_types::FieldMask;
use draught_containerd::tonic::metadata::MetadataValue;
use draught_containerd::tonic::transport::Channel;
use draught_containerd::tonic::{Code, Request, Status};
use draught_containerd::{connect, content, images, in_namespace, leases};
use draught_digest::Digest;
use draught_oci::Descriptor;

/// Names the lease that a request is under.
const LEASE_HEADER: &str = "containerd-lease";
/// The label by which a lease ends by itself, if whoever made it does not live to end it.
const LEASE_EXPIRES: &str = "containerd.io/gc.expire";
/// How long that takes: what containerd's own clients choose. A pull that was cut off goes on from what is there
/// until then.
const LEASE_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of a document that are read: registries refuse manifests above 4 MiB.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;

/// Labels of a blob.
pub(crate) type Labels = HashMap<String, String>;

/// containerd, in one namespace. Clones share the connection.
#[derive(Debug, Clone)]
pub(crate) struct Containerd {
    channel: Channel,
    namespace: String,
    lease: Option<String>,
}

/// What containerd says, in few words.
pub(crate) fn refused(status: &Status) -> anyhow::Error {
    anyhow!("containerd: {}", status.message())
}

impl Containerd {
    /// Connects.
    pub(crate) async fn connect(socket: &Path, namespace: &str) -> Result<Self> {
        let channel = connect(socket)
            .await
            .context("reach containerd: does it run, and is this its socket?")?;
        Ok(Self {
            channel,
            namespace: namespace.to_owned(),
            lease: None,
        })
    }

    /// A request in the namespace and under the lease.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = in_namespace(&self.namespace, message);
        let lease = self.lease.as_ref();
        if let Some(lease) = lease.and_then(|lease| MetadataValue::try_from(lease).ok()) {
            request.metadata_mut().insert(LEASE_HEADER, lease);
        }
        request
    }

    /// The content service.
    pub(crate) fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone())
    }

    /// What an image's name stands for, or none if there is no image of that name.
    pub(crate) async fn image(&self, name: &str) -> Result<Option<Descriptor>> {
        let request = self.request(images::GetImageRequest {
            name: name.to_owned(),
        });
        let image = match ImagesClient::new(self.channel.clone()).get(request).await {
            Ok(response) => response.into_inner().image,
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => return Err(refused(&status)).context("look the image up"),
        };
        let Some(target) = image.and_then(|image| image.target) else {
            return Ok(None);
        };
        let digest = target
            .digest
            .parse()
            .with_context(|| format!("understand the image's digest {}", target.digest))?;
        let size = u64::try_from(target.size).context("understand the image's size")?;
        Ok(Some(Descriptor::new(target.media_type, digest, size)))
    }

    /// The labels of a blob, or none if it isn't there.
    pub(crate) async fn labels(&self, digest: &Digest) -> Result<Option<Labels>> {
        let request = self.request(content::InfoRequest {
            digest: digest.to_string(),
        });
        match self.content().info(request).await {
            Ok(response) => Ok(Some(
                response
                    .into_inner()
                    .info
                    .map_or_else(Labels::new, |it| it.labels),
            )),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(refused(&status)).with_context(|| format!("look {digest} up")),
        }
    }

    /// Sets labels of a blob; those that are not named stay.
    pub(crate) async fn set_labels(&self, digest: &Digest, labels: Labels) -> Result<()> {
        if labels.is_empty() {
            return Ok(());
        }
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let request = self.request(content::UpdateRequest {
            info: Some(content::Info {
                digest: digest.to_string(),
                labels,
                ..content::Info::default()
            }),
            update_mask: Some(FieldMask { paths }),
        });
        match self.content().update(request).await {
            Ok(_) => Ok(()),
            Err(status) => Err(refused(&status)).with_context(|| format!("label {digest}")),
        }
    }

    /// A document, verified.
    pub(crate) async fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let digest = descriptor.digest;
        let request = self.request(content::ReadContentRequest {
            digest: digest.to_string(),
            offset: 0,
            size: 0,
        });
        let read = async {
            let mut bytes = Vec::new();
            let mut pieces = self.content().read(request).await?.into_inner();
            while let Some(piece) = pieces.message().await? {
                bytes.extend_from_slice(&piece.data);
                if bytes.len() > DOCUMENT_BYTES_MAX {
                    break;
                }
            }
            Ok::<_, Status>(bytes)
        };
        let bytes = read.await.map_err(|status| refused(&status));
        let bytes = bytes.with_context(|| format!("read {digest}"))?;
        if !digest.verifies(&bytes) {
            bail!("read {digest} from containerd: its bytes are others (remove it there)");
        }
        Ok(bytes.into())
    }

    /// The same under a lease of its own: what is written is kept for as long as that lives.
    pub(crate) async fn under_lease(&self) -> Result<Self> {
        let expires = SystemTime::now() + LEASE_LIFE;
        let nanos = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let id = format!("draught-materialize-{}-{nanos}", std::process::id());
        let labels = [(LEASE_EXPIRES.to_owned(), super::labels::time_text(expires))];
        let request = self.request(leases::CreateRequest {
            id: id.clone(),
            labels: labels.into(),
        });
        let created = LeasesClient::new(self.channel.clone())
            .create(request)
            .await;
        created
            .map_err(|status| refused(&status))
            .context("get a lease, so that nothing is collected in between")?;
        Ok(Self {
            lease: Some(id),
            ..self.clone()
        })
    }

    /// Ends the lease. What is labelled as somebody's stays.
    pub(crate) async fn end_lease(&self) -> Result<()> {
        let Some(id) = self.lease.clone() else {
            return Ok(());
        };
        let request = in_namespace(&self.namespace, leases::DeleteRequest { id, sync: false });
        let deleted = LeasesClient::new(self.channel.clone())
            .delete(request)
            .await;
        deleted
            .map_err(|status| refused(&status))
            .context("end the lease")?;
        Ok(())
    }
}
