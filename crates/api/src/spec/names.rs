//! Owns the forms of names: objects and namespaces, labels, environment variables, images, signals, paths, modes, addresses.
//!
//! Every function says what is wrong with a text in words for its author, or nothing.

use std::net::Ipv4Addr;

/// What is wrong with the name of an object or namespace (a DNS label of RFC 1123).
pub fn label_error(text: &str) -> Option<&'static str> {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.is_empty() {
        Some("it is empty")
    } else if text.len() > 63 {
        Some("it has more than 63 characters")
    } else if !text.bytes().all(is_inner) {
        Some("only lower-case letters, digits and `-` are allowed")
    } else if text.starts_with('-') || text.ends_with('-') {
        Some("it must begin and end with a letter or digit")
    } else {
        None
    }
}

/// What is wrong with the key of a label or annotation.
pub fn label_key_error(text: &str) -> Option<&'static str> {
    let name = match text.split_once('/') {
        Some((prefix, _)) if prefix.len() > 253 || prefix.split('.').any(|part| label_error(part).is_some()) => {
            return Some("what stands before `/` must be a DNS name");
        }
        Some((_, name)) => name,
        None => text,
    };
    if name.is_empty() { Some("the name is empty") } else { word_error(name) }
}

/// What is wrong with the value of a label.
pub fn label_value_error(text: &str) -> Option<&'static str> {
    if text.is_empty() { None } else { word_error(text) }
}

fn word_error(text: &str) -> Option<&'static str> {
    let is_end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    if text.len() > 63 {
        Some("it has more than 63 characters")
    } else if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        Some("only letters, digits, `-`, `_` and `.` are allowed")
    } else if !is_end(text.as_bytes().first()) || !is_end(text.as_bytes().last()) {
        Some("it must begin and end with a letter or digit")
    } else {
        None
    }
}

/// What is wrong with the name of an environment variable.
pub fn env_name_error(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("it is empty")
    } else if text.contains('=') {
        Some("it has a `=`")
    } else if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Some("it has white space")
    } else {
        None
    }
}

/// What is wrong with the name of a volume, as Docker sees it.
pub fn volume_name_error(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("it is empty")
    } else if text.len() > 128 {
        Some("it has more than 128 characters")
    } else if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        Some("only letters, digits, `-`, `_` and `.` are allowed; a path of the host goes to `bind`")
    } else if !text.as_bytes()[0].is_ascii_alphanumeric() {
        Some("it must begin with a letter or digit")
    } else {
        None
    }
}

/// What is wrong with an image reference: `[registry[:port]/]path[:tag][@digest]`.
pub fn image_error(text: &str) -> Option<&'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if let Some(digest) = digest {
        let is_good = digest
            .strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        if !is_good {
            return Some("a digest has the form `sha256:` and 64 hexadecimal digits");
        }
    }
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if tag.is_empty() || tag.len() > 128 || !tag.bytes().all(is_word) || tag.starts_with(['-', '.']) {
            return Some("a tag has letters, digits, `_`, `-` and `.`, at most 128");
        }
    }
    let parts: Vec<&str> = path.split('/').collect();
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
    let (host, parts) = match parts.as_slice() {
        [host, rest @ ..] if !rest.is_empty() && is_host(host) => (Some(*host), rest),
        all => (None, all),
    };
    if host.is_some_and(|host| !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))) {
        return Some("the registry is no host name");
    }
    if parts.iter().any(|part| part.is_empty()) {
        return Some("a part of the path is empty");
    }
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_part = |part: &&str| {
        part.bytes().all(|b| lower(b) || matches!(b, b'.' | b'_' | b'-'))
            && part.bytes().next().is_some_and(lower)
            && part.bytes().last().is_some_and(lower)
    };
    if !parts.iter().all(is_part) {
        return Some("the path has lower-case letters, digits, and between them `.`, `_` and `-`");
    }
    None
}

const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD",
    "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Whether `text` names a signal: `SIGTERM`, `TERM`, `15` or `RTMIN+3`.
pub fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let offset =
        |rest: &str, sign: char| rest.is_empty() || rest.strip_prefix(sign).is_some_and(|n| n.parse::<u8>().is_ok_and(|n| n <= 15));
    SIGNALS.contains(&name)
        || name.strip_prefix("RTMIN").is_some_and(|rest| offset(rest, '+'))
        || name.strip_prefix("RTMAX").is_some_and(|rest| offset(rest, '-'))
}

/// Whether `text` is a file mode in octal: 3 or 4 digits, with or without a leading `0`.
pub fn is_mode(text: &str) -> bool {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    (3..=5).contains(&digits.len()) && u32::from_str_radix(digits, 8).is_ok_and(|mode| mode <= 0o7777) && !digits.starts_with('+')
}

/// The absolute path without doubled, trailing and `.` parts; `None` when it is not absolute, or steps up.
pub fn clean_path(text: &str) -> Option<String> {
    let rest = text.strip_prefix('/')?;
    let mut clean = String::new();
    for part in rest.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part => {
                clean.push('/');
                clean.push_str(part);
            }
        }
    }
    if clean.is_empty() {
        clean.push('/');
    }
    (!clean.contains('\0')).then_some(clean)
}

/// The label prefixes that nobody may set.
pub fn is_reserved_label(key: &str) -> bool {
    ["quaymaster.dev/", "com.docker.compose.", "com.docker.stack."].iter().any(|prefix| key.starts_with(prefix))
}

/// A range of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    /// The first address.
    pub first: Ipv4Addr,
    /// The number of fixed bits.
    pub bits: u8,
}

impl Cidr {
    /// Reads `172.30.0.0/24`.
    ///
    /// # Errors
    /// What is wrong, in words for its author.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || "write it as 172.30.0.0/24".to_owned();
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        if address.contains(':') {
            return Err("IPv6 subnets are not supported yet".to_owned());
        }
        let first: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= 32).ok_or_else(bad)?;
        let cidr = Self { first, bits };
        let base = Ipv4Addr::from(u32::from(first) & cidr.mask());
        if base != first {
            return Err(format!("the first address of that range is {base}: write {base}/{bits}"));
        }
        if bits > 30 {
            return Err("it has no room for a gateway and a container".to_owned());
        }
        Ok(cidr)
    }

    fn mask(self) -> u32 {
        if self.bits == 0 { 0 } else { u32::MAX << (32 - u32::from(self.bits)) }
    }

    /// The last address.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) | !self.mask())
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// Whether `address` is in the range.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images() {
        let digest = "a".repeat(64);
        let pinned = format!("r.example.org:5000/a/b:1@sha256:{digest}");
        for good in
            ["redis", "redis:7", "library/redis:7.2-alpine", "localhost/x", "localhost:5000/x:1", "ghcr.io/a/b", pinned.as_str(), "a__b:x"]
        {
            assert_eq!(image_error(good), None, "{good}");
        }
        for bad in ["", "Redis", "redis:", "a//b", "a/b:x/y:", "redis@sha256:12", "-a", "a b", "redis:latest:7", "/a"] {
            assert!(image_error(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn words() {
        assert!(["SIGTERM", "TERM", "15", "SIGRTMIN+3", "RTMAX-2", "SIGWINCH"].iter().all(|s| is_signal(s)));
        assert!(!["", "SIG", "sigterm", "0", "65", "SIGFOO", "RTMIN-1"].iter().any(|s| is_signal(s)));
        assert!(["0444", "644", "1777", "00644"].iter().all(|m| is_mode(m)));
        assert!(!["", "44", "0888", "99999", "rw-r--r--", "17777"].iter().any(|m| is_mode(m)));
        assert_eq!(clean_path("/a//b/./c/").as_deref(), Some("/a/b/c"));
        assert_eq!(clean_path("/").as_deref(), Some("/"));
        assert_eq!(clean_path("a"), None);
        assert_eq!(clean_path("/a/../b"), None);
        assert!(["app.kubernetes.io/name", "a", "A_b.c"].iter().all(|k| label_key_error(k).is_none()));
        assert!(["", "/a", "a/", "a/b/c", "-a", "a b"].iter().any(|k| label_key_error(k).is_some()));
    }

    #[test]
    fn ranges() {
        let cidr = Cidr::parse("172.30.0.0/24").unwrap();
        assert!(cidr.contains(Ipv4Addr::new(172, 30, 0, 9)) && !cidr.contains(Ipv4Addr::new(172, 30, 1, 9)));
        assert_eq!(cidr.last(), Ipv4Addr::new(172, 30, 0, 255));
        for (other, overlaps) in [("172.30.0.128/25", true), ("172.0.0.0/8", true), ("172.30.0.0/24", true), ("172.30.1.0/24", false)] {
            let other = Cidr::parse(other).unwrap();
            assert_eq!((cidr.overlaps(other), other.overlaps(cidr)), (overlaps, overlaps), "{other:?}");
        }
        for bad in ["", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "fd00::/8", "10.0.0.0/31"] {
            assert!(Cidr::parse(bad).is_err(), "{bad}");
        }
    }
}
