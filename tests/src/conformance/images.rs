//! Images: what is known of them, their tags, and pulls that cannot work.

use serde_json::{Value, json};

use super::subject::{Subject, has, text};
use super::{Area, Case};

pub(super) const CASES: &[Case] = &[
    Case { area: Area::Images, name: "image-inspect", run: inspect },
    Case { area: Area::Images, name: "image-list", run: list },
    Case { area: Area::Images, name: "image-tag", run: tag },
    Case { area: Area::Images, name: "image-in-use", run: in_use },
    Case { area: Area::Images, name: "image-pull-fails", run: pull_fails },
];

fn inspect(s: &Subject) {
    let shown = s.get("/images/busybox:local/json").ok(200);
    has(&shown, &json!({ "RepoTags": ["busybox:local"], "RepoDigests": [], "Os": "linux", "Architecture": "amd64", "Parent": "" }));
    has(&shown["Config"], &json!({ "Env": null, "Entrypoint": null, "Volumes": null, "Labels": null }));
    assert!(shown["Config"].get("Healthcheck").is_none(), "{shown}");
    assert!(shown["Size"].as_u64().is_some_and(|n| n > 0), "{shown}");
    let id = text(&shown["Id"]);
    let digits = id.strip_prefix("sha256:").expect("an id is a digest");
    for by in [id.as_str(), digits, &digits[..12], "docker.io/library/busybox:local", "library/busybox:local"] {
        has(&s.get(&format!("/images/{by}/json")).ok(200), &json!({ "Id": id }));
    }
    s.get("/images/conf-nothing/json").refused(404, "no such image: conf-nothing: No such image: conf-nothing:latest");
    s.get("/images/conf-nothing:1/json").refused(404, "no such image: conf-nothing:1: No such image: conf-nothing:1");
    s.get("/images/busybox:nothing/json").refused(404, "no such image: busybox:nothing: No such image: busybox:nothing");
    s.get("/images/UPPER/json").refused(400, "no such image: UPPER: invalid reference format: repository name must be lowercase");
    // The other image is another one.
    assert_ne!(s.get("/images/busybox:two/json").ok(200)["Id"], shown["Id"]);
}

fn list(s: &Subject) {
    let list = s.filtered("/images/json", &json!({ "reference": ["busybox:local"] })).ok(200);
    let id = s.get("/images/busybox:local/json").ok(200)["Id"].clone();
    has(&list, &json!([{ "Id": id, "RepoTags": ["busybox:local"], "Containers": -1, "Labels": null, "ParentId": "" }]));
    let both = s.filtered("/images/json", &json!({ "reference": ["busybox"] })).ok(200);
    let tags: Vec<&Value> = both.as_array().into_iter().flatten().flat_map(|i| i["RepoTags"].as_array()).flatten().collect();
    assert!(tags.contains(&&json!("busybox:local")) && tags.contains(&&json!("busybox:two")), "{both}");
    assert_eq!(s.filtered("/images/json", &json!({ "reference": ["conf-nothing"] })).ok(200), json!([]));
}

fn tag(s: &Subject) {
    let repository = s.name("image");
    let reference = format!("{repository}:1");
    s.post(&format!("/images/busybox:local/tag?repo={repository}&tag=1")).empty(201);
    let id = s.get("/images/busybox:local/json").ok(200)["Id"].clone();
    has(&s.get(&format!("/images/{reference}/json")).ok(200), &json!({ "Id": id }));
    let container = s.create("a", json!({ "Image": reference }));
    has(&s.inspect(&container), &json!({ "Image": id, "Config": { "Image": reference } }));
    // A tag moves to another image, and the container keeps its own.
    s.post(&format!("/images/busybox:two/tag?repo={repository}&tag=1")).empty(201);
    assert_ne!(s.get(&format!("/images/{reference}/json")).ok(200)["Id"], id);
    has(&s.inspect(&container), &json!({ "Image": id, "Config": { "Image": reference } }));
    assert_eq!(s.delete(&format!("/images/{reference}")).ok(200), json!([{ "Untagged": reference }]));
    s.delete(&format!("/images/{reference}")).refused(404, &format!("No such image: {reference}"));
    s.post(&format!("/images/conf-nothing/tag?repo={repository}&tag=1")).refused(404, "No such image: conf-nothing:latest");
    // A container whose image has lost its name lists the image's id.
    let listed = s.filtered("/containers/json?all=1", &json!({ "id": [container] })).ok(200);
    has(&listed, &json!([{ "ImageID": id }]));
}

fn in_use(s: &Subject) {
    let repository = s.name("image");
    s.post(&format!("/images/busybox:local/tag?repo={repository}&tag=1")).empty(201);
    let id = s.start("a", json!({ "Image": format!("{repository}:1") }));
    // One of several names can go, though a container was made by it.
    assert_eq!(s.delete(&format!("/images/{repository}:1")).ok(200), json!([{ "Untagged": format!("{repository}:1") }]));
    has(&s.inspect(&id), &json!({ "State": { "Status": "running" } }));
    // By its id an image that a running container uses cannot go.
    let image = text(&s.inspect(&id)["Image"]);
    let short = &image["sha256:".len()..][..12];
    s.delete(&format!("/images/{image}"))
        .refused_with(409, &format!("conflict: unable to delete {short} (cannot be forced) - image is being used by running container "));
}

fn pull_fails(s: &Subject) {
    // Nobody listens there: the engine answers before it streams anything.
    let refused = s.post("/images/create?fromImage=localhost:1/nothing&tag=1");
    refused.refused(500, "Get \"http://localhost:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused");
    s.post("/images/create?fromImage=UPPER&tag=1").refused(400, "invalid reference format: repository name must be lowercase");
    s.get("/images/localhost:1/nothing:1/json").refused(404, "no such image: localhost:1/nothing:1: No such image: localhost:1/nothing:1");
}
