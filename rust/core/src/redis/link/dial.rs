//! Opens the byte stream to a server: TCP, a unix socket, or TLS over TCP. Its errors name the cause in words.
//!
//! A port that speaks TLS closes a plain connection, and one that speaks plain Redis waits for the end of a line when it is
//! greeted in TLS. So after a failure a second connection tries the other protocol, and the error names the right one.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_ok;
use redis::aio::AsyncStream;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, ClientConfig, Error, InconsistentKeys, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::certificate::{AcceptAny, Verifier, Words};
use crate::redis::settings::{Certificates, Endpoint, SocketAddress, Tls};

/// A byte stream.
pub(super) type Stream = Pin<Box<dyn AsyncStream + Send + Sync>>;

/// How long a port may be silent in a TLS handshake before it is asked whether it speaks plain Redis. Together with the time that
/// it has for an answer it is less than a look at the map of a cluster may take, which is the first of all connections.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(350);
/// How long a second connection may take to find out what a port speaks.
const PROBE: Duration = Duration::from_millis(500);

pub(super) const SPEAKS_PLAIN: &str = "this port speaks plain Redis and no TLS: use redis:// (without 'ssl'), or the server's TLS port";
pub(super) const SPEAKS_TLS: &str =
    "this port speaks TLS: use rediss:// (or 'ssl': True), or the server's plain port";

/// Opens a stream, or returns why there is none.
pub(super) async fn dial(endpoint: &Endpoint) -> Result<Stream, String> {
    let (host, port) = match &endpoint.socket {
        SocketAddress::Tcp { host, port } => (host.as_str(), *port),
        SocketAddress::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            return Ok(Box::pin(stream.map_err(|error| in_words(&error))?));
        }
    };
    let Some(tls) = &endpoint.tls else {
        return Ok(Box::pin(connect(host, port).await?));
    };
    let name = server_name(host)?;
    let tls = tls.clone();
    // Reads files, those of the system's authorities, which are many.
    let making = tokio::task::spawn_blocking(move || config(&tls)).await;
    let config = making.map_err(|_| "TLS could not be set up".to_owned())??;
    let stream = connect(host, port).await?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    tokio::pin!(handshake);
    let done = match tokio::time::timeout(HANDSHAKE_TIMEOUT, &mut handshake).await {
        Ok(done) => done,
        Err(_) if speaks_plain(host, port).await => return Err(SPEAKS_PLAIN.to_owned()),
        Err(_) => handshake.await,
    };
    match done {
        Ok(stream) => Ok(Box::pin(stream)),
        Err(error) => Err(match rustls_error(&error) {
            None | Some(Error::InvalidMessage(_)) if speaks_plain(host, port).await => {
                SPEAKS_PLAIN.to_owned()
            }
            Some(error) => tls_in_words(error),
            None => format!(
                "the connection was lost in the TLS handshake: {}",
                in_words(&error)
            ),
        }),
    }
}

/// Connects to the first address of a host that answers.
async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let found = tokio::net::lookup_host((host, port)).await;
    let unknown = |why: &str| format!("the name cannot be resolved: {why}");
    let addresses: Vec<SocketAddr> = found.map_err(|error| unknown(&in_words(&error)))?.collect();
    if addresses.is_empty() {
        return Err(unknown("it has no address"));
    }
    let attempts = addresses
        .into_iter()
        .map(|address| Box::pin(TcpStream::connect(address)));
    let (stream, _) = select_ok(attempts)
        .await
        .map_err(|error| in_words(&error))?;
    stream.set_nodelay(true).map_err(|error| in_words(&error))?;
    Ok(stream)
}

fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| "the host is no name or address that a certificate can be for".to_owned())
}

/// Whether a port answers to a line of plain Redis.
async fn speaks_plain(host: &str, port: u16) -> bool {
    let ask = async {
        let mut stream = connect(host, port).await.ok()?;
        stream.write_all(b"PING\r\n").await.ok()?;
        let first = stream.read_u8().await.ok()?;
        // Any answer is a line of plain Redis.
        Some(matches!(first, b'+' | b'-'))
    };
    let answered = tokio::time::timeout(PROBE, ask).await;
    answered.ok().flatten().unwrap_or(false)
}

/// Whether a port answers to a greeting in TLS.
pub(super) async fn speaks_tls(host: &str, port: u16) -> bool {
    let ask = async {
        let name = server_name(host).ok()?;
        let provider = Arc::new(ring::default_provider());
        let any = AcceptAny(provider.signature_verification_algorithms);
        let config = builder(&provider).ok()?;
        let config = config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(any))
            .with_no_client_auth();
        let stream = connect(host, port).await.ok()?;
        let done = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await;
        Some(match done {
            Ok(_) => true,
            // It spoke TLS, and refused.
            Err(error) => matches!(rustls_error(&error), Some(Error::AlertReceived(_))),
        })
    };
    let answered = tokio::time::timeout(PROBE, ask).await;
    answered.ok().flatten().unwrap_or(false)
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn builder(provider: &Arc<CryptoProvider>) -> Result<Builder, String> {
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|_| "TLS could not be set up".to_owned())
}

fn config(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if tls.verify {
        Arc::new(verifier(tls, &provider)?)
    } else {
        Arc::new(AcceptAny(provider.signature_verification_algorithms))
    };
    let config = builder(&provider)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match identity(&tls.certificates, &provider)? {
        Some(identity) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => config.with_no_client_auth(),
    })
}

fn verifier(tls: &Tls, provider: &Arc<CryptoProvider>) -> Result<Verifier, String> {
    let mut authorities = RootCertStore::empty();
    let Some(pem) = &tls.certificates.authorities else {
        // One that cannot be read does not matter if another authority has signed the server's certificate.
        authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if authorities.is_empty() {
            return Err(
                "the system has no authorities to trust: install them (ca-certificates), or give 'ssl_ca_certs'"
                    .to_owned(),
            );
        }
        return Verifier::new(authorities, Vec::new(), tls.verify_hostname, provider);
    };
    let unreadable = "one of the certificates in 'ssl_ca_certs', 'ssl_ca_data' or 'ssl_ca_path' cannot be read: \
                      it must be X.509 in PEM";
    let given: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| unreadable.to_owned())?;
    for certificate in &given {
        let added = authorities.add(certificate.clone());
        added.map_err(|_| unreadable.to_owned())?;
    }
    Verifier::new(authorities, given, tls.verify_hostname, provider)
}

/// Our own certificate. The server checks it, so it may be of any version.
fn identity(
    certificates: &Certificates,
    provider: &CryptoProvider,
) -> Result<Option<CertifiedKey>, String> {
    let Some((certificate, key)) = &certificates.identity else {
        return Ok(None);
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| "the certificate in 'ssl_certfile' cannot be read: it must be X.509 in PEM")?;
    let unreadable =
        "the key in 'ssl_keyfile' cannot be read: it must be an RSA, ECDSA or Ed25519 key in PEM";
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| unreadable)?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| unreadable)?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(
            "the key in 'ssl_keyfile' is not that of the certificate in 'ssl_certfile'".to_owned(),
        ),
        _ => Ok(Some(identity)),
    }
}

/// The error of TLS in an error of input or output.
pub(super) fn rustls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// What went wrong in TLS, and what to do.
pub(super) fn tls_in_words(error: &Error) -> String {
    let unlike = "the server speaks no version of TLS that is spoken here, which are 1.2 and 1.3, or no cipher of them: \
                  look at its 'tls-protocols' and 'tls-ciphers'";
    match error {
        Error::InvalidCertificate(error) => Words(error).to_string(),
        Error::AlertReceived(alert) => alert_in_words(*alert),
        Error::PeerIncompatible(_) => unlike.to_owned(),
        Error::InvalidMessage(_) => "this port speaks no TLS: is it the right one?".to_owned(),
        _ => "the TLS handshake failed, because the server does not follow the protocol".to_owned(),
    }
}

fn alert_in_words(alert: AlertDescription) -> String {
    let ours = "the server does not accept the certificate of this side";
    match alert {
        AlertDescription::CertificateRequired => {
            "the server asks this side for a certificate: give 'ssl_certfile' and 'ssl_keyfile'".to_owned()
        }
        AlertDescription::HandshakeFailure => {
            "the server ended the TLS handshake: it may ask this side for a certificate ('ssl_certfile', 'ssl_keyfile'), \
             or speak no cipher that is spoken here ('tls-ciphers')"
                .to_owned()
        }
        AlertDescription::ProtocolVersion => {
            "the server speaks no TLS 1.2 or 1.3: look at its 'tls-protocols'".to_owned()
        }
        AlertDescription::UnknownCA => {
            format!("{ours}, whose authority it does not know: its 'tls-ca-cert-file' must have it")
        }
        AlertDescription::CertificateExpired => format!("{ours}, which is no longer valid: renew it"),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => {
            format!("{ours} ('ssl_certfile'): the server's log says why")
        }
        AlertDescription::UnrecognisedName => {
            "the server knows no host of this name: connect by a name that its certificate has".to_owned()
        }
        other => format!(
            "the server ended the TLS connection (alert {}): its log says why",
            u8::from(other)
        ),
    }
}

/// An error of the system, without its number.
pub(super) fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}
