//! Compiles `kernels/*.cu` ahead of time under the feature `cuda`; without it, nothing.
//!
//! Each kernel file becomes a fat binary (code for sm_90a, sm_100 and sm_120, PTX for compute_89 and compute_80) and, for
//! `INDEXSCOPE_KERNELS=portable`, the PTX for compute_80 alone.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Files of `kernels/`, without `.cu`.
const KERNELS: [&str; 6] = ["experts", "fp8_dequant", "indexer_topk", "overlap", "rows", "sparse_mla"];

/// Code that is made; nvcc fails where it cannot. What it lists (`--list-gpu-code`) says nothing: sm_90a is not there.
const TARGETS: [&str; 3] = ["90a", "100", "120"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return ExitCode::SUCCESS;
    }
    let headers =
        ["device", "indexer_select", "indexer_wgmma", "sparse_wgmma", "wgmma"].map(|name| format!("{name}.cuh"));
    for file in KERNELS.iter().map(|name| format!("{name}.cu")).chain(headers) {
        println!("cargo::rerun-if-changed=kernels/{file}");
    }
    for variable in ["NVCC", "NVCC_CCBIN", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            message.lines().for_each(|line| println!("cargo::error={line}"));
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let nvcc = nvcc();
    let mut targets: Vec<String> =
        TARGETS.iter().map(|target| format!("-gencode=arch=compute_{target},code=sm_{target}")).collect();
    targets.extend(["89", "80"].map(|target| format!("-gencode=arch=compute_{target},code=compute_{target}")));
    for kernel in KERNELS {
        let source = format!("kernels/{kernel}.cu");
        let common = |kind: &str| {
            let to = out.join(kernel).with_extension(kind).display().to_string();
            let mut arguments =
                vec![format!("-{kind}"), "-O3".into(), "-std=c++17".into(), "-o".into(), to, source.clone()];
            if let Ok(host) = env::var("NVCC_CCBIN") {
                arguments.push(format!("-ccbin={host}"));
            }
            arguments
        };
        run(&nvcc, &[common("fatbin"), targets.clone()].concat())?;
        run(&nvcc, &[common("ptx"), vec!["-arch=compute_80".to_owned()]].concat())?;
    }
    Ok(())
}

/// Returns the compiler: `$NVCC`, that of `$CUDA_HOME` or `$CUDA_PATH`, or the one on PATH.
fn nvcc() -> PathBuf {
    let of_root = |variable: &str| env::var_os(variable).map(|root| Path::new(&root).join("bin/nvcc"));
    let named = env::var_os("NVCC").map(PathBuf::from);
    let roots = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(of_root).find(|path| path.is_file());
    named.or(roots).unwrap_or_else(|| PathBuf::from("nvcc"))
}

fn run(nvcc: &Path, arguments: &[String]) -> Result<(), String> {
    let output = Command::new(nvcc).args(arguments).output().map_err(|e| {
        format!(
            "the feature 'cuda' needs nvcc of CUDA 12.8 or later, but '{}' cannot be run: {e}\n\
             hint: install the CUDA toolkit or set CUDA_HOME; without a GPU, kernels/check.sh assembles a toolkit to compile with",
            nvcc.display()
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("nvcc {} failed:\n{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)))
}
