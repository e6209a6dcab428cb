//! Owns the reading of server-sent events out of pieces of bytes. Pure.

/// The longest event that is waited for.
const MOST_BYTES: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// What was read and is no whole event yet.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// Takes a piece; gives the events that are whole with it. `None` when one has no end.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Option<Vec<Event>> {
        self.buffer.extend_from_slice(piece);
        let mut events = Vec::new();
        while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            events.extend(event(&String::from_utf8_lossy(&block)));
        }
        (self.buffer.len() <= MOST_BYTES).then_some(events)
    }
}

/// One block of lines; comments are none.
fn event(block: &str) -> Option<Event> {
    let mut name = None;
    let mut data: Vec<&str> = Vec::new();
    for line in block.lines() {
        let Some((field, value)) = line.split_once(':') else { continue };
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = Some(value),
            "data" => data.push(value),
            _ => {}
        }
    }
    Some(Event { name: name?.to_owned(), data: data.join("\n") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pieces: &[&str]) -> Vec<(String, String)> {
        let mut reader = Reader::default();
        pieces
            .iter()
            .flat_map(|piece| reader.take(piece.as_bytes()).expect("no event is that long"))
            .map(|event| (event.name, event.data))
            .collect()
    }

    #[test]
    fn events_come_in_pieces_and_comments_are_none() {
        let pair = |name: &str, data: &str| (name.to_owned(), data.to_owned());
        assert_eq!(
            told(&["event: usable\ndata: {\"a\":1}\n\nevent: syn", "ced\ndata: {}\n", "\n"]),
            [pair("usable", "{\"a\":1}"), pair("synced", "{}")]
        );
        assert_eq!(told(&[": still there\n\n", "event: gone\ndata: x\ndata: y\n\n"]), [pair("gone", "x\ny")]);
        assert_eq!(told(&["event: usable\ndata: {}"]), []);
    }

    #[test]
    fn an_event_without_an_end_is_given_up() {
        let mut reader = Reader::default();
        assert_eq!(reader.take(&vec![b'x'; MOST_BYTES + 1]), None);
    }
}
