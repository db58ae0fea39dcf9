//! What a recording must be, in whatever form it is stored.

use crate::domain::{MAX_LAYERS, MassRecall, Query, TopK, TraceMeta, hash_ids};

/// Newest version of [`TraceMeta`] that can be read.
pub(super) const SCHEMA: u32 = 1;

/// Most sets of one query: more than any model has heads.
const GROUPS: usize = 1 << 14;

/// Says what is wrong with a pattern or with tokens.
pub(super) fn check_meta(meta: &TraceMeta, tokens: &[Vec<u32>]) -> Result<(), String> {
    if meta.layers > MAX_LAYERS {
        return Err(format!("it has {} layers, and {MAX_LAYERS} are the most", meta.layers));
    }
    let (letters, sites) = (meta.pattern.len(), meta.sites().len());
    if letters != sites {
        return Err(format!("its pattern has {letters} letters for {sites} layers that select"));
    }
    if meta.groups == 0 || meta.groups > GROUPS || meta.unit.tokens(0).is_empty() {
        return Err(format!("it has {} sets per query, of units {:?}", meta.groups, meta.unit));
    }
    if meta.tokens_hash.starts_with("fnv1a:") && meta.tokens_hash != hash_ids(tokens.iter().map(Vec::as_slice)) {
        return Err("its tokens are not those whose hash its metadata gives".to_owned());
    }
    meta.mass_recall.as_ref().map_or(Ok(()), |mass| check_mass_recall(mass, sites))
}

/// Says which part of a mass recall has the wrong size.
pub(super) fn check_mass_recall(mass: &MassRecall, layers: usize) -> Result<(), String> {
    let (pairs, all) = (layers * layers, [mass.values.len(), mass.se.len()]);
    if mass.layers != layers || mass.own.len() != layers || all != [pairs; 2] {
        return Err(format!("its mass recall is not that of {layers} layers"));
    }
    Ok(())
}

/// Says which query is of no token, or out of order.
pub(super) fn check_queries(queries: &[Query], tokens: &[Vec<u32>]) -> Result<(), String> {
    for (q, &Query { sequence, position }) in queries.iter().enumerate() {
        if tokens.get(sequence as usize).is_none_or(|s| position as usize >= s.len()) {
            return Err(format!("query {q} is ({sequence}, {position}), which no sequence has"));
        }
        if q > 0 && (queries[q - 1].sequence, queries[q - 1].position) >= (sequence, position) {
            return Err(format!("query {q} is not after the one before it"));
        }
    }
    Ok(())
}

/// Says what is wrong with a query's row.
pub(super) fn check_row(row: &[u32], query: Query, TopK { unit, k }: TopK) -> Result<(), String> {
    let (units, visible) = (unit.plural(), query.visible(unit));
    if row.len() > k {
        return Err(format!("has {} {units}, more than {k}", row.len()));
    }
    if row.windows(2).any(|w| w[0] >= w[1]) {
        return Err("is not ascending".to_owned());
    }
    match row.last() {
        Some(key) if *key as usize >= visible => {
            Err(format!("has key {key}, after its query at position {}", query.position))
        }
        _ => Ok(()),
    }
}
