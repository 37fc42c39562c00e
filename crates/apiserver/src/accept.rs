//! The `Accept` header: which form an answer takes.

use objects::Status;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The object itself.
    Json,
    /// `meta.k8s.io/v1 Table`.
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata` (or its List).
    Partial,
    /// `apidiscovery.k8s.io/v2 APIGroupDiscoveryList`.
    Discovery,
}

/// The first form of the header that can be answered.
pub fn parse(header: &str) -> Result<Form, Status> {
    if header.trim().is_empty() {
        return Ok(Form::Json);
    }
    header
        .split(',')
        .find_map(one)
        .ok_or_else(|| Status::not_acceptable(&["application/json"]))
}

fn one(item: &str) -> Option<Form> {
    let mut parts = item.split(';').map(str::trim);
    let media = parts.next()?;
    let (mut kind, mut version, mut group) = ("", "", "");
    for (name, value) in parts.filter_map(|p| p.split_once('=')) {
        match name {
            "as" => kind = value,
            "v" => version = value,
            "g" => group = value,
            _ => {}
        }
    }
    if !matches!(
        media,
        "application/json" | "application/*" | "*/*" | "text/plain" | "text/*"
    ) {
        return None;
    }
    match (kind, version, group) {
        ("", _, _) => Some(Form::Json),
        ("Table", "v1", "meta.k8s.io") => Some(Form::Table),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "v1", "meta.k8s.io") => {
            Some(Form::Partial)
        }
        ("APIGroupDiscoveryList", "v2", "apidiscovery.k8s.io") => Some(Form::Discovery),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_can_be_answered_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(parse(kubectl).unwrap(), Form::Table);
        let informer = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(parse(informer).unwrap(), Form::Partial);
        assert_eq!(
            parse("application/vnd.kubernetes.protobuf,application/json").unwrap(),
            Form::Json
        );
        assert_eq!(parse("").unwrap(), Form::Json);
        assert_eq!(
            parse("application/vnd.kubernetes.protobuf")
                .unwrap_err()
                .code,
            406
        );
    }
}
