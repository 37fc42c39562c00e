//! The whole table as typed values: what `nft list table inet flatnet` shows of Services.

use nft::{Family, Table};

use super::chain::ChainId;
use super::set::SetId;
use super::uses::Rendered;
use super::{TABLE, base, port};
use crate::plan::{Plan, Settings};

/// Everything that the plan renders to.
pub fn table(plan: &Plan) -> Table {
    let rendered = Rendered::of(plan.settings(), plan.ports().values());
    let mut table = skeleton(&rendered, plan.settings());
    let mut put = |set: SetId, key, datum| {
        if let Some(set) = table.sets.get_mut(&set.to_string()) {
            set.elements.insert(key, datum);
        }
    };
    for port in plan.ports().values() {
        for ((set, key), datum) in port::elements(port) {
            put(set, key, datum);
        }
    }
    for (set, key) in rendered.elements() {
        put(set, key, None);
    }
    table
}

/// The same without elements.
pub(super) fn skeleton(rendered: &Rendered, settings: &Settings) -> Table {
    let mut table = Table::new(Family::Inet, TABLE);
    table.chains = base::chains(settings);
    let chain = |id: ChainId| (id.to_string(), id.chain(settings));
    table.chains.extend(rendered.chains().map(chain));
    let sets = rendered.sets().map(|id| (id.to_string(), id.definition()));
    table.sets.extend(sets);
    table
}
