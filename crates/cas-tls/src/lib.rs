//! Which implementation of TLS is used, and whose certificates are believed.
//!
//! The machine's certificates are believed, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. A machine that has none, as an
//! image with this program alone, believes those of Mozilla that are part of the program.
//!
//! Not here: clients, which each place makes as it needs them.

use reqwest::Certificate;

/// Variables that say whose certificates are believed.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Chooses the implementation, once for the process. Whoever makes a client calls it before.
pub fn choose_provider() {
    // Fails when another thread, or the program itself, was first; that one is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// What is believed in place of the machine's certificates; `None` where it has some, or was told where they are.
///
/// # Errors
///
/// Of the certificates themselves, which are fixed.
pub fn own_roots() -> Result<Option<Vec<Certificate>>, reqwest::Error> {
    let is_told = VARIABLES.iter().any(|name| variable(name));
    if !is_needed(is_told, || !rustls_native_certs::load_native_certs().certs.is_empty()) {
        return Ok(None);
    }
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    roots.map(|root| Certificate::from_der(root)).collect::<Result<_, _>>().map(Some)
}

/// Whoever says what to believe believes nothing else, also when there is nothing.
fn is_needed(is_told: bool, has_some: impl FnOnce() -> bool) -> bool {
    !is_told && !has_some()
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
            assert_eq!(is_needed(is_told, || has_some), needed, "{is_told} {has_some}");
        }
    }

    #[test]
    fn the_certificates_of_the_program_are_certificates() {
        choose_provider();
        let roots: Result<Vec<Certificate>, _> =
            webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|root| Certificate::from_der(root)).collect();
        let roots = roots.expect("they are fixed");
        assert!(roots.len() > 100, "{}", roots.len());
        reqwest::Client::builder().tls_certs_only(roots).build().expect("a client believes them");
    }
}
