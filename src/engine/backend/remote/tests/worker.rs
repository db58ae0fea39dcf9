//! A worker of the tests, in a thread: every message of the protocol, and everything that can go wrong.

use std::io::{BufReader, PipeReader, PipeWriter, Write, pipe};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::super::frame::{Frame, ints};
use super::super::link::Link;

/// k of the worker's model.
pub(super) const K: usize = 4;

/// What a worker does wrong when it is asked for losses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    None,
    /// Ends after its first unit.
    Dies,
    /// Ends in the middle of a body.
    DiesInABody,
    /// Ends in the middle of a line.
    DiesInALine,
    /// A loss that is no number.
    NotFinite,
    /// A loss too few.
    Short,
    /// The losses of another unit.
    Other,
    /// A unit too few.
    LeavesOut,
    /// A unit too many.
    Adds,
    /// A line of a library's log among the frames.
    Prints,
    /// A line that is JSON, but no object.
    List,
    /// More bytes announced than any answer can have.
    Huge,
    /// An error of this code.
    Refuses(&'static str),
    /// A reply to something else before each of its own.
    Chats,
    /// A key that the query does not see.
    Beyond,
    /// Answers nothing but a cancel.
    Waits,
    /// Answers nothing, not even a cancel.
    Hangs,
    /// Gives a sign of life, and is silent then.
    Silent,
}

/// What a worker of the tests is like, and what it was asked.
#[derive(Clone)]
pub(super) struct Script {
    pub fault: Fault,
    pub can: Vec<&'static str>,
    pub dtype: &'static str,
    /// Added to every loss when a forward does not resume, as near-ties of low precision do.
    pub noise: f32,
    /// The heads of all requests.
    pub asked: Arc<Mutex<Vec<Value>>>,
}

impl Script {
    pub(super) fn new(fault: Fault) -> Self {
        Self { fault, can: vec!["losses", "record", "shadow"], dtype: "f32", noise: 0.0, asked: Arc::default() }
    }

    /// Starts the worker.
    pub(super) fn link(&self) -> Link {
        let ((requests, to_worker), (replies, to_us)) = (pipe().unwrap(), pipe().unwrap());
        let script = self.clone();
        thread::spawn(move || script.serve(requests, to_us));
        Link::over(Box::new(replies), Box::new(to_worker))
    }

    /// Returns the units that were asked for, in order.
    pub(super) fn units(&self) -> Vec<(String, u64)> {
        let asked = self.asked.lock().unwrap();
        let units = asked.iter().filter_map(|head| head["units"].as_array()).flatten();
        units.map(|unit| (unit[0].as_str().unwrap().to_owned(), unit[1].as_u64().unwrap())).collect()
    }

    fn serve(&self, from: PipeReader, mut to: PipeWriter) {
        let mut from = BufReader::new(from);
        let hello = json!({"hello": "indexscope-worker", "protocol": [1, 1], "engine": "scripted 1", "layers": 3,
            "sites": [0, 1, 2], "unit": {"kind": "token"}, "groups": 1, "index_topk": K, "index_heads": 1, "native": "FFF",
            "locked_shared": [], "dtype": self.dtype, "devices": ["cpu"], "ranks": 1, "fingerprint": "x", "can": self.can});
        send(&mut to, hello, Vec::new());
        let mut lengths: Vec<usize> = Vec::new();
        while let Ok(Some(Frame { head, body })) = Frame::read(&mut from, || 1 << 20) {
            self.asked.lock().unwrap().push(head.clone());
            let id = head["id"].clone();
            let goes_on = match head["do"].as_str().unwrap_or_default() {
                "calibrate" => {
                    lengths = serde_json::from_value(head["lengths"].clone()).unwrap();
                    assert_eq!(ints(&body).len(), lengths.iter().sum::<usize>());
                    true
                }
                "losses" => match self.fault {
                    Fault::Silent | Fault::Hangs => {
                        if self.fault == Fault::Silent {
                            send(&mut to, json!({"alive": 0.002}), Vec::new());
                        }
                        loop {
                            thread::park();
                        }
                    }
                    Fault::Waits => {
                        let Ok(Some(cancel)) = Frame::read(&mut from, || 0) else { return };
                        assert_eq!((&cancel.head["do"], &cancel.head["of"]), (&json!("cancel"), &id));
                        let error = json!({"code": "cancelled", "message": "cancelled"});
                        send(&mut to, json!({"id": id, "error": error}), Vec::new());
                        continue;
                    }
                    Fault::Refuses(code) => {
                        let error = json!({"code": code, "message": "it \u{1b}went wrong", "hint": "do better"});
                        send(&mut to, json!({"id": id, "error": error}), Vec::new());
                        continue;
                    }
                    _ => self.losses(&mut to, &head, &lengths),
                },
                "record" => self.record(&mut to, &head, &lengths),
                "cancel" => continue,
                _ => return,
            };
            if !goes_on || !send(&mut to, json!({"id": id, "done": true}), Vec::new()) {
                return;
            }
        }
    }

    /// Answers a request for losses; returns whether the worker goes on.
    fn losses(&self, to: &mut PipeWriter, head: &Value, lengths: &[usize]) -> bool {
        let id = &head["id"];
        let units = head["units"].as_array().unwrap();
        for (n, unit) in units.iter().enumerate() {
            let (pattern, sequence) = (unit[0].as_str().unwrap(), unit[1].as_u64().unwrap() as usize);
            let mut values: Vec<f32> = (0..lengths[sequence] - 1).map(|p| nll(pattern, sequence, p)).collect();
            let mut reply = json!({"id": id, "unit": unit, "layers": 3, "seconds": 0.5, "dtype": "f32"});
            if head["resume"] == false {
                values.iter_mut().for_each(|value| *value += self.noise);
            }
            match self.fault {
                Fault::Dies if n == 1 => return false,
                Fault::DiesInABody => {
                    to.write_all(format!("{{\"id\":{id},\"bytes\":76}}\nabc").as_bytes()).unwrap();
                    return false;
                }
                Fault::DiesInALine => {
                    to.write_all(b"{\"id\":").unwrap();
                    return false;
                }
                Fault::NotFinite => values[7] = f32::NAN,
                Fault::Short => drop(values.pop()),
                Fault::Other => reply["unit"] = json!([pattern, 9]),
                Fault::LeavesOut if n + 1 == units.len() => return true,
                Fault::Prints => to.write_all(b"100%|####| 3/3\n").unwrap(),
                Fault::List => to.write_all(b"[1]\n").unwrap(),
                Fault::Huge => to.write_all(b"{\"id\":2,\"bytes\":9999999999}\n").unwrap(),
                Fault::Chats => {
                    send(to, json!({"id": 99, "unit": unit, "dtype": "f32"}), vec![0; 4]);
                    send(to, json!({"alive": 1, "of": "something new"}), Vec::new());
                }
                _ => {}
            }
            let mut body: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
            if head["top1"] == true {
                reply["top1"] = json!(true);
                body.extend((1..lengths[sequence]).flat_map(|p| top1(pattern, p).to_le_bytes()));
            }
            if head["kl"].is_string() {
                reply["kl"] = json!(true);
                let kl = if pattern == head["kl"] { 0.0 } else { 0.25f32 };
                body.extend((1..lengths[sequence]).flat_map(|_| kl.to_le_bytes()));
            }
            if !send(to, reply.clone(), body.clone()) {
                return false;
            }
            if self.fault == Fault::Adds && n + 1 == units.len() {
                send(to, reply, body);
            }
        }
        true
    }

    /// Answers a request for sets; returns whether the worker goes on.
    fn record(&self, to: &mut PipeWriter, head: &Value, lengths: &[usize]) -> bool {
        let pattern = head["pattern"].as_str().unwrap();
        for (n, sequence) in head["sequences"].as_array().unwrap().iter().enumerate() {
            let queries = lengths[sequence.as_u64().unwrap() as usize];
            for (layer, role) in pattern.chars().enumerate() {
                let shown = |own: bool| -> Vec<u8> {
                    let mut rows: Vec<i32> = (0..queries).flat_map(|p| set(p, own)).collect();
                    if self.fault == Fault::Beyond {
                        rows[0] = 5;
                    }
                    rows.into_iter().flat_map(i32::to_le_bytes).collect()
                };
                if self.fault == Fault::Dies && n + layer > 0 {
                    return false;
                }
                let mut reply = json!({"id": head["id"], "sequence": sequence, "layer": layer, "shape": [queries, 1, K], "dtype": "i32"});
                send(to, reply.clone(), shown(false));
                if role == 'S' {
                    reply["own"] = json!(true);
                    send(to, reply, shown(true));
                }
            }
        }
        true
    }
}

fn send(to: &mut PipeWriter, head: Value, body: Vec<u8>) -> bool {
    Frame { head, body }.write(to).is_ok()
}

/// −log p of token `p` + 1 of a sequence: 0.01 more per Shared layer where more than k keys are seen.
fn nll(pattern: &str, sequence: usize, p: usize) -> f32 {
    let shared = pattern.chars().filter(|c| *c == 'S').count();
    2.0 + sequence as f32 + if p >= K { 0.01 * shared as f32 } else { 0.0 }
}

/// Shared layers change every second token.
fn top1(pattern: &str, p: usize) -> i32 {
    i32::from(pattern.contains('S') && p.is_multiple_of(2))
}

/// The last k keys; a Shared layer's own indexer would have taken the one before its last.
fn set(position: usize, own: bool) -> Vec<i32> {
    let end = position as i32 + 1;
    let mut row: Vec<i32> = ((end - K as i32).max(0)..end).collect();
    if own && position > K {
        row[0] -= 1;
    }
    row.resize(K, -1);
    row
}
