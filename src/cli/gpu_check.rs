//! `indexscope bench --gpu-check` and `indexscope devices`: what is there, and whether its kernels are right.

use serde_json::{Value, json};

use super::model::RunArgs;
use super::output::{OutputArgs, Table};
use super::{CliError, bytes};
use crate::engine::{check_kernels, devices};

/// Arguments of `devices`.
#[derive(Debug, clap::Args)]
pub struct DevicesArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Lists the devices that `--device` takes.
///
/// # Errors
/// When stdout cannot be written.
pub fn list(args: DevicesArgs) -> Result<(), CliError> {
    let (devices, without) = devices();
    let mut table = Table::new(["device", "what", "free", "memory"]);
    for device in &devices {
        let memory = device
            .memory
            .map_or(["-".to_owned(), "-".to_owned()], |(free, total)| [bytes::show(free), bytes::show(total)]);
        table.rows.push([[device.name.clone(), device.description.clone()], memory].concat());
    }
    table.notes.extend(without.clone());
    let rows: Vec<Value> = devices
        .iter()
        .map(|d| json!({"device": d.name, "what": d.description, "free_bytes": d.memory.map(|m| m.0), "bytes": d.memory.map(|m| m.1)}))
        .collect();
    args.output.print(&json!({"schema": 1, "devices": rows, "without_cuda": without}), &table)
}

/// Compares every kernel with its CPU twin and prints one table.
///
/// # Errors
/// Where there is no CUDA device, or a kernel differs.
pub(super) fn run(args: &RunArgs, output: &OutputArgs) -> Result<(), CliError> {
    let checks = check_kernels(args.device())?;
    let mut table = Table::new(["kernel", "form", "sizes", "rule", "found", "ms", "of ceiling", "result"]);
    for check in &checks {
        table.rows.push(vec![
            check.kernel.clone(),
            check.form.to_owned(),
            check.sizes.clone(),
            check.rule.to_owned(),
            check.found.clone(),
            check.millis.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.3}")),
            check.of_ceiling.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0)),
            if check.passed { "ok" } else { "DIFFERS" }.to_owned(),
        ]);
    }
    table.notes.push("ms: median of 11 runs by the device's events; ceilings are measured here".to_owned());
    let rows: Vec<Value> = checks
        .iter()
        .map(|c| json!({"kernel": c.kernel, "form": c.form, "sizes": c.sizes, "rule": c.rule, "found": c.found, "ms": c.millis, "of_ceiling": c.of_ceiling, "passed": c.passed}))
        .collect();
    output.print(&json!({"schema": 1, "checks": rows}), &table)?;
    match checks.iter().filter(|check| !check.passed).count() {
        0 => Ok(()),
        wrong => Err(CliError::run(format!("{wrong} of {} kernel checks differ from the CPU", checks.len()))
            .hint("do not use --attention fast on this device, and report the table")),
    }
}
