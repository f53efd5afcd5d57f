//! Who we are to a host, and who it may be: certificates that a file names for it.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};

use crate::error::TlsError;
use crate::hosts::ClientFiles;

/// Our certificates, most wanted first.
#[derive(Debug)]
struct Own(Vec<Arc<CertifiedKey>>);

/// Reads our certificates.
pub(super) fn read(
    files: &[ClientFiles],
    provider: &CryptoProvider,
) -> Result<Arc<dyn ResolvesClientCert>, TlsError> {
    let keys = files.iter().map(|files| read_one(files, provider));
    Ok(Arc::new(Own(keys.collect::<Result<_, _>>()?)))
}

fn read_one(files: &ClientFiles, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let unreadable = |path: &std::path::Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    let path = &files.certificate;
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(unreadable(path))?;
    let key_path = files.key.as_ref().unwrap_or(path);
    let key = PrivateKeyDer::from_pem_file(key_path).map_err(unreadable(key_path))?;
    let key = CertifiedKey::from_der(chain, key, provider);
    let key = key.map_err(|source| TlsError::Certificate {
        path: path.clone(),
        source,
    })?;
    Ok(Arc::new(key))
}

impl ResolvesClientCert for Own {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        // An issuer's name stands in the certificate as the server has it.
        let is_known = |key: &&Arc<CertifiedKey>| {
            key.cert.iter().any(|certificate| {
                issuers.iter().any(|issuer| {
                    !issuer.is_empty()
                        && certificate
                            .windows(issuer.len())
                            .any(|name| name == *issuer)
                })
            })
        };
        let mut fitting = self.0.iter().filter(fits);
        let known = fitting.clone().find(is_known);
        known.or_else(|| fitting.next()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Takes anybody for the host, as its file says. What connections are for is still encrypted, and contents
/// are still verified by their digests.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

/// See [`Anybody`].
pub(super) fn anybody(provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Anybody(provider))
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
