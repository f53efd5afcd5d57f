//! What a `PullImage` says of credentials.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use draught_containerd::cri::{AuthConfig, PullImageRequest};
use draught_containerd::prost::Message as _;
use draught_oci::Reference;
use draught_source::{Credential, Keychain, Secret};
use serde::Deserialize;

/// Bytes before a message: whether it is compressed, and how long it is.
const FRAME_BYTES: usize = 5;

/// What a pull brought: taken back if nothing comes of it.
#[derive(Debug)]
pub(super) struct HandedOver {
    image: Reference,
    server: Option<String>,
    credential: Credential,
    is_new: bool,
}

impl HandedOver {
    /// Forgets it, unless it was known before.
    pub(super) fn take_back(self, keychain: &Keychain) {
        if self.is_new {
            let server = self.server.as_deref();
            keychain.take_back(&self.image, server, &self.credential);
        }
    }
}

/// Takes what the one message of a request's body brings. What can't be understood is containerd's business.
pub(super) fn take(body: &[u8], keychain: &Keychain) -> Option<HandedOver> {
    let (frame, message) = body.split_at_checked(FRAME_BYTES)?;
    let (flag, length) = frame.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    if *flag != 0 || usize::try_from(length) != Ok(message.len()) {
        tracing::debug!("a pull that is compressed or torn is passed on unread");
        return None;
    }
    let request = PullImageRequest::decode(message).ok()?;
    let image: Reference = request.image?.image.parse().ok()?;
    let auth = request.auth?;
    let server = Some(auth.server_address.clone()).filter(|server| !server.is_empty());
    let credential = credential(auth)?;
    let expires = expires(&credential);
    let is_new = keychain.hand_over(&image, server.as_deref(), credential.clone(), expires);
    tracing::debug!(
        registry = image.host(),
        repository = image.repository(),
        is_new,
        "credentials came with a pull"
    );
    Some(HandedOver {
        image,
        server,
        credential,
        is_new,
    })
}

/// The credential, in the order in which containerd looks.
fn credential(auth: AuthConfig) -> Option<Credential> {
    let secret = |text: String| Secret::new(text);
    if !auth.username.is_empty() {
        return Some(Credential::Password {
            username: auth.username,
            password: secret(auth.password),
        });
    }
    if !auth.identity_token.is_empty() {
        return Some(Credential::IdentityToken(secret(auth.identity_token)));
    }
    if !auth.auth.is_empty() {
        let decoded = STANDARD.decode(auth.auth.trim()).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (username, password) = decoded.split_once(':')?;
        return Some(Credential::Password {
            username: username.to_owned(),
            password: secret(password.trim_end_matches('\0').to_owned()),
        });
    }
    if !auth.registry_token.is_empty() {
        return Some(Credential::RegistryToken(secret(auth.registry_token)));
    }
    None
}

/// What a JSON web token says of its end (RFC 7519, 4.1.4).
#[derive(Deserialize)]
struct WireClaims {
    exp: Option<f64>,
}

/// When a token ends, if it says so. It is not verified: who lies about it is let in for a shorter time.
fn expires(credential: &Credential) -> Option<SystemTime> {
    let (Credential::IdentityToken(token) | Credential::RegistryToken(token)) = credential else {
        return None;
    };
    let claims = token.expose().split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    let claims: WireClaims = serde_json::from_slice(&claims).ok()?;
    let since = Duration::try_from_secs_f64(claims.exp?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}
