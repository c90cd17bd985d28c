//! TLS 1.3 to whoever answers.
//!
//! There is no certificate authority here: a server's certificate is self-signed and counts only through the evidence in it, which is
//! judged after the handshake (`evidence`). What the handshake shows is that the server holds the certificate's key.

use std::sync::Arc;

use key_exchange::X25519MLKEM768;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme};

/// The configuration of every connection: TLS 1.3 only, no resumption (each connection proves its server anew), no server name;
/// a key exchange that a quantum computer does not undo, where the server has it.
pub(crate) fn config() -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![X25519MLKEM768, X25519],
        ..ring::default_provider()
    });
    let verifier = Arc::new(AnyKey {
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

/// Takes any certificate, if the server holds its key.
#[derive(Debug)]
struct AnyKey {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
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

#[cfg(test)]
mod tests {
    use rustls::pki_types::{IpAddr, Ipv4Addr};
    use rustls::server::Acceptor;
    use rustls::{ClientConnection, NamedGroup};

    use super::*;

    #[test]
    fn the_key_exchange_offered_first_withstands_quantum_computers() {
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
        let mut client = ClientConnection::new(config().unwrap(), name).unwrap();
        let mut flight = Vec::new();
        client.write_tls(&mut flight).unwrap();
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut flight.as_slice()).unwrap();
        let accepted = acceptor.accept().map_err(|(error, _)| error).unwrap();
        let groups = accepted
            .unwrap()
            .client_hello()
            .named_groups()
            .unwrap()
            .to_vec();
        assert_eq!(groups, [NamedGroup::X25519MLKEM768, NamedGroup::X25519]);
        // Its share, of 1184 and 32 bytes, goes with the first flight: no round trip is spent on asking for it.
        assert!(flight.len() > 1216, "{}", flight.len());
    }
}
