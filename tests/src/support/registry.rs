//! A real registry on loopback, which gives its images to one user alone.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::json;
use tempfile::TempDir;

use super::docker::Docker;
use super::http::{self, Place};
use super::wait;

/// Who may have its images.
pub const USER: &str = "conf";
/// The two alphabets of base64 differ in every one of its forms: see [`auth_header`].
pub const PASSWORD: &str = "pa~~~???ss";
/// `htpasswd -Bn conf` with that password.
const HTPASSWD: &str = "conf:$2y$05$WJqRi/IAul16KT94essdbe/zQe7Fff1cXJ98rCsBWOZxfEpPF/PHu\n";

/// A registry. It ends when it is dropped.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    host: String,
    dir: TempDir,
}

/// `X-Registry-Auth` as the engine reads it.
pub fn auth_header(user: &str, password: &str) -> String {
    URL_SAFE.encode(json!({ "username": user, "password": password }).to_string())
}

/// A file as `docker login` writes it.
pub fn credentials(host: &str, user: &str, password: &str) -> String {
    let auth = STANDARD.encode(format!("{user}:{password}"));
    json!({ "auths": { host: { "auth": auth } } }).to_string()
}

impl Registry {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        let dir = TempDir::with_prefix("qm-registry-").expect("the temporary folder can be written");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
        let host = listener.local_addr().expect("a listener has an address").to_string();
        drop(listener);
        let at = |name: &str| dir.path().join(name);
        fs::write(at("htpasswd"), HTPASSWD).expect("the registry's folder can be written");
        // JSON is YAML.
        let config = json!({
            "version": "0.1",
            "log": { "level": "error" },
            "storage": { "filesystem": { "rootdirectory": at("data") } },
            "http": { "addr": host, "secret": "none" },
            "auth": { "htpasswd": { "realm": "tests", "path": at("htpasswd") } },
        });
        fs::write(at("config.yml"), config.to_string()).expect("the registry's folder can be written");
        let log = fs::File::create(at("log")).expect("the registry's folder can be written");
        let mut command = Command::new("setpriv");
        // It ends with the test that started it, also when that is killed.
        command.args(["--pdeathsig", "KILL", "docker-registry", "serve"]).arg(at("config.yml"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let process = command.spawn().expect("setpriv is there");
        let registry = Self { process, host, dir };
        let up = wait::until(Duration::from_secs(30), || registry.is_up());
        up.unwrap_or_else(|why| panic!("docker-registry does not come up (apt-get install docker-registry): {why}\n{}", registry.log()));
        registry
    }

    fn is_up(&self) -> Result<(), String> {
        let place = Place::Tcp(self.host.parse().expect("it is an address"));
        let answer = http::call_within(Duration::from_secs(1), &place, "GET", "/v2/", None).map_err(|e| e.to_string())?;
        if answer.code == 401 { Ok(()) } else { Err(format!("it answers {}", answer.code)) }
    }

    /// Its address, as references begin with it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What it has written.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Puts an image that the engine has into it, as `REPOSITORY:TAG`; gives the reference. The engine forgets it again.
    pub fn push(&self, docker: &Docker, image: &str, repository: &str, tag: &str) -> String {
        let name = format!("{}/{repository}", self.host);
        docker.must("POST", &format!("/images/{image}/tag?repo={name}&tag={tag}"), None);
        let path = format!("/v1.41/images/{name}/push?tag={tag}");
        let place = Place::Unix(docker.socket().to_path_buf());
        let answer = http::post_with(&place, &path, ("X-Registry-Auth", &auth_header(USER, PASSWORD)));
        let text = answer.unwrap_or_else(|e| panic!("{name}:{tag} cannot be pushed: {e}")).text();
        assert!(text.contains("digest: sha256:"), "{name}:{tag} cannot be pushed: {text}");
        let reference = format!("{name}:{tag}");
        docker.forget_image(&reference);
        reference
    }

    /// Puts an image of its own into it, with so many bytes that nothing makes smaller; gives the reference.
    pub fn push_large(&self, docker: &Docker, repository: &str, bytes: usize) -> String {
        let mut archive = tar::Builder::new(Vec::new());
        // Other noise for another image: layers that are alike are fetched once.
        let name = repository.bytes().fold(u64::from(std::process::id()), |hash, byte| hash.rotate_left(7) ^ u64::from(byte));
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ name;
        let noise: Vec<u8> = (0..bytes / 8)
            .flat_map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            })
            .collect();
        let busybox = fs::read("/bin/busybox").expect("busybox-static is installed (apt-get install busybox-static)");
        for (path, mode, content) in [("noise", 0o644, &noise), ("bin/busybox", 0o755, &busybox), ("bin/sleep", 0o755, &busybox)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(mode);
            archive.append_data(&mut header, path, content.as_slice()).expect("an archive in memory can be written");
        }
        let whole = archive.into_inner().expect("an archive in memory can be written");
        let local = format!("qm-large-{}", std::process::id());
        docker.import(&local, "1", &whole);
        let reference = self.push(docker, &format!("{local}:1"), repository, "1");
        docker.forget_image(&format!("{local}:1"));
        reference
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and need not be.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A door before a registry through which so many bytes a second come out.
#[derive(Debug)]
pub struct SlowDoor {
    host: String,
}

impl SlowDoor {
    /// Opens one; it is there until the process ends.
    pub fn before(registry: &Registry, bytes_per_second: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
        let host = listener.local_addr().expect("a listener has an address").to_string();
        let behind = registry.host.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&behind) else { continue };
                let (Ok(mut from), Ok(mut to)) = (client.try_clone(), server.try_clone()) else { continue };
                thread::spawn(move || {
                    // Either end closing is the end.
                    drop(io::copy(&mut from, &mut to));
                    drop(to.shutdown(Shutdown::Write));
                });
                thread::spawn(move || drop(trickle(server, client, bytes_per_second)));
            }
        });
        Self { host }
    }

    /// A reference of the registry, by way of the door.
    pub fn through(&self, reference: &str) -> String {
        let (_, rest) = reference.split_once('/').expect("the reference names its registry");
        format!("{}/{rest}", self.host)
    }
}

fn trickle(mut from: TcpStream, mut to: TcpStream, bytes_per_second: usize) -> io::Result<()> {
    const SIPS: usize = 20;
    let mut sip = vec![0; (bytes_per_second / SIPS).max(1)];
    loop {
        let n = from.read(&mut sip)?;
        if n == 0 {
            return to.shutdown(Shutdown::Both);
        }
        to.write_all(&sip[..n])?;
        thread::sleep(Duration::from_secs(1) / SIPS as u32 * n as u32 / sip.len() as u32);
    }
}
