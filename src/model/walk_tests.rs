//! The walk against a loop written out by hand, in every order, with either kind of weights.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::{
    At, Attend, Entry, Forward, Indices, Model, ModelError, Ops, Order, Pass, Ran, Route, Stop, Stream, Unseen,
    Visitor, Walk, Weights,
};
use crate::checkpoint::Checkpoint;
use crate::domain::{Pattern, Subject};

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/glm_dsa_tiny")).unwrap()
}

fn ids(seed: u32) -> Vec<u32> {
    (0..60).map(|i| (i * 37 + i * i * 5 + seed) % 128).collect()
}

fn subject(text: &str) -> Subject {
    if text == "dense" { Subject::Dense } else { Subject::Pattern(text.parse().unwrap()) }
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// What a subject does, written out: the residual stream and the keys of every layer.
fn by_hand(model: &Model, ids: &[u32], subject: Subject) -> (Vec<u32>, Vec<Option<Indices>>) {
    let inputs = model.inputs(&[ids.to_vec()], 0).unwrap();
    let mut x = model.embed(&[ids.to_vec()]).unwrap();
    let mut held: Vec<Option<Indices>> = Vec::new();
    for layer in 0..6 {
        let attend = match subject {
            Subject::Dense => Attend::Dense,
            Subject::Pattern(pattern) if pattern.is_full(layer) => Attend::Own,
            Subject::Pattern(pattern) => Attend::Given(held[pattern.source(layer)].as_ref().unwrap()),
        };
        let pass = Pass { ops: Ops::Fast, ..Pass::new(attend) };
        let output = model.layer(layer, &x, &inputs, &mut { pass }).unwrap();
        x = output.hidden;
        held.push(output.indices);
    }
    (bits(&x), held)
}

#[test]
fn every_order_and_kind_of_weights_gives_what_the_loop_by_hand_gives() {
    let checkpoint = checkpoint();
    let model = Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap();
    let stream = Stream::new(checkpoint, Device::Cpu, DType::F32);
    let subjects = ["FFFFFF", "FSSFSS", "dense", "FSSSSS", "FSSFSF"].map(subject);
    let inputs = [0, 1].map(|seed| model.inputs(&[ids(seed)], 0).unwrap());
    for order in [Order::Sequences, Order::Layers] {
        for weights in [Weights::Resident(&model), Weights::Streamed(&stream)] {
            let entry = |seed| Entry::first(model.embed(&[ids(seed)]).unwrap());
            let mut forwards: Vec<Forward> =
                (0..2).map(|n| Forward::new(n, &inputs[n], subjects.len(), (0, entry(n as u32)))).collect();
            let mut seen = Vec::new();
            let mut note = |at: &At, _: &Ran| -> Result<(), ModelError> {
                seen.push((at.batch, at.layer));
                Ok(())
            };
            Walk::new(&subjects, Ops::Fast).run(weights, order, &mut forwards, &mut note).unwrap();
            let place = |&(batch, layer): &(usize, usize)| {
                if order == Order::Sequences { (batch, layer) } else { (layer, batch) }
            };
            assert!(seen.is_sorted_by_key(place), "{order:?}: {seen:?}");
            // Layer 0: Full for all patterns and dense. Layer 1: one Full, three Shared in common, dense.
            let runs = |layer| seen.iter().filter(|&&at| at == (0, layer)).count();
            assert_eq!([runs(0), runs(1), runs(3), runs(5)], [2, 3, 4, 5]);
            for forward in forwards {
                assert_eq!(forward.layer, 6);
                for group in &forward.groups {
                    let [subject] = group.subjects[..] else { panic!("all have gone different ways") };
                    let (hidden, _) = by_hand(&model, &ids(forward.batch as u32), subjects[subject]);
                    assert_eq!(bits(&group.entry.hidden), hidden, "{order:?} {:?}", subjects[subject]);
                }
            }
        }
    }
}

#[test]
fn a_forward_resumes_where_it_stands_and_ends_where_it_is_told() {
    let model = Model::load(&checkpoint(), &Device::Cpu, DType::F32).unwrap();
    let inputs = model.inputs(&[ids(0)], 0).unwrap();
    let subjects = [subject("FSSFSS")];
    let entry = Entry::first(model.embed(&[ids(0)]).unwrap());
    let mut forward = [Forward::new(0, &inputs, 1, (0, entry))];
    let half = Walk { end: Some(2), ..Walk::new(&subjects, Ops::Fast) };
    half.run::<ModelError>(Weights::Resident(&model), Order::Sequences, &mut forward, &mut Unseen).unwrap();
    assert_eq!(forward[0].layer, 2);
    // Layer 2 reuses what layer 0 selected, which the state has kept.
    Walk::new(&subjects, Ops::Fast)
        .run::<ModelError>(Weights::Resident(&model), Order::Sequences, &mut forward, &mut Unseen)
        .unwrap();
    let [forward] = forward;
    assert_eq!(bits(&forward.into_hidden().unwrap()), by_hand(&model, &ids(0), subjects[0]).0);
}

/// Gives layer 2 the keys that layer 0 selected.
#[derive(Default)]
struct Swap(Option<Indices>);

impl Visitor<ModelError> for Swap {
    fn enter(&mut self, at: &At, route: Route<'static>) -> Result<Route<'_>, ModelError> {
        Ok(self.0.as_ref().filter(|_| at.layer == 2).map_or(route, Route::Given))
    }

    fn ran(&mut self, at: &At, ran: &Ran) -> Result<(), ModelError> {
        if at.layer == 0 {
            self.0.clone_from(&ran.output.indices);
        }
        Ok(())
    }
}

#[test]
fn a_visitor_may_give_a_layer_other_keys() {
    let model = Model::load(&checkpoint(), &Device::Cpu, DType::F32).unwrap();
    let inputs = model.inputs(&[ids(0)], 0).unwrap();
    let subjects = [Subject::Pattern(Pattern::all_full(6).unwrap())];
    let entry = Entry::first(model.embed(&[ids(0)]).unwrap());
    let mut forward = [Forward::new(0, &inputs, 1, (0, entry))];
    Walk::new(&subjects, Ops::Fast)
        .run(Weights::Resident(&model), Order::Sequences, &mut forward, &mut Swap::default())
        .unwrap();
    let [forward] = forward;
    let hidden = bits(&forward.into_hidden().unwrap());
    assert_ne!(hidden, by_hand(&model, &ids(0), subjects[0]).0);
    assert_ne!(hidden, by_hand(&model, &ids(0), subject("FSSFFF")).0);
}

#[test]
fn a_shared_layer_without_a_source_is_refused_and_a_stop_is_heard() {
    let model = Model::load(&checkpoint(), &Device::Cpu, DType::F32).unwrap();
    let inputs = model.inputs(&[ids(0)], 0).unwrap();
    let subjects = [subject("FSSFSS")];
    // Layer 1 is entered without what layer 0 selected.
    let at = |layer| [Forward::new(0, &inputs, 1, (layer, Entry::first(model.embed(&[ids(0)]).unwrap())))];
    let run = |walk: Walk, forward: &mut [Forward]| {
        walk.run::<ModelError>(Weights::Resident(&model), Order::Sequences, forward, &mut Unseen)
    };
    let walk = Walk::new(&subjects, Ops::Fast);
    assert!(matches!(run(walk, &mut at(1)), Err(ModelError::NothingToShare(1))));
    let stop = || true;
    let stopped = Walk { stop: Stop::when(&stop), ..walk };
    assert!(matches!(run(stopped, &mut at(0)), Err(ModelError::Stopped)));
}
