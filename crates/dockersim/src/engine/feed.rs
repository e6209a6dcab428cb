//! What flows: events, logs, waits, pulls. Each is a position that is looked at again after every change.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Engine;
use super::container::{Container, Phase};
use super::event::EventFilter;
use super::life::Timer;
use super::reply::{Channel, EventFeed, Failure, Follow, LogFeed, Polled, PullFeed, Reply, Request, Stream, WaitFeed, WaitFor, frame};
use super::time;
use crate::Now;

impl Engine {
    fn query_time(&self, request: &Request, key: &str) -> Result<Option<i64>, Failure> {
        match request.get(key).filter(|t| !t.is_empty()) {
            None => Ok(None),
            Some(text) => {
                let bad = || Failure::new(500, format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"));
                time::parse(text).map(Some).ok_or_else(bad)
            }
        }
    }

    pub(crate) fn events_feed(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let since = self.query_time(request, "since")?;
        let until = self.query_time(request, "until")?;
        let filter = EventFilter::parse(request.get("filters"))?;
        if let (Some(s), Some(u)) = (since, until)
            && s > u
        {
            let word = |key: &str| request.get(key).unwrap_or_default().to_owned();
            let message = format!("`since` time ({}) cannot be after `until` time ({})", word("since"), word("until"));
            return Err(Failure::new(400, message));
        }
        self.nudge_at(until, now);
        // With an end it is a question about the past.
        let from = since.or(until.map(|_| i64::MIN));
        let next = from.map_or_else(|| self.events.last(), |ns| self.events.replay_from(ns));
        Ok(Reply::Stream(Stream::Events(EventFeed { next, filter, until })))
    }

    /// Wakes whoever waits for a time of the wall clock.
    fn nudge_at(&mut self, until: Option<i64>, now: Now) {
        if let Some(ahead) = until.and_then(|u| u64::try_from(u.saturating_sub(now.wall_ns)).ok()) {
            // One more: this clock counts whole milliseconds, and a wake that comes a fraction early would be the only one.
            let due = now.mono_ms.saturating_add(ahead.div_ceil(1_000_000)).saturating_add(1);
            self.time(due, Timer::Nudge);
        }
    }

    pub(crate) fn logs_feed(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let (stdout, stderr) = (request.flag("stdout"), request.flag("stderr"));
        if !stdout && !stderr {
            return Err(Failure::new(400, "Bad parameters: you must choose at least one stream"));
        }
        let id = self.find(reference)?;
        let since = self.query_time(request, "since")?.unwrap_or(i64::MIN);
        let until = self.query_time(request, "until")?.filter(|u| *u > 0);
        let container = &self.containers[&id];
        let end = container.log_base + container.logs.len() as u64;
        let first = container.logs.iter().position(|l| l.at_ns >= since).map_or(end, |at| container.log_base + at as u64);
        let next = match request.get("tail").and_then(|t| t.parse::<usize>().ok()) {
            None => first,
            Some(0) => end,
            // The last lines of all, whichever are wanted.
            Some(tail) => end.saturating_sub(tail as u64).max(first),
        };
        let follow = if request.flag("follow") && container.phase.runs() { Follow::UntilExit(container.exits) } else { Follow::No };
        let feed = LogFeed {
            container: id.clone(),
            next,
            follow,
            stdout,
            stderr,
            timestamps: request.flag("timestamps"),
            raw: container.tty(),
            until,
        };
        if follow != Follow::No {
            self.nudge_at(until, now);
        }
        Ok(Reply::Stream(Stream::Logs(feed)))
    }

    pub(crate) fn attach(&mut self, reference: &str, request: &Request) -> Result<Reply, Failure> {
        let id = self.find(reference)?;
        let container = &self.containers[&id];
        if container.phase == Phase::Paused {
            return Err(Failure::new(409, format!("Container {id} is paused, unpause the container before attach.")));
        }
        if container.phase == Phase::Restarting {
            return Err(Failure::new(409, format!("Container {id} is restarting, wait until the container is running")));
        }
        let end = container.log_base + container.logs.len() as u64;
        let feed = LogFeed {
            container: id.clone(),
            next: if request.flag("logs") { container.log_base } else { end },
            // Before the start there is nothing to follow yet, but there will be.
            follow: if request.flag("stream") && (container.phase.runs() || container.phase == Phase::Created) {
                Follow::UntilExit(container.exits)
            } else {
                Follow::No
            },
            stdout: request.flag("stdout"),
            stderr: request.flag("stderr"),
            timestamps: false,
            raw: container.tty(),
            until: None,
        };
        Ok(Reply::Hijack(Stream::Logs(feed)))
    }

    pub(crate) fn wait_feed(&self, reference: &str, request: &Request) -> Result<Reply, Failure> {
        let id = self.find(reference)?;
        let container = &self.containers[&id];
        let condition = match request.get("condition").unwrap_or_default() {
            "next-exit" => WaitFor::NextExit(container.exits),
            "removed" => WaitFor::Removed,
            _ => WaitFor::NotRunning,
        };
        Ok(Reply::Stream(Stream::Wait(WaitFeed { container: id, condition })))
    }

    /// Looks at a stream once: what is new goes out, and the position moves on.
    pub fn poll(&self, stream: &mut Stream, now: Now) -> Polled {
        match stream {
            Stream::Events(feed) => self.poll_events(feed, now),
            Stream::Logs(feed) => self.poll_logs(feed, now),
            Stream::Wait(feed) => self.poll_wait(feed),
            Stream::Pull(feed) => self.poll_pull(feed, now),
            Stream::Done(output) if output.bytes.is_empty() => Polled::End,
            Stream::Done(output) => Polled::Data(std::mem::take(&mut output.bytes)),
        }
    }

    fn poll_events(&self, feed: &mut EventFeed, now: Now) -> Polled {
        for event in self.events.since(feed.next) {
            if feed.until.is_some_and(|until| event.time_ns > until) {
                return Polled::End;
            }
            feed.next = event.seq;
            if feed.filter.wants(event) {
                return Polled::Event(event.clone());
            }
        }
        if feed.until.is_some_and(|until| now.wall_ns >= until) { Polled::End } else { Polled::Idle }
    }

    fn poll_logs(&self, feed: &mut LogFeed, now: Now) -> Polled {
        let container = self.containers.get(&feed.container);
        let (logs, log_base) = match (container, self.graves.get(&feed.container)) {
            (Some(container), _) => (&container.logs, container.log_base),
            (None, Some(grave)) => (&grave.logs, grave.log_base),
            (None, None) => return Polled::End,
        };
        let skip = usize::try_from(feed.next.saturating_sub(log_base)).unwrap_or(usize::MAX).min(logs.len());
        let mut bytes = Vec::new();
        for line in logs.range(skip..) {
            let wanted = match line.channel {
                Channel::Out => feed.stdout,
                Channel::Err => feed.stderr,
            };
            if !wanted || feed.until.is_some_and(|u| line.at_ns > u) {
                continue;
            }
            let end = if feed.raw { "\r\n" } else { "\n" };
            let text = match feed.timestamps {
                true => format!("{} {}{end}", time::fixed(line.at_ns), line.text),
                false => format!("{}{end}", line.text),
            };
            bytes.extend(if feed.raw { text.into_bytes() } else { frame(line.channel, text.as_bytes()) });
        }
        feed.next = log_base + logs.len() as u64;
        if !bytes.is_empty() {
            return Polled::Data(bytes);
        }
        let over = match feed.follow {
            Follow::No => true,
            Follow::UntilExit(exits) => container.is_none_or(|c| c.exits > exits && c.phase != Phase::Restarting),
        };
        if over || feed.until.is_some_and(|u| now.wall_ns >= u) { Polled::End } else { Polled::Idle }
    }

    fn poll_wait(&self, feed: &mut WaitFeed) -> Polled {
        let container = self.containers.get(&feed.container);
        let over = |c: &Container, condition: WaitFor| match condition {
            WaitFor::NotRunning => !c.phase.runs() && c.phase != Phase::Starting,
            WaitFor::NextExit(exits) => c.exits > exits,
            WaitFor::Removed => false,
            WaitFor::Over => true,
        };
        let code = match (container, feed.condition) {
            (_, WaitFor::Over) => return Polled::End,
            (Some(c), condition) if over(c, condition) => c.exit_code,
            (Some(_), _) => return Polled::Idle,
            (None, _) => self.graves.get(&feed.container).map_or(0, |grave| grave.code),
        };
        feed.condition = WaitFor::Over;
        let error = container.filter(|c| !c.error.is_empty()).map_or(Value::Null, |c| json!({ "Message": c.error }));
        Polled::Data(format!("{}\n", json!({ "Error": error, "StatusCode": code })).into_bytes())
    }

    fn poll_pull(&self, feed: &mut PullFeed, now: Now) -> Polled {
        let due = feed.lines.iter().skip(feed.next).take_while(|(due, _)| *due <= now.mono_ms);
        let lines: Vec<String> = due.map(|(_, line)| format!("{line}\r\n")).collect();
        feed.next += lines.len();
        if !lines.is_empty() {
            return Polled::Data(lines.concat().into_bytes());
        }
        let here = feed.image.as_ref().is_none_or(|reference| self.references.contains_key(reference));
        if feed.next >= feed.lines.len() && (here || feed.image.is_none()) { Polled::End } else { Polled::Idle }
    }

    pub(crate) fn container_top(&self, reference: &str) -> Result<Reply, Failure> {
        let id = self.find(reference)?;
        let container = &self.containers[&id];
        if !container.phase.lives() {
            return Err(Failure::new(409, format!("Container {id} is not running")));
        }
        let started = time::fixed(container.started_ns.unwrap_or(0));
        let row = |pid: u64, parent: u64, command: String| {
            json!(["root", pid.to_string(), parent.to_string(), "0", started.get(11..16).unwrap_or("00:00"), "?", "00:00:00", command])
        };
        let command = container.command.join(" ");
        let init = container.host.get("Init").and_then(Value::as_bool).unwrap_or(false);
        let rows = if init {
            vec![
                row(container.pid, container.pid - 1, format!("/sbin/docker-init -- {command}")),
                row(container.pid + 1, container.pid, command),
            ]
        } else {
            vec![row(container.pid, container.pid - 1, command)]
        };
        Ok(Reply::ok(json!({ "Processes": rows, "Titles": ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"] })))
    }

    pub(crate) fn container_stats(&self, reference: &str, now: Now) -> Result<Reply, Failure> {
        let id = self.find(reference)?;
        let container = &self.containers[&id];
        let runs = container.phase.lives();
        let cpu = |total: u64| {
            json!({
                "cpu_usage": { "total_usage": total, "usage_in_kernelmode": 0, "usage_in_usermode": total },
                "system_cpu_usage": now.mono_ms.saturating_mul(1_000_000),
                "online_cpus": self.options.world.cpus,
                "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
            })
        };
        let limit = match super::create::number(&container.host, "Memory") {
            0 => self.options.world.memory_bytes,
            own => own.unsigned_abs(),
        };
        let memory = if runs { json!({ "usage": 1_048_576, "max_usage": 2_097_152, "limit": limit, "stats": {} }) } else { json!({}) };
        Ok(Reply::ok(json!({
            "read": if runs { time::nano(now.wall_ns) } else { time::NEVER.to_owned() },
            "preread": time::NEVER,
            "pids_stats": if runs { json!({ "current": 1 }) } else { json!({}) },
            "blkio_stats": {
                "io_service_bytes_recursive": null, "io_serviced_recursive": null, "io_queue_recursive": null,
                "io_service_time_recursive": null, "io_wait_time_recursive": null, "io_merged_recursive": null,
                "io_time_recursive": null, "sectors_recursive": null,
            },
            "num_procs": 0,
            "storage_stats": {},
            "cpu_stats": cpu(if runs { 20_000_000 } else { 0 }),
            "precpu_stats": cpu(0),
            "memory_stats": memory,
            "name": format!("/{}", container.name),
            "id": &*id,
        })))
    }

    /// The container that a stream is about, if it is about one.
    pub fn subject(stream: &Stream) -> Option<&Arc<str>> {
        match stream {
            Stream::Logs(feed) => Some(&feed.container),
            Stream::Wait(feed) => Some(&feed.container),
            Stream::Events(_) | Stream::Pull(_) | Stream::Done(_) => None,
        }
    }
}
