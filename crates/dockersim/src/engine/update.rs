//! `POST /containers/ID/update`: what can be changed in place, and what is refused.

use serde_json::{Map, Value, json};

use super::Engine;
use super::container::Policy;
use super::create::{number, policy, text};
use super::reply::{Failure, Reply, Request};
use crate::Now;

impl Engine {
    pub(crate) fn container_update(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let body = request.json()?;
        let body = body.as_object().cloned().unwrap_or_default();
        let asked = body.get("RestartPolicy").filter(|p| !p.is_null());
        let named = asked.and_then(|p| p.get("Name")).and_then(Value::as_str).is_some_and(|n| !n.is_empty());
        let id = self.find(reference)?;
        let policy = policy(asked)?;
        self.judge_resources(&Map::from_iter(body.iter().filter(|(k, _)| *k != "MemorySwap").map(|(k, v)| (k.clone(), v.clone()))))?;
        let container = self.containers.get_mut(&id).ok_or_else(|| Failure::new(404, "gone"))?;
        let refuse = |why: &str| Err(Failure::new(409, format!("Cannot update container {id}: {why}")));
        if named && policy != Policy::No && container.auto_remove {
            return refuse("Restart policy cannot be updated because AutoRemove is enabled for the container");
        }
        let (nano, had) = (number(&body, "NanoCpus"), number(&container.host, "NanoCpus"));
        if had > 0 && number(&body, "CpuPeriod") > 0 {
            return refuse("Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set");
        }
        if had > 0 && number(&body, "CpuQuota") > 0 {
            return refuse("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set");
        }
        if nano > 0 && number(&container.host, "CpuQuota") > 0 {
            return refuse("Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set");
        }
        let (memory, swap) = (number(&body, "Memory"), number(&body, "MemorySwap"));
        let had_swap = number(&container.host, "MemorySwap");
        if memory > 0 && swap == 0 && memory > had_swap {
            return refuse("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time");
        }
        let resources = [
            "NanoCpus",
            "Memory",
            "MemorySwap",
            "MemoryReservation",
            "CpuShares",
            "CpuPeriod",
            "CpuQuota",
            "KernelMemory",
            "BlkioWeight",
            "CpuRealtimePeriod",
            "CpuRealtimeRuntime",
        ];
        for key in resources {
            let value = number(&body, key);
            if value != 0 {
                container.host.insert(key.to_owned(), json!(value));
            }
        }
        for key in ["CpusetCpus", "CpusetMems"] {
            if !text(&body, key).is_empty() {
                container.host.insert(key.to_owned(), json!(text(&body, key)));
            }
        }
        if let Some(pids) = body.get("PidsLimit").and_then(Value::as_i64) {
            if pids > 0 {
                container.host.insert("PidsLimit".to_owned(), json!(pids));
            } else {
                container.host.insert("PidsLimit".to_owned(), json!(0));
            }
        }
        if named {
            container.policy = policy;
            container.host.insert("RestartPolicy".to_owned(), json!({ "Name": asked.and_then(|a| a.get("Name")) }));
        }
        self.container_event(&id, "update", Vec::new(), now);
        Ok(Reply::ok(json!({ "Warnings": null })))
    }
}
