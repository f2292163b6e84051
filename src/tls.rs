//! Owns whom this machine trusts when the program calls somebody over TLS. Never listens. Enter at [`config`].

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// To be shared by all connections to one place, which then resume each other's sessions. Trusts the machine's own
/// certificates; those that cannot be read are left out.
///
/// # Errors
///
/// Where the cryptography that is built in knows none of the protocol versions.
pub fn config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
