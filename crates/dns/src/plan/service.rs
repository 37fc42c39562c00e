//! What is known of one Service's names.

use std::net::IpAddr;
use std::sync::Arc;

use model::{Endpoint, EndpointSlice, Service};

use super::label::{dashed, number, undashed};

/// Services with more ready endpoints than this have them sorted by their names.
const FEW: usize = 32;

/// A Service with what its endpoints are, or endpoints whose Service is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNames {
    /// The labels of name and namespace in wire format.
    pub(super) key: Arc<[u8]>,
    /// The Service.
    pub service: Option<Arc<Service>>,
    /// Its slices in the order of their names.
    pub slices: Box<[Arc<EndpointSlice>]>,
    /// The numbers of the endpoints' labels with where the endpoints are, sorted; empty where
    /// there are few endpoints.
    by_label: Box<[(u32, Place)]>,
}

/// Slice and endpoint.
type Place = (u16, u16);

/// An address that an endpoint is reached by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address<'a> {
    pub slice: &'a EndpointSlice,
    pub endpoint: &'a Endpoint,
    pub ip: IpAddr,
}

impl ServiceNames {
    pub(super) fn new(
        key: Arc<[u8]>,
        service: Option<Arc<Service>>,
        slices: &[Arc<EndpointSlice>],
    ) -> Self {
        Self {
            key,
            service,
            slices: slices.into(),
            by_label: by_label(slices),
        }
    }

    /// Whether it is one without an address of its own.
    pub fn is_headless(&self) -> bool {
        self.service.as_ref().is_some_and(|one| is_headless(one))
    }

    /// Addresses of endpoints that are ready, in the order of slices and endpoints.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Address<'_>> {
        self.slices.iter().flat_map(|slice| ready(slice))
    }

    /// Those of them whose endpoint has this label for a name.
    pub(crate) fn named(&self, label: &[u8], pod_names: bool) -> Vec<Address<'_>> {
        let wanted = Wanted::new(label, pod_names);
        if self.by_label.is_empty() {
            return self.addresses().filter(|one| wanted.is(one)).collect();
        }
        let number = number(label);
        let from = self.by_label.partition_point(|(other, _)| *other < number);
        let same = self.by_label[from..]
            .iter()
            .take_while(|(other, _)| *other == number);
        let endpoints = same.filter_map(|(_, (slice, endpoint))| {
            let slice = self.slices.get(usize::from(*slice))?;
            Some((slice, slice.endpoints.get(usize::from(*endpoint))?))
        });
        let addresses = endpoints.flat_map(|(slice, endpoint)| addresses(slice, endpoint));
        addresses.filter(|one| wanted.is(one)).collect()
    }
}

/// Whether a Service has no address of its own, but names of its endpoints.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.cluster_ips.is_empty() && service.kind != model::ServiceType::ExternalName
}

impl Address<'_> {
    /// The name of the endpoint below that of its Service. Mostly one label; the names of pods may
    /// have points.
    pub fn name(&self, pod_names: bool) -> super::label::Label {
        match called(self.endpoint, pod_names) {
            Some(name) => name.as_bytes().into(),
            None => dashed(self.ip),
        }
    }
}

/// What an endpoint is called, where it is not called by its address.
fn called(endpoint: &Endpoint, pod_names: bool) -> Option<&str> {
    let hostname = endpoint.hostname.as_deref().filter(|name| !name.is_empty());
    hostname.or_else(|| pod_name(endpoint).filter(|_| pod_names))
}

/// Names of pods that are too long for a label are passed over.
fn pod_name(endpoint: &Endpoint) -> Option<&str> {
    let pod = endpoint.pod.as_deref();
    pod.filter(|pod| (1..64).contains(&pod.len()))
}

/// A label that is looked for among endpoints.
struct Wanted<'a> {
    label: &'a [u8],
    /// The address it stands for, if it is written as addresses are.
    ip: Option<IpAddr>,
    pod_names: bool,
}

impl<'a> Wanted<'a> {
    fn new(label: &'a [u8], pod_names: bool) -> Self {
        let ip = undashed(label).filter(|ip| dashed(*ip).eq_ignore_ascii_case(label));
        Self {
            label,
            ip,
            pod_names,
        }
    }

    fn is(&self, address: &Address<'_>) -> bool {
        match called(address.endpoint, self.pod_names) {
            Some(name) => name.as_bytes().eq_ignore_ascii_case(self.label),
            None => self.ip == Some(address.ip),
        }
    }
}

/// Addresses of a slice's endpoints that are ready.
pub(crate) fn ready(slice: &EndpointSlice) -> impl Iterator<Item = Address<'_>> {
    let ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready);
    ready.flat_map(move |endpoint| addresses(slice, endpoint))
}

fn addresses<'a>(
    slice: &'a EndpointSlice,
    endpoint: &'a Endpoint,
) -> impl Iterator<Item = Address<'a>> {
    let ips = std::iter::once(&endpoint.ip).chain(&endpoint.more);
    ips.map(move |ip| Address {
        slice,
        endpoint,
        ip: *ip,
    })
}

fn by_label(slices: &[Arc<EndpointSlice>]) -> Box<[(u32, Place)]> {
    if slices
        .iter()
        .map(|slice| slice.endpoints.len())
        .sum::<usize>()
        <= FEW
    {
        return Box::default();
    }
    let mut all = Vec::new();
    for (slice_at, slice) in slices.iter().enumerate() {
        for (at, endpoint) in slice.endpoints.iter().enumerate() {
            // The API allows 1,000 endpoints a slice, and nobody has 65,535 slices.
            let (Ok(slice_at), Ok(at)) = (u16::try_from(slice_at), u16::try_from(at)) else {
                continue;
            };
            if endpoint.ready {
                let place = (slice_at, at);
                let mut put = |label: &[u8]| all.push((number(label), place));
                match called(endpoint, false) {
                    Some(name) => put(name.as_bytes()),
                    None => {
                        addresses(slice, endpoint).for_each(|one| put(&dashed(one.ip)));
                        pod_name(endpoint)
                            .into_iter()
                            .for_each(|pod| put(pod.as_bytes()));
                    }
                }
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    all.into()
}
