//! The settings of a layer's servers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::wire::crypt::Crypt;
use super::wire::form::Wire;
use super::wire::ring::Ring;
use crate::glob::Glob;
use crate::history::HistoryRules;
use crate::presence::PresenceRules;

/// The servers, and how to connect to them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What every key and every pub/sub channel begins with.
    pub prefix: String,
    /// One server, the shards, or the seeds of a cluster.
    pub hosts: Vec<Server>,
    /// How the hosts belong together.
    pub topology: Topology,
    /// How names are distributed over several hosts that form no cluster.
    pub ring: Ring,
    /// The wire format of messages.
    pub wire: Wire,
    /// Encrypts messages.
    pub crypt: Option<Arc<Crypt>>,
    /// Which groups keep their history on the servers.
    pub history: HistoryRules,
    /// Which groups have a presence.
    pub presence: PresenceRules,
    /// Which groups are counted in all processes.
    pub counted: Counted,
    /// After how long a process that does not show that it lives is known to be dead.
    pub presence_limit: Duration,
    /// How long a message may be on its way and in a queue.
    pub expiry: Duration,
    /// How many bytes of msgpack a message may have. A longer one that comes from elsewhere is dropped.
    pub max_message_bytes: usize,
    /// How long a sender waits for the server.
    pub send_timeout: Duration,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long a subscription outlives the last local member of its group.
    pub subscription_linger: Duration,
    /// The `type` of the message to every local channel when the connection is lost.
    pub on_disconnect: Option<String>,
    /// The same, when it is back.
    pub on_reconnect: Option<String>,
    /// The `type` of the message to the local members of a group that may have missed messages.
    pub on_gap: Option<String>,
}

/// The groups whose members are counted in all processes.
#[derive(Clone, Debug, Default)]
pub struct Counted(Vec<Glob>);

impl Counted {
    /// Those whose names one of these shell-style patterns fits.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Self {
        let globs = patterns.into_iter();
        Self(globs.map(|pattern| Glob::new(pattern.as_ref())).collect())
    }

    /// Whether a group is counted.
    pub fn has(&self, group: &str) -> bool {
        self.0.iter().any(|glob| glob.matches(group))
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How the hosts belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// To be detected: a cluster if the first host reports one, else shards.
    Auto,
    /// One host, or several over which the client distributes the names. Each may be behind Sentinels.
    Shards,
    /// The hosts are seeds of a cluster.
    Cluster,
    /// One endpoint that speaks the protocol of a cluster and forbids most commands.
    Serverless,
}

/// One shard, or one seed.
#[derive(Clone, Debug)]
pub struct Server {
    /// The server. Behind Sentinels, its address is replaced by that of the master.
    pub endpoint: Endpoint,
    /// The Sentinels, which know the address of the master.
    pub sentinels: Vec<Endpoint>,
    /// The name of the master at the Sentinels.
    pub master_name: Option<String>,
}

/// One server.
#[derive(Clone)]
pub struct Endpoint {
    /// Where it listens.
    pub socket: SocketAddress,
    /// The user's name.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// Provides both for each connection, instead of the two fields above.
    pub credentials: Option<Arc<dyn Credentials>>,
    /// The database; only 0 on a cluster.
    pub database: i64,
    /// How the connection is encrypted, if it is.
    pub tls: Option<Tls>,
    /// What is spoken with it.
    pub protocol: Protocol,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAddress {
    /// At a port of a host, which is given by its name or address.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// At a unix socket of this path.
    Unix(String),
}

/// The versions of the protocol of Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The newest that the server has: RESP3, or else RESP2.
    #[default]
    Newest,
    /// RESP2 alone.
    Resp2,
    /// RESP3 alone.
    Resp3,
}

/// How a server is authenticated by TLS.
#[derive(Clone)]
pub struct Tls {
    /// Whether its certificate is verified.
    pub verify: bool,
    /// Whether its certificate has to be for its host's name.
    pub verify_hostname: bool,
    /// Certificates.
    pub certificates: Certificates,
    /// Provides them for each connection, instead of those above: certificates are renewed.
    pub source: Option<Arc<dyn CertificateSource>>,
}

/// Certificates, as PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Authorities to trust instead of the system's.
    pub authorities: Option<Vec<u8>>,
    /// Our own certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Provides the certificates of the next connection.
pub trait CertificateSource: Send + Sync {
    /// The certificates. It may block: it is called in a thread of its own.
    ///
    /// # Errors
    /// Why there are none, in words.
    fn fetch(&self) -> Result<Certificates, String>;

    /// A number that is that of no other source which provides something else, as long as both are there. Layers share
    /// connections to Sentinels if their sources have the same number.
    fn id(&self) -> usize;
}

/// Provides the credentials of the next connection, for tokens that expire.
pub trait Credentials: Send + Sync {
    /// The user's name, if any, and the password. It may block: it is called in a thread of its own.
    ///
    /// # Errors
    /// Why there are none, in words.
    fn fetch(&self) -> Result<(Option<String>, String), String>;

    /// As that of a [`CertificateSource`].
    fn id(&self) -> usize;
}

impl Endpoint {
    /// The same server at another address.
    pub(crate) fn at(&self, host: &str, port: u16) -> Self {
        Self {
            socket: SocketAddress::tcp(host, port),
            ..self.clone()
        }
    }

    /// Whether a connection to the one can serve for the other: to the same server, as the same user, and encrypted alike.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let user = |at: &Self| (at.username.clone(), at.password.clone());
        let source = |at: &Self| at.credentials.as_ref().map(|source| source.id());
        self.socket == other.socket
            && self.database == other.database
            && user(self) == user(other)
            && source(self) == source(other)
            && self.tls == other.tls
            && self.protocol == other.protocol
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        let source = |tls: &Self| tls.source.as_ref().map(|source| source.id());
        self.verify == other.verify
            && self.verify_hostname == other.verify_hostname
            && self.certificates == other.certificates
            && source(self) == source(other)
    }
}

impl Eq for Tls {}

impl SocketAddress {
    pub(crate) fn tcp(host: &str, port: u16) -> Self {
        Self::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    /// The host, if it is not a unix socket.
    pub(crate) fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp { host, .. } => Some(host),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => f.write_str(path),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

/// Nothing secret is shown.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// No key is shown.
impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("verify", &self.verify)
            .field("verify_hostname", &self.verify_hostname)
            .finish_non_exhaustive()
    }
}
