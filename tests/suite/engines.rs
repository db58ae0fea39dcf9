//! The engines' readings of configs against what their own code did with them.
//!
//! `tests/data/engines` says how its files were made. Run with `--nocapture` to see the agreement per engine and the
//! classes of disagreement.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use indexscope::interop::{Served, Strip, simulate};
use serde::Deserialize;
use serde_json::{Map, Value};

/// One config, as an engine was started with it, and what the engines did.
#[derive(Deserialize)]
struct Case {
    id: String,
    model_type: String,
    config: Map<String, Value>,
    overrides: Option<Value>,
    stages: Option<String>,
    engines: BTreeMap<String, Answer>,
}

/// What an engine's own code did.
#[derive(Deserialize)]
struct Answer {
    strip: Option<String>,
    fail: Option<Raised>,
}

#[derive(Deserialize)]
struct Raised {
    error: String,
    bases: Vec<String>,
    stage: String,
}

impl Answer {
    /// Whether our reading is the same: the same letters and no failure, or a failure of that class or a base of it.
    fn agrees(&self, ours: Option<&Strip>) -> bool {
        match (&self.fail, ours) {
            (_, None) => false,
            (None, Some(ours)) => ours.failure.is_none() && self.strip.as_deref() == Some(&ours.letters()),
            (Some(raised), Some(ours)) => {
                let is_base = |class: &str| raised.error == class || raised.bases.iter().any(|base| base == class);
                ours.failure.as_ref().is_some_and(|failure| is_base(failure.error))
            }
        }
    }

    fn class(&self) -> String {
        match &self.fail {
            Some(raised) => format!("{} at {}", raised.error, raised.stage),
            None => "letters".to_owned(),
        }
    }
}

/// Whether the sharing keys of a config hold the JSON types that they should.
fn is_well_typed(keys: &Map<String, Value>) -> bool {
    let is_text = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    keys.iter().all(|(key, value)| match key.as_str() {
        _ if value.is_null() => true,
        "index_topk_pattern" => value.is_string() || is_text(value),
        "indexer_types" => is_text(value),
        "index_topk_freq" | "index_skip_topk_offset" => value.is_i64(),
        "use_index_cache" => value.is_boolean(),
        "text_config" => value.as_object().is_none_or(is_well_typed),
        _ => true,
    })
}

/// Agreeing answers, and all.
#[derive(Clone, Copy, Default)]
struct Share {
    agreeing: usize,
    all: usize,
}

impl Share {
    fn count(&mut self, agrees: bool) {
        self.agreeing += usize::from(agrees);
        self.all += 1;
    }

    fn percent(self) -> f64 {
        100. * self.agreeing as f64 / self.all.max(1) as f64
    }
}

/// Answers per engine, well-typed ones apart, and one line per disagreement.
#[derive(Default)]
struct Agreement {
    engines: BTreeMap<String, [Share; 2]>,
    classes: BTreeMap<String, Vec<String>>,
    apart: Vec<(String, String)>,
}

impl Agreement {
    fn of(file: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/engines").join(file);
        let mut text = String::new();
        flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        let mut agreement = Self::default();
        serde_json::from_str::<Vec<Case>>(&text).unwrap().iter().for_each(|case| agreement.add(case));
        agreement
    }

    fn add(&mut self, case: &Case) {
        let overrides = case.overrides.as_ref().and_then(Value::as_object);
        let is_well_typed = is_well_typed(&case.config) && overrides.is_none_or(is_well_typed);
        let served = Served::new(case.config.clone()).and_then(|served| match &case.overrides {
            Some(overrides) => served.with_overrides(&overrides.to_string()),
            None => Ok(served),
        });
        let served = served.and_then(|served| match &case.stages {
            Some(stages) => served.with_stages(stages.parse().unwrap()),
            None => Ok(served),
        });
        let strips = served.as_ref().map(|served| simulate(served).engines).unwrap_or_default();
        for (engine, answer) in &case.engines {
            let ours = strips.iter().find(|strip| strip.engine == *engine);
            let agrees = answer.agrees(ours);
            let [all, typed] = self.engines.entry(engine.clone()).or_default();
            all.count(agrees);
            if is_well_typed {
                typed.count(agrees);
            }
            if !agrees {
                let said = match ours {
                    None => format!("no row ({:?})", served.as_ref().err()),
                    Some(ours) => match &ours.failure {
                        Some(failure) => format!("{} {}: {}", failure.error, failure.when, failure.reason),
                        None if ours.marks.is_empty() => format!("nothing: {}", ours.rule),
                        None => "letters".to_owned(),
                    },
                };
                self.apart.push((case.id.clone(), engine.clone()));
                let typed = if is_well_typed { "" } else { " (wrong types)" };
                let class = format!("{engine}, {}{typed}: {}", case.model_type, answer.class());
                let letters = ours.map(Strip::letters).unwrap_or_default();
                let wanted = answer.strip.clone().unwrap_or_default();
                self.classes.entry(class).or_default().push(format!("{} {said} {letters} {wanted}", case.id));
            }
        }
    }

    #[allow(clippy::print_stdout)] // read with --nocapture
    fn print(&self) {
        let mut classes: Vec<_> = self.classes.iter().collect();
        classes.sort_by_key(|(_, cases)| std::cmp::Reverse(cases.len()));
        for (class, cases) in classes {
            println!("{:4} {class}", cases.len());
            cases.iter().take(4).for_each(|case| println!("       {case}"));
        }
        println!("{:<26}{:>16}{:>20}", "engine", "all", "well-typed");
        for (engine, [all, typed]) in &self.engines {
            Self::row(engine, *all, *typed);
        }
        let [all, typed] = self.total();
        Self::row("all", all, typed);
    }

    #[allow(clippy::print_stdout)]
    fn row(name: &str, all: Share, typed: Share) {
        let cell = |share: Share| format!("{}/{} {:.1} %", share.agreeing, share.all, share.percent());
        println!("{name:<26}{:>16}{:>20}", cell(all), cell(typed));
    }

    fn total(&self) -> [Share; 2] {
        let sum =
            |sum: Share, share: Share| Share { agreeing: sum.agreeing + share.agreeing, all: sum.all + share.all };
        self.engines.values().fold(Default::default(), |[all, typed], share| [sum(all, share[0]), sum(typed, share[1])])
    }
}

/// Answers that ours is not, by case and engine, and why.
const APART: [(&str, &str, &str); 7] = [
    // Layers that an override cuts off are not built; the file's answers judge them all the same, except transformers'.
    ("19-glm-layer-count-override", "vLLM", "four layers are left"),
    ("19-glm-layer-count-override", "SGLang", "four layers are left"),
    ("19-glm-layer-count-override", "vllm-ascend", "four layers are left"),
    ("12-tf-glm5next-forward", "NeMo Automodel", "no layer reads indexer_types, as in the random configs"),
    // `_should_skip_indexer_init` takes `len(indexer_types)` for Shared layers, which the answers left out.
    ("s23-150", "vllm-ascend", "len() of a boolean"),
    ("s23-214", "vllm-ascend", "len() of a number"),
    ("s23-383", "vllm-ascend", "len() of a number"),
];

fn check(file: &str, answers: usize) {
    let agreement = Agreement::of(file);
    agreement.print();
    let [all, _] = agreement.total();
    assert_eq!(all.all, answers);
    let is_explained = |(id, engine): &(String, String)| APART.iter().any(|apart| (apart.0, apart.1) == (id, engine));
    let unexplained: Vec<_> = agreement.apart.iter().filter(|apart| !is_explained(apart)).collect();
    assert!(unexplained.is_empty(), "{unexplained:?}");
}

#[test]
fn random_configs_are_read_as_the_engines_read_them() {
    check("random-400.json.gz", 1603);
}

#[test]
fn minimal_configs_are_read_as_the_engines_read_them() {
    check("minimal.json.gz", 102);
}
