//! What files are that cannot be opened as a checkpoint, and formats of weights that cannot be read.

use std::path::Path;

use serde_json::Value;

use super::dtype::Tensors;
use super::safetensors::{CONFIG_FILE, INDEX_FILE, SINGLE_FILE};

/// What a file begins with that Git LFS has not fetched.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";
/// Names that are listed in a message.
const LISTED: usize = 3;

/// Returns whether a file's bytes are Git LFS's stand-in for the file itself.
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(LFS)
}

/// Says what a path is that was given in the place of a checkpoint, and what to do; `None` where it is not there.
pub(super) fn what_is(path: &Path) -> Option<(String, String)> {
    if !path.is_file() {
        return None;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let give = |rest: &str| format!("give {rest}");
    let (what, hint) = match extension.as_str() {
        "json" if name == INDEX_FILE => {
            ("the index of a checkpoint", give(&format!("its folder '{}'", folder.display())))
        }
        "json" => (
            "a config without weights",
            format!(
                "give the checkpoint's folder; 'info', 'simulate', 'worth' and 'export' also take a {CONFIG_FILE} alone"
            ),
        ),
        "safetensors" => {
            ("one file of weights", give(&format!("its folder '{}', with {CONFIG_FILE}", folder.display())))
        }
        "trace" => ("a recording", format!("open it by 'indexscope {}'", path.display())),
        "toml" => ("a TOML file, such as a session", format!("open a session by 'indexscope {}'", path.display())),
        "bin" | "pt" | "pth" | "ckpt" | "onnx" | "npz" => (
            "a format of weights that is not read",
            "convert it to safetensors with transformers' save_pretrained".to_owned(),
        ),
        "txt" | "md" | "jsonl" | "csv" => (
            "data, not a model",
            "name the model first: 'indexscope eval MODEL --text FILE'; MODEL is a folder, a .gguf file or ORG/NAME"
                .to_owned(),
        ),
        _ => (
            "a file, and no checkpoint",
            "give the folder that holds config.json and the .safetensors files, a .gguf file, or ORG/NAME of the Hub"
                .to_owned(),
        ),
    };
    Some((what.to_owned(), hint))
}

/// Says what weights a folder holds in the place of those that are read.
pub(super) fn other_weights(folder: &Path) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    let shards: Vec<&String> = names.iter().filter(|name| is_shard(name)).collect();
    if let Some(first) = shards.first() {
        return Some(format!("{} shards such as '{first}', and {INDEX_FILE} is missing", shards.len()));
    }
    let ends = ["consolidated.safetensors", "weights.safetensors", ".bin", ".pth", ".pt", ".gguf", ".msgpack", ".h5"];
    let others: Vec<&String> = names.iter().filter(|name| ends.iter().any(|end| name.ends_with(end))).collect();
    let more = others.len().saturating_sub(LISTED);
    let listed: Vec<String> = others.iter().take(LISTED).map(|name| format!("'{name}'")).collect();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!others.is_empty()).then(|| format!("{}{rest}", listed.join(", ")))
}

/// Returns whether a file is named as one of several: `NAME-00001-of-00003.safetensors`.
fn is_shard(name: &str) -> bool {
    let Some((start, count)) = name.strip_suffix(".safetensors").and_then(|stem| stem.rsplit_once("-of-")) else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name != SINGLE_FILE && digits(count) && start.rsplit('-').next().is_some_and(digits)
}

/// Returns how a checkpoint is quantised, by config.json or by modelopt's own file beside it.
pub(super) fn quantised_by(json: &str, modelopt: Option<&str>, tensors: &Tensors) -> Option<String> {
    let parse = |text: &str| serde_json::from_str(text).unwrap_or_default();
    quantised(&parse(json), tensors).or_else(|| quantised(&parse(modelopt?), &Tensors::new()))
}

/// Returns how a checkpoint is quantised, where that is none of the formats that are read.
///
/// Read are plain floats, F8_E4M3 with one scale per block, and the blocks of GGUF files.
pub(super) fn quantised(json: &Value, tensors: &Tensors) -> Option<String> {
    let section = ["quantization_config", "compression_config", "quantization"].into_iter().find_map(|key| {
        let section = json.get(key).or_else(|| json.get("text_config")?.get(key))?;
        section.is_object().then_some((key, section))
    });
    let has = |end: &str| tensors.keys().any(|name| name.ends_with(end));
    let Some((key, config)) = section else {
        // The tensors tell where the config is silent.
        return [(".qweight", "GPTQ or AWQ"), (".weight_packed", "compressed-tensors"), (".weight_scale_2", "NVFP4")]
            .into_iter()
            .find(|(end, _)| has(end))
            .map(|(_, kind)| kind.to_owned());
    };
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    let bits = config.get("bits").or_else(|| config.get("w_bit")).and_then(Value::as_u64);
    let with_bits = |name: &str| bits.map_or_else(|| name.to_owned(), |bits| format!("{name}, {bits} bits"));
    let both = |name: &str, detail: Option<&str>| detail.map_or_else(|| name.to_owned(), |d| format!("{name} {d}"));
    Some(match text("quant_method") {
        // Whether its scales are those of blocks, the tensors tell.
        Some("fp8") => return None,
        Some("modelopt") => both("modelopt", text("quant_algo")),
        Some("compressed-tensors") => both("compressed-tensors", text("format")),
        Some("awq") => with_bits("AWQ"),
        Some("gptq") => with_bits("GPTQ"),
        Some("quark") => both("Quark", quark(config).as_deref()),
        Some("mxfp4") => "MXFP4".to_owned(),
        Some("bitsandbytes") => {
            let four = config.get("load_in_4bit").and_then(Value::as_bool) == Some(true);
            format!("bitsandbytes, {} bits", if four { 4 } else { 8 })
        }
        Some(other) => with_bits(other),
        None if text("quant_algo").is_some() => both("modelopt", text("quant_algo")),
        None if config.get("group_size").is_some() || key == "quantization" => {
            let mode = text("mode").filter(|mode| *mode != "affine");
            mode.map_or_else(|| with_bits("MLX"), |mode| format!("MLX {mode}"))
        }
        None if config.get("weight_block_size").is_some() => return None,
        None => "in an unnamed way".to_owned(),
    })
}

/// Returns the dtype that AMD Quark's global settings give to weights, and whether its groups make it an MX format.
fn quark(config: &Value) -> Option<String> {
    let weight = config.get("global_quant_config")?.get("weight")?;
    let weight = weight.as_array().map_or(weight, |stages| stages.first().unwrap_or(weight));
    let dtype = weight.get("dtype")?.as_str()?;
    let scales = weight.get("scale_format").and_then(Value::as_str);
    let mx = scales == Some("e8m0") && weight.get("group_size").and_then(Value::as_u64) == Some(32);
    Some(match (mx, dtype) {
        (true, "fp4") => "MXFP4".to_owned(),
        (true, dtype) if dtype.starts_with("fp8") => "MXFP8".to_owned(),
        (_, dtype) => dtype.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkpoint::{Checkpoint, Dtype, TensorInfo};

    #[test]
    fn formats_are_named_as_their_makers_call_them() {
        let none = Tensors::new();
        for (config, want) in [
            (json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}), Some("modelopt NVFP4")),
            (
                json!({"quant_method": "compressed-tensors", "format": "pack-quantized"}),
                Some("compressed-tensors pack-quantized"),
            ),
            (json!({"quant_method": "awq", "bits": 4, "group_size": 16}), Some("AWQ, 4 bits")),
            (json!({"quant_method": "gptq", "bits": 8}), Some("GPTQ, 8 bits")),
            (json!({"quant_method": "mxfp4"}), Some("MXFP4")),
            (json!({"quant_method": "bitsandbytes", "load_in_4bit": true}), Some("bitsandbytes, 4 bits")),
            (
                json!({"quant_method": "quark", "global_quant_config": {"weight":
                    {"dtype": "fp4", "group_size": 32, "scale_format": "e8m0"}}}),
                Some("Quark MXFP4"),
            ),
            (json!({"group_size": 32, "bits": 4}), Some("MLX, 4 bits")),
            (json!({"group_size": 32, "bits": 4, "mode": "mxfp4"}), Some("MLX mxfp4")),
            (json!({"quant_method": "fp8", "weight_block_size": [128, 128]}), None),
            (json!({"weight_block_size": [128, 128]}), None),
        ] {
            let json = json!({"quantization_config": config});
            assert_eq!(quantised(&json, &none).as_deref(), want, "{json}");
        }
        // modelopt's own file, hf_quant_config.json.
        let own = json!({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}});
        assert_eq!(quantised(&own, &none).as_deref(), Some("modelopt NVFP4"));
        let mlx = json!({"quantization": {"group_size": 64, "bits": 8}});
        assert_eq!(quantised(&mlx, &none).as_deref(), Some("MLX, 8 bits"));
        assert_eq!(quantised(&json!({}), &none), None);
        let info = TensorInfo { dtype: Dtype::F32, shape: vec![1], shard: 0, start: 0, end: 4 };
        let packed = Tensors::from_iter([("model.layers.0.mlp.up_proj.weight_packed".to_owned(), info)]);
        assert_eq!(quantised(&json!({}), &packed).as_deref(), Some("compressed-tensors"));
    }

    #[test]
    fn what_was_given_in_the_place_of_a_checkpoint_is_named() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/glm_dsa_tiny");
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let refusal = |path: &Path| {
            let error = Checkpoint::open(path).err().unwrap();
            format!("{error}; {}", error.hint().unwrap_or_default())
        };
        for (name, want) in [
            ("notes.txt", "is data, not a model"),
            ("config.json", "is a config without weights; give the checkpoint's folder"),
            ("model.safetensors", "is one file of weights; give its folder"),
            ("model.safetensors.index.json", "is the index of a checkpoint"),
            ("model.bin", "is a format of weights that is not read"),
            ("other", "is a file, and no checkpoint"),
        ] {
            std::fs::write(path(name), "text").unwrap();
            let told = refusal(&path(name));
            assert!(told.contains(want), "{told}");
            std::fs::remove_file(path(name)).unwrap();
        }
        assert!(refusal(&path("nowhere")).contains("does not exist"));
        // A folder with a config, and weights of another form or none.
        std::fs::copy(data.join("config.json"), path("config.json")).unwrap();
        assert!(refusal(folder.path()).contains("neither model.safetensors nor model.safetensors.index.json;"));
        std::fs::write(path("pytorch_model.bin"), "").unwrap();
        assert!(refusal(folder.path()).contains("index.json, but 'pytorch_model.bin'; only safetensors are read"));
        std::fs::write(path("model-00001-of-00002.safetensors"), "").unwrap();
        let told = refusal(folder.path());
        assert!(told.contains("but 1 shards such as 'model-00001-of-00002.safetensors'"), "{told}");
        assert!(told.contains("download model.safetensors.index.json"), "{told}");
        // Git LFS leaves stand-ins of any file.
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n";
        for name in ["model.safetensors", "config.json", "model.gguf"] {
            std::fs::write(path(name), pointer).unwrap();
            let given = if name == "model.gguf" { path(name) } else { folder.path().to_owned() };
            let told = refusal(&given);
            assert!(
                told.contains("is a Git LFS pointer") && told.contains(name) && told.contains("git lfs pull"),
                "{told}"
            );
        }
    }

    #[test]
    fn shards_are_told_by_their_names() {
        assert!(is_shard("model-00001-of-00002.safetensors") && is_shard("a-b-3-of-4.safetensors"));
        for name in ["model.safetensors", "model-of-2.safetensors", "x-1-of-.safetensors", "model-1-of-2.bin"] {
            assert!(!is_shard(name), "{name}");
        }
    }
}
