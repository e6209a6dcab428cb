//! Serves the app faces: one socket a namespace that wants one, in a folder that is mounted into its containers. The folders stay when the
//! operator ends, so that a container finds the socket of the next one at the same place.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use qm_api::name::Name;
use qm_apiserver::{Listener, Ports, ServeError, face_router};
use qm_controller::run::Operator;
use qm_store::Store;
use tokio::task::JoinHandle;

/// When a face that could not be opened is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// So long changes are gathered.
const GATHER: Duration = Duration::from_millis(20);

/// Keeps a socket open for each namespace that wants one. Ends with its future, and the sockets with it.
pub(crate) async fn run(dir: PathBuf, operator: Arc<Operator>, store: Store, ports: Ports) {
    let mut changes = operator.changes();
    let mut faces: BTreeMap<Name, Face> = BTreeMap::new();
    let mut told: BTreeMap<Name, String> = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let wanted = operator.namespaces_with_faces();
        faces.retain(|namespace, _| wanted.contains(namespace));
        told.retain(|namespace, _| wanted.contains(namespace));
        for namespace in wanted {
            if faces.contains_key(&namespace) {
                continue;
            }
            let folder = dir.join(namespace.as_str());
            match open(&folder).await {
                Ok(listener) => {
                    let router = face_router(store.clone(), ports.clone(), namespace.to_string());
                    tracing::info!(%namespace, folder = %folder.display(), "the app face is open");
                    told.remove(&namespace);
                    faces.insert(namespace, Face(tokio::spawn(listener.serve(router, std::future::pending()))));
                }
                Err(error) => {
                    let message = format!("{:#}", anyhow::Error::from(error));
                    if told.get(&namespace) != Some(&message) {
                        tracing::warn!(%namespace, error = message, "the app face cannot be opened; it is tried again");
                        told.insert(namespace, message);
                    }
                }
            }
        }
        // What failed is tried again after a while; else only a change of what is wanted can matter, and those come in crowds.
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TRY_AGAIN), if !told.is_empty() => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// A socket that is served.
struct Face(JoinHandle<()>);

impl Drop for Face {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn open(folder: &Path) -> Result<Listener, FaceError> {
    let refused = |source| FaceError::Folder { folder: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(refused)?;
    // Whoever it is mounted for may be anybody inside.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).map_err(refused)?;
    Ok(Listener::unix_for_all(&folder.join("app.sock")).await?)
}

/// Why a face cannot be opened.
#[derive(Debug, thiserror::Error)]
enum FaceError {
    /// Its folder.
    #[error("the folder {} cannot be made", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its socket.
    #[error(transparent)]
    Socket(#[from] ServeError),
}
