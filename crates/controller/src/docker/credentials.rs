//! What private registries want to see: a file in the form of Docker's own `config.json`, read anew at every pull.
//!
//! Nothing here prints a secret: what holds one shows itself as `[redacted]`, and no message quotes the file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::GeneralPurposeConfig;
use bollard::auth::DockerCredentials;
use qm_api::spec::image::{HUB, ImageReference};
use serde_json::{Map, Value};

/// The file is no larger than this.
pub const LARGEST: u64 = 1024 * 1024;
/// The key under which `docker login` keeps what is for the Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Other names that the Hub goes by.
const HUB_HOSTS: [&str; 3] = [HUB, "index.docker.io", "registry-1.docker.io"];
/// Docker writes padding, and some who write the file by hand leave it out.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// Why a credentials file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// It is a folder, a pipe, ..
    #[error("it is no regular file")]
    NotAFile,
    /// Too large.
    #[error("it is larger than 1 MiB")]
    TooLarge,
    /// No JSON.
    #[error("it is no JSON: line {line}, column {column}")]
    NotJson {
        /// Where.
        line: usize,
        /// And where in the line.
        column: usize,
    },
    /// JSON of another form.
    #[error("{at} {wanted}")]
    Form {
        /// Where.
        at: String,
        /// What should be there.
        wanted: &'static str,
    },
}

/// What a registry was shown when an image was asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: no file was given.
    NoFile,
    /// Nothing: the file has nothing for it.
    NoEntry {
        /// The file.
        file: PathBuf,
    },
    /// What the file has for it.
    Shown {
        /// The file.
        file: PathBuf,
    },
}

impl Access {
    /// What a person can do when that was not enough.
    pub fn advice(&self, registry: &str) -> String {
        match self {
            Self::NoFile => format!("give credentials for {registry} with --registry-credentials FILE"),
            Self::NoEntry { file } => format!("put credentials for {registry} into {}", file.display()),
            Self::Shown { file } => {
                format!("{registry} does not take the credentials that {} has for it: renew them there", file.display())
            }
        }
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What one registry wants to see.
#[derive(Clone, PartialEq, Eq)]
enum Entry {
    /// A user and a password.
    Password { user: String, password: Secret },
    /// A token instead.
    IdentityToken(Secret),
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A credentials file as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// By registry: `host` or `host:port`.
    entries: BTreeMap<String, Entry>,
    /// What in it has no effect, with what to do.
    pub warnings: Vec<String>,
}

impl Credentials {
    /// Reads the form of Docker's `config.json`.
    ///
    /// # Errors
    /// What is wrong with it and where, without a word of what is in it.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let value: Value = serde_json::from_str(text).map_err(|e| CredentialsError::NotJson { line: e.line(), column: e.column() })?;
        let root = object(&value, "the whole")?;
        let mut credentials = Self::default();
        let mut empty = Vec::new();
        if let Some(auths) = root.get("auths") {
            for (key, entry) in object(auths, "auths")? {
                let at = format!("auths[{key:?}]");
                match self::entry(object(entry, &at)?, &at)? {
                    Some(entry) => drop(credentials.entries.insert(host_of(key), entry)),
                    None => empty.push(host_of(key)),
                }
            }
        }
        credentials.note_helpers(root, &empty);
        Ok(credentials)
    }

    fn note_helpers(&mut self, root: &Map<String, Value>, empty: &[String]) {
        const REMEDY: &str = "is not supported, and no helper program is run: \
                              put an entry with `auth` (base64 of user:password) for each of their registries into `auths`";
        let has = |key: &str| match root.get(key) {
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            _ => false,
        };
        self.warnings.extend(["credsStore", "credHelpers"].into_iter().filter(|key| has(key)).map(|key| format!("`{key}` {REMEDY}")));
        let helped = root.get("credHelpers").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| host_of(key));
        let mut without: Vec<String> = empty.iter().cloned().chain(helped).filter(|host| !self.entries.contains_key(host)).collect();
        without.sort();
        without.dedup();
        if !without.is_empty() {
            self.warnings
                .push(format!("nothing is said to these registries, whose entries are empty or in a helper: {}", without.join(", ")));
        }
        if root.get("auths").is_none() {
            self.warnings.push("it has no `auths`, so no registry gets credentials".to_owned());
        }
    }

    /// Whether there is something for the registry of an image.
    pub fn has(&self, image: &ImageReference) -> bool {
        self.entries.contains_key(&image.registry)
    }

    /// What the registry of an image is to be shown, as the engine takes it.
    pub(super) fn of(&self, image: &ImageReference) -> Option<DockerCredentials> {
        let server = if image.registry == HUB { HUB_KEY.to_owned() } else { image.registry.clone() };
        let shown = match self.entries.get(&image.registry)? {
            Entry::Password { user, password } => {
                DockerCredentials { username: Some(user.clone()), password: Some(password.0.clone()), ..DockerCredentials::default() }
            }
            Entry::IdentityToken(token) => DockerCredentials { identitytoken: Some(token.0.clone()), ..DockerCredentials::default() },
        };
        Some(DockerCredentials { serveraddress: Some(server), ..shown })
    }
}

/// The registry that a key of `auths` is about: `docker login` writes hosts, and old versions wrote whole URLs.
fn host_of(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = bare.split('/').next().unwrap_or(bare).to_ascii_lowercase();
    if HUB_HOSTS.contains(&host.as_str()) { HUB.to_owned() } else { host }
}

fn object<'a>(value: &'a Value, at: &str) -> Result<&'a Map<String, Value>, CredentialsError> {
    value.as_object().ok_or_else(|| CredentialsError::Form { at: at.to_owned(), wanted: "must be an object" })
}

/// One entry; `None` for one that says nothing, as Docker writes it when a helper has what it wants.
fn entry(map: &Map<String, Value>, at: &str) -> Result<Option<Entry>, CredentialsError> {
    let bad = |key: &str, wanted| CredentialsError::Form { at: format!("{at}.{key}"), wanted };
    let text = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(bad(key, "must be a text")),
    };
    if let Some(token) = text("identitytoken")? {
        return Ok(Some(Entry::IdentityToken(Secret(token))));
    }
    if let Some(auth) = text("auth")? {
        let wrong = || bad("auth", "must be the base64 form of user:password");
        let plain = LENIENT.decode(auth.trim()).map_err(|_| wrong())?;
        let plain = String::from_utf8(plain).map_err(|_| wrong())?;
        let (user, password) = plain.split_once(':').filter(|(user, _)| !user.is_empty()).ok_or_else(wrong)?;
        // Docker has always taken zeros off the end.
        let password = Secret(password.trim_matches('\0').to_owned());
        return Ok(Some(Entry::Password { user: user.to_owned(), password }));
    }
    match (text("username")?, text("password")?) {
        (Some(user), Some(password)) => Ok(Some(Entry::Password { user, password: Secret(password) })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(bad("password", "must be there with `username`")),
        (None, Some(_)) => Err(bad("username", "must be there with `password`")),
    }
}

/// Where the credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsFile {
    /// The file.
    pub path: PathBuf,
}

impl CredentialsFile {
    /// Reads it as it is now.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read(&self) -> Result<Credentials, CredentialsError> {
        let (text, mode) = read(&self.path)?;
        let mut credentials = Credentials::parse(&text)?;
        if mode & 0o077 != 0 {
            credentials.warnings.insert(0, format!("others may read or change it (mode {mode:03o}): chmod 600 {}", self.path.display()));
        }
        Ok(credentials)
    }
}

fn read(path: &Path) -> Result<(String, u32), CredentialsError> {
    // Asked before it is opened: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(CredentialsError::Unreadable)?.is_file() {
        return Err(CredentialsError::NotAFile);
    }
    let file = File::open(path).map_err(CredentialsError::Unreadable)?;
    let mode = file.metadata().map_err(CredentialsError::Unreadable)?.permissions().mode() & 0o777;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(CredentialsError::Unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(CredentialsError::TooLarge);
    }
    let text = String::from_utf8(bytes).map_err(|_| CredentialsError::Form { at: "the whole".to_owned(), wanted: "must be UTF-8" })?;
    Ok((text, mode))
}

/// `X-Registry-Auth` as the engine reads it. bollard 0.21 writes it with the alphabet of plain base64; the engine wants that of URLs, and
/// takes what it cannot read for no credentials at all.
pub(super) fn url_safe(header: &str) -> String {
    header.replace('+', "-").replace('/', "_")
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const PASSWORD: &str = "hunter2-~~~???";

    fn parsed(text: &str) -> Credentials {
        Credentials::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn shown(credentials: &Credentials, image: &str) -> Option<(String, String, String)> {
        let shown = credentials.of(&ImageReference::parse(image))?;
        Some((shown.username.unwrap_or_default(), shown.password.unwrap_or_default(), shown.serveraddress.unwrap_or_default()))
    }

    fn wanted(user: &str, password: &str, server: &str) -> Option<(String, String, String)> {
        Some((user.to_owned(), password.to_owned(), server.to_owned()))
    }

    #[test]
    fn the_forms_of_an_entry_are_read() {
        let auth = STANDARD.encode(format!("joe:{PASSWORD}:x"));
        for entry in [
            format!(r#"{{"auth": "{auth}"}}"#),
            format!(r#"{{"auth": "{}"}}"#, auth.trim_end_matches('=')),
            format!(r#"{{"auth": "{}"}}"#, STANDARD.encode(format!("joe:{PASSWORD}:x\0\0"))),
            format!(r#"{{"username": "joe", "password": "{PASSWORD}:x", "email": "joe@x"}}"#),
            format!(r#"{{"auth": "{auth}", "username": "other", "password": "other"}}"#),
        ] {
            let credentials = parsed(&format!(r#"{{"auths": {{"r.x:5000": {entry}}}}}"#));
            assert_eq!(shown(&credentials, "r.x:5000/a:1"), wanted("joe", &format!("{PASSWORD}:x"), "r.x:5000"), "{entry}");
            assert_eq!(credentials.warnings, [] as [&str; 0]);
        }
        let token = parsed(r#"{"auths": {"r.x": {"identitytoken": "t0", "auth": "bm9ib2R5Og=="}}}"#);
        let shown = token.of(&ImageReference::parse("r.x/a")).unwrap();
        assert_eq!((shown.identitytoken.as_deref(), shown.username, shown.password), (Some("t0"), None, None));
    }

    #[test]
    fn an_entry_is_for_its_registry_alone() {
        let entry = |user: &str| format!(r#"{{"username": "{user}", "password": "p"}}"#);
        let text = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {}, "https://Old.Example.ORG/v2/": {}, "r.x": {}, "r.x:5000": {}}}}}"#,
            entry("hub"),
            entry("old"),
            entry("plain"),
            entry("port")
        );
        let credentials = parsed(&text);
        for (image, user, server) in [
            ("busybox", "hub", HUB_KEY),
            ("acme/app:1", "hub", HUB_KEY),
            ("docker.io/acme/app", "hub", HUB_KEY),
            ("index.docker.io/acme/app", "hub", HUB_KEY),
            ("old.example.org/acme/app", "old", "old.example.org"),
            ("r.x/app", "plain", "r.x"),
            ("r.x:5000/app", "port", "r.x:5000"),
        ] {
            assert_eq!(shown(&credentials, image), wanted(user, "p", server), "{image}");
        }
        for image in ["r.x:5001/app", "evil.r.x/app", "r.x.evil/app", "reg.example.org/app", "localhost/app"] {
            assert_eq!(shown(&credentials, image), None, "{image}");
            assert!(!credentials.has(&ImageReference::parse(image)));
        }
    }

    #[test]
    fn what_has_no_effect_is_told_with_what_to_do() {
        let text = r#"{"auths": {"a.x": {}, "b.x": {"auth": "ajpw"}}, "credsStore": "pass", "credHelpers": {"c.x": "gcloud", "b.x": "y"}}"#;
        let warnings = parsed(text).warnings.join("\n");
        for part in ["`credsStore` is not supported", "`credHelpers` is not supported", "base64 of user:password", "a.x, c.x"] {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
        assert!(parsed("{}").warnings[0].contains("no `auths`"));
        let ours = parsed(r#"{"auths": {"b.x": {"auth": "ajpw"}}, "HttpHeaders": {"x": "y"}, "credsStore": "", "credHelpers": {}}"#);
        assert_eq!(ours.warnings, [] as [&str; 0]);
    }

    #[test]
    fn a_bad_file_is_told_by_place_and_never_quoted() {
        let secret = STANDARD.encode(PASSWORD);
        for (text, place) in [
            (format!("{{\n  \"auths\": {PASSWORD}"), "line 2, column"),
            (format!(r#"["{PASSWORD}"]"#), "the whole must be an object"),
            (format!(r#"{{"auths": "{PASSWORD}"}}"#), "auths must be an object"),
            (format!(r#"{{"auths": {{"r.x": "{PASSWORD}"}}}}"#), r#"auths["r.x"] must be an object"#),
            (format!(r#"{{"auths": {{"r.x": {{"auth": "{PASSWORD}"}}}}}}"#), r#"auths["r.x"].auth must be the base64"#),
            (format!(r#"{{"auths": {{"r.x": {{"auth": "{secret}"}}}}}}"#), r#"auths["r.x"].auth must be the base64"#),
            (format!(r#"{{"auths": {{"r.x": {{"auth": ["{PASSWORD}"]}}}}}}"#), r#"auths["r.x"].auth must be a text"#),
            (format!(r#"{{"auths": {{"r.x": {{"password": "{PASSWORD}"}}}}}}"#), r#"auths["r.x"].username must be there"#),
            (r#"{"auths": {"r.x": {"username": "joe"}}}"#.to_owned(), r#"auths["r.x"].password must be there"#),
        ] {
            let error = Credentials::parse(&text).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.contains(place), "{said}: {place}");
            assert!(!said.contains("hunter2") && !said.contains(&secret), "{said}");
        }
    }

    #[test]
    fn a_secret_shows_itself_to_nobody() {
        let text =
            format!(r#"{{"auths": {{"a.x": {{"username": "joe", "password": "{PASSWORD}"}}, "b.x": {{"identitytoken": "{PASSWORD}"}}}}}}"#);
        let credentials = parsed(&text);
        for shown in [format!("{credentials:?}"), format!("{credentials:#?}"), format!("{:?}", credentials.entries)] {
            assert!(shown.contains("[redacted]"), "{shown}");
            assert!(!shown.contains("hunter2") && !shown.contains("joe"), "{shown}");
        }
        assert_eq!(format!("{:?}", Secret(PASSWORD.to_owned())), "[redacted]");
    }

    #[test]
    fn a_file_is_read_as_it_is_now_and_up_to_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let file = CredentialsFile { path: dir.path().join("auth.json") };
        let put = |text: &[u8], mode: u32| {
            std::fs::write(&file.path, text).unwrap();
            std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert!(matches!(file.read(), Err(CredentialsError::Unreadable(_))));
        put(br#"{"auths": {"r.x": {"auth": "ajpw"}}}"#, 0o600);
        assert_eq!(shown(&file.read().unwrap(), "r.x/a"), wanted("j", "p", "r.x"));
        put(br#"{"auths": {"r.x": {"auth": "ajpx"}}}"#, 0o640);
        let read = file.read().unwrap();
        assert_eq!(shown(&read, "r.x/a"), wanted("j", "q", "r.x"));
        assert!(read.warnings[0].contains("mode 640") && read.warnings[0].contains("chmod 600"), "{:?}", read.warnings);
        put(&[0xff, 0xfe], 0o600);
        assert!(matches!(file.read(), Err(CredentialsError::Form { .. })));
        put(&vec![b' '; LARGEST as usize + 1], 0o600);
        assert!(matches!(file.read(), Err(CredentialsError::TooLarge)));
        assert!(matches!(CredentialsFile { path: dir.path().to_path_buf() }.read(), Err(CredentialsError::NotAFile)));
    }

    /// Every alphabet difference at every alignment: the engine must read what it is shown.
    #[test]
    fn the_header_is_in_the_alphabet_that_the_engine_reads() {
        let text = "~~~???\u{ff}";
        for pad in ["", "a", "aa"] {
            let plain = STANDARD.encode(format!("{pad}{text}"));
            assert!(plain.contains(['+', '/']), "{plain}");
            let safe = url_safe(&plain);
            assert_eq!(base64::engine::general_purpose::URL_SAFE.decode(&safe).unwrap(), format!("{pad}{text}").into_bytes());
        }
    }
}
