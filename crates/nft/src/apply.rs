//! A transaction on a table in memory, refused where the kernel refuses it.

use crate::compile::{Compiled, CompiledSet, Datum};
use crate::diff::{Op, Transaction};
use crate::expr::Expr;
use crate::model::Verdict;

/// The table after a transaction, [`None`] where it is gone then. The error says which change
/// cannot be made, and nothing is made then.
pub fn apply(
    table: Option<Compiled>,
    transaction: &Transaction,
) -> Result<Option<Compiled>, String> {
    let mut table = table;
    for op in &transaction.ops {
        if *op == Op::DeleteTable {
            table = None;
            continue;
        }
        let table =
            table.get_or_insert_with(|| Compiled::empty(transaction.family, &transaction.table));
        one(table, op)
            .ok_or_else(|| format!("{op}: no such object, or in use, or another one there"))?;
    }
    match &table {
        Some(there) => check(there).map(|()| table),
        None => Ok(None),
    }
}

fn one(table: &mut Compiled, op: &Op) -> Option<()> {
    match op {
        Op::AddTable | Op::OwnTable | Op::DeleteTable => {}
        Op::AddChain(name, base) => {
            table.chains.entry(name.clone()).or_default().base = *base;
        }
        Op::FlushChain(name) => table.chains.get_mut(name)?.rules.clear(),
        Op::DeleteChain(name) => {
            table.chains.remove(name)?;
        }
        Op::AddRule(chain, rule) => table.chains.get_mut(chain)?.rules.push(rule.clone()),
        Op::AddSet(name, set) => {
            table
                .sets
                .entry(name.clone())
                .or_insert_with(|| CompiledSet {
                    elements: Default::default(),
                    ..set.clone()
                });
        }
        Op::DeleteSet(name) => {
            let used = table
                .chains
                .values()
                .flat_map(|chain| &chain.rules)
                .flat_map(|rule| &rule.exprs)
                .any(|expr| expr.set() == Some(name));
            if used {
                return None;
            }
            table.sets.remove(name)?;
        }
        Op::AddElements(set, elements) => {
            let set = table.sets.get_mut(set)?;
            let there = &mut set.elements;
            for (key, datum) in elements {
                // With other data it has to be deleted before.
                if there.get(key).is_some_and(|had| had != datum) {
                    return None;
                }
                there.insert(key.clone(), datum.clone());
            }
            if set.size.is_some_and(|size| there.len() > size as usize) {
                return None;
            }
        }
        Op::DeleteElements(set, keys) => {
            let set = table.sets.get_mut(set)?;
            for key in keys {
                set.elements.remove(key)?;
            }
        }
        Op::DestroyElements(set, keys) => {
            let set = table.sets.get_mut(set)?;
            for key in keys {
                set.elements.remove(key);
            }
        }
    }
    Some(())
}

/// Whether everything that is referred to is there.
fn check(table: &Compiled) -> Result<(), String> {
    let exprs = table
        .chains
        .values()
        .flat_map(|chain| &chain.rules)
        .flat_map(|rule| &rule.exprs);
    let mut targets = Vec::new();
    for expr in exprs {
        match expr {
            Expr::Verdict(verdict) => targets.push(verdict),
            other => {
                let set = other.set();
                if let Some(set) = set.filter(|set| !table.sets.contains_key(*set)) {
                    return Err(format!("no set {set}"));
                }
            }
        }
    }
    for datum in table
        .sets
        .values()
        .flat_map(|set| set.elements.values())
        .flatten()
    {
        if let Datum::Verdict(verdict) = datum {
            targets.push(verdict);
        }
    }
    for target in targets {
        if let Verdict::Jump(chain) | Verdict::Goto(chain) = target
            && !table.chains.contains_key(chain)
        {
            return Err(format!("no chain {chain}"));
        }
    }
    Ok(())
}
