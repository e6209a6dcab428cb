//! Owns the way from every older format on disk to the current one.
//!
//! A migration is a table of steps, each from one format to the next, run on all records in memory; the result is written as one batch,
//! after the backend has put a copy aside. Must never run on a store that is newer than this release.

use std::collections::BTreeMap;

use crate::backend::{Backend, Flush, Records, Write};
use crate::error::OpenError;
use crate::record::{self, FORMAT_VERSION, RecordKey};

/// From one format to the next; the error says what could not be understood.
type Step = fn(Records) -> Result<Records, String>;

/// The step at index `i` leads from format `i + 1` to format `i + 2`.
const STEPS: [Step; FORMAT_VERSION as usize - 1] = [];

/// The records of a store that is not empty, in the current format on return and on disk.
///
/// # Errors
/// When the format is newer, unknown or damaged, or the backend refuses.
pub(crate) fn to_current(backend: &mut dyn Backend, records: Records) -> Result<Records, OpenError> {
    run(&STEPS, backend, records)
}

fn run(steps: &[Step], backend: &mut dyn Backend, records: Records) -> Result<Records, OpenError> {
    let known = steps.len() as u64 + 1;
    let found = format_of(&records)?;
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    if found == known {
        return Ok(records);
    }
    backend.preserve(&format!("format-{found}"))?;
    let old: BTreeMap<_, _> = records.iter().cloned().collect();
    let pending = &steps[usize::try_from(found - 1).unwrap_or(usize::MAX).min(steps.len())..];
    let migrated = pending.iter().try_fold(records, |records, step| step(records)).map_err(|detail| OpenError::Damaged { detail })?;
    let mut new: BTreeMap<_, _> = migrated.into_iter().collect();
    new.insert(RecordKey::Format.encode(), record::encode_number(known));
    backend.apply(&difference(&old, &new), Flush::Now)?;
    tracing::info!(from = found, to = known, "the store was migrated to the format of this release");
    Ok(new.into_iter().collect())
}

fn format_of(records: &Records) -> Result<u64, OpenError> {
    let key = RecordKey::Format.encode();
    let value = records.iter().find(|(found, _)| *found == key).map(|(_, value)| value);
    value
        .and_then(|value| record::decode_number(value))
        .filter(|format| *format > 0)
        .ok_or_else(|| OpenError::Damaged { detail: "it holds records but no format version".to_owned() })
}

fn difference(old: &BTreeMap<Vec<u8>, Vec<u8>>, new: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<Write> {
    let removed = old.keys().filter(|key| !new.contains_key(*key)).map(|key| Write { key: key.clone(), value: None });
    let changed = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
    removed.chain(changed.map(|(key, value)| Write { key: key.clone(), value: Some(value.clone()) })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Memory;

    fn store(format: &str) -> (Memory, Records) {
        let mut backend = Memory::new();
        let write = |key: &[u8], value: &str| Write { key: key.to_vec(), value: Some(value.as_bytes().to_vec()) };
        backend.apply(&[write(b"iformat", format), write(b"oA\0b\0c", "one"), write(b"oA\0b\0d", "two")], Flush::Now).unwrap();
        let records = backend.load().unwrap();
        (backend, records)
    }

    fn shout(records: Records) -> Result<Records, String> {
        Ok(records.into_iter().map(|(key, value)| (key, value.to_ascii_uppercase())).collect())
    }

    fn drop_two(records: Records) -> Result<Records, String> {
        Ok(records.into_iter().filter(|(_, value)| value != b"TWO").collect())
    }

    fn give_up(_: Records) -> Result<Records, String> {
        Err("no idea".to_owned())
    }

    #[test]
    fn steps_run_from_the_found_format_on_after_a_copy_and_once() {
        let (mut backend, records) = store("1");
        let steps: [Step; 2] = [shout, drop_two];
        let migrated = run(&steps, &mut backend, records).unwrap();
        let expected = vec![(b"iformat".to_vec(), b"3".to_vec()), (b"oA\0b\0c".to_vec(), b"ONE".to_vec())];
        assert_eq!(migrated, expected);
        assert_eq!(backend.load().unwrap(), expected);
        assert_eq!(backend.preserved(), ["format-1"]);
        assert_eq!(run(&steps, &mut backend, expected.clone()).unwrap(), expected);
        assert_eq!(backend.preserved(), ["format-1"]);
    }

    #[test]
    fn only_later_steps_run_on_a_later_format() {
        let (mut backend, records) = store("2");
        let steps: [Step; 2] = [give_up, shout];
        assert_eq!(run(&steps, &mut backend, records).unwrap()[1].1, b"ONE");
    }

    #[test]
    fn a_step_that_fails_leaves_the_store_as_it_was() {
        let (mut backend, records) = store("1");
        let steps: [Step; 2] = [shout, give_up];
        assert!(matches!(run(&steps, &mut backend, records.clone()), Err(OpenError::Damaged { .. })));
        assert_eq!(backend.load().unwrap(), records);
    }

    #[test]
    fn newer_and_unknown_formats_are_refused() {
        let (mut backend, records) = store("7");
        assert!(matches!(to_current(&mut backend, records), Err(OpenError::Newer { found: 7, known: FORMAT_VERSION })));
        for nonsense in ["0", "", "one"] {
            let (mut backend, records) = store(nonsense);
            assert!(matches!(to_current(&mut backend, records), Err(OpenError::Damaged { .. })), "{nonsense}");
        }
    }
}
