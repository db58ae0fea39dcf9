//! `indexscope train`: a recipe becomes a checkpoint, or a frozen model gets indexers.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::interrupt::stop_on_interrupt;
use super::train_progress::Progress;
use super::{CliError, train_distill, train_indexers};
use crate::train::{Event, StepReport, Trainer};

/// Arguments of `train`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The recipe, a TOML file.
    #[arg(default_value = "assets/demo/recipe.toml")]
    recipe: PathBuf,
    /// Folder for the saved state and the finished checkpoint.
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,
    /// Go on from the state in the folder.
    #[arg(long)]
    resume: bool,
    /// Also write progress to this file, a line every 30 seconds.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Micro-batches worked on at a time; the result does not depend on it.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// What is trained other than a recipe's model.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Train lightning indexers for a model that stays as it is.
    Indexers(train_indexers::Args),
    /// Train the indexers that a pattern keeps towards all the layers that they serve.
    Distill(train_distill::Args),
}

/// Trains what was asked for.
///
/// # Errors
/// What the training reports; [`CliError::Interrupted`] after Ctrl-C or SIGTERM.
pub fn run(args: Args) -> Result<(), CliError> {
    match args.what {
        Some(What::Indexers(args)) => train_indexers::run(args),
        Some(What::Distill(args)) => train_distill::run(args),
        None => run_recipe(args),
    }
}

/// Trains until the recipe is done or the process is told to stop; both leave a state that can be resumed.
///
/// # Errors
/// What [`Trainer`] reports; [`CliError::Interrupted`] after Ctrl-C or SIGTERM.
fn run_recipe(args: Args) -> Result<(), CliError> {
    let out = args.out.ok_or_else(|| {
        CliError::usage("--out DIR was not given").hint("name the folder that the checkpoint is written to")
    })?;
    let _lock = train_indexers::lock(&out.join("state.safetensors"))?;
    let threads = args.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let mut progress = Progress::new(args.log.as_deref(), false)?;
    let mut trainer = Trainer::prepare(&args.recipe, &out, args.resume, threads, &mut |event| progress.tell(&event))?;
    let (weights, tokens) = trainer.size();
    let at = trainer.position();
    progress.line(&format!(
        "{weights} weights, {tokens} tokens per epoch, {threads} threads, from step {} of stage {} ({:.0} s so far)",
        at.step, at.stage, at.seconds
    ));
    // Until now there was nothing to save.
    let stop = stop_on_interrupt();
    let done = trainer.run(&stop, &mut |event| progress.tell(&event))?;
    progress.line(&format!("{:.0} s of training in all", trainer.position().seconds));
    if !done && stop.load(Ordering::Relaxed) { Err(CliError::Interrupted) } else { Ok(()) }
}

impl Progress {
    fn tell(&mut self, event: &Event) {
        match event {
            Event::Preparing(what) => self.line(what),
            Event::Step(report) => self.report(report),
            Event::Monitor { stage, loss, bits_per_byte } => {
                self.line(&format!("{:>6} · monitor text: loss {loss:.4}, {bits_per_byte:.4} bits/byte", stage.name()));
            }
            Event::Saved(_) => {}
            Event::Exported(folder) => self.line(&format!("checkpoint written to {}", folder.display())),
        }
    }

    fn report(&mut self, report: &StepReport) {
        let (step, of) = report.step;
        let parts = [
            Some(format!("{:>6} {step}/{of}", report.stage.name())),
            report.measured.lm.map(|loss| format!("loss {loss:.4}")),
            report.measured.kl.map(|kl| format!("KL {kl:.4}")),
            Some(format!("rate {:.3}", report.rate)),
            Some(format!("{:.0} tokens/s", report.tokens_per_second)),
        ];
        let line = parts.into_iter().flatten().collect::<Vec<_>>().join(" · ");
        self.step(&line, report.steps_left, step == of, String::new);
    }
}
