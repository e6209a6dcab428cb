//! Reads the engine: lists, inspects, events, logs, and the exec that a command probe is.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{EventMessage, ExecConfig};
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, InspectNetworkOptions, ListContainersOptionsBuilder, ListNetworksOptions,
    ListVolumesOptions, LogsOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use qm_api::name::Name;
use qm_plan::observed::{Container, Image, Network};

use super::convert::{self, Listed};
use super::{Docker, DockerError, timed};

/// A stream of the engine's events.
pub type Events = Pin<Box<dyn Stream<Item = Result<EventMessage, DockerError>> + Send>>;
/// A stream of log lines.
pub type LogStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

impl Docker {
    /// All containers, running or not.
    ///
    /// # Errors
    /// As for every call.
    pub async fn list_containers(&self) -> Result<Vec<Listed>, DockerError> {
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let list = self.call(self.client().list_containers(Some(options))).await?;
        let mut list: Vec<Listed> = list.into_iter().filter_map(convert::listed).collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(list)
    }

    /// All networks.
    ///
    /// # Errors
    /// As for every call.
    pub async fn list_networks(&self) -> Result<Vec<Network>, DockerError> {
        let list = self.call(self.client().list_networks(None::<ListNetworksOptions>)).await?;
        Ok(list.into_iter().filter_map(convert::network).collect())
    }

    /// All networks with their labels, those of Docker and of Compose included.
    ///
    /// # Errors
    /// As for every call.
    pub async fn networks_with_labels(&self) -> Result<Vec<(Network, BTreeMap<String, String>)>, DockerError> {
        let list = self.call(self.client().list_networks(None::<ListNetworksOptions>)).await?;
        let labelled = |network: bollard::models::Network| {
            let labels = network.labels.clone().unwrap_or_default().into_iter().collect();
            Some((convert::network(network)?, labels))
        };
        Ok(list.into_iter().filter_map(labelled).collect())
    }

    /// The names of all volumes.
    ///
    /// # Errors
    /// As for every call.
    pub async fn list_volumes(&self) -> Result<Vec<Name>, DockerError> {
        let list = self.call(self.client().list_volumes(None::<ListVolumesOptions>)).await?;
        Ok(list.volumes.unwrap_or_default().into_iter().map(|v| convert::volume(v).name).collect())
    }

    /// One container; `None` when it is gone.
    ///
    /// # Errors
    /// As for every call.
    pub async fn inspect_container(&self, id: &str) -> Result<Option<Container>, DockerError> {
        found(self.call(self.client().inspect_container(id, None::<InspectContainerOptions>)).await).map(|i| i.and_then(convert::container))
    }

    /// One network; `None` when it is gone.
    ///
    /// # Errors
    /// As for every call.
    pub async fn inspect_network(&self, id: &str) -> Result<Option<Network>, DockerError> {
        let inspect = found(self.call(self.client().inspect_network(id, None::<InspectNetworkOptions>)).await)?;
        Ok(inspect.and_then(convert::inspected_network))
    }

    /// Whether a volume is there.
    ///
    /// # Errors
    /// As for every call.
    pub async fn has_volume(&self, name: &str) -> Result<bool, DockerError> {
        found(self.call(self.client().inspect_volume(name)).await).map(|v| v.is_some())
    }

    /// What an image reference or id means to the engine.
    ///
    /// # Errors
    /// As for every call.
    pub async fn inspect_image(&self, reference: &str) -> Result<Image, DockerError> {
        let Some(inspect) = found(self.call(self.client().inspect_image(reference)).await)? else { return Ok(Image::Absent) };
        let config = inspect.config.unwrap_or_default();
        let mut volumes: Vec<String> = config.volumes.unwrap_or_default().into_iter().collect();
        volumes.sort();
        let test = config.healthcheck.and_then(|h| h.test).unwrap_or_default();
        Ok(Image::Present {
            id: inspect.id.unwrap_or_default().into(),
            has_healthcheck: test.first().is_some_and(|word| word != "NONE"),
            volumes,
        })
    }

    /// Everything that happens to containers, networks, volumes and images from `since` on (nanoseconds since the Unix epoch, by the engine's
    /// own clock, as far as its memory of some hundred events goes); without it, from when the engine takes the request. Nothing is sent
    /// before the stream is polled, and nothing tells whether the engine has taken the request.
    pub fn events(&self, since_ns: Option<i64>) -> Events {
        let types: Vec<String> = ["container", "network", "volume", "image"].iter().map(|t| (*t).to_owned()).collect();
        let filters = std::iter::once(("type".to_owned(), types)).collect();
        let mut options = EventsOptionsBuilder::default().filters(&filters);
        if let Some(since) = since_ns {
            options = options.since(&format!("{}.{:09}", since.div_euclid(1_000_000_000), since.rem_euclid(1_000_000_000)));
        }
        let options = options.build();
        Box::pin(self.client().events(Some(options)).map(|event| event.map_err(DockerError::from)))
    }

    /// A small call that shows whether the engine still answers.
    ///
    /// # Errors
    /// As for every call.
    pub async fn ping(&self) -> Result<(), DockerError> {
        timed(Duration::from_secs(10), self.client().ping()).await.map(drop)
    }

    /// Runs a command in a container and gives its exit code; `None` when it is not done within `limit`.
    ///
    /// # Errors
    /// As for every call.
    pub async fn exec(&self, id: &str, command: &[String], limit: Duration) -> Result<Option<i64>, DockerError> {
        let config =
            ExecConfig { cmd: Some(command.to_vec()), attach_stdout: Some(true), attach_stderr: Some(true), ..ExecConfig::default() };
        let exec = self.call(self.client().create_exec(id, config)).await?;
        let started = self.call(self.client().start_exec(&exec.id, None::<StartExecOptions>)).await?;
        if let StartExecResults::Attached { mut output, .. } = started {
            // The limit is the command's, not the engine's: a slow engine says nothing about the container.
            let read = async {
                while let Some(chunk) = output.next().await {
                    chunk.map_err(DockerError::from)?;
                }
                Ok::<(), DockerError>(())
            };
            match tokio::time::timeout(limit, read).await {
                Ok(read) => read?,
                Err(_) => return Ok(None),
            }
        }
        let inspect = self.call(self.client().inspect_exec(&exec.id)).await?;
        Ok(Some(inspect.exit_code.unwrap_or(-1)))
    }

    /// The log of a container.
    pub fn logs(&self, id: &str, follow: bool, tail: Option<u64>, timestamps: bool) -> LogStream {
        let tail = tail.map_or_else(|| "all".to_owned(), |n| n.to_string());
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).follow(follow).timestamps(timestamps).tail(&tail).build();
        let stream = self.client().logs(id, Some(options));
        Box::pin(stream.map(|chunk| chunk.map(bollard::container::LogOutput::into_bytes).map_err(io::Error::other)))
    }
}

pub(crate) fn found<T>(answer: Result<T, DockerError>) -> Result<Option<T>, DockerError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
