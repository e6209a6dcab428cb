//! Probes that speak a server's own protocol: Redis, PostgreSQL, Vault. They ask whether it serves, change nothing, and show a password
//! only where the manifest names one, read anew each time.

use std::path::PathBuf;

use qm_api::name::Name;
use qm_plan::desired::{Login, ServerAddress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Miss, Outcome, is_our_own};
use crate::dial::{Address, Dial, Stream};

/// An answer of Redis is read no further than this.
const LINE_LIMIT: usize = 4_096;
/// A password is not longer than this.
const PASSWORD_LIMIT: usize = 64 * 1024;

/// Where the passwords of probes are: files of one folder, by name.
#[derive(Clone, Debug, Default)]
pub struct Passwords(Option<PathBuf>);

impl Passwords {
    /// Those of a folder, or none at all.
    pub fn of(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    /// The password of that name as it is now.
    fn read(&self, name: &Name) -> Result<String, String> {
        let Some(folder) = &self.0 else {
            return Err(format!("the password `{name}` is wanted, and `quaymaster run` was given no --probe-credentials"));
        };
        let path = folder.join(name.as_str());
        // A line in a local file: not worth a thread.
        let bytes = std::fs::read(&path).map_err(|error| format!("the password `{name}` cannot be read: {error}"))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("the password `{name}` is no text"))?;
        let password = text.trim_end_matches(['\r', '\n']).to_owned();
        if password.is_empty() || password.len() > PASSWORD_LIMIT {
            return Err(format!("the password `{name}` has {} bytes", password.len()));
        }
        Ok(password)
    }

    fn of_login(&self, login: &Login) -> Result<Option<String>, String> {
        match &login.password {
            Some(name) => self.read(name).map(Some),
            None => Ok(None),
        }
    }
}

async fn connect(dial: &Dial, at: &ServerAddress) -> Result<Box<dyn Stream>, Miss> {
    dial(Address::Tcp(at.host.clone(), at.port)).await.map_err(|error| match is_our_own(&error) {
        true => Miss::Unasked(error.to_string()),
        false => Miss::Failed(format!("port {}: {error}", at.port)),
    })
}

/// Whether a Redis answers PING. One that wants a password which the manifest does not name is there; one that still loads is not.
pub(super) async fn redis(dial: &Dial, passwords: &Passwords, at: &ServerAddress, login: &Login) -> Outcome {
    // Without it nobody can ask: that says nothing about the server.
    let password = passwords.of_login(login).map_err(Miss::Unasked)?;
    ping(connect(dial, at).await?, login, password).await.map_err(Miss::Failed)
}

async fn ping(mut stream: Box<dyn Stream>, login: &Login, password: Option<String>) -> Result<(), String> {
    if let Some(password) = &password {
        let words: Vec<&str> = ["AUTH"].into_iter().chain(login.user.as_deref()).chain([password.as_str()]).collect();
        let answer = command(&mut stream, &words).await?;
        if !answer.starts_with('+') {
            return Err(format!("it does not take the password: {answer}"));
        }
    }
    let answer = command(&mut stream, &["PING"]).await?;
    match answer.as_str() {
        "+PONG" => Ok(()),
        text if password.is_none() && text.starts_with("-NOAUTH") => Ok(()),
        text => Err(format!("PING answered {text}")),
    }
}

/// One command in the protocol of Redis, and the first line of its answer.
async fn command(stream: &mut Box<dyn Stream>, words: &[&str]) -> Result<String, String> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") && line.len() < LINE_LIMIT {
        match stream.read_u8().await {
            Ok(byte) => line.push(byte),
            Err(error) => return Err(format!("no answer in Redis' protocol: {error}")),
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().chars().filter(|c| !c.is_control()).take(200).collect())
}

/// Whether a PostgreSQL lets the user in and answers a query. Without a password in the manifest, one that asks for it is there.
pub(super) async fn postgres(dial: &Dial, passwords: &Passwords, at: &ServerAddress, login: &Login, database: Option<&str>) -> Outcome {
    let password = passwords.of_login(login).map_err(Miss::Unasked)?;
    let stream = connect(dial, at).await?;
    let mut config = tokio_postgres::Config::new();
    config.user(login.user.as_deref().unwrap_or("postgres")).application_name("quaymaster");
    if let Some(database) = database {
        config.dbname(database);
    }
    if let Some(password) = &password {
        config.password(password);
    }
    select(config, stream, password.is_some()).await.map_err(Miss::Failed)
}

async fn select(config: tokio_postgres::Config, stream: Box<dyn Stream>, has_password: bool) -> Result<(), String> {
    let connected = config.connect_raw(stream, tokio_postgres::NoTls).await;
    let (client, connection) = match connected {
        Ok(both) => both,
        // It asked for a password: it is there, and who names none wants to know no more.
        Err(error) if !has_password && wants_password(&error) => return Ok(()),
        Err(error) => return Err(words(&error)),
    };
    let mut connection = std::pin::pin!(connection);
    let mut query = std::pin::pin!(client.simple_query("SELECT 1"));
    tokio::select! {
        biased;
        answer = &mut query => answer.map(drop).map_err(|error| words(&error)),
        ended = &mut connection => Err(ended.map_or_else(|error| words(&error), |()| "it closed the connection".to_owned())),
    }
}

/// The client itself refuses to go on without a password: the server has asked for one.
fn wants_password(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_none() && std::error::Error::source(error).is_some_and(|source| source.to_string().contains("password missing"))
}

fn words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(told) => told.message().to_owned(),
        None => std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
    }
}

/// What the health of a Vault means, by the status with which it tells (its API, `sys/health`).
pub(super) fn vault_answer(code: u16) -> Result<(), String> {
    match code {
        // Active; standby; performance standby.
        200 | 429 | 473 => Ok(()),
        501 => Err("it is not initialised".to_owned()),
        503 => Err("it is sealed".to_owned()),
        472 => Err("it is a secondary for disaster recovery".to_owned()),
        code => Err(format!("its health answered {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each request with the next of these.
    async fn answers(script: &'static [&'static str], login: Login, password: Option<&str>) -> Result<(), String> {
        let (ours, mut theirs) = tokio::io::duplex(4_096);
        let server = async move {
            let mut buffer = [0_u8; 4_096];
            for answer in script {
                let _ = theirs.read(&mut buffer).await;
                let _ = theirs.write_all(answer.as_bytes()).await;
            }
        };
        let (result, ()) = tokio::join!(ping(Box::new(ours), &login, password.map(str::to_owned)), server);
        result
    }

    #[tokio::test]
    async fn a_redis_is_there_when_it_answers() {
        let user = || Login { user: Some("probe".into()), password: Some("redis".into()) };
        assert_eq!(answers(&["+PONG\r\n"], Login::default(), None).await, Ok(()));
        assert_eq!(answers(&["-NOAUTH Authentication required.\r\n"], Login::default(), None).await, Ok(()));
        assert_eq!(answers(&["+OK\r\n", "+PONG\r\n"], user(), Some("x")).await, Ok(()));
        let error = answers(&["-WRONGPASS no\r\n"], user(), Some("x")).await.unwrap_err();
        assert_eq!(error, "it does not take the password: -WRONGPASS no");
        let error = answers(&["-LOADING Redis is loading the dataset in memory\r\n"], Login::default(), None).await.unwrap_err();
        assert_eq!(error, "PING answered -LOADING Redis is loading the dataset in memory");
        let error = answers(&["HTTP/1.1 400"], Login::default(), None).await.unwrap_err();
        assert!(error.starts_with("no answer in Redis' protocol"), "{error}");
    }

    #[test]
    fn a_vault_says_how_it_is_by_its_status() {
        assert_eq!([200, 429, 473].map(vault_answer), [Ok(()), Ok(()), Ok(())]);
        assert_eq!(vault_answer(503), Err("it is sealed".into()));
        assert_eq!(vault_answer(501), Err("it is not initialised".into()));
    }

    #[test]
    fn a_password_comes_from_a_file_and_its_absence_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("redis"), "secret\n").unwrap();
        let passwords = Passwords::of(Some(folder.path().to_owned()));
        assert_eq!(passwords.read(&"redis".into()), Ok("secret".to_owned()));
        assert!(passwords.read(&"other".into()).unwrap_err().starts_with("the password `other` cannot be read"));
        assert!(Passwords::default().read(&"redis".into()).unwrap_err().contains("--probe-credentials"));
    }
}
