//! Runs a command in a container of its own and takes the container away again. Owns the label that says whose it is; such a container
//! is nobody's replica, so it has no stamp (ADR 0018).

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions,
};
use futures_util::StreamExt;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_plan::stamp;

use super::read::found;
use super::{Docker, DockerError};

/// Label of such a container: the instance that made it.
pub const ERRAND: &str = "quaymaster.dev/probe";
/// So much of what a command wrote last is told, in characters.
const WORDS: usize = 200;

/// A command to be run once.
#[derive(Clone, Debug)]
pub struct Errand<'a> {
    /// The instance of the operator.
    pub instance: &'a Name,
    /// For whom.
    pub owner: &'a ObjectKey,
    /// The image that has the command.
    pub image: &'a str,
    /// The command.
    pub command: &'a [String],
    /// How long it may run.
    pub limit: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It ended, with this code and these last words.
    Ended {
        /// Its exit code.
        code: i64,
        /// The last line that it wrote; only read when it failed.
        words: String,
    },
    /// It was not done within its limit.
    TooLate,
    /// The engine does not have the image.
    NoImage,
}

impl Errand<'_> {
    /// The name of its container: only one runs at a time.
    fn name(&self) -> String {
        container_name(self.owner)
    }

    fn body(&self) -> ContainerCreateBody {
        let labels = [
            (ERRAND, self.instance.as_str()),
            (stamp::KIND, self.owner.kind.as_str()),
            (stamp::NAMESPACE, self.owner.namespace.as_str()),
            (stamp::NAME, self.owner.name.as_str()),
        ];
        ContainerCreateBody {
            image: Some(self.image.to_owned()),
            // The command is all that is run, whatever the image would begin with.
            entrypoint: Some(self.command.to_vec()),
            cmd: Some(Vec::new()),
            labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
            host_config: Some(HostConfig { init: Some(false), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        }
    }
}

fn container_name(owner: &ObjectKey) -> String {
    format!("{}-{}-probe", owner.namespace, owner.name)
}

/// Takes its container away however the errand ends, also when nobody waits for it any more.
struct Cleanup {
    docker: Docker,
    id: Option<String>,
}

impl Cleanup {
    async fn now(mut self) {
        if let Some(id) = self.id.take() {
            take_away(&self.docker, &id).await;
        }
    }
}

/// What the command said stands, whether its container can be taken away or not: the next errand takes away what is left.
async fn take_away(docker: &Docker, id: &str) {
    if let Err(error) = docker.remove_errand(id).await {
        tracing::warn!(container = %id, error = error.line(), "the container of a probe is left; the next probe takes it away");
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let docker = self.docker.clone();
        // Where the process ends too, the next one takes it away.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { take_away(&docker, &id).await });
        }
    }
}

impl Docker {
    /// Runs a command in a container of its own. One that an earlier process left under the name is taken away first, if it is ours.
    ///
    /// # Errors
    /// As for every call. A command that the image does not have is one with a code from 400 to 499.
    pub async fn run_errand(&self, errand: &Errand<'_>) -> Result<Ran, DockerError> {
        let id = match self.create_errand(errand).await {
            Ok(id) => id,
            Err(error) if error.is_not_found() => return Ok(Ran::NoImage),
            Err(DockerError::Answer { code: 409, .. }) if self.clear_errand(errand.instance, errand.owner).await? => {
                self.create_errand(errand).await?
            }
            Err(error) => return Err(error),
        };
        let cleanup = Cleanup { docker: self.clone(), id: Some(id.clone()) };
        self.call(self.client().start_container(&id, None::<StartContainerOptions>)).await?;
        let code = match tokio::time::timeout(errand.limit, self.exit_code(&id)).await {
            Ok(code) => code?,
            Err(_) => {
                cleanup.now().await;
                return Ok(Ran::TooLate);
            }
        };
        let words = if code == 0 { String::new() } else { self.last_words(&id).await };
        cleanup.now().await;
        Ok(Ran::Ended { code, words })
    }

    /// Takes away what an errand for this owner has left; false when a container of somebody else has its name.
    ///
    /// # Errors
    /// As for every call.
    pub async fn clear_errand(&self, instance: &Name, owner: &ObjectKey) -> Result<bool, DockerError> {
        let name = container_name(owner);
        let inspect = found(self.call(self.client().inspect_container(&name, None::<InspectContainerOptions>)).await)?;
        let Some(inspect) = inspect else { return Ok(true) };
        let labels: BTreeMap<String, String> = inspect.config.and_then(|config| config.labels).unwrap_or_default().into_iter().collect();
        let is = |label: &str, value: &Name| labels.get(label).is_some_and(|found| found == value.as_str());
        let is_ours = is(ERRAND, instance) && is(stamp::NAMESPACE, &owner.namespace) && is(stamp::NAME, &owner.name);
        match inspect.id.filter(|_| is_ours) {
            Some(id) => self.remove_errand(&id).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn create_errand(&self, errand: &Errand<'_>) -> Result<String, DockerError> {
        let options = CreateContainerOptionsBuilder::default().name(&errand.name()).build();
        Ok(self.call(self.client().create_container(Some(options), errand.body())).await?.id)
    }

    async fn exit_code(&self, id: &str) -> Result<i64, DockerError> {
        match self.client().wait_container(id, None::<WaitContainerOptions>).next().await {
            Some(Ok(answer)) => Ok(answer.status_code),
            // The client's way of telling another code than 0.
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(DockerError::from(error)),
            None => Err(DockerError::Unreachable(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))),
        }
    }

    async fn last_words(&self, id: &str) -> String {
        let mut log = self.logs(id, false, Some(1), false);
        let mut line = Vec::new();
        while let Some(Ok(chunk)) = log.next().await {
            line.extend_from_slice(&chunk);
            if line.len() > WORDS {
                break;
            }
        }
        String::from_utf8_lossy(&line).trim().chars().filter(|c| !c.is_control()).take(WORDS).collect()
    }

    async fn remove_errand(&self, id: &str) -> Result<(), DockerError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        found(self.call(self.client().remove_container(id, Some(options))).await).map(drop)
    }
}
