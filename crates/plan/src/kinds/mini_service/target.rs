//! Which revision is wanted: the pinned image, the spec-hash and the revision number (DESIGN 3.4, "Revisions").

use qm_api::conditions::Reason;
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use qm_api::spec::container::{Follow, PullPolicy};

use super::Planner;
use crate::desired::Rollout;
use crate::leaf;
use crate::observed::Image;
use crate::plan::{Plan, Revision};
use crate::step::{Action, Cause};

/// The revision that every slot should run.
pub(super) struct Target {
    /// The image's id; empty while it must be pulled first.
    pub(super) image_id: Name,
    /// What the engine is told as the image.
    pub(super) image: String,
    /// The spec-hash; empty while the image is unknown.
    pub(super) hash: String,
    /// The revision's number.
    pub(super) number: u64,
    /// The pull that must come first, by its index in the plan.
    pub(super) pull: Option<usize>,
    /// The values behind the hash, where they are not recorded yet.
    pub(super) values: Option<serde_json::Value>,
}

/// Resolves the wanted revision; pushes a pull, a finding or a new revision record where that is what it takes. `None` = no way on.
pub(super) fn resolve(planner: &Planner<'_>, plan: &mut Plan) -> Option<Target> {
    let (spec, ctx) = (planner.spec, planner.ctx);
    if let Some(target) = rolled_back(planner) {
        return Some(target);
    }
    let pinned = pinned_image(planner);
    let must_pull_always =
        spec.pull_policy == PullPolicy::Always && pinned.is_none() && ctx.pulled_generation != Some(planner.desired.generation);
    let image_id = match (&pinned, &ctx.view.image) {
        (_, None) => {
            plan.findings.push(planner.finding(Reason::Unknown, format!("the image {} was not looked up yet", spec.image), false));
            return None;
        }
        (Some(pinned), _) if is_there(planner, pinned) => pinned.clone(),
        (None, Some(Image::Present { id, .. })) if !must_pull_always => id.clone(),
        // The pinned image is gone from the engine: what the tag means now is what there is.
        (Some(_), Some(Image::Present { id, .. })) => id.clone(),
        (_, Some(_)) => {
            if spec.pull_policy == PullPolicy::Never {
                plan.findings.push(planner.finding(
                    Reason::ImageMissing,
                    format!("the engine has no image {} and pullPolicy is Never: load it, or change the policy", spec.image),
                    true,
                ));
                return None;
            }
            let pull = plan.push(planner.step(0, Action::Pull { reference: spec.image.clone() }, Cause::New));
            return Some(Target {
                image_id: Name::default(),
                image: spec.image.clone(),
                hash: String::new(),
                number: 0,
                pull: Some(pull),
                values: None,
            });
        }
    };
    if let (Some(pinned), Some(Image::Present { id, .. })) = (&pinned, &ctx.view.image)
        && pinned != id
        && image_id == *pinned
    {
        plan.findings.push(planner.finding(
            Reason::ImageOutdated,
            format!("{} now means another image ({}); {} stays until the manifest changes", spec.image, short(id), short(pinned)),
            false,
        ));
    }
    let hash = leaf::spec_hash(spec, &image_id);
    let image = engine_image(planner, &image_id);
    let number = revision_number(planner, &hash);
    let mut target = Target { image_id, image, hash, number, pull: None, values: None };
    if ctx.revisions.first().is_none_or(|r| r.number != number || r.spec_hash != target.hash) {
        let values = revision_values(planner, &target);
        plan.revision = Some(Revision {
            number,
            image: spec.image.clone(),
            image_id: target.image_id.to_string(),
            spec_hash: target.hash.clone(),
            values: values.clone(),
            body: super::slot::body(planner, &target, 1, &[], None),
        });
        target.values = Some(values);
    }
    Some(target)
}

/// What the engine is told as the image: the reference where it means that image, else the id.
fn engine_image(planner: &Planner<'_>, image_id: &Name) -> String {
    match &planner.ctx.view.image {
        Some(Image::Present { id, .. }) if id == image_id => planner.spec.image.clone(),
        _ => image_id.to_string(),
    }
}

/// The older revision that runs in place of the wanted one, as long as the engine has its image. It is recorded already.
fn rolled_back(planner: &Planner<'_>) -> Option<Target> {
    let Rollout::RolledBack { to, image_id, .. } = &planner.desired.rollout else { return None };
    is_there(planner, image_id).then(|| Target {
        image_id: image_id.clone(),
        image: engine_image(planner, image_id),
        hash: leaf::spec_hash(planner.spec, image_id),
        number: *to,
        pull: None,
        values: None,
    })
}

/// The values behind the hash, with environment values replaced by their digests: a revision must not leak them.
fn revision_values(planner: &Planner<'_>, target: &Target) -> serde_json::Value {
    let mut values = serde_json::json!(leaf::replace_values(planner.spec, &target.image_id));
    if let Some(env) = values.get_mut("env").and_then(serde_json::Value::as_object_mut) {
        for value in env.values_mut() {
            let digest = leaf::hex_digest(value.as_str().unwrap_or_default().as_bytes());
            *value = serde_json::Value::String(format!("sha256:{}", &digest[..16]));
        }
    }
    values
}

fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    &id[..id.len().min(12)]
}

/// The image that the reference was first resolved to, unless its tag is followed: from the newest revision or, when the store was lost,
/// from stamped containers.
fn pinned_image(planner: &Planner<'_>) -> Option<Name> {
    let reference = planner.spec.image.as_str();
    if planner.spec.follow == Follow::Tag && matches!(planner.ctx.view.image, Some(Image::Present { .. })) {
        return None;
    }
    if let Some(newest) = planner.ctx.revisions.first() {
        return (newest.image == reference).then(|| newest.image_id.as_str().into());
    }
    if planted(Mutant::StampsUnread) {
        return None;
    }
    planner
        .ctx
        .view
        .containers
        .iter()
        .filter_map(|c| c.stamp.as_ref().map(|s| (s, c)))
        .filter(|(stamp, _)| stamp.image == reference)
        .max_by_key(|(stamp, c)| (stamp.revision, c.created_at, c.id.clone()))
        .map(|(_, c)| c.image_id.clone())
}

fn is_there(planner: &Planner<'_>, pinned: &Name) -> bool {
    // The engine keeps an image, with or without a name, as long as a container is made from it.
    if planner.ctx.view.containers.iter().any(|c| c.image_id == *pinned) {
        return true;
    }
    match (&planner.ctx.view.image, planner.ctx.pinned_image) {
        (Some(Image::Present { id, .. }), _) if id == pinned => true,
        (_, Some(Image::Present { id, .. })) => id == pinned,
        _ => false,
    }
}

/// The number of the revision with this hash: recorded, or stamped on a container, else the next one.
fn revision_number(planner: &Planner<'_>, hash: &str) -> u64 {
    let ctx = planner.ctx;
    if let Some(newest) = ctx.revisions.first()
        && newest.spec_hash == hash
    {
        return newest.number;
    }
    let stamps = || ctx.view.containers.iter().filter_map(|c| c.stamp.as_ref());
    if ctx.revisions.is_empty()
        && let Some(number) = stamps().filter(|s| s.spec_hash == hash && s.revision > 0).map(|s| s.revision).max()
    {
        return number;
    }
    let highest = ctx.revisions.iter().map(|r| r.number).chain(stamps().map(|s| s.revision)).max().unwrap_or(0);
    highest + 1
}
