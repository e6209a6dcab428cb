//! How far a pull is, from what the engine tells of its layers. Pure: lines and times in, per cent out.

use std::collections::BTreeMap;

/// So often at most is told how far a pull is, in milliseconds.
const TELL_EVERY_MS: u64 = 1_000;

/// One line about a layer, as an engine streams them during a pull.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line<'a> {
    /// The layer; lines without one are about the whole image.
    pub layer: Option<&'a str>,
    /// What happens to it: `Downloading`, `Extracting`, `Pull complete`, ..
    pub status: &'a str,
    /// Bytes so far, of what the status says.
    pub current: Option<i64>,
    /// And of how many.
    pub total: Option<i64>,
}

/// How far one layer is. Its bytes count twice: when they are fetched and when they are unpacked.
#[derive(Clone, Debug, Default)]
struct Layer {
    /// Its size, once it is known.
    total: Option<u64>,
    fetched: u64,
    is_fetched: bool,
    unpacked: u64,
    is_unpacked: bool,
}

/// How far a pull is.
#[derive(Clone, Debug, Default)]
pub struct PullProgress {
    layers: BTreeMap<String, Layer>,
    /// What was told, and when: it never goes back.
    told: Option<(u8, u64)>,
    best: u8,
}

impl PullProgress {
    /// Takes a line in. Gives what is worth telling: another percentage than the last, and not sooner than a second after it.
    pub fn see(&mut self, line: Line<'_>, now_ms: u64) -> Option<u8> {
        self.take(line);
        let percent = self.percent()?;
        let is_news = match self.told {
            None => true,
            Some((told, at)) => percent > told && now_ms.saturating_sub(at) >= TELL_EVERY_MS,
        };
        is_news.then(|| {
            self.told = Some((percent, now_ms));
            percent
        })
    }

    fn take(&mut self, line: Line<'_>) {
        // The first line of a pull has the tag where others have the layer.
        let Some(id) = line.layer.filter(|_| !line.status.starts_with("Pulling from")) else { return };
        if line.status == "Already exists" {
            // Nothing is to be fetched for it.
            self.layers.remove(id);
            return;
        }
        let layer = self.layers.entry(id.to_owned()).or_default();
        let count = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
        let (current, total) = (count(line.current), count(line.total));
        match line.status {
            "Downloading" => {
                layer.total = total.or(layer.total);
                layer.fetched = current.unwrap_or(layer.fetched);
            }
            "Verifying Checksum" | "Download complete" => layer.is_fetched = true,
            "Extracting" => {
                layer.is_fetched = true;
                layer.total = layer.total.or(total);
                layer.unpacked = current.unwrap_or(layer.unpacked);
            }
            "Pull complete" => (layer.is_fetched, layer.is_unpacked) = (true, true),
            _ => {}
        }
        // A layer that turns out larger than it said is as large as it turns out.
        layer.total = layer.total.map(|total| total.max(layer.fetched));
    }

    /// How far it is by now; `None` while nothing can be said. Never less than before.
    fn percent(&mut self) -> Option<u8> {
        if self.layers.is_empty() {
            return (self.best > 0).then_some(self.best);
        }
        let known: Vec<u64> = self.layers.values().filter_map(|l| l.total).collect();
        let has_moved = self.layers.values().any(|l| l.is_fetched || l.fetched > 0);
        if known.is_empty() && !has_moved {
            return (self.best > 0).then_some(self.best);
        }
        // The engine tells the size of a layer when it begins to fetch it: until then it is taken for one like the others.
        let sum: u128 = known.iter().copied().map(u128::from).sum();
        let usual = u64::try_from(sum.checked_div(known.len() as u128).unwrap_or(1)).unwrap_or(u64::MAX).max(1);
        let (mut done, mut all) = (0_u128, 0_u128);
        for layer in self.layers.values() {
            let size = layer.total.unwrap_or_else(|| usual.max(layer.fetched));
            let part = |so_far: u64, is_through: bool| u128::from(if is_through { size } else { so_far.min(size) });
            done += part(layer.fetched, layer.is_fetched) + part(layer.unpacked, layer.is_unpacked);
            all += u128::from(size) * 2;
        }
        let is_through = self.layers.values().all(|l| l.is_unpacked);
        let percent = (done * 100 / all.max(1)).min(if is_through { 100 } else { 99 }) as u8;
        self.best = self.best.max(percent);
        Some(self.best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (&'static str, &'static str, Option<i64>, Option<i64>);

    /// The percentage after every line; one without a layer has `-`.
    fn run(script: &[Row]) -> Vec<Option<u8>> {
        let mut progress = PullProgress::default();
        let mut last = None;
        let mut seen = Vec::new();
        // Each line a second after the other, so that nothing is held back; where nothing is told, what was told still holds.
        for (second, (layer, status, current, total)) in script.iter().enumerate() {
            let line = Line { layer: Some(*layer).filter(|l| *l != "-"), status, current: *current, total: *total };
            last = progress.see(line, second as u64 * 1_000).or(last);
            seen.push(last);
        }
        seen
    }

    const FS: &str = "Pulling fs layer";
    const DOWN: &str = "Downloading";
    const GOT: &str = "Download complete";
    const OUT: &str = "Extracting";
    const DONE: &str = "Pull complete";

    #[test]
    fn bytes_count_when_they_are_fetched_and_when_they_are_unpacked() {
        let seen = run(&[
            ("1.4", "Pulling from acme/app", None, None),
            ("a", FS, None, None),
            ("a", DOWN, Some(50), Some(100)),
            ("a", DOWN, Some(100), Some(100)),
            ("a", "Verifying Checksum", None, None),
            ("a", GOT, None, None),
            ("a", OUT, Some(50), Some(100)),
            ("a", OUT, Some(100), Some(100)),
            ("a", DONE, None, None),
            ("-", "Digest: sha256:0", None, None),
        ]);
        let wanted = [None, None, Some(25), Some(50), Some(50), Some(50), Some(75), Some(99), Some(100), Some(100)];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn layers_that_are_there_do_not_count() {
        let seen =
            run(&[("a", FS, None, None), ("a", "Already exists", None, None), ("b", FS, None, None), ("b", DOWN, Some(10), Some(100))]);
        assert_eq!(seen, [None, None, None, Some(5)]);
        assert_eq!(run(&[("a", "Already exists", None, None), ("b", "Already exists", None, None)]), [None, None]);
    }

    #[test]
    fn a_layer_of_unknown_size_is_taken_for_one_like_the_others() {
        // One of two is fetched: a quarter of all there is to do, not a half.
        assert_eq!(run(&[("a", FS, None, None), ("b", FS, None, None), ("a", DOWN, Some(80), Some(80))]), [None, None, Some(25)]);
        // No size at all, as for tiny layers: they are counted instead.
        let seen = run(&[("a", FS, None, None), ("b", FS, None, None), ("a", GOT, None, None), ("a", DONE, None, None)]);
        assert_eq!(seen, [None, None, Some(25), Some(50)]);
        // What a chunked answer says of its size.
        assert_eq!(run(&[("a", DOWN, Some(40), Some(-1)), ("a", DOWN, Some(80), None)]), [Some(50), Some(50)]);
    }

    #[test]
    fn it_never_goes_back() {
        // A layer that appears late.
        let late = run(&[
            ("a", DOWN, Some(90), Some(100)),
            ("b", FS, None, None),
            ("b", DOWN, Some(1), Some(900)),
            ("b", DOWN, Some(900), Some(900)),
        ]);
        assert_eq!(late, [Some(45), Some(45), Some(45), Some(49)]);
        // A total that grows, and bytes beyond it.
        assert_eq!(run(&[("a", DOWN, Some(50), Some(100)), ("a", DOWN, Some(60), Some(1_000))]), [Some(25), Some(25)]);
        assert_eq!(run(&[("a", DOWN, Some(150), Some(100)), ("a", DOWN, Some(300), Some(100))]), [Some(50), Some(50)]);
        // A download that begins anew.
        let again = run(&[
            ("a", DOWN, Some(80), Some(100)),
            ("a", "Retrying in 5 seconds", None, None),
            ("a", DOWN, Some(10), Some(100)),
            ("a", DOWN, Some(90), Some(100)),
        ]);
        assert_eq!(again, [Some(40), Some(40), Some(40), Some(45)]);
        // What was unpacked already and turns out to be there.
        assert_eq!(run(&[("a", DOWN, Some(80), Some(100)), ("a", "Already exists", None, None)]), [Some(40), Some(40)]);
    }

    #[test]
    fn it_is_whole_only_when_all_layers_are() {
        let seen = run(&[
            ("a", DOWN, Some(9_999), Some(10_000)),
            ("b", FS, None, None),
            ("a", DONE, None, None),
            ("b", GOT, None, None),
            ("b", DONE, None, None),
        ]);
        assert_eq!(seen, [Some(49), Some(49), Some(50), Some(75), Some(100)]);
    }

    #[test]
    fn it_is_told_once_a_second_at_most() {
        let mut progress = PullProgress::default();
        let told: Vec<(u64, u8)> = (0..4_000_u64)
            .step_by(10)
            .filter_map(|ms| {
                let line = Line { layer: Some("a"), status: DOWN, current: Some(ms as i64 + 1), total: Some(4_000) };
                Some((ms, progress.see(line, ms)?))
            })
            .collect();
        assert_eq!(told, [(0, 0), (1_000, 12), (2_000, 25), (3_000, 37)]);
        // What was held back is told with the next line, and the same again is no news.
        let line = Line { layer: Some("a"), status: DOWN, current: Some(3_995), total: Some(4_000) };
        assert_eq!(progress.see(line, 9_000), Some(49));
        assert_eq!(progress.see(line, 19_000), None);
    }

    #[test]
    fn hostile_numbers_do_no_harm() {
        let mut progress = PullProgress::default();
        for (current, total) in [(i64::MIN, i64::MAX), (i64::MAX, i64::MAX), (i64::MAX, 0), (0, i64::MIN), (-1, -1)] {
            for layer in ["a", "b", "c"] {
                progress.see(Line { layer: Some(layer), status: DOWN, current: Some(current), total: Some(total) }, 0);
            }
        }
        assert!(progress.best <= 99);
    }
}
