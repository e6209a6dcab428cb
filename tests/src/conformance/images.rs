//! Images. No case makes or removes one: other tests need them. Tags of the case's own are enough.

use serde_json::{Value, json};

use super::Case;
use super::subject::{IMAGE, Subject, has, text};
use crate::support::registry::{PASSWORD, USER, auth_header};

pub(super) const CASES: &[Case] = &[
    ("image-shown", shown),
    ("image-references", references),
    ("image-list", list),
    ("image-tag", tag),
    ("image-tag-refused", tag_refused),
    ("image-in-use", in_use),
    ("image-untag", untag),
    ("image-history", history),
    ("image-pull-fails", pull_fails),
    ("image-pull-private", pull_private),
];

fn image(s: &Subject) -> Value {
    s.get(&format!("/images/{IMAGE}/json")).ok(200)
}

fn shown(s: &Subject) {
    let shown = image(s);
    assert!(text(&shown["Id"]).starts_with("sha256:") && text(&shown["Id"]).len() == 71);
    assert!(shown["RepoTags"].as_array().is_some_and(|t| t.contains(&IMAGE.into())), "{shown}");
    has(&shown, &json!({ "RepoDigests": [], "Parent": "", "Architecture": "amd64", "Os": "linux", "RootFS": { "Type": "layers" } }));
    assert!(shown["Size"].as_u64().is_some_and(|n| n > 0) && shown["Size"] == shown["VirtualSize"], "{shown}");
    assert_eq!(shown["Config"].get("Healthcheck"), None);
    assert!(shown["Created"].is_string());
}

fn references(s: &Subject) {
    let id = text(&image(s)["Id"]);
    let hex = &id["sha256:".len()..];
    for reference in [&id[..], hex, &hex[..12], &id[..20]] {
        assert_eq!(s.get(&format!("/images/{reference}/json")).ok(200)["Id"], json!(id), "{reference}");
    }
    s.get("/images/conf-nonesuch/json").refused(404, "no such image: conf-nonesuch: No such image: conf-nonesuch:latest");
    s.get("/images/conf-nonesuch:1/json").refused(404, "no such image: conf-nonesuch:1: No such image: conf-nonesuch:1");
    let upper = "no such image: BAD: invalid reference format: repository name must be lowercase";
    s.get("/images/BAD/json").refused(400, upper);
}

fn list(s: &Subject) {
    let id = text(&image(s)["Id"]);
    s.post(&format!("/images/{IMAGE}/tag?repo={}&tag=one", s.name("i"))).empty(201);
    s.post(&format!("/images/{IMAGE}/tag?repo={}&tag=two", s.name("i"))).empty(201);
    let find = |reference: String| s.filtered("/images/json", &json!({ "reference": [reference] })).ok(200);
    let both = find(s.name("i"));
    let entry = json!({ "Id": id, "Containers": -1, "ParentId": "", "SharedSize": -1, "Labels": null, "RepoDigests": null });
    has(&both[0], &entry);
    assert_eq!(both[0]["RepoTags"], json!([format!("{}:one", s.name("i")), format!("{}:two", s.name("i"))]));
    assert_eq!(find(format!("{}:two", s.name("i")))[0]["RepoTags"], json!([format!("{}:two", s.name("i"))]));
    assert_eq!(find("conf-nonesuch".to_owned()), json!([]));
    let all = s.get("/images/json").ok(200);
    let ours = all.as_array().into_iter().flatten().find(|i| i["Id"] == json!(id)).cloned().unwrap_or_default();
    assert!(ours["RepoTags"].as_array().is_some_and(|t| t.contains(&IMAGE.into())), "{all}");
    let dangling = s.filtered("/images/json", &json!({ "dangling": ["true"] })).ok(200);
    assert!(dangling.as_array().is_some_and(|l| l.iter().all(|i| i["Id"] != json!(id))), "{dangling}");
}

fn tag(s: &Subject) {
    s.post(&format!("/images/{IMAGE}/tag?repo={}", s.name("i"))).empty(201);
    let tagged = s.get(&format!("/images/{}/json", s.name("i"))).ok(200);
    assert_eq!(tagged["Id"], image(s)["Id"]);
    let container = s.create("a", json!({ "Image": s.name("i") }));
    has(&s.inspect(&container), &json!({ "Image": tagged["Id"], "Config": { "Image": s.name("i") } }));
    // A tag moves.
    s.post(&format!("/images/busybox:two/tag?repo={}&tag=latest", s.name("i"))).empty(201);
    let moved = s.get(&format!("/images/{}:latest/json", s.name("i"))).ok(200);
    assert_eq!(moved["Id"], s.get("/images/busybox:two/json").ok(200)["Id"]);
    assert_eq!(s.inspect(&container)["Image"], tagged["Id"]);
    // What the container was made from has no such name any more, so the list shows its id.
    let list = s.filtered("/containers/json?all=1", &json!({ "id": [container] })).ok(200);
    has(&list[0], &json!({ "Image": tagged["Id"], "ImageID": tagged["Id"] }));
}

fn tag_refused(s: &Subject) {
    s.post("/images/conf-nonesuch/tag?repo=conf-x&tag=1").refused(404, "No such image: conf-nonesuch:latest");
    let upper = "invalid reference format: repository name must be lowercase";
    s.post(&format!("/images/{IMAGE}/tag?repo=BAD&tag=1")).refused(500, upper);
    s.post(&format!("/images/{IMAGE}/tag")).refused(500, "invalid reference format");
}

fn in_use(s: &Subject) {
    let id = text(&image(s)["Id"]);
    s.create("a", json!({}));
    // Others may use it too, and it may have more names: the reason differs, the refusal does not.
    let short = &id["sha256:".len()..][..12];
    s.delete(&format!("/images/{id}")).refused_like(409, &[&format!("conflict: unable to delete {short} ("), " - image is "]);
    let running = s.start("b", json!({}));
    s.delete(&format!("/images/{id}")).refused_like(409, &[&format!("conflict: unable to delete {short} ("), " - image is "]);
    s.act(&running, "kill").empty(204);
}

fn untag(s: &Subject) {
    let name = format!("{}:one", s.name("i"));
    s.post(&format!("/images/{IMAGE}/tag?repo={}&tag=one", s.name("i"))).empty(201);
    s.create("a", json!({ "Image": name }));
    assert_eq!(s.delete(&format!("/images/{name}")).ok(200), json!([{ "Untagged": name }]));
    s.delete(&format!("/images/{name}")).refused(404, &format!("No such image: {name}"));
    s.delete("/images/conf-nonesuch").refused(404, "No such image: conf-nonesuch:latest");
    image(s);
}

fn history(s: &Subject) {
    let shown = image(s);
    let history = s.get(&format!("/images/{IMAGE}/history")).ok(200);
    has(&history[0], &json!({ "Id": shown["Id"], "Size": shown["Size"] }));
    assert!(history[0]["Tags"].as_array().is_some_and(|t| t.contains(&IMAGE.into())), "{history}");
    s.get("/images/conf-nonesuch/history").refused(404, "No such image: conf-nonesuch:latest");
}

/// A registry that is not there is a plain refusal, not a stream.
fn pull_fails(s: &Subject) {
    let reply = s.post("/images/create?fromImage=localhost:1/conf-nonesuch&tag=1");
    reply.refused_like(500, &["http://localhost:1/v2/", "connection refused"]);
    let upper = "invalid reference format: repository name must be lowercase";
    s.post("/images/create?fromImage=BAD&tag=1").refused(400, upper);
}

/// What a registry is shown decides; what cannot be read counts as nothing. The image is one that only this case has a name for.
fn pull_private(s: &Subject) {
    let registry = s.private_registry();
    let image = format!("{}/conf/private", registry.host);
    let unknown = format!("Head \"http://{}/v2/conf/private/manifests/1\": no basic auth credentials", registry.host);
    s.pull(&image, "1", None).refused(500, &unknown);
    s.pull(&image, "1", Some("!!!")).refused(500, &unknown);
    s.pull(&image, "1", Some(&auth_header("", ""))).refused(500, &unknown);
    // The alphabet of plain base64 has `+` and `/` for these, and the engine reads that of URLs.
    let right = auth_header(USER, PASSWORD);
    let plain = right.replace('-', "+").replace('_', "/");
    assert_ne!(right, plain);
    s.pull(&image, "1", Some(&plain)).refused(500, &unknown);
    s.pull(&image, "1", Some(&auth_header(USER, "wrong"))).refused(500, "unauthorized: authentication required");
    s.get(&format!("/images/{image}:1/json")).ok(404);
    let reply = s.pull(&image, "1", Some(&right));
    assert_eq!(reply.code(), 200, "{reply}");
    let lines = reply.lines();
    has(&lines[0], &json!({ "status": "Pulling from conf/private", "id": "1" }));
    let last = lines.last().cloned().unwrap_or_default();
    assert_eq!(last["status"], json!(format!("Status: Downloaded newer image for {image}:1")));
    s.get(&format!("/images/{image}:1/json")).ok(200);
    s.delete(&format!("/images/{image}:1")).ok(200);
}
