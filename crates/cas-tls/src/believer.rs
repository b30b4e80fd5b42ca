//! Certificates of servers, checked by authorities that are read when they are needed.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

type Roots = Box<dyn Fn() -> Vec<CertificateDer<'static>> + Send + Sync>;

/// The verifier of the library, made when the first certificate is to be checked.
pub(crate) struct Believer {
    provider: Arc<CryptoProvider>,
    roots: Roots,
    made: OnceLock<Result<Arc<WebPkiServerVerifier>, Error>>,
}

impl Believer {
    pub(crate) fn new(provider: Arc<CryptoProvider>, roots: Roots) -> Self {
        Self { provider, roots, made: OnceLock::new() }
    }

    fn make(&self) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let mut store = RootCertStore::empty();
        // Machines have some that the library does not know how to read.
        let (read, _) = store.add_parsable_certificates((self.roots)());
        if read == 0 {
            return Err(Error::General("there are no certificates of authorities to believe".to_owned()));
        }
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&self.provider));
        builder.build().map_err(|error| Error::General(error.to_string()))
    }
}

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.made.get_or_init(|| self.make()) {
            Ok(verifier) => verifier.verify_server_cert(certificate, between, name, ocsp, now),
            Err(error) => Err(error.clone()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Believer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Believer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use rustls::CertificateError;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn certificate(pem: &[u8]) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem).expect("it is one")
    }

    /// The authority and the server's of `testdata/README.md`.
    fn both() -> [CertificateDer<'static>; 2] {
        [include_bytes!("../testdata/authority.pem").as_slice(), include_bytes!("../testdata/server.pem")]
            .map(certificate)
    }

    fn check(believer: &Believer, name: &'static str) -> Result<(), Error> {
        let [_, server] = both();
        let name = ServerName::try_from(name).expect("it is a name");
        // In 2030, when they are good.
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000));
        believer.verify_server_cert(&server, &[], &name, &[], now).map(drop)
    }

    fn believer(roots: impl Fn() -> Vec<CertificateDer<'static>> + Send + Sync + 'static) -> Believer {
        Believer::new(crate::provider(), Box::new(roots))
    }

    #[test]
    fn authorities_are_read_once_and_when_they_are_needed() {
        let reads = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reads);
        let believer = believer(move || {
            count.fetch_add(1, Ordering::SeqCst);
            both()[..1].to_vec()
        });
        assert!(!believer.supported_verify_schemes().is_empty());
        assert_eq!(reads.load(Ordering::SeqCst), 0);
        check(&believer, "registry.test").expect("it is signed by the authority");
        let error = check(&believer, "other.test").expect_err("it is for another name");
        assert!(matches!(error, Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })), "{error}");
        assert_eq!(reads.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_no_authority_signed_is_not_believed() {
        let error = check(&believer(|| webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec()), "registry.test");
        assert_eq!(error, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
        let error = check(&believer(Vec::new), "registry.test").expect_err("nobody is believed");
        assert!(error.to_string().contains("no certificates of authorities"), "{error}");
    }
}
