//! Bodies that come bit by bit: one look at a time.

use serde_json::json;

use super::container::Phase;
use super::reply::{Channel, Polled, Stream, WaitFor, frame};
use super::{Engine, time};
use crate::Now;

impl Engine {
    /// The next bit of a stream.
    pub fn poll(&mut self, stream: &mut Stream, now: Now) -> Polled {
        self.advance(now);
        match stream {
            Stream::Events(feed) => {
                let found = self.events.since(feed.next).find(|e| feed.filter.wants(e)).cloned();
                let is_over = feed.until.is_some_and(|until| until <= now.wall_ns);
                match found {
                    Some(event) if feed.until.is_some_and(|until| event.time_ns > until) => Polled::End,
                    Some(event) => {
                        feed.next = event.seq;
                        Polled::Event(event)
                    }
                    None if is_over => Polled::End,
                    None => {
                        feed.next = self.events.last();
                        Polled::Idle
                    }
                }
            }
            Stream::Logs(feed) => {
                let Some(container) = self.containers.get(&feed.container) else { return Polled::End };
                while let Some((ns, ms, channel, text)) = container.logs.get(feed.next) {
                    if *ms > now.mono_ms {
                        break;
                    }
                    feed.next += 1;
                    let is_wanted = if *channel == Channel::Out { feed.stdout } else { feed.stderr };
                    if !is_wanted {
                        continue;
                    }
                    let stamp = if feed.timestamps { format!("{} ", time::fixed(*ns)) } else { String::new() };
                    let end = if text.ends_with('\n') { "" } else { "\n" };
                    let line = format!("{stamp}{text}{end}").into_bytes();
                    return Polled::Data(if feed.raw { line } else { frame(*channel, &line) });
                }
                match feed.follow {
                    Some(exits) if container.exits == exits && container.phase.is_up() => Polled::Idle,
                    _ => Polled::End,
                }
            }
            Stream::Wait(feed) => {
                let container = self.containers.get(&feed.container);
                let is_met = match (feed.condition, container) {
                    (WaitFor::Over, _) => return Polled::End,
                    (WaitFor::Removed, found) => found.is_none(),
                    (_, None) => true,
                    (WaitFor::NotRunning, Some(c)) => !c.phase.is_up() && c.phase != Phase::Restarting,
                    (WaitFor::NextExit(exits), Some(c)) => c.exits > exits,
                };
                if !is_met {
                    return Polled::Idle;
                }
                feed.condition = WaitFor::Over;
                let code = container.map_or(0, |c| c.exit_code);
                Polled::Data(format!("{}\n", json!({ "Error": null, "StatusCode": code })).into_bytes())
            }
            Stream::Pull(feed) => match feed.lines.get(feed.next) {
                Some((at, line)) if *at <= now.mono_ms => {
                    feed.next += 1;
                    if feed.next == feed.lines.len()
                        && let Some(reference) = feed.image.take()
                    {
                        self.pulled(&reference, now);
                    }
                    Polled::Data(format!("{line}\r\n").into_bytes())
                }
                Some(_) => Polled::Idle,
                None => Polled::End,
            },
        }
    }

    /// When a stream is worth another look without anything having happened.
    pub fn stream_due(&self, stream: &Stream, now: Now) -> Option<u64> {
        match stream {
            Stream::Pull(feed) => feed.lines.get(feed.next).map(|(at, _)| *at),
            Stream::Events(feed) => feed.until.map(|until| now.mono_ms + u64::try_from((until - now.wall_ns) / 1_000_000 + 1).unwrap_or(0)),
            Stream::Logs(_) | Stream::Wait(_) => None,
        }
    }
}
