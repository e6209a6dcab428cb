//! Owns the form of env files: `KEY=value` lines as Docker's `--env-file` reads them.

use super::names::env_name_error;

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct EnvFileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

/// Reads `KEY=value` lines in their order. Empty lines and lines that begin with `#` are skipped, an `export ` before the name is
/// left out, and a pair of quotes around the whole value is taken off. Nothing is expanded.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(bytes: &[u8]) -> Result<Vec<(String, String)>, EnvFileError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        EnvFileError { line, message: "it is not UTF-8".to_owned() }
    })?;
    let mut pairs = Vec::new();
    for (at, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let line = line.trim_start();
        if line.trim_end().is_empty() || line.starts_with('#') {
            continue;
        }
        let fail = |message: String| EnvFileError { line: at + 1, message };
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((key, value)) = line.split_once('=') else {
            return Err(fail("it has no `=`; write KEY=value".to_owned()));
        };
        if let Some(problem) = env_name_error(key) {
            return Err(fail(format!("the name cannot be used: {problem}")));
        }
        if value.contains('\0') {
            return Err(fail("it has a NUL byte".to_owned()));
        }
        pairs.push((key.to_owned(), unquote(value).to_owned()));
    }
    Ok(pairs)
}

fn unquote(value: &str) -> &str {
    let value = value.trim_end();
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_docker_reads_them() {
        let pairs = parse(b"# c\n\nA=1\nexport B=\"x y\"\r\nC='q'\nD=a=b#c\nE=\n").unwrap();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("A", "1"), ("B", "x y"), ("C", "q"), ("D", "a=b#c"), ("E", "")]);
        assert_eq!(parse(b"A=1\nB").unwrap_err().line, 2);
        assert_eq!(parse(b"A=1\n\nB C=1").unwrap_err().line, 3);
        assert_eq!(parse(b"A=1\n\xff=").unwrap_err().line, 2);
    }
}
