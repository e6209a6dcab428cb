//! Owns [`Query`], the parameters of a URL. Unknown ones are ignored; of one given twice the first counts.

use crate::status::Failure;

/// The parameters of a URL, decoded.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        Self(form_urlencoded::parse(text.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// A text that is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.raw(name).filter(|value| !value.is_empty())
    }

    fn raw(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A switch; `watch=1`, `watch=true` and `watch=` all turn it on.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.raw(name).map(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.flag(name).unwrap_or(false)
    }

    /// A whole number that is not negative.
    ///
    /// # Errors
    /// When it is something else.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let parse = |text: &str| text.parse().map_err(|_| Failure::bad_request(format!("{name}: `{text}` is not a number from 0 up")));
        self.get(name).map(parse).transpose()
    }
}
