//! TLS 1.3, and what a client accepts as proof of who is at the other end.
//!
//! There is no certificate authority here: a server's certificate is self-signed and counts only through evidence, bound to its key,
//! that a trust domain made it. A guest outside a trust domain has no such evidence. Whatever the trust, the handshake's
//! signature must come from the certificate's key.

use core::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, PeerIncompatible,
    SignatureScheme,
};

/// What a server must show before anything is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Evidence of a trust domain. A server without any is refused with [`crate::Error::NoEvidence`].
    Evidence,
    /// Nothing: the connection is encrypted to whoever answers. For development only; say so to the user each time.
    InsecureNoTee,
}

/// The certificate carries no evidence.
#[derive(Debug)]
struct NoEvidence;

impl fmt::Display for NoEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the certificate carries no evidence")
    }
}

impl core::error::Error for NoEvidence {}

/// Whether a handshake failed because the certificate carries no evidence.
pub(crate) fn is_no_evidence(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
            cause.downcast_ref::<NoEvidence>().is_some()
        }
        _ => false,
    }
}

/// The configuration of every connection: TLS 1.3 only, no resumption (each connection proves its server anew), no server name.
pub(crate) fn config(trust: Trust) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Verifier {
        trust,
        provider: Arc::clone(&provider),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.trust {
            Trust::InsecureNoTee => Ok(ServerCertVerified::assertion()),
            Trust::Evidence => {
                Err(CertificateError::Other(OtherError(Arc::new(NoEvidence))).into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
