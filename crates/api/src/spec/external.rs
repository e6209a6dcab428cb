//! Owns the addresses of servers outside that are probed in their own protocol.

/// In which protocol a server is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
    /// The HTTP API of Vault and OpenBao.
    Vault,
}

impl Protocol {
    /// Its field in a probe.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Vault => "vault",
        }
    }

    /// An address, for people.
    pub const fn example(self) -> &'static str {
        match self {
            Self::Postgres => "postgres://db.example.org:5432/app",
            Self::Redis => "redis://redis.example.org:6379",
            Self::Vault => "http://vault.example.org:8200",
        }
    }

    const fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres://", "postgresql://"],
            Self::Redis => &["redis://"],
            Self::Vault => &["http://"],
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::Redis => 6379,
            Self::Vault => 8200,
        }
    }
}

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What follows the host, without its slash: the database.
    pub path: String,
}

impl ServerUrl {
    /// Reads `SCHEME://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// What is wrong with it, in words. A password in it is: manifests are no place for secrets.
    pub fn parse(url: &str, protocol: Protocol) -> Result<Self, &'static str> {
        let rest = protocol.schemes().iter().find_map(|scheme| url.strip_prefix(scheme)).ok_or("it has another scheme")?;
        if rest.chars().any(|c| c.is_whitespace() || c.is_control()) || rest.contains(['?', '#']) {
            return Err("that is no address of a server");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err("a user and a password do not belong into the address: use `user`, and `password` with the name of a file");
        }
        let (host, port) = match authority.rsplit_once(':') {
            // A colon in brackets belongs to an address.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok().filter(|port| *port > 0).ok_or("the port is no port")?),
            _ => (authority, protocol.port()),
        };
        let host = host.trim_matches(['[', ']']);
        if host.is_empty() {
            return Err("it names no host");
        }
        if protocol != Protocol::Postgres && !path.is_empty() {
            return Err("nothing may follow the host");
        }
        Ok(Self { host: host.to_owned(), port, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_secrets_in_them_refused() {
        let parse = |url: &str, protocol| ServerUrl::parse(url, protocol).map(|u| (u.host, u.port, u.path));
        let is = |host: &str, port: u16, path: &str| Ok((host.to_owned(), port, path.to_owned()));
        assert_eq!(parse("redis://r", Protocol::Redis), is("r", 6379, ""));
        assert_eq!(parse("redis://[::1]:7000", Protocol::Redis), is("::1", 7000, ""));
        assert_eq!(parse("redis://[::1]", Protocol::Redis), is("::1", 6379, ""));
        assert_eq!(parse("postgresql://db:1/app", Protocol::Postgres), is("db", 1, "app"));
        assert_eq!(parse("http://v", Protocol::Vault), is("v", 8200, ""));
        for (url, protocol) in [
            ("redis://u:p@r", Protocol::Redis),
            ("redis://r/0", Protocol::Redis),
            ("redis://r:0", Protocol::Redis),
            ("redis://r:x", Protocol::Redis),
            ("redis://", Protocol::Redis),
            ("postgres://db/app?sslmode=require", Protocol::Postgres),
            ("mysql://db", Protocol::Postgres),
            ("https://v", Protocol::Vault),
        ] {
            assert!(ServerUrl::parse(url, protocol).is_err(), "{url}");
        }
    }
}
