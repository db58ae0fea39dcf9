//! `indexscope bench --gpu-check` and `indexscope devices`: what is there, and whether its kernels are right.

use serde_json::{Value, json};

use super::model::RunArgs;
use super::output::{OutputArgs, Table};
use super::{CliError, bytes};
use crate::engine::{check_kernels, devices};
use crate::model::ops::{Ceiling, GpuCheck, KernelTime};

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

/// Compares every kernel with its CPU twin and prints one table; each line as a note too, when it is known.
///
/// # Errors
/// Where there is no CUDA device, or a kernel differs.
pub(super) fn run(args: &RunArgs, output: &OutputArgs) -> Result<(), CliError> {
    let checks = check_kernels(args.device(), &mut |check| output.note(&row(check).join(" | ")))?;
    let mut table = Table::new(["kernel", "form", "sizes", "rule", "found", "ms", "of ceilings", "goal", "result"]);
    for check in &checks {
        table.rows.push(row(check));
    }
    table.notes.push("ms: median of 11 runs by the device's events; ceilings are measured here".to_owned());
    table
        .notes
        .push("goal: the share of a ceiling that the kernel is meant to reach; missing it is no difference".to_owned());
    let rows: Vec<Value> = checks.iter().map(json).collect();
    output.print(&json!({"schema": 1, "checks": rows}), &table)?;
    match checks.iter().filter(|check| !check.passed).count() {
        0 => Ok(()),
        wrong => Err(CliError::run(format!("{wrong} of {} kernel checks differ from the CPU", checks.len()))
            .hint("do not use --attention fast on this device, and report the table")),
    }
}

/// Returns a comparison's line in the table.
fn row(check: &GpuCheck) -> Vec<String> {
    let of_time = |show: &dyn Fn(&KernelTime) -> Option<String>| {
        check.timing.as_ref().and_then(show).unwrap_or_else(|| "-".to_owned())
    };
    let share = |(of, share): &(Ceiling, f64)| format!("{} {:.0} %", of.name(), share * 100.0);
    vec![
        check.kernel.clone(),
        check.form.to_owned(),
        check.sizes.clone(),
        check.rule.to_owned(),
        check.found.clone(),
        of_time(&|time| Some(format!("{:.3}", time.millis))),
        of_time(&|time| {
            let shares: Vec<String> = time.shares.iter().map(share).collect();
            (!shares.is_empty()).then(|| shares.join(", "))
        }),
        of_time(&|time| {
            let (of, goal) = time.goal?;
            let reached = if time.reached()? { "reached" } else { "missed" };
            Some(format!("{} {:.0} %: {reached}", of.name(), goal * 100.0))
        }),
        if check.passed { "ok" } else { "DIFFERS" }.to_owned(),
    ]
}

/// Returns a comparison as JSON.
fn json(check: &GpuCheck) -> Value {
    let share = |(of, share): (Ceiling, f64)| json!({"ceiling": of.name(), "share": share});
    let time = check.timing.as_ref();
    json!({
        "kernel": check.kernel,
        "form": check.form,
        "sizes": check.sizes,
        "rule": check.rule,
        "found": check.found,
        "ms": time.map(|time| time.millis),
        "of_ceiling": time.and_then(KernelTime::tightest).map(share),
        "of_ceilings": time.map(|time| time.shares.iter().copied().map(share).collect::<Vec<_>>()),
        "goal": time.and_then(|time| time.goal).map(share),
        "goal_reached": time.and_then(KernelTime::reached),
        "passed": check.passed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(timing: Option<KernelTime>) -> GpuCheck {
        let (kernel, sizes, found) = ("k".to_owned(), "1x1".to_owned(), "5 TFLOP/s".to_owned());
        GpuCheck { kernel, form: "timed", sizes, rule: "r", passed: true, found, timing }
    }

    #[test]
    fn a_time_stands_beside_the_ceilings_and_the_goal() {
        let work = [(Ceiling::Bf16, 3e11, 1e12), (Ceiling::Copy, 4e11, 1e12)];
        let time = |goal| KernelTime::of(1000.0, &work, Some((Ceiling::Bf16, goal)));
        let shown = |goal| row(&check(Some(time(goal))))[5..].join(" | ");
        assert_eq!(shown(0.25), "1000.000 | bf16 30 %, copy 40 % | bf16 25 %: reached | ok");
        assert_eq!(shown(0.6), "1000.000 | bf16 30 %, copy 40 % | bf16 60 %: missed | ok");
        let json = json(&check(Some(time(0.6))));
        assert_eq!((&json["of_ceiling"]["ceiling"], &json["goal"]["share"]), (&json!("copy"), &json!(0.6)));
        assert_eq!((&json["goal_reached"], &json["of_ceilings"][0]["ceiling"]), (&json!(false), &json!("bf16")));
    }

    #[test]
    fn what_was_not_timed_has_no_share() {
        assert_eq!(row(&check(None))[5..].join(" "), "- - - ok");
        let ceiling = row(&check(Some(KernelTime { millis: 2.0, ..KernelTime::default() })));
        assert_eq!(ceiling[5..].join(" "), "2.000 - - ok");
        let json = json(&check(None));
        assert!(json["ms"].is_null() && json["of_ceiling"].is_null() && json["goal"].is_null());
    }
}
