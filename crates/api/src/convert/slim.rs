//! Objects of which only what the network needs is read.
//!
//! A cluster has tens of thousands of pods, policies, Services and slices; decoding all of each (managed fields
//! above all) and keeping two copies would be most of the agent's time and memory. A [`Slim`]
//! object is turned into its [`model`] value while it is being decoded.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicResourceScope;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, de};

use crate::Error;

/// An object as it was decoded: where it is, and what the network needs of it.
#[derive(Clone, Debug)]
pub struct Slim<T> {
    /// Name, namespace, uid and resourceVersion; nothing else.
    meta: ObjectMeta,
    /// What became of it.
    pub converted: Converted<T>,
}

/// What became of an object.
#[derive(Clone, Debug)]
pub struct Converted<T> {
    /// Its value.
    pub value: Value<T>,
    /// What of it cannot be understood.
    pub problems: Vec<Wrong>,
}

/// The value of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<T> {
    /// This.
    Is(Arc<T>),
    /// Nothing the network has to do with.
    Nothing,
    /// It cannot be told; what was known of it stays.
    Unknown,
}

/// A field that says something that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its path.
    pub field: String,
    /// What is wrong with it.
    pub cause: String,
}

/// A kind that can be read slim.
pub trait Kind: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    /// `kind`.
    const KIND: &'static str;
    /// Group of `apiVersion`, empty for the core.
    const GROUP: &'static str;
    /// Version of `apiVersion`.
    const VERSION: &'static str = "v1";
    /// Its name in addresses.
    const PLURAL: &'static str;
    /// The object as it is decoded, borrowing from the text.
    type Raw<'de>: Deserialize<'de>;
    /// Takes the object's place and value out of it.
    fn convert(raw: Self::Raw<'_>) -> (ObjectMeta, Converted<Self>);
}

impl<'de, T: Kind> Deserialize<'de> for Slim<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (meta, converted) = T::convert(T::Raw::deserialize(deserializer)?);
        Ok(Self { meta, converted })
    }
}

impl<T: Kind> kube::Resource for Slim<T> {
    type DynamicType = ();
    // Some are of a namespace, some of the cluster; they are only asked for all at once.
    type Scope = DynamicResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        T::KIND.into()
    }
    fn group((): &()) -> Cow<'_, str> {
        T::GROUP.into()
    }
    fn version((): &()) -> Cow<'_, str> {
        T::VERSION.into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        T::PLURAL.into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

impl<T: Kind> Slim<T> {
    /// Namespace (empty where it has none) and name.
    pub fn key(&self) -> model::Key {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        (part(&self.meta.namespace), part(&self.meta.name))
    }

    /// What is wrong with it, in one sentence.
    pub fn problem(&self) -> Option<Error> {
        let (first, others) = self.converted.problems.split_first()?;
        let more = match others {
            [] => String::new(),
            [one] => format!("; {}: {}", one.field, one.cause),
            [one, rest @ ..] => {
                format!("; {}: {}; and {} more", one.field, one.cause, rest.len())
            }
        };
        Some(Error::Field {
            object: named(T::KIND, &self.key()),
            field: first.field.clone(),
            cause: format!("{}{more}", first.cause),
        })
    }
}

/// Kind and name of an object, for example `Service default/web` or `Namespace default`.
pub(crate) fn named(kind: &str, (namespace, name): &model::Key) -> String {
    let slash = if namespace.is_empty() { "" } else { "/" };
    format!("{kind} {namespace}{slash}{name}")
}

/// Text that is borrowed where it has no escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text<'de>(pub Cow<'de, str>);

impl Text<'_> {
    pub(super) fn owned(self) -> String {
        let mut text = self.0.into_owned();
        text.shrink_to_fit();
        text
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

struct TextVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for TextVisitor<'a> {
    type Value = Text<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }
    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
    fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text)))
    }
}

/// `metadata`, with those labels and annotations that mean something here.
#[derive(Deserialize, Default)]
#[serde(
    rename_all = "camelCase",
    default,
    bound(deserialize = "'de: 'a, L: Deserialize<'de> + Default")
)]
pub(super) struct Meta<'a, L = Labels<'a>> {
    pub name: Text<'a>,
    pub namespace: Text<'a>,
    pub uid: Option<Text<'a>>,
    pub resource_version: Option<Text<'a>>,
    pub creation_timestamp: Option<Text<'a>>,
    pub deletion_timestamp: Option<IgnoredAny>,
    pub labels: Option<L>,
    pub annotations: Option<Annotations<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Labels<'a> {
    #[serde(rename = "kubernetes.io/service-name")]
    pub service: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Annotations<'a> {
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub triggered: Option<Text<'a>>,
    #[serde(rename = "kubernetes.io/config.mirror")]
    pub mirror: Option<Text<'a>>,
}

/// All labels.
#[derive(Default)]
pub(super) struct AllLabels(pub model::Labels);

impl<'de> Deserialize<'de> for AllLabels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LabelsVisitor)
    }
}

struct LabelsVisitor;

impl<'de> Visitor<'de> for LabelsVisitor {
    type Value = AllLabels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AllLabels, A::Error> {
        let mut all: Vec<(Cow<'de, str>, Cow<'de, str>)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<Text<'de>, Text<'de>>()? {
            all.push((key.0, value.0));
        }
        Ok(AllLabels(all.into_iter().collect()))
    }
}

impl<L> Meta<'_, L> {
    /// What a watch needs to know of the object.
    pub(super) fn place(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.0.clone().into_owned()),
            namespace: Some(self.namespace.0.clone().into_owned()),
            resource_version: self
                .resource_version
                .as_ref()
                .map(|version| version.0.clone().into_owned()),
            uid: self.uid.as_ref().map(|uid| uid.0.clone().into_owned()),
            ..ObjectMeta::default()
        }
    }
}

/// The items of a list of text that can be understood; the others are told.
pub(super) fn items<T>(
    list: Option<Vec<Text<'_>>>,
    field: &str,
    wrong: &mut Vec<Wrong>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let mut found = Vec::new();
    for (at, item) in list.unwrap_or_default().iter().enumerate() {
        match read(item) {
            Ok(item) => found.push(item),
            Err(cause) => wrong.push(Wrong {
                field: format!("{field}[{at}]"),
                cause,
            }),
        }
    }
    found
}

/// An address; leading zeros in IPv4 are decimal, as Kubernetes reads what old clients stored.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .ok()
        .or_else(|| with_leading_zeros(text))
        .ok_or_else(|| format!("{text:?} is not an IP address"))
}

fn with_leading_zeros(text: &str) -> Option<IpAddr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.len() > 8 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    let all = parts.next().is_none();
    all.then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// Seconds or, with `1000`, milliseconds since 1970.
pub(super) fn since_1970(text: &str, parts: i128) -> Option<i64> {
    let at: Timestamp = text.parse().ok()?;
    i64::try_from(at.as_nanosecond() * parts / 1_000_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_old_clients_are_read_as_kubernetes_reads_them() {
        assert_eq!(address("010.001.0.9").unwrap().to_string(), "10.1.0.9");
        assert_eq!(address("fd00::1").unwrap().to_string(), "fd00::1");
        for wrong in [
            "",
            "10.0.0",
            "10.0.0.0.1",
            "10.0.0.256",
            "a.b.c.d",
            "1.2.3.+4",
        ] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
