//! Files into a container and out of it.

use std::io::Read;

use serde_json::{Value, json};

use super::subject::Subject;
use super::{Case, Reply};

pub(super) const CASES: &[Case] = &[
    ("archive-round", round),
    ("archive-stat", stat),
    ("archive-persists", persists),
    ("archive-refused", refused),
    ("archive-read-only", read_only),
    ("archive-broken", broken),
];

fn tar_of(path: &str, content: &[u8], mode: u32) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    archive.append_data(&mut header, path, content).expect("an archive in memory can be written");
    archive.into_inner().expect("an archive in memory can be written")
}

#[track_caller]
fn put(s: &Subject, id: &str, path: &str, archive: &[u8]) -> Reply {
    s.raw("PUT", &format!("/v1.41/containers/{id}/archive?path={path}"), Some(("application/x-tar", archive)))
}

/// Name, mode and content of what is in an archive.
fn unpack(bytes: &[u8]) -> Vec<(String, u32, String)> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().expect("it is an archive").map(|entry| {
        let mut entry = entry.expect("an entry can be read");
        let mut content = String::new();
        entry.read_to_string(&mut content).expect("a file can be read");
        let name = entry.path().expect("a file has a name").display().to_string();
        (name, entry.header().mode().expect("a file has a mode") & 0o777, content)
    });
    entries.collect()
}

fn round(s: &Subject) {
    let id = s.create("a", json!({}));
    put(s, &id, "/", &tar_of("etc/conf/one.txt", b"hello", 0o640)).empty(200);
    let reply = s.get(&format!("/containers/{id}/archive?path=/etc/conf/one.txt"));
    reply.ok(200);
    assert_eq!(reply.header("content-type").as_deref(), Some("application/x-tar"));
    assert_eq!(unpack(reply.bytes()), [("one.txt".to_owned(), 0o640, "hello".to_owned())]);
    // It can be written while the container runs too, and replaced.
    s.act(&id, "start").empty(204);
    put(s, &id, "/etc", &tar_of("conf/one.txt", b"again", 0o600)).empty(200);
    let reply = s.get(&format!("/containers/{id}/archive?path=/etc/conf/one.txt"));
    assert_eq!(unpack(reply.bytes()), [("one.txt".to_owned(), 0o600, "again".to_owned())]);
}

fn stat(s: &Subject) {
    let id = s.create("a", json!({}));
    put(s, &id, "/", &tar_of("one.txt", b"hello", 0o644)).empty(200);
    for method in ["HEAD", "GET"] {
        let reply = s.raw(method, &format!("/v1.41/containers/{id}/archive?path=/one.txt"), None);
        reply.ok(200);
        let stat = reply.raw_header("x-docker-container-path-stat").expect("the path is described");
        let stat: Value = serde_json::from_slice(&base64(&stat)).expect("the description is JSON");
        super::subject::has(&stat, &json!({ "name": "one.txt", "size": 5, "mode": 0o644, "linkTarget": "" }));
    }
    s.raw("HEAD", &format!("/v1.41/containers/{id}/archive?path=/nonesuch"), None).empty(404);
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let (mut out, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for six in text.bytes().filter_map(digit) {
        bits = (bits << 6) | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

fn persists(s: &Subject) {
    let id = s.create("a", json!({}));
    put(s, &id, "/", &tar_of("one.txt", b"hello", 0o644)).empty(200);
    s.act(&id, "start").empty(204);
    s.act(&id, "stop").empty(204);
    let reply = s.get(&format!("/containers/{id}/archive?path=/one.txt"));
    assert_eq!(unpack(reply.bytes()), [("one.txt".to_owned(), 0o644, "hello".to_owned())]);
}

fn refused(s: &Subject) {
    let id = s.create("a", json!({}));
    let archive = tar_of("one.txt", b"hello", 0o644);
    let missing = |path: &str| format!("Could not find the file {path} in container {id}");
    put(s, &id, "/nonesuch", &archive).refused(404, &missing("/nonesuch"));
    put(s, &id, "/", &archive).empty(200);
    put(s, &id, "/one.txt", &archive).refused(500, "extraction point is not a directory");
    put(s, &id, "", &archive).refused(400, "bad parameter: pathcannot be empty");
    let name = s.name("a");
    put(s, &name, "/nonesuch", &archive).refused(404, &format!("Could not find the file /nonesuch in container {name}"));
    put(s, "conf-nonesuch", "/", &archive).refused(404, "No such container: conf-nonesuch");
    s.get(&format!("/containers/{id}/archive?path=/nonesuch")).refused(404, &missing("/nonesuch"));
    s.get(&format!("/containers/{id}/archive")).refused(400, "bad parameter: pathcannot be empty");
}

fn read_only(s: &Subject) {
    let id = s.create("a", json!({ "HostConfig": { "ReadonlyRootfs": true } }));
    let archive = tar_of("one.txt", b"hello", 0o644);
    put(s, &id, "/", &archive).refused(500, "container rootfs is marked read-only");
    s.act(&id, "start").empty(204);
    put(s, &id, "/", &archive).refused(500, "container rootfs is marked read-only");
    s.get(&format!("/containers/{id}/archive?path=/etc")).ok(200);
}

fn broken(s: &Subject) {
    let id = s.create("a", json!({}));
    put(s, &id, "/", b"not a tar").refused_like(500, &["Error processing tar file(", "unexpected EOF"]);
}
