//! What a worker says of itself when it starts.

use serde_json::Value;

use super::link::{clean, failed};
use crate::domain::{Constraints, IndexSource, LayerSet, Pattern, Role, SelectionUnit, Site, Sites};
use crate::engine::{BackendError, Calibration, Capabilities, Capability, ModelInfo};

/// Version of the protocol that this program speaks.
const PROTOCOL: u64 = 1;
/// Most keys of a set, and most sets of a query: more than any model has.
const TOPK: usize = 1 << 31;
const GROUPS: usize = 1 << 14;

/// What this version does not ask workers for, whatever they list.
const NOT_ASKED: [Capability; 4] = [Capability::Timed, Capability::Affinity, Capability::Train, Capability::Logits];

/// Reads a hello; `name` is the model's name for people where the worker gives none.
///
/// # Errors
/// [`BackendError::Failed`] naming the field that is missing or wrong.
pub(super) fn read(hello: &Value, name: &str, calibration: &Calibration) -> Result<ModelInfo, BackendError> {
    let wrong = |field: &str, what: &str| {
        let value = hello.get(field).map_or_else(|| "nothing".to_owned(), |v| clean(&v.to_string()));
        failed(
            &format!("the worker's hello has {value} as '{field}': {what}"),
            Some("use the worker that this version writes: indexscope worker write DIR"),
        )
    };
    let number = |field: &str| {
        hello[field].as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| wrong(field, "a number is needed"))
    };
    let text = |field: &str| hello[field].as_str().map(clean);
    let list = |field: &str| -> Result<Vec<usize>, BackendError> {
        let all = hello[field].as_array().ok_or_else(|| wrong(field, "a list of layers is needed"))?;
        all.iter().map(|v| v.as_u64().map(|n| n as usize).ok_or_else(|| wrong(field, "layers are numbers"))).collect()
    };
    let versions: Vec<u64> = hello["protocol"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    if !matches!(versions[..], [low, high] if low <= PROTOCOL && PROTOCOL <= high) {
        return Err(wrong("protocol", &format!("this program speaks version {PROTOCOL}")));
    }
    let layers = number("layers")?;
    let sites = Sites::new(layers, list("sites")?).map_err(|e| wrong("sites", &e.to_string()))?;
    let locked = list("locked_shared")?;
    let site = |layer: &usize| {
        let site = sites.site(*layer).filter(|site| *site != Site(0));
        site.map(|site| site.0).ok_or_else(|| wrong("locked_shared", "these are layers after the first that select"))
    };
    let locked_shared: LayerSet = locked.iter().map(site).collect::<Result<Vec<_>, _>>()?.into_iter().collect();
    let native = text("native").ok_or_else(|| wrong("native", "letters are needed"))?;
    let native = sites.parse(&native).map_err(|e| wrong("native", &e.to_string()))?;
    let constraints = Constraints { sites, locked_shared };
    let role = |site: usize| if locked_shared.contains(site) { Role::Shared } else { Role::Full };
    let reference = Pattern::from_fn(sites.len(), role).map_err(|e| wrong("locked_shared", &e.to_string()))?;
    let tokens = hello["unit"]["tokens"].as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    let unit = match (hello["unit"]["kind"].as_str(), tokens) {
        (Some("token"), _) => SelectionUnit::Token,
        (Some("entry"), Some(tokens)) => SelectionUnit::Entry(tokens),
        (Some("block"), Some(tokens)) => SelectionUnit::Block(tokens),
        _ => return Err(wrong("unit", "it is {\"kind\":\"token\"}, or entry or block with tokens")),
    };
    let index_topk = number("index_topk")?;
    if index_topk == 0 || index_topk > TOPK {
        return Err(wrong("index_topk", &format!("it must be 1 to {TOPK}")));
    }
    let groups = number("groups").unwrap_or(1).max(1);
    if groups > GROUPS {
        return Err(wrong("groups", &format!("there are {GROUPS} at most")));
    }
    let engine = text("engine").ok_or_else(|| wrong("engine", "a name and version are needed"))?;
    let dtype = text("dtype").ok_or_else(|| wrong("dtype", "a dtype is needed"))?;
    let ranks = number("ranks").unwrap_or(1);
    let devices: Vec<String> =
        hello["devices"].as_array().into_iter().flatten().filter_map(Value::as_str).map(clean).collect();
    let mut info = ModelInfo {
        name: text("name").unwrap_or_else(|| name.to_owned()),
        // Losses of different engines, dtypes and splits are never compared.
        fingerprint: format!("{engine}/{dtype}/{ranks}/{}", text("fingerprint").unwrap_or_default()),
        model_type: text("model_type").unwrap_or_default(),
        index_topk,
        unit,
        groups,
        forced: number("forced").unwrap_or(0),
        index_heads: number("index_heads").unwrap_or(0),
        index: IndexSource::Checkpoint,
        constraints,
        native,
        reference,
        device: if devices.is_empty() { format!("{ranks} ranks") } else { devices.join(" ") },
        dtype,
        ops: engine,
        can: Capabilities::named(hello["can"].as_array().into_iter().flatten().filter_map(Value::as_str))
            .without(&NOT_ASKED),
        sequences: 0,
        targets: 0,
        eligible: 0,
        context: 0,
        calibration: String::new(),
        data: String::new(),
        training: Vec::new(),
        noise: None,
    };
    info.describe(calibration);
    Ok(info)
}

/// Returns the description of a model that several workers serve.
///
/// # Errors
/// [`BackendError::Failed`] where two of them differ in anything but their devices: losses of different engines, dtypes
/// and splits are never mixed.
pub(super) fn agreed(infos: Vec<ModelInfo>) -> Result<ModelInfo, BackendError> {
    let mut infos = infos.into_iter();
    let Some(first) = infos.next() else { return Err(failed("there is no worker", Some("name one with --worker"))) };
    for (n, other) in infos.enumerate() {
        if (ModelInfo { device: first.device.clone(), ..other.clone() }) != first {
            return Err(failed(
                &format!(
                    "worker {} serves {} ({}), the first one {} ({})",
                    n + 2,
                    other.name,
                    other.fingerprint,
                    first.name,
                    first.fingerprint
                ),
                Some("start all workers with the same model, engine version, dtype and number of ranks"),
            ));
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Sequence;
    use serde_json::json;

    fn hello() -> Value {
        json!({"hello": "indexscope-worker", "protocol": [1, 1], "engine": "scripted 1", "model_type": "t", "layers": 5,
            "sites": [1, 2, 4], "unit": {"kind": "block", "tokens": 8}, "groups": 2, "index_topk": 2, "index_heads": 3,
            "native": "FSF", "locked_shared": [2], "dtype": "f32", "devices": ["cpu"], "ranks": 1, "fingerprint": "x",
            "can": ["losses", "kl", "shadow"]})
    }

    fn parse(hello: &Value) -> Result<ModelInfo, BackendError> {
        let set = Calibration::new(vec![Sequence::of((0..40).collect())], "ids", 64).unwrap();
        read(hello, "m", &set)
    }

    #[test]
    fn a_hello_is_read() {
        let info = parse(&hello()).unwrap();
        assert_eq!((info.native.to_string(), info.reference.to_string()), ("FSF".to_owned(), "FSF".to_owned()));
        assert_eq!(info.constraints.sites.iter().collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!((info.unit, info.groups, info.eligible), (SelectionUnit::Block(8), 2, 39 - 16));
        assert!(info.can.has(Capability::Kl) && !info.can.has(Capability::Timed));
        assert_eq!(info.fingerprint, "scripted 1/f32/1/x");
    }

    #[test]
    fn what_a_hello_lacks_is_named() {
        for (field, value, want) in [
            ("protocol", json!([2, 3]), "speaks version 1"),
            ("sites", Value::Null, "null as 'sites'"),
            ("sites", json!([9]), "layer 9 does not exist"),
            ("native", json!("FX"), "'X'"),
            ("locked_shared", json!([1]), "after the first"),
            ("unit", json!({"kind": "block"}), "as 'unit'"),
            ("index_topk", json!(0), "must be 1 to"),
            ("index_topk", json!(1u64 << 40), "must be 1 to"),
            ("groups", json!(1u64 << 40), "16384 at most"),
            ("engine", json!("\u{1b}[2J"), ""),
        ] {
            let mut hello = hello();
            hello[field] = value;
            match parse(&hello) {
                Ok(info) => assert!(want.is_empty() && !info.ops.contains('\u{1b}')),
                Err(error) => assert!(!want.is_empty() && error.to_string().contains(want), "{error}"),
            }
        }
    }
}
