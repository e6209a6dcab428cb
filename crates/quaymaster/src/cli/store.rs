//! `backup` and `restore`: the store as one file of lines, taken from a running operator, put into a new data directory without one.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use qm_store::RestoreError;
use qm_store::backend::Redb;
use serde_json::Value;

use super::{CliError, Connect, Done, End};
use crate::client::Pieces;
use crate::output;

/// The name of the store's file in the data directory.
pub(crate) const STORE_FILE: &str = "store.redb";

/// Write everything that the operator remembers to a file
///
/// The file holds specs with their environment: keep it as you keep the manifests.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster backup quaymaster.backup
  quaymaster backup - | gzip > quaymaster.backup.gz")]
pub(crate) struct BackupArgs {
    /// The file to write, which must not exist; `-` is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    connect: Connect,
}

/// Fill a new data directory from a backup, while no operator runs on it
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster restore quaymaster.backup --data-dir /var/lib/quaymaster")]
pub(crate) struct RestoreArgs {
    /// The backup; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The data directory; its store must be empty or not exist
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

pub(crate) async fn backup(args: &BackupArgs) -> Done {
    let client = args.connect.client();
    if args.file == Path::new("-") {
        let mut pieces = client.bytes("/quaymaster/v1/backup").await?;
        let mut tail = Tail::default();
        while let Some(piece) = pieces.next().await? {
            tail.take(&piece);
            output::print_bytes(&piece)?;
        }
        tail.objects()?;
        return Ok(End::Fine);
    }
    if args.file.exists() {
        return Err(CliError::Usage(format!("{} exists; move it away first, or give another name", args.file.display())));
    }
    let pieces = client.bytes("/quaymaster/v1/backup").await?;
    let partial = partial(&args.file);
    let objects = match save(pieces, &partial).await {
        Ok(objects) => objects,
        Err(error) => {
            // What is not whole must not be taken for a backup; that it stays behind under another name is not worth a second error.
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
    };
    fs::rename(&partial, &args.file).map_err(|error| cannot_write(&args.file, error))?;
    output::note(&format!("{objects} objects written to {}", args.file.display()));
    Ok(End::Fine)
}

fn partial(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

fn cannot_write(path: &Path, error: std::io::Error) -> CliError {
    CliError::because(format!("{} cannot be written", path.display()), error)
}

async fn save(mut pieces: Pieces, path: &Path) -> Result<u64, CliError> {
    let refused = |error| cannot_write(path, error);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(refused)?;
    let mut tail = Tail::default();
    while let Some(piece) = pieces.next().await? {
        tail.take(&piece);
        file.write_all(&piece).map_err(refused)?;
    }
    let objects = tail.objects()?;
    file.sync_all().map_err(refused)?;
    Ok(objects)
}

/// The last line of a stream: it says whether a backup is whole.
#[derive(Debug, Default)]
struct Tail {
    line: Vec<u8>,
}

impl Tail {
    fn take(&mut self, piece: &[u8]) {
        // The newline that ends the last line is kept, so that it is not taken for an empty one.
        let body = piece.strip_suffix(b"\n").unwrap_or(piece);
        match body.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => self.line = piece[at + 1..].to_vec(),
            None if self.line.ends_with(b"\n") => self.line = piece.to_vec(),
            None => self.line.extend_from_slice(piece),
        }
    }

    fn objects(&self) -> Result<u64, CliError> {
        let trailer: Option<Value> = serde_json::from_slice(&self.line).ok();
        let objects = trailer.filter(|line| line["sha256"].is_string()).and_then(|line| line["objects"].as_u64());
        objects.ok_or_else(|| CliError::failed("the backup was cut off: the operator ended it early; try again"))
    }
}

pub(crate) fn restore(args: &RestoreArgs) -> Done {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(&args.data_dir).map_err(|error| cannot_write(&args.data_dir, error))?;
    let place = args.data_dir.join(STORE_FILE);
    let mut backend = Redb::at(&place);
    let restored = if args.file == Path::new("-") {
        qm_store::restore(std::io::stdin().lock(), &mut backend)
    } else {
        let file = File::open(&args.file).map_err(|error| CliError::Usage(format!("{} cannot be read: {error}", args.file.display())))?;
        qm_store::restore(BufReader::new(file), &mut backend)
    };
    let backup = restored.map_err(|error| refused(error, &args.file, &place))?;
    output::note(&format!("{} objects restored into {}, up to version {}", backup.objects, place.display(), backup.resource_version));
    Ok(End::Fine)
}

fn refused(error: RestoreError, file: &Path, place: &Path) -> CliError {
    let message = match &error {
        RestoreError::NotEmpty { .. } | RestoreError::Store(_) => format!("nothing was restored into {}", place.display()),
        _ => format!("nothing was restored from {}", file.display()),
    };
    CliError::because(message, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_found_however_the_stream_is_cut() {
        let whole = b"{\"format\":\"x\"}\n{\"a\":1}\n{\"objects\":2,\"sha256\":\"ab\"}\n";
        for size in 1..=whole.len() {
            let mut tail = Tail::default();
            whole.chunks(size).for_each(|piece| tail.take(piece));
            assert_eq!(tail.objects().ok(), Some(2), "{size}");
        }
        let mut cut = Tail::default();
        cut.take(&whole[..30]);
        assert!(cut.objects().is_err());
        assert!(Tail::default().objects().is_err());
    }
}
