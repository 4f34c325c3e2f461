//! The settings of a Redis layer as Python gives them: one frozen object, checked and named there.

use std::sync::Arc;

use headrace_core::history::HistoryRules;
use headrace_core::presence::PresenceRules;
use headrace_core::redis::crypt::{Crypt, Version};
use headrace_core::redis::ring::Ring;
use headrace_core::redis::{
    CertificateSource, Certificates, Counted, Credentials, Endpoint, Protocol, Server, Settings,
    SocketAddress, Tls, Topology, Wire,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::config::seconds;
use crate::receiver::Engine;

/// Which groups have a presence. What becomes of those that are present here is noted from now on.
pub(super) fn presence_rules(engine: &Engine) -> PresenceRules {
    let rules = engine.presences(|presences, _| {
        presences.note_own_changes();
        presences.rules().clone()
    });
    rules.unwrap_or_default()
}

/// `headrace._layers.redis_config.RedisConfig`, read field by field.
#[derive(FromPyObject)]
pub(crate) struct RedisConfig {
    hosts: Vec<HostConfig>,
    topology: String,
    prefix: String,
    wire: String,
    ring: String,
    encryption_keys: Vec<Vec<u8>>,
    encryption_versions: Vec<u8>,
    send_timeout: f64,
    connect_timeout: f64,
    subscription_linger: f64,
    /// Globs of the groups that are counted in all processes.
    counted: Vec<String>,
    presence_timeout: f64,
    pub(crate) max_message_bytes: usize,
    on_disconnect: Option<String>,
    on_reconnect: Option<String>,
    on_gap: Option<String>,
}

/// `headrace._layers.hosts.Host`.
#[derive(FromPyObject)]
struct HostConfig {
    endpoint: EndpointConfig,
    sentinels: Vec<EndpointConfig>,
    master_name: Option<String>,
}

/// `headrace._layers.hosts.Endpoint`.
#[derive(FromPyObject)]
struct EndpointConfig {
    host: String,
    port: u16,
    path: Option<String>,
    username: Option<String>,
    password: Option<String>,
    password_source: Option<Py<PyAny>>,
    database: i64,
    tls: Option<TlsConfig>,
    protocol: u8,
}

/// `headrace._layers.tls.Tls`.
#[derive(FromPyObject)]
struct TlsConfig {
    verify: bool,
    verify_hostname: bool,
    ca: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    files: Option<Py<PyAny>>,
}

/// `headrace._layers.tls.TlsFiles`, which are read in a thread that does nothing else.
struct TlsFiles(Option<Py<PyAny>>);

impl Drop for TlsFiles {
    /// As that of a `PasswordSource`.
    fn drop(&mut self) {
        let files = self.0.take();
        Python::try_attach(|_| drop(files));
    }
}

impl CertificateSource for TlsFiles {
    fn fetch(&self) -> Result<Certificates, String> {
        let read = Python::try_attach(|py| {
            let Some(files) = &self.0 else {
                return Ok(Certificates::default());
            };
            let (authorities, certificate, key) = files.bind(py).call_method0("read")?.extract()?;
            Ok(made(authorities, certificate, key))
        });
        match read {
            Some(Ok(certificates)) => Ok(certificates),
            Some(Err(error)) => {
                Err(Python::try_attach(|py: Python<'_>| error_text(py, &error)).unwrap_or_default())
            }
            None => Err("the interpreter is gone".to_owned()),
        }
    }

    fn id(&self) -> usize {
        id(self.0.as_ref())
    }
}

/// The number of an object that is kept: no other has its address.
fn id(kept: Option<&Py<PyAny>>) -> usize {
    kept.map_or(0, |object| object.as_ptr().addr())
}

fn made(
    authorities: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
) -> Certificates {
    Certificates {
        authorities,
        identity: certificate.zip(key),
    }
}

fn error_text(py: Python<'_>, error: &PyErr) -> String {
    error.value(py).to_string()
}

/// A Python function that gives credentials. It is called in a thread that does nothing else.
struct PasswordSource(Option<Py<PyAny>>);

impl Drop for PasswordSource {
    /// The driver may drop the settings last, in its thread, which would leak the object.
    fn drop(&mut self) {
        let source = self.0.take();
        Python::try_attach(|_| drop(source));
    }
}

impl Credentials for PasswordSource {
    fn fetch(&self) -> Result<(Option<String>, String), String> {
        let fetched = Python::try_attach(|py| {
            let Some(source) = &self.0 else {
                return Ok((None, String::new()));
            };
            let given = source.bind(py).call0()?;
            if given.is_instance_of::<PyString>() {
                return Ok((None, given.extract()?));
            }
            given.extract::<(Option<String>, String)>()
        });
        match fetched {
            Some(Ok(credentials)) => Ok(credentials),
            // Only its type: the text of an error about a password may hold the password.
            Some(Err(error)) => Err(Python::try_attach(|py| {
                let name = error.get_type(py).name().map(|name| name.to_string());
                format!("it raised {}", name.unwrap_or_default())
            })
            .unwrap_or_else(|| "it failed".to_owned())),
            None => Err("the interpreter is gone".to_owned()),
        }
    }

    fn id(&self) -> usize {
        id(self.0.as_ref())
    }
}

impl RedisConfig {
    pub(crate) fn into_core(
        self,
        expiry: std::time::Duration,
        (history, presence): (HistoryRules, PresenceRules),
    ) -> PyResult<Settings> {
        let versions = self.encryption_versions.into_iter().map(version);
        let versions = versions.collect::<PyResult<Vec<_>>>()?;
        let crypt = Crypt::new(self.encryption_keys);
        Ok(Settings {
            topology: match self.topology.as_str() {
                "auto" => Topology::Auto,
                "cluster" => Topology::Cluster,
                "serverless" => Topology::Serverless,
                "single" | "shards" | "sentinel" => Topology::Shards,
                other => return Err(unknown("topology", other)),
            },
            wire: match self.wire.as_str() {
                "headrace" => Wire::Headrace,
                "channels_redis" => Wire::ChannelsRedis,
                other => return Err(unknown("wire", other)),
            },
            ring: match self.ring.as_str() {
                "rendezvous" => Ring::Rendezvous,
                "channels_redis" => Ring::ChannelsRedis,
                other => return Err(unknown("ring", other)),
            },
            prefix: self.prefix,
            hosts: self.hosts.into_iter().map(HostConfig::into_core).collect(),
            crypt: crypt.map(|crypt| Arc::new(crypt.with_versions(versions))),
            history,
            presence,
            counted: Counted::new(self.counted),
            presence_limit: seconds(self.presence_timeout)?,
            expiry,
            max_message_bytes: self.max_message_bytes,
            send_timeout: seconds(self.send_timeout)?,
            connect_timeout: seconds(self.connect_timeout)?,
            subscription_linger: seconds(self.subscription_linger)?,
            on_disconnect: self.on_disconnect,
            on_reconnect: self.on_reconnect,
            on_gap: self.on_gap,
        })
    }
}

fn version(number: u8) -> PyResult<Version> {
    match number {
        1 => Ok(Version::One),
        2 => Ok(Version::Two),
        other => Err(unknown("encryption version", &other.to_string())),
    }
}

fn unknown(setting: &str, value: &str) -> PyErr {
    PyValueError::new_err(format!("unknown {setting} '{value}'"))
}

impl HostConfig {
    fn into_core(self) -> Server {
        Server {
            endpoint: self.endpoint.into_core(),
            sentinels: self
                .sentinels
                .into_iter()
                .map(EndpointConfig::into_core)
                .collect(),
            master_name: self.master_name,
        }
    }
}

impl EndpointConfig {
    fn into_core(self) -> Endpoint {
        let credentials = |source| Arc::new(PasswordSource(Some(source))) as Arc<dyn Credentials>;
        Endpoint {
            socket: match self.path {
                Some(path) => SocketAddress::Unix(path),
                None => SocketAddress::Tcp {
                    host: self.host,
                    port: self.port,
                },
            },
            username: self.username,
            password: self.password,
            credentials: self.password_source.map(credentials),
            database: self.database,
            tls: self.tls.map(TlsConfig::into_core),
            protocol: match self.protocol {
                2 => Protocol::Resp2,
                3 => Protocol::Resp3,
                _ => Protocol::Newest,
            },
        }
    }
}

impl TlsConfig {
    fn into_core(self) -> Tls {
        let source = |files| Arc::new(TlsFiles(Some(files))) as Arc<dyn CertificateSource>;
        Tls {
            verify: self.verify,
            verify_hostname: self.verify_hostname,
            certificates: made(self.ca, self.certificate, self.key),
            source: self.files.map(source),
        }
    }
}
