//! The server: an address that is listened at, connections with limits, and an end.
//!
//! Every task is waited for. What requests mean is in `http`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use cas_fs::FsError;
use cas_store::Store;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::http::{Service, answer};
use crate::registry::Registry;

/// Most connections at once: each may hold a thread that reads or writes.
const MAX_CONNECTIONS: usize = 512;
/// Most manifests that are received at once: each is held in memory, and has at most 4 MiB.
const MAX_MANIFESTS: usize = 16;
/// A client that has a connection says what it wants within this time.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// What requests under way have when the server ends.
const END_TIME: Duration = Duration::from_secs(10);
/// Between two looks at whether it is to end.
const LOOK_TIME: Duration = Duration::from_millis(50);
/// After a failure to take a connection, as when there is no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server lets others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether versions and commits as tags may come to name something else.
    pub allow_moves: bool,
    /// Whether tags, manifests and blobs may be removed.
    pub allow_deletes: bool,
    /// Whether addresses that others reach may be listened at: nobody is asked who they are.
    pub allow_anyone: bool,
    /// Longest blob that is taken.
    pub max_blob_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { allow_moves: false, allow_deletes: false, allow_anyone: false, max_blob_bytes: 64 << 30 }
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Others would reach the address.
    #[error("`{address}` can be reached from other machines, and nobody is asked who they are")]
    Open {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened at.
    #[error("`{address}` cannot be listened at")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is a server of this store already.
    #[error("another server has `{}` open", path.display())]
    InUse {
        /// The index of the registry.
        path: PathBuf,
    },
    /// A newer program made the index of the registry.
    #[error("`{}` was made by a newer program", path.display())]
    Newer {
        /// The index of the registry.
        path: PathBuf,
    },
    /// The index of the registry cannot be used.
    #[error("`{}` cannot be used", path.display())]
    Catalog {
        /// The index of the registry.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What a crash left could not be mended.
    #[error("what `{}` names could not be looked at", path.display())]
    Registry {
        /// The index of the registry.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// No thread could be started.
    #[error("no task could be started")]
    Runtime(#[source] std::io::Error),
}

impl ServerError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Open { .. } => {
                "`--allow-anyone` lets everybody who reaches it read and write; else listen at `127.0.0.1:5000`"
                    .to_owned()
            }
            Self::Listen { .. } => "`--listen 127.0.0.1:0` takes any port that is free".to_owned(),
            Self::InUse { .. } => "end that one, or give this one a store of its own with `--store`".to_owned(),
            Self::Newer { .. } => "use that program".to_owned(),
            Self::Catalog { path, .. } => format!(
                "move `{}` and what begins with its name away; the registry is empty then, and what was pushed is to be pushed again",
                path.display()
            ),
            Self::Registry { .. } | Self::Fs(_) | Self::Runtime(_) => return None,
        })
    }
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    registry: Arc<Registry>,
    is_local: bool,
}

impl Server {
    /// Listens at an address, with the registry of a store.
    ///
    /// # Errors
    ///
    /// [`ServerError`]
    pub fn bind(store: Arc<Store>, address: SocketAddr, options: Options) -> Result<Self, ServerError> {
        let is_local = address.ip().is_loopback();
        if !is_local && !options.allow_anyone {
            return Err(ServerError::Open { address });
        }
        let registry = Arc::new(Registry::open(store, options)?);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(ServerError::Runtime)?;
        let failed = |source| ServerError::Listen { address, source };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { runtime, listener, address, registry, is_local })
    }

    /// The address that it listens at, with the port that it got.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `is_ended` says so; then takes no more, and gives those under way a while. `told` gets what fails on this side.
    pub fn run(self, is_ended: impl Fn() -> bool, told: impl Fn(&dyn std::error::Error) + Send + Sync + 'static) {
        let Self { runtime, listener, registry, is_local, .. } = self;
        let manifests = Semaphore::new(MAX_MANIFESTS);
        let service = Arc::new(Service { registry, is_local, manifests, told: Box::new(told) });
        let router = Router::new().fallback(answer).with_state(service);
        runtime.block_on(serve(listener, router, is_ended));
        // Threads that read for clients that are gone find that out.
        runtime.shutdown_timeout(END_TIME);
    }
}

async fn serve(listener: TcpListener, router: Router, is_ended: impl Fn() -> bool) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    let ended = async {
        while !is_ended() {
            sleep(LOOK_TIME).await;
        }
    };
    tokio::pin!(ended);
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut ended => break,
            accepted = accepted => accepted,
        };
        // What has ended is forgotten.
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Answers are small or long: neither gains by waiting for more.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
        connections.spawn(async move {
            let _permit = permit;
            // Whoever went away in the middle has been told nothing.
            let _ = connection.await;
        });
    }
    drop(listener);
    let _ = timeout(END_TIME, graceful.shutdown()).await;
    connections.shutdown().await;
}
