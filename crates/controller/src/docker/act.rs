//! Carries out one step: one external call. Nothing is decided here; what an answer means is the next pass's business.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig, Ipam, IpamConfig,
    Mount, MountTmpfsOptions, MountType, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest, NetworkingConfig,
    PortBinding, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    RenameContainerOptionsBuilder, RestartContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use futures_util::StreamExt;
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use qm_api::spec::image::ImageReference;
use qm_plan::desired::{DesiredMount, EngineResources, MountSource};
use qm_plan::step::{Action, Body, ContainerRef, FileWrite, Join, NetworkBody};
use std::time::Duration;

use super::credentials::Credentials;
use super::progress::Line;
use super::{CALL_TIMEOUT, Docker, DockerError, timed};

/// Silence of a pull that counts as its end.
const PULL_SILENCE: Duration = Duration::from_secs(300);

/// What a step brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The thing that was made or changed, where the engine's events name it by this id.
    pub container: Option<Name>,
    /// The network that was made or taken away.
    pub network: Option<Name>,
    /// The volume that was made.
    pub volume: Option<Name>,
    /// The reference that was pulled.
    pub image: Option<Name>,
}

impl Docker {
    /// Carries out one action. `made` = the ids of containers that earlier steps of the plan made, by step index; `files_dir` =
    /// where files are kept on the engine's host. A pull does not come this way: see [`Docker::pull`].
    ///
    /// # Errors
    /// What the engine, or the way to it, had against it. A container that is already as wanted is no error.
    pub async fn act(&self, action: &Action, made: &BTreeMap<usize, Name>, files_dir: &Path) -> Result<Done, DockerError> {
        let container = |id: &Name| Done { container: Some(id.clone()), ..Done::default() };
        let resolve = |reference: &ContainerRef| match reference {
            ContainerRef::Id(id) => Ok(id.clone()),
            ContainerRef::Made(index) => {
                made.get(index).cloned().ok_or_else(|| DockerError::Answer { code: 409, message: "its container was not made".to_owned() })
            }
        };
        match action {
            Action::PlaceFiles { files } => place_files(files_dir, files),
            Action::Pull { .. } => unreachable!("pulls are shared between services, so the executor takes them elsewhere"),
            Action::CreateVolume { name, labels } => {
                let request = VolumeCreateRequest {
                    name: Some(name.clone()),
                    labels: Some(labels.clone().into_iter().collect()),
                    ..VolumeCreateRequest::default()
                };
                self.call(self.client().create_volume(request)).await?;
                Ok(Done { volume: Some(name.as_str().into()), ..Done::default() })
            }
            Action::CreateContainer { name, body, .. } => {
                let options = CreateContainerOptionsBuilder::default().name(name).build();
                let answer = self.call(self.client().create_container(Some(options), create_body(body))).await?;
                Ok(container(&answer.id.into()))
            }
            Action::WriteFiles { container: reference, files } => {
                let id = resolve(reference)?;
                let archive = archive(files).map_err(DockerError::Unreachable)?;
                let options = UploadToContainerOptionsBuilder::default().path("/").build();
                self.call(self.client().upload_to_container(&id, Some(options), bollard::body_full(archive.into()))).await?;
                Ok(container(&id))
            }
            Action::Connect { container: reference, join } => {
                let id = resolve(reference)?;
                let network = if join.network_id.is_empty() { &join.network_name } else { &join.network_id };
                let request = NetworkConnectRequest { container: id.to_string(), endpoint_config: Some(endpoint(join)) };
                self.call(self.client().connect_network(network, request)).await?;
                Ok(container(&id))
            }
            Action::Disconnect { container: id, network, .. } => {
                let request = NetworkDisconnectRequest { container: id.to_string(), force: Some(true) };
                self.call(self.client().disconnect_network(network, request)).await?;
                Ok(container(id))
            }
            Action::Start { container: reference } => {
                let id = resolve(reference)?;
                self.call(self.client().start_container(&id, None::<StartContainerOptions>)).await?;
                Ok(container(&id))
            }
            Action::Stop { container: id, grace_seconds } => {
                let options = StopContainerOptionsBuilder::default().t(*grace_seconds as i32).build();
                timed(with_grace(*grace_seconds), self.client().stop_container(id, Some(options))).await?;
                Ok(container(id))
            }
            Action::Restart { container: id, grace_seconds } => {
                let options = RestartContainerOptionsBuilder::default().t(*grace_seconds as i32).build();
                timed(with_grace(*grace_seconds), self.client().restart_container(id, Some(options))).await?;
                Ok(container(id))
            }
            Action::Signal { container: id, signal } => {
                let options = KillContainerOptionsBuilder::default().signal(signal).build();
                self.call(self.client().kill_container(id, Some(options))).await?;
                Ok(container(id))
            }
            Action::Unpause { container: id } => {
                self.call(self.client().unpause_container(id)).await?;
                Ok(container(id))
            }
            Action::Rename { container: id, to } => {
                let options = RenameContainerOptionsBuilder::default().name(to).build();
                self.call(self.client().rename_container(id, options)).await?;
                Ok(container(id))
            }
            Action::Update { container: id, resources, restart_policy } => {
                self.call(self.client().update_container(id, update_body(resources, restart_policy))).await?;
                Ok(container(id))
            }
            Action::RemoveContainer { container: id } => {
                let options = RemoveContainerOptionsBuilder::default().v(planted(Mutant::VolumesGo)).force(false).build();
                self.call(self.client().remove_container(id, Some(options))).await?;
                Ok(container(id))
            }
            Action::CreateNetwork { body } => {
                let answer = self.call(self.client().create_network(network_body(body))).await?;
                Ok(Done { network: Some(answer.id.into()), ..Done::default() })
            }
            Action::RemoveNetwork { network, .. } => {
                self.call(self.client().remove_network(network)).await?;
                Ok(Done { network: Some(network.clone()), ..Done::default() })
            }
        }
    }

    /// Pulls an image; `see` hears every line that the engine says of it.
    ///
    /// # Errors
    /// What the engine, the registry, or the way to them had against it.
    pub async fn pull(
        &self,
        reference: &str,
        credentials: &Credentials,
        see: &(dyn Fn(Line<'_>) + Send + Sync),
    ) -> Result<(), DockerError> {
        let (image, tag) = split_reference(reference);
        let options = CreateImageOptionsBuilder::default().from_image(image).tag(tag).build();
        let shown = credentials.of(&ImageReference::parse(reference));
        let mut stream = std::pin::pin!(self.client().create_image(Some(options), None, shown));
        loop {
            match tokio::time::timeout(PULL_SILENCE, stream.next()).await {
                Err(_) => return Err(DockerError::Timeout { seconds: PULL_SILENCE.as_secs() }),
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => return Err(error.into()),
                Ok(Some(Ok(info))) => {
                    if let Some(error) = info.error_detail.and_then(|e| e.message) {
                        return Err(DockerError::Answer { code: 500, message: error });
                    }
                    let detail = info.progress_detail.unwrap_or_default();
                    let status = info.status.as_deref().unwrap_or_default();
                    see(Line { layer: info.id.as_deref(), status, current: detail.current, total: detail.total });
                }
            }
        }
    }
}

/// Keeps files on the host under their digests. A file that is there already is whole: it came to its place by a rename.
///
/// # Errors
/// What the file system had against it; it is tried again.
fn place_files(dir: &Path, files: &[FileWrite]) -> Result<Done, DockerError> {
    let failed = |source| DockerError::HostFile { dir: dir.to_path_buf(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    for file in files {
        let place = dir.join(FileWrite::kept_as(&file.digest, file.mode));
        if place.exists() {
            continue;
        }
        let mut new = tempfile::Builder::new().permissions(Permissions::from_mode(file.mode)).tempfile_in(dir).map_err(failed)?;
        new.write_all(&file.content).and_then(|()| new.as_file().sync_all()).map_err(failed)?;
        // The mode was cut by the umask of this process when the file was made.
        new.as_file().set_permissions(Permissions::from_mode(file.mode)).map_err(failed)?;
        new.persist(&place).map_err(|e| failed(e.error))?;
    }
    Ok(Done::default())
}

fn with_grace(seconds: i64) -> Duration {
    CALL_TIMEOUT + Duration::from_secs(seconds.max(0) as u64)
}

/// Image and tag (or digest) apart: without a tag the engine would pull all of them.
fn split_reference(reference: &str) -> (&str, &str) {
    if let Some((_, digest)) = reference.split_once('@') {
        return (reference, digest);
    }
    match reference.rsplit_once(':') {
        Some((image, tag)) if !tag.contains('/') => (image, tag),
        _ => (reference, "latest"),
    }
}

fn policy(word: &str) -> RestartPolicy {
    let name = match word {
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        "always" => RestartPolicyNameEnum::ALWAYS,
        _ => RestartPolicyNameEnum::NO,
    };
    RestartPolicy { name: Some(name), maximum_retry_count: None }
}

fn some<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

fn create_body(body: &Body) -> ContainerCreateBody {
    let mut exposed: Vec<String> = body.ports.iter().map(|p| format!("{}/{}", p.target, p.protocol)).collect();
    exposed.sort();
    exposed.dedup();
    let mut bindings: BTreeMap<String, Option<Vec<PortBinding>>> = BTreeMap::new();
    for port in &body.ports {
        let binding = PortBinding {
            host_ip: Some(port.host.clone()),
            host_port: Some(if port.published == 0 { String::new() } else { port.published.to_string() }),
        };
        bindings.entry(format!("{}/{}", port.target, port.protocol)).or_default().get_or_insert_with(Vec::new).push(binding);
    }
    let networking = body.network.as_ref().map(|join| NetworkingConfig {
        endpoints_config: Some(std::iter::once((join.network_name.to_string(), endpoint(join))).collect()),
    });
    ContainerCreateBody {
        image: Some(body.image.clone()),
        entrypoint: body.entrypoint.clone(),
        cmd: body.command.clone(),
        env: some(body.env.clone()),
        user: body.user.clone(),
        working_dir: body.working_dir.clone(),
        labels: Some(body.labels.clone().into_iter().collect()),
        exposed_ports: some(exposed),
        stop_signal: body.stop_signal.clone(),
        stop_timeout: Some(body.stop_timeout_seconds),
        host_config: Some(HostConfig {
            network_mode: body.network.as_ref().map(|join| join.network_name.to_string()),
            port_bindings: Some(bindings.into_iter().collect()),
            mounts: some(body.mounts.iter().map(mount).collect()),
            restart_policy: Some(policy(&body.restart_policy)),
            nano_cpus: some(body.resources.nano_cpus),
            memory: some(body.resources.memory_bytes),
            memory_reservation: some(body.resources.memory_reservation_bytes),
            pids_limit: some(body.resources.pids),
            cpu_shares: some(body.resources.cpu_shares),
            cap_add: some(body.cap_add.clone()),
            cap_drop: some(body.cap_drop.clone()),
            readonly_rootfs: some(body.read_only),
            init: some(body.init),
            extra_hosts: some(body.extra_hosts.clone()),
            dns: some(body.dns.clone()),
            sysctls: (!body.sysctls.is_empty()).then(|| body.sysctls.clone().into_iter().collect()),
            ulimits: some(
                body.ulimits
                    .iter()
                    .map(|(name, soft, hard)| ResourcesUlimits { name: Some(name.clone()), soft: Some(*soft), hard: Some(*hard) })
                    .collect(),
            ),
            log_config: body.logging.as_ref().map(|(driver, options)| HostConfigLogConfig {
                typ: Some(driver.clone()),
                config: Some(options.clone().into_iter().collect()),
            }),
            ..HostConfig::default()
        }),
        networking_config: networking,
        ..ContainerCreateBody::default()
    }
}

fn mount(mount: &DesiredMount) -> Mount {
    let base = Mount { target: Some(mount.target.clone()), read_only: some(mount.read_only), ..Mount::default() };
    match &mount.source {
        MountSource::Volume(name) => Mount { typ: Some(MountType::VOLUME), source: Some(name.clone()), ..base },
        MountSource::Bind(path) => Mount { typ: Some(MountType::BIND), source: Some(path.clone()), ..base },
        MountSource::Tmpfs { size_bytes, mode } => Mount {
            typ: Some(MountType::TMPFS),
            tmpfs_options: Some(MountTmpfsOptions {
                size_bytes: some(*size_bytes as i64),
                mode: some(i64::from(*mode)),
                ..MountTmpfsOptions::default()
            }),
            ..base
        },
    }
}

fn endpoint(join: &Join) -> EndpointSettings {
    EndpointSettings {
        aliases: some(join.aliases.clone()),
        ipam_config: join.ipv4.as_ref().map(|ip| EndpointIpamConfig { ipv4_address: Some(ip.clone()), ..EndpointIpamConfig::default() }),
        ..EndpointSettings::default()
    }
}

/// In place, 0 means "no change" to the engine: what lifts a limit has other words (-1, 1024), and memory has none.
fn update_body(resources: &EngineResources, restart_policy: &str) -> ContainerUpdateBody {
    let or = |value: i64, lifted: i64| Some(if value == 0 { lifted } else { value });
    ContainerUpdateBody {
        nano_cpus: some(resources.nano_cpus),
        memory: some(resources.memory_bytes),
        // The engine gave it twice the memory at creation; below the memory it would refuse the change.
        memory_swap: some(resources.memory_bytes * 2),
        memory_reservation: or(resources.memory_reservation_bytes, -1),
        pids_limit: Some(resources.pids),
        cpu_shares: or(resources.cpu_shares, 1024),
        restart_policy: Some(policy(restart_policy)),
        ..ContainerUpdateBody::default()
    }
}

fn network_body(body: &NetworkBody) -> NetworkCreateRequest {
    let ipam = body.subnet.as_ref().map(|subnet| Ipam {
        config: Some(vec![IpamConfig { subnet: Some(subnet.clone()), gateway: body.gateway.clone(), ..IpamConfig::default() }]),
        ..Ipam::default()
    });
    NetworkCreateRequest {
        name: body.name.clone(),
        driver: Some(body.driver.clone()),
        internal: Some(body.internal),
        attachable: Some(body.attachable),
        ipam,
        options: Some(body.options.clone().into_iter().collect()),
        labels: Some(body.labels.clone().into_iter().collect()),
        ..NetworkCreateRequest::default()
    }
}

/// A tar archive of files with their whole paths, to be unpacked at the root.
fn archive(files: &[FileWrite]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.content.len() as u64);
        header.set_mode(file.mode);
        header.set_mtime(0);
        archive.append_data(&mut header, file.target.trim_start_matches('/'), &*file.content)?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_split_into_image_and_tag() {
        assert_eq!(split_reference("redis:7"), ("redis", "7"));
        assert_eq!(split_reference("host:5000/redis"), ("host:5000/redis", "latest"));
        assert_eq!(split_reference("host:5000/redis:7"), ("host:5000/redis", "7"));
        assert_eq!(split_reference("redis@sha256:00"), ("redis@sha256:00", "sha256:00"));
    }
}
