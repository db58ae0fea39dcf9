//! `indexscope worker`: the Python side of backends whose model runs elsewhere, and how a worker is started.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::CliError;
use super::output::OutputArgs;
use crate::engine::WorkerAddress;

macro_rules! files {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("../../workers/", $name)))),*] };
}

/// The files of the worker, which come with the program.
const FILES: [(&str, &str); 10] = files![
    "pyproject.toml",
    "README.md",
    "indexscope_worker/__init__.py",
    "indexscope_worker/__main__.py",
    "indexscope_worker/frames.py",
    "indexscope_worker/kept.py",
    "indexscope_worker/patterns.py",
    "indexscope_worker/server.py",
    "indexscope_worker/switch.py",
    "indexscope_worker/transformers_engine.py",
];

/// Arguments of `worker`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Writes the worker's Python package to a folder, to install it or to run it on another machine.
    Write {
        /// The folder, which must not exist or be empty.
        dir: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Prints what the Python environment has and lacks for the worker; exit code 1 where something is missing.
    Check {
        #[command(flatten)]
        python: PythonArgs,
    },
}

/// Which Python runs the worker.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PythonArgs {
    /// The Python that runs the worker, such as that of a virtual environment.
    #[arg(long, value_name = "PATH", env = "INDEXSCOPE_PYTHON", default_value = "python3", hide_env = true)]
    python: String,
}

/// Where the model runs instead of in this process.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WorkerArgs {
    /// Run the model in a worker: 'transformers', the command of one, such as 'ssh HOST indexscope-worker MODEL', or
    /// unix:PATH where one listens; may be repeated, for workers that share the work.
    #[arg(long = "worker", value_name = "ENGINE|COMMAND|unix:PATH")]
    workers: Vec<String>,
    /// Workers that are started of each --worker and share the work.
    #[arg(long, value_name = "N", requires = "workers")]
    parallel: Option<NonZeroUsize>,
    /// Processes that the model is split over, started by torchrun; of --worker transformers.
    #[arg(long, value_name = "N", requires = "workers")]
    tp: Option<NonZeroUsize>,
    /// Place the layers on devices, such as auto; of --worker transformers.
    #[arg(long, value_name = "MAP", requires = "workers", conflicts_with = "tp")]
    device_map: Option<String>,
    #[command(flatten)]
    python: PythonArgs,
}

impl WorkerArgs {
    /// Returns whether the model runs in a worker.
    pub fn is_given(&self) -> bool {
        !self.workers.is_empty()
    }

    /// Returns where the workers for a model are found; none where it runs in this process.
    ///
    /// # Errors
    /// A command that no shell would understand; options that do not fit; files of the worker that cannot be written.
    pub fn addresses(&self, model: &str) -> Result<Vec<WorkerAddress>, CliError> {
        let all = self.workers.len() * self.copies();
        let mut addresses = Vec::new();
        for worker in &self.workers {
            for _ in 0..self.copies() {
                addresses.push(self.address(worker, model, addresses.len(), all)?);
            }
        }
        Ok(addresses)
    }

    fn copies(&self) -> usize {
        self.parallel.map_or(1, NonZeroUsize::get)
    }

    /// Returns where worker `number` of `all` is found.
    fn address(&self, worker: &str, model: &str, number: usize, all: usize) -> Result<WorkerAddress, CliError> {
        if worker == "transformers" {
            return Ok(WorkerAddress::Command(self.transformers(model, (all > 1).then_some(number))?));
        }
        if self.tp.is_some() || self.device_map.is_some() {
            return Err(CliError::usage("--tp and --device-map are of --worker transformers")
                .hint("write them into the worker's own command"));
        }
        if let Some(path) = worker.strip_prefix("unix:") {
            if self.copies() > 1 {
                return Err(CliError::usage(format!("one worker listens at '{worker}', --parallel starts several"))
                    .hint("repeat --worker for each socket"));
            }
            return Ok(WorkerAddress::Socket(path.to_owned()));
        }
        let words = shlex::split(worker).filter(|words| !words.is_empty());
        words.map(WorkerAddress::Command).ok_or_else(|| {
            CliError::usage(format!("--worker '{worker}' is no command: its quotes do not match"))
                .hint("give 'transformers', or a command such as 'ssh HOST indexscope-worker MODEL'")
        })
    }

    /// Returns the command of the worker on transformers; `slot` is its number among several.
    fn transformers(&self, model: &str, slot: Option<usize>) -> Result<Vec<String>, CliError> {
        let path = std::env::join_paths(
            std::iter::once(unpacked()?).chain(std::env::var_os("PYTHONPATH").iter().flat_map(std::env::split_paths)),
        );
        let path = path.map_err(|e| CliError::run(format!("the worker's folder cannot be in PYTHONPATH: {e}")))?;
        let path = format!("PYTHONPATH={}", path.display());
        let mut command = vec!["env".to_owned(), path, self.python.python.clone()];
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        if let Some(tp) = self.tp {
            command.extend(words(&format!("-m torch.distributed.run --standalone --nproc-per-node {tp}")));
        }
        command.extend(words("-m indexscope_worker"));
        command.push(model.to_owned());
        command.extend(self.tp.map(|_| "--tp".to_owned()));
        if let Some(map) = &self.device_map {
            command.extend(["--device-map".to_owned(), map.clone()]);
        }
        command.extend(slot.into_iter().flat_map(|slot| ["--slot".to_owned(), slot.to_string()]));
        Ok(command)
    }
}

/// Writes the worker where only this user writes, and returns the folder.
fn unpacked() -> Result<PathBuf, CliError> {
    let none = || CliError::run("there is no folder for the worker's files").hint("set HOME, or XDG_CACHE_HOME");
    let folder = directories::ProjectDirs::from("", "", "indexscope").ok_or_else(none)?;
    let place = folder.cache_dir().join(format!("worker-{}", env!("CARGO_PKG_VERSION")));
    write_files(&place)?;
    Ok(place)
}

fn write_files(place: &Path) -> Result<(), CliError> {
    for (name, text) in FILES {
        let path = place.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|found| found == text) {
            continue;
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| CliError::file("cannot make", folder, e))?;
        }
        crate::session::write_atomic(&path, text.as_bytes())?;
    }
    Ok(())
}

/// Writes the worker, or checks its environment.
///
/// # Errors
/// A folder that is not empty, files, a Python that cannot be started or lacks something.
pub fn run(args: Args) -> Result<(), CliError> {
    match args.what {
        What::Write { dir, output } => {
            if std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
                return Err(CliError::run(format!("'{}' is not empty", dir.display())).hint("name a new folder"));
            }
            write_files(&dir)?;
            let shown = dir.display();
            output.note(&format!("written; install it with: pip install {shown}"));
            Ok(())
        }
        What::Check { python: PythonArgs { python } } => {
            let place = unpacked()?;
            let status = std::process::Command::new(&python)
                .env("PYTHONPATH", &place)
                .args(["-m", "indexscope_worker", "--check"])
                .status()
                .map_err(|e| {
                    CliError::run(format!("'{python}' cannot be started: {e}"))
                        .hint("name the Python of your environment with --python")
                })?;
            if status.success() {
                return Ok(());
            }
            Err(CliError::run(format!("'{python}' lacks what the worker needs"))
                .hint("install the packages above into its environment with pip"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(workers: &[&str]) -> WorkerArgs {
        let python = PythonArgs { python: "py".to_owned() };
        WorkerArgs { workers: workers.iter().map(|&w| w.to_owned()).collect(), python, ..WorkerArgs::default() }
    }

    #[test]
    fn commands_are_split_as_a_shell_does() {
        assert_eq!(args(&[]).addresses("m").unwrap(), []);
        let found = args(&["ssh host 'indexscope-worker /models/my model'", "unix:/run/w"]).addresses("m").unwrap();
        let command = ["ssh", "host", "indexscope-worker /models/my model"].map(str::to_owned);
        assert_eq!(found, [WorkerAddress::Command(command.to_vec()), WorkerAddress::Socket("/run/w".to_owned())]);
        assert!(args(&["a 'b"]).addresses("m").is_err());
        let two = NonZeroUsize::new(2);
        assert!(WorkerArgs { tp: two, ..args(&["my-worker"]) }.addresses("m").is_err());
        assert!(WorkerArgs { parallel: two, ..args(&["unix:/run/w"]) }.addresses("m").is_err());
        assert_eq!(WorkerArgs { parallel: two, ..args(&["a", "b"]) }.addresses("m").unwrap().len(), 4);
    }

    #[test]
    fn every_file_of_the_package_comes_with_the_program() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("workers");
        let package = std::fs::read_dir(folder.join("indexscope_worker")).unwrap();
        let names = package.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        for name in names.filter(|name| Path::new(name).extension().is_some_and(|e| e == "py")) {
            assert!(FILES.iter().any(|(known, _)| *known == format!("indexscope_worker/{name}")), "{name}");
        }
        let written = tempfile::tempdir().unwrap();
        write_files(written.path()).unwrap();
        assert!(written.path().join("indexscope_worker/server.py").is_file());
    }
}
