//! Owns the choice of the form of an answer from the `Accept` header. Parameters come in any order; what is not understood is passed over.

use crate::status::{Failure, Reason};

/// The version of `meta.k8s.io` that the client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetaVersion {
    V1,
    V1Beta1,
}

impl MetaVersion {
    pub(crate) const fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The form in which an answer goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Whole objects.
    Object,
    /// A table for people.
    Table(MetaVersion),
    /// Metadata only.
    Partial(MetaVersion),
}

/// The form of an answer with objects in it.
///
/// # Errors
/// When the client takes nothing that is served.
pub(crate) fn objects(accept: Option<&str>) -> Result<Form, Failure> {
    first(accept, |range| match (range.is_json(), range.get("as")) {
        (true, None) => Some(Form::Object),
        (true, Some("Table")) => range.meta_version().map(Form::Table),
        (true, Some("PartialObjectMetadata" | "PartialObjectMetadataList")) => range.meta_version().map(Form::Partial),
        _ => None,
    })
}

/// Whether discovery goes out in its aggregated form.
///
/// # Errors
/// When the client takes nothing that is served.
pub(crate) fn is_aggregated(accept: Option<&str>) -> Result<bool, Failure> {
    first(accept, |range| match (range.is_json(), range.get("as")) {
        (true, None) => Some(false),
        (true, Some("APIGroupDiscoveryList")) => {
            (range.get("g") == Some("apidiscovery.k8s.io") && range.get("v") == Some("v2")).then_some(true)
        }
        _ => None,
    })
}

fn first<T>(accept: Option<&str>, choose: impl Fn(&Range<'_>) -> Option<T>) -> Result<T, Failure> {
    let accept = accept.filter(|text| !text.trim().is_empty()).unwrap_or("*/*");
    accept.split(',').find_map(|text| choose(&Range(text))).ok_or_else(|| {
        let message = "only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io";
        Failure::new(Reason::NotAcceptable, message)
    })
}

/// One media range with its parameters.
struct Range<'a>(&'a str);

impl<'a> Range<'a> {
    fn is_json(&self) -> bool {
        let media = self.0.split(';').next().unwrap_or_default().trim();
        ["application/json", "application/*", "*/*"].iter().any(|known| known.eq_ignore_ascii_case(media))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        let pairs = self.0.split(';').skip(1).filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }

    fn meta_version(&self) -> Option<MetaVersion> {
        match (self.get("g"), self.get("v")) {
            (Some("meta.k8s.io"), Some("v1")) => Some(MetaVersion::V1),
            (Some("meta.k8s.io"), Some("v1beta1")) => Some(MetaVersion::V1Beta1),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_is_served_wins() {
        use Form::{Object, Partial, Table};
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, form) in [
            (None, Some(Object)),
            (Some(""), Some(Object)),
            (Some("*/*"), Some(Object)),
            (Some("application/json, */*"), Some(Object)),
            (Some("application/vnd.kubernetes.protobuf,application/json"), Some(Object)),
            (Some("application/json; charset=utf-8"), Some(Object)),
            (Some(table), Some(Table(MetaVersion::V1))),
            (Some("application/json;g=meta.k8s.io;as=Table;v=v1beta1,application/json"), Some(Table(MetaVersion::V1Beta1))),
            (Some("application/json;as=Table;v=v7;g=meta.k8s.io,application/json"), Some(Object)),
            (Some("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), Some(Partial(MetaVersion::V1))),
            (Some("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"), Some(Partial(MetaVersion::V1))),
            (Some("application/yaml"), None),
            (Some(";;=,;,="), None),
        ] {
            assert_eq!(objects(accept).ok(), form, "{accept:?}");
        }
    }

    #[test]
    fn only_the_known_version_of_discovery_is_aggregated() {
        for (accept, aggregated) in [
            (None, Some(false)),
            (Some("application/json"), Some(false)),
            (Some("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"), Some(true)),
            (Some("application/json;v=v2;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList"), Some(true)),
            (Some("application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io,application/json"), Some(false)),
            (Some("application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io"), None),
        ] {
            assert_eq!(is_aggregated(accept).ok(), aggregated, "{accept:?}");
        }
    }
}
