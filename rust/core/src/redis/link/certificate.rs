//! Whether the certificate of a server is accepted, and in words why it is not.
//!
//! A certificate is accepted if an authority that was given has issued it, or if it is itself among those that were given.
//! The second is how OpenSSL treats a self-signed certificate. rustls refuses such a certificate as a server's, because
//! `openssl req -x509` makes it an authority's, and refuses all of X.509 version 1. One that was given
//! needs no authority: its dates and its names are checked, and the server has to prove that it has the key.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki::RawPublicKeyEntity;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::{DateTime, Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;

/// Looks at the certificate of a server.
#[derive(Debug)]
pub(super) struct Verifier {
    by_authority: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
    verify_hostname: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// One that trusts these authorities, and these very certificates.
    pub(super) fn new(
        authorities: RootCertStore,
        given: Vec<CertificateDer<'static>>,
        verify_hostname: bool,
        provider: &Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Self, String> {
        let builder = WebPkiServerVerifier::builder_with_provider(
            Arc::new(authorities),
            Arc::clone(provider),
        );
        let by_authority = builder
            .build()
            .map_err(|_| "there is no certificate of an authority to trust".to_owned())?;
        Ok(Self {
            by_authority,
            given,
            verify_hostname,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    fn is_given(&self, certificate: &CertificateDer<'_>) -> bool {
        let same = |given: &CertificateDer<'_>| given.as_ref() == certificate.as_ref();
        self.given.iter().any(same)
    }

    fn verify_given(
        &self,
        certificate: &CertificateDer<'_>,
        host: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = parse(certificate)?;
        let validity = parsed.tbs_certificate().validity();
        let seconds =
            |time: x509_cert::time::Time| UnixTime::since_unix_epoch(time.to_unix_duration());
        let (not_before, not_after) = (seconds(validity.not_before), seconds(validity.not_after));
        if now < not_before {
            let time = now;
            return Err(CertificateError::NotValidYetContext { time, not_before }.into());
        }
        if now > not_after {
            let time = now;
            return Err(CertificateError::ExpiredContext { time, not_after }.into());
        }
        if self.verify_hostname {
            verify_name(certificate, &parsed, host)?;
        }
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.is_given(end_entity) {
            self.verify_given(end_entity, server_name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.by_authority.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // The name is looked at last, so all else is as it has to be.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.verify_hostname => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !self.is_given(cert) {
            return self.by_authority.verify_tls12_signature(message, cert, dss);
        }
        let key = public_key(cert)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(other)?;
        // A scheme of TLS 1.2 does not name the curve, so there is an algorithm for each.
        let mapping = self.algorithms.mapping.iter();
        let fitting = mapping.filter(|(scheme, _)| *scheme == dss.scheme);
        for algorithm in fitting.flat_map(|(_, algorithms)| algorithms.iter()) {
            if key
                .verify_signature(*algorithm, message, dss.signature())
                .is_ok()
            {
                return Ok(HandshakeSignatureValid::assertion());
            }
        }
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !self.is_given(cert) {
            return self.by_authority.verify_tls13_signature(message, cert, dss);
        }
        let key = public_key(cert)?;
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Takes any certificate: for `ssl_cert_reqs` that is none, and to find out whether a port speaks TLS.
#[derive(Debug)]
pub(super) struct AcceptAny(pub(super) WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    // An attacker in between may send a certificate of their own, which is accepted too: its signature would prove nothing.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

type Certificate = CertificateInner<Raw>;

fn parse(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

fn public_key(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    let parsed = parse(certificate)?;
    let key = parsed.tbs_certificate().subject_public_key_info().to_der();
    key.map(Into::into)
        .map_err(|_| CertificateError::BadEncoding.into())
}

fn other(error: webpki::Error) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

/// Looks for a host among the names of a certificate; where it lists none, the common name counts, as with OpenSSL.
fn verify_name(
    certificate: &CertificateDer<'_>,
    parsed: &Certificate,
    host: &ServerName<'_>,
) -> Result<(), Error> {
    let subject = parsed.tbs_certificate();
    if !matches!(subject.get_extension::<SubjectAltName>(), Ok(None)) {
        return verify_server_name(&ParsedCertificate::try_from(certificate)?, host);
    }
    let common_name = subject.subject().common_name().ok().flatten();
    let common_name: Option<String> = common_name.map(|name| name.value().into_owned());
    let presented = common_name.unwrap_or_default();
    if presented.eq_ignore_ascii_case(&host.to_str()) {
        return Ok(());
    }
    Err(CertificateError::NotValidForNameContext {
        expected: host.to_owned(),
        presented: if presented.is_empty() {
            vec![]
        } else {
            vec![presented]
        },
    }
    .into())
}

/// What is wrong with a certificate, and what to do.
pub(super) struct Words<'a>(pub(super) &'a CertificateError);

const ITSELF: &str = "give the certificate itself as 'ssl_ca_certs'";
const ANOTHER: &str = "make another, as docs/how-to/redis.md says";

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server's certificate ")?;
        match self.0 {
            CertificateError::UnknownIssuer => write!(
                f,
                "is not issued by an authority that is trusted here: give the authority's certificate, or {ITSELF}"
            ),
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => wrong_name(f, &expected.to_str(), presented),
            CertificateError::NotValidForName => write!(f, "is for another host: {HOST}"),
            CertificateError::ExpiredContext { not_after, .. } => {
                write!(f, "is valid until {} only: renew it", Date(*not_after))
            }
            CertificateError::Expired => f.write_str("is no longer valid: renew it"),
            CertificateError::NotValidYetContext { not_before, .. } => write!(
                f,
                "is not valid before {}: look at the clocks of both hosts",
                Date(*not_before)
            ),
            CertificateError::NotValidYet => {
                f.write_str("is not valid yet: look at the clocks of both hosts")
            }
            CertificateError::BadSignature => write!(
                f,
                "is not signed by the authority that it names: give the right 'ssl_ca_certs', or {ITSELF}"
            ),
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => write!(
                f,
                "is signed by an algorithm that is not supported, such as SHA-1: {ANOTHER}, with SHA-256, or {ITSELF}"
            ),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                write!(
                    f,
                    "is not for servers (extendedKeyUsage): {ANOTHER}, or {ITSELF}"
                )
            }
            CertificateError::Revoked => f.write_str("was revoked: renew it"),
            CertificateError::Other(OtherError(cause)) => match cause.downcast_ref() {
                Some(webpki::Error::CaUsedAsEndEntity) => write!(
                    f,
                    "is one of an authority (CA:TRUE), which is for servers only if it is among those given: {ITSELF}, or {ANOTHER}"
                ),
                Some(webpki::Error::UnsupportedCertVersion) => write!(
                    f,
                    "is of X.509 version 1, which no authority can vouch for here: {ITSELF}, or {ANOTHER}"
                ),
                _ => malformed(f),
            },
            _ => malformed(f),
        }
    }
}

const HOST: &str = "connect by a name that it has, or set 'ssl_check_hostname' to False";

fn malformed(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "is malformed, or of a kind that is not supported: {ANOTHER}, or {ITSELF}"
    )
}

fn wrong_name(f: &mut fmt::Formatter<'_>, host: &str, presented: &[String]) -> fmt::Result {
    if presented.is_empty() {
        return write!(
            f,
            "has no name of a host (subjectAltName): {ANOTHER}, or {ITSELF}, or set 'ssl_check_hostname' to False"
        );
    }
    // webpki writes names as DnsName("localhost") and IpAddress(127.0.0.1).
    let name = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
        inner.trim_matches([')', '"']).to_owned()
    };
    let names: Vec<String> = presented.iter().map(name).collect();
    write!(f, "is for {}, and not for {host}: {HOST}", names.join(", "))
}

/// A day and a time, in UTC.
struct Date(UnixTime);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = std::time::Duration::from_secs(self.0.as_secs());
        match DateTime::from_unix_duration(since) {
            Ok(date) => write!(f, "{date}"),
            Err(_) => write!(f, "{} s after 1970", self.0.as_secs()),
        }
    }
}
