//! How TLS is spoken, and whose certificates are believed.
//!
//! The machine's certificates are believed, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. A machine that has none, as an
//! image with this program alone, believes those of Mozilla that are part of the program. They are read when the first server shows
//! a certificate of its own, once for the process: whoever speaks to this machine alone does not wait for them.
//!
//! Not here: clients, which each place makes as it needs them.

mod believer;

use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;

use crate::believer::Believer;

/// Variables that say whose certificates are believed.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// How a client speaks TLS.
#[must_use]
pub fn config() -> ClientConfig {
    static BELIEVER: OnceLock<Arc<Believer>> = OnceLock::new();
    let provider = provider();
    let believer = BELIEVER.get_or_init(|| Arc::new(Believer::new(Arc::clone(&provider), Box::new(roots))));
    let believer: Arc<dyn ServerCertVerifier> = Arc::<Believer>::clone(believer);
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    // It checks as the library does, and only reads certificates later.
    let builder = builder.expect("ring speaks them").dangerous().with_custom_certificate_verifier(believer);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates that are believed.
fn roots() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs().certs;
    let is_told = VARIABLES.iter().any(|name| variable(name));
    if is_needed(is_told, !found.is_empty()) { webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec() } else { found }
}

/// Whether the program's own stand in. Whoever says what to believe believes nothing else, also when there is nothing.
const fn is_needed(is_told: bool, has_some: bool) -> bool {
    !is_told && !has_some
}

#[expect(clippy::disallowed_methods, reason = "the variables that every program with TLS knows")]
fn variable(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_roots_stand_in_where_nothing_is_said_and_nothing_is_there() {
        for (is_told, has_some, needed) in
            [(false, false, true), (false, true, false), (true, false, false), (true, true, false)]
        {
            assert_eq!(is_needed(is_told, has_some), needed, "{is_told} {has_some}");
        }
    }

    #[test]
    fn clients_take_how_it_is_spoken() {
        let client = reqwest::Client::builder().tls_backend_preconfigured(config());
        client.build().expect("both are of one version of rustls");
    }
}
