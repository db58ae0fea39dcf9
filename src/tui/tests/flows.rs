use std::path::PathBuf;

use ratatui::crossterm::event::KeyCode;

use super::engines::target;
use super::scene::{Scene, coverage, evaluation, model, opened, speeds, trace};
use crate::domain::{Delta, Diagnostic, Pattern, PatternSource};
use crate::engine::{Command, Failure, Job, ModelInfo, Progress, Update};
use crate::tui::app::{App, Engine, Overlay, Tone};
use crate::tui::msg::{Effect, Msg};
use crate::tui::shown::{self, Fresh};

fn p(text: &str) -> Pattern {
    text.parse().unwrap()
}

fn scene() -> Scene {
    Scene::ready(model(12, &[]), Scene::colours())
}

#[test]
fn a_loaded_model_is_recorded_and_measured() {
    let mut scene = Scene::loading(Scene::colours());
    assert!(scene.text(80, 24).contains("loading demo"));
    scene.worker(Update::Ready(Box::new(model(12, &[]))));
    assert_eq!(scene.posted, [Command::Record, Command::Evaluate(p("FFFFFFFFFFFF"))]);
    let text = scene.text(80, 24);
    assert!(text.contains("recording the index sets") && text.contains("⠋ measuring"), "{text}");
    scene.worker(Update::Recorded(trace(p("FFFFFFFFFFFF"))));
    assert_eq!(scene.app.matrices.len(), 2);
}

#[test]
fn a_toggle_shows_at_once_and_is_measured_when_the_keys_rest() {
    let mut scene = scene();
    scene.posted.clear();
    scene.type_keys("/3\n");
    assert!(scene.text(120, 40).contains("Space make L3 Shared"));
    scene.type_keys(" ");
    assert_eq!(scene.pattern(), p("FFFSFFFFFFFF"));
    assert!(scene.posted.is_empty());
    // Both numbers of the old pattern step back.
    assert_eq!((shown::loss(&scene.app).0, shown::speed(&scene.app).0), (Fresh::Stale, Fresh::Stale));
    assert!(scene.text(120, 40).contains("◌ stale"));
    scene.wait(50);
    scene.type_keys("/4\n ");
    scene.wait(50);
    assert!(scene.posted.is_empty(), "the second key came within 80 ms of the first");
    scene.wait(50);
    let pattern = p("FFFSSFFFFFFF");
    assert_eq!(scene.posted, [Command::Evaluate(pattern)]);
    scene.worker(Update::Partial(Box::new(evaluation(pattern, 3))));
    let text = scene.text(120, 40);
    assert!(text.contains("● 3/20 sequences") && text.contains("+0.0020 ±0.0007"), "{text}");
    assert!(text.contains("cov≈"), "{text}");
    scene.settle(pattern);
    let text = scene.text(120, 40);
    assert!(text.contains("● 20/20 sequences") && text.contains("cov●") && text.contains("1.02× 0.99–1.04"), "{text}");
    assert!(text.contains("L4 Full → Shared: Δloss +0.0020 ±0.0007 (2.1 s, resumed from L5)"), "{text}");
}

#[test]
fn memory_of_a_gpu_stands_in_the_header() {
    let mut scene = Scene::ready(ModelInfo { device: "cuda:0".into(), ..model(12, &[]) }, Scene::colours());
    assert!(scene.text(160, 50).contains("f32 · cuda:0 │"), "{}", scene.text(160, 50));
    scene.worker(Update::Memory(20 << 30, 80 << 30));
    let text = scene.text(160, 50);
    assert!(text.contains("cuda:0 60.0 of 80.0 GiB, 20.0 free"), "{text}");
}

#[test]
fn numbers_from_a_file_are_marked_until_they_are_measured_here() {
    let mut first = scene();
    first.type_keys("/3\n ");
    first.wait(100);
    let pattern = first.pattern();
    first.settle(pattern);
    let work = first.app.work().unwrap();
    let mut scene = scene();
    scene.send(opened("s.toml", work.clone()));
    assert_eq!((shown::loss(&scene.app).0, shown::speed(&scene.app).0), (Fresh::Imported, Fresh::Imported));
    assert!(scene.text(120, 40).contains("○ from file"), "{}", scene.text(120, 40));
    assert_eq!(scene.app.work().unwrap(), work, "saved again it is what it was");
    // The all-Full pattern was measured by this run, and stays so.
    scene.type_keys("u");
    assert_eq!(shown::loss(&scene.app).0, Fresh::Measured);
    scene.type_keys("^R");
    scene.wait(100);
    assert_eq!(scene.posted.last(), Some(&Command::Evaluate(pattern)));
    scene.settle(pattern);
    assert_eq!((shown::loss(&scene.app).0, shown::speed(&scene.app).0), (Fresh::Measured, Fresh::Measured));
}

#[test]
fn results_of_another_pattern_never_stand_beside_this_one() {
    let mut scene = scene();
    scene.type_keys("/5\n ");
    scene.wait(100);
    let (old, new) = (scene.pattern(), p("FFFFFSSFFFFF"));
    scene.type_keys("/6\n ");
    assert_eq!(scene.pattern(), new);
    // The worker was not quick enough: everything about the older pattern still arrives.
    scene.worker(Update::Partial(Box::new(evaluation(old, 7))));
    assert_eq!(shown::loss(&scene.app).0, Fresh::Stale);
    assert!(!scene.text(120, 40).contains("7/20"));
    scene.settle(old);
    assert_eq!(shown::loss(&scene.app).0, Fresh::Stale);
    assert_eq!(shown::speed(&scene.app).0, Fresh::Stale);
    assert!(!scene.app.coverage().1, "coverage of the other pattern");
    // (Its line in the history list names its own pattern; the small screen has no such list.)
    assert!(!scene.text(80, 24).contains("+0.0010"), "the other pattern's Δ");
    // It was measured all the same, and is there at once when the pattern is.
    scene.type_keys("u");
    assert_eq!((scene.pattern(), shown::loss(&scene.app).0), (old, Fresh::Measured));
    assert!(scene.text(80, 24).contains("+0.0010"));
}

#[test]
fn undo_is_instant_and_measures_nothing() {
    let mut scene = scene();
    scene.type_keys("/5\n ");
    scene.wait(100);
    scene.settle(scene.pattern());
    scene.posted.clear();
    scene.type_keys("u");
    assert_eq!(scene.pattern(), p("FFFFFFFFFFFF"));
    assert_eq!((shown::loss(&scene.app).0, shown::speed(&scene.app).0), (Fresh::Measured, Fresh::Measured));
    assert!(scene.app.message.text.contains("undone: L5 Full → Shared"));
    scene.type_keys("^R");
    assert_eq!(scene.pattern(), p("FFFFFSFFFFFF"));
    scene.wait(100);
    assert!(scene.posted.is_empty(), "all is known: {:?}", scene.posted);
    scene.type_keys("uu");
    assert_eq!(scene.app.message.text, "there is nothing to undo");
}

#[test]
fn layer_zero_and_locked_layers_say_why_they_stay() {
    let mut scene = Scene::ready(model(12, &[3, 4]), Scene::colours());
    scene.type_keys("/0\n ");
    assert!(scene.app.message.text.contains("there is no earlier layer"), "{}", scene.app.message.text);
    scene.type_keys("/3\n ");
    assert!(scene.app.message.text.contains("no indexer weights"), "{}", scene.app.message.text);
    scene.type_keys("f");
    assert_eq!((scene.pattern(), scene.app.message.tone), (p("FFFSSFFFFFFF"), Tone::Warn));
    // Patterns made by rule leave locked layers alone; typed ones are refused.
    scene.type_keys("n3\n");
    assert_eq!(scene.pattern(), p("FSSSSSFSSFSS"));
    scene.type_keys("PFFFFFFFFFFFF\n");
    assert!(matches!(scene.app.overlay, Overlay::Prompt(..)));
    assert!(scene.app.message.text.contains("layer 3 is Full"), "{}", scene.app.message.text);
}

#[test]
fn prompts_judge_while_one_types() {
    let mut scene = scene();
    scene.type_keys("PFFSS");
    assert!(scene.text(80, 24).contains("4 letters but the model has 12 layers"));
    scene.type_keys("X");
    assert!(scene.text(80, 24).contains("'X' is neither F nor S"));
    scene.type_keys("^Uuniform:4");
    assert!(scene.text(80, 24).contains("3/12 Full  FSSSFSSSFSSS"));
    scene.type_keys("\n");
    assert_eq!(scene.pattern(), p("FSSSFSSSFSSS"));
    scene.send(Msg::Paste("FFFFFFSSSSSS\n".into()));
    scene.press(KeyCode::Enter);
    assert_eq!(scene.pattern(), p("FFFFFFSSSSSS"));
}

#[test]
fn patterns_are_taken_as_people_post_them() {
    let mut scene = scene();
    let paste = |scene: &mut Scene, text: &str| {
        scene.send(Msg::Paste(text.to_owned()));
        scene.press(KeyCode::Enter);
        scene.pattern()
    };
    let words = "[\n  \"full\",\n  \"full\",\n".to_owned() + &"  \"shared\",\n".repeat(9) + "  \"shared\"\n]\n";
    assert_eq!(paste(&mut scene, &words), p("FFSSSSSSSSSS"));
    assert_eq!(paste(&mut scene, "--hf-overrides '{\"index_topk_pattern\": \"FFFFSSSSFFFF\"}'"), p("FFFFSSSSFFFF"));
    scene.type_keys("P0,4,8\n");
    assert_eq!(scene.pattern(), p("FSSSFSSSFSSS"));
    // Files are read outside; what they hold is checked like anything else.
    scene.type_keys("P@config.json\n");
    let spec: PatternSource = "@config.json".parse().unwrap();
    assert!(matches!(scene.asked.pop(), Some(Effect::ReadPattern { source: asked, .. }) if asked == spec));
    scene.send(Msg::PatternRead(spec.to_string(), Ok(p("FFSSFFSSFFSS"))));
    assert_eq!(scene.pattern(), p("FFSSFFSSFFSS"));
    scene.send(Msg::PatternRead(spec.to_string(), Ok(p("FF"))));
    assert!(scene.app.message.text.contains("2 letters"), "{}", scene.app.message.text);
}

#[test]
fn unsaved_work_is_put_aside_until_it_is_saved() {
    let mut scene = scene();
    scene.type_keys("/5\n ");
    scene.wait(1900);
    assert!(!scene.asked.iter().any(|e| matches!(e, Effect::Autosave(_))), "{:?}", scene.asked);
    // What goes on changing is put aside all the same.
    scene.type_keys("/6\n ");
    scene.wait(200);
    let Some(Effect::Autosave(work)) = scene.asked.pop() else { panic!("{:?}", scene.asked) };
    assert_eq!(work.steps[work.current].pattern, scene.pattern());
    scene.send(Msg::Autosaved(Ok(())));
    assert!(scene.app.session.unsaved, "an autosave is not a save");
    scene.settle(scene.pattern());
    scene.type_keys("w");
    scene.send(Msg::Saved(Ok("s.toml".into())));
    scene.asked.clear();
    scene.wait(5000);
    assert_eq!(scene.asked, []);
    scene.send(opened("s.autosave.toml", work));
    assert!(
        scene.app.session.unsaved && scene.app.session.file == Some("s.toml".into()),
        "it is saved under its session's name"
    );
}

#[test]
fn saving_and_opening_carry_the_history() {
    let mut first = scene();
    first.type_keys("/5\n ");
    first.wait(100);
    first.settle(first.pattern());
    first.type_keys("q");
    assert!(first.app.message.text.contains("not saved"), "quit asks once");
    first.type_keys("w");
    let Some(Effect::Save { path: None, work }) = first.asked.pop() else { panic!("{:?}", first.asked) };
    first.type_keys("Wnotes.txt\n");
    assert_eq!((first.app.message.text.as_str(), first.asked.len()), ("sessions are .toml files", 0));
    first.press(KeyCode::Esc);
    first.send(Msg::Saved(Ok(PathBuf::from("sessions/demo.toml"))));
    assert!(!first.app.session.unsaved && first.app.message.text == "saved sessions/demo.toml");
    first.type_keys("q");
    assert_eq!(first.asked.pop(), Some(Effect::Quit));

    let mut second = scene();
    second.type_keys("o");
    assert_eq!(second.asked.pop(), Some(Effect::ListSessions));
    second.send(Msg::Sessions(vec!["sessions/demo.toml".into(), "sessions/other.toml".into()]));
    second.type_keys("dem\n");
    assert_eq!(second.asked.pop(), Some(Effect::Open("sessions/demo.toml".into())));
    second.send(opened("sessions/demo.toml", work.clone()));
    assert_eq!(second.pattern(), p("FFFFFSFFFFFF"));
    assert_eq!(shown::loss(&second.app).0, Fresh::Imported);
    second.type_keys("u");
    assert_eq!(second.pattern(), p("FFFFFFFFFFFF"));

    let mut other = Scene::ready(model(30, &[]), Scene::colours());
    other.send(opened("sessions/demo.toml", work));
    assert!(other.app.message.text.contains("12 letters but the model has 30 layers"));
    let problem = Diagnostic { message: "cannot read 'x'".into(), hint: Some("check the path".into()) };
    other.send(Msg::Saved(Err(problem)));
    assert_eq!(other.app.message.text, "cannot read 'x' · check the path");
}

#[test]
fn without_a_model_a_trace_can_be_looked_at_and_edited() {
    let recorded = p("FFFFFFFFFFFF");
    let app = App::new("demo.safetensors".into(), Scene::colours(), Engine::Absent, Some(trace(recorded)), None);
    let mut scene = Scene { app, posted: Vec::new(), asked: Vec::new() };
    for effect in crate::tui::update::start(&scene.app) {
        if let Effect::Compare(trace, metric) = effect {
            let matrix = crate::analysis::overlap::matrix(&trace, metric).into();
            scene.send(Msg::Matrix(trace, matrix));
        }
    }
    scene.type_keys("/5\n ");
    scene.wait(100);
    assert_eq!(scene.pattern(), p("FFFFFSFFFFFF"));
    assert!(scene.app.message.text.contains("no model is loaded"));
    assert!(scene.posted.is_empty());
    let text = scene.text(120, 40);
    assert!(text.contains("needs a model") && text.contains("cov≈"), "{text}");
    scene.type_keys("r");
    assert!(scene.app.message.text.contains("no model is loaded"));
}

#[test]
fn a_short_context_is_said_so() {
    let mut scene = Scene::loading(Scene::colours());
    let mut short = model(12, &[]);
    short.eligible = 0;
    scene.worker(Update::Ready(Box::new(short)));
    assert!(scene.app.message.text.contains("no pattern can differ"));
    let mut none = evaluation(scene.pattern(), 20);
    none.delta = None;
    scene.worker(Update::Evaluated(Box::new(none)));
    assert!(scene.text(120, 40).contains("context ≤ 32: no pattern can differ"));
}

#[test]
fn other_contexts_are_predicted_once_shorter_ones_are_timed() {
    let mut scene = scene();
    let pattern = scene.pattern();
    assert!(!scene.text(120, 40).contains("prefill≈"));
    scene.posted.clear();
    scene.type_keys("p");
    assert_eq!(scene.posted, [Command::Profile(pattern)]);
    // Time grows in proportion here, so that a pattern with half the indexers saves the same share everywhere.
    let at = |context: usize| {
        let mut speeds = speeds(pattern);
        for speed in &mut speeds {
            speed.seconds.median *= context as f64 / speed.context as f64;
            speed.context = context;
        }
        speeds
    };
    scene.worker(Update::Profiled([at(512), at(1024), at(2048)].concat()));
    assert!(scene.text(120, 40).contains("prefill≈1.00× at 16K 1.00× at 64K ±0 %"), "{}", scene.text(120, 40));
    scene.type_keys("PFSFSFSFSFSFS\n");
    // Half the indexers, which take 24 % of the time that was measured: 1 / (0.12 + 0.76).
    assert!(scene.text(120, 40).contains("prefill≈1.14× at 16K 1.14× at 64K"), "{}", scene.text(120, 40));
}

#[test]
fn the_reference_is_not_timed_against_itself_and_sessions_do_not_know_where() {
    let mut scene = scene();
    let mut speeds = speeds(scene.pattern());
    speeds.iter_mut().for_each(|s| s.ratio.median = 1.01);
    scene.worker(Update::Measured(speeds));
    let text = scene.text(120, 40);
    assert!(text.contains("prefill reference") && text.contains("decode  reference"), "{text}");
    assert!(!text.contains("1.01×"), "{text}");
    scene.type_keys("3");
    assert!(!scene.text(120, 40).contains("1.01×"), "{}", scene.text(120, 40));
    let work = scene.app.work().unwrap();
    let app = App::new("s.toml".into(), Scene::colours(), Engine::Absent, None, Some(&work));
    let mut alone = Scene { app, posted: Vec::new(), asked: Vec::new() };
    let text = alone.text(200, 60);
    assert!(text.contains("reference ops, from a file, do not predict") && !text.contains("here"), "{text}");
}

#[test]
fn what_is_not_known_says_why_and_is_never_full_overlap() {
    let mut scene = scene();
    let pattern = scene.pattern();
    let mut one = evaluation(pattern, 20);
    let delta = one.delta.unwrap();
    one.delta = Some(Delta { se: None, se_blocks: None, ..delta });
    scene.worker(Update::Evaluated(Box::new(one)));
    let text = scene.text(120, 40);
    assert!(text.contains("too few for ±"), "{text}");
    // A recording none of whose queries sees more than k keys.
    let mut short = (*trace(pattern)).clone();
    short.queries.iter_mut().enumerate().for_each(|(i, q)| q.position = i as u32 % 12);
    scene.worker(Update::Recorded(std::sync::Arc::new(short)));
    assert_eq!(scene.app.similarity(5, 4), None);
    let text = scene.text(120, 40);
    assert!(text.contains("overlap –") && text.contains("0 queries") && text.contains("╱╱╱"), "{text}");
}

#[test]
fn an_oracle_is_said_to_save_no_time() {
    let mut oracle = model(12, &[]);
    oracle.index = crate::domain::IndexSource::Oracle;
    let mut scene = Scene::ready(oracle, Scene::colours());
    for size in [(120, 40), (80, 24), (200, 60)] {
        let text = scene.text(size.0, size.1);
        assert!(text.contains("save no time") || text.contains("saves no time"), "{text}");
    }
}

#[test]
fn failures_are_said_and_nothing_is_lost() {
    let mut scene = scene();
    scene.type_keys("/5\n ");
    scene.wait(100);
    scene.worker(Update::Progress(Progress { job: Job::Evaluate, share: 0.62, eta: Some(4.0) }));
    assert!(scene.text(80, 24).contains("loss 62% 0:04"));
    let failure =
        Failure { job: Job::Evaluate, diagnostic: Diagnostic::new("out of memory").hint("a shorter context") };
    scene.worker(Update::Failed(failure));
    assert_eq!(scene.app.message.text, "loss: out of memory · a shorter context");
    assert!(scene.text(120, 40).contains("✗ failed"));
    scene.type_keys("u");
    assert_eq!(shown::loss(&scene.app).0, Fresh::Measured);
    scene.worker(Update::Crashed("index out of bounds".into()));
    assert!(scene.text(80, 24).contains("'r' starts it again"));
    scene.send(Msg::Disconnected);
    assert!(scene.text(80, 24).contains("no engine"));
}

#[test]
fn a_first_ctrl_c_stops_the_job_and_a_second_quits() {
    let mut scene = scene();
    scene.worker(Update::Progress(Progress { job: Job::Speed, share: 0.5, eta: None }));
    scene.posted.clear();
    scene.type_keys("^C");
    assert_eq!((scene.posted.as_slice(), scene.asked.len()), (&[Command::Stop][..], 0));
    scene.type_keys("^C");
    assert_eq!(scene.asked, [Effect::Quit]);
}

#[test]
fn ctrl_c_asks_as_q_does_where_changes_are_not_saved() {
    for key in ["q", "^C"] {
        let mut scene = scene();
        scene.type_keys("/5\n ");
        scene.wait(100);
        scene.settle(scene.pattern());
        scene.wait(5000);
        scene.asked.clear();
        scene.type_keys(key);
        assert!(scene.asked.is_empty() && scene.app.message.text.contains("changes are not saved"), "{key}");
        scene.type_keys(key);
        assert_eq!(scene.asked, [Effect::Quit], "{key}");
    }
}

#[test]
fn help_and_palette_run_what_is_chosen() {
    let mut scene = scene();
    scene.type_keys("/5\n?switch the layer\n");
    assert_eq!(scene.pattern(), p("FFFFFSFFFFFF"));
    scene.type_keys(":vllm\n");
    assert!(scene.app.message.text.contains("an export needs the model"), "{}", scene.app.message.text);
    scene.app.target = Some(target(12));
    scene.type_keys("ev");
    let copied = scene.asked.pop();
    let Some(Effect::Copy(argument)) = &copied else { panic!("{copied:?}") };
    assert!(argument.starts_with("--hf-overrides") && argument.contains("FFFFFSFFFFFF"), "{argument}");
    // Only the argument is copied; what the command line warns of stands under it.
    assert!(!argument.contains("warning"), "{argument}");
    let text = scene.text(120, 40);
    assert!(text.contains("warning: ") && text.contains("KeyError"), "{text}");
    assert!(scene.app.message.text.contains("warnings"), "{}", scene.app.message.text);
    assert!(scene.text(80, 24).contains("--hf-overrides"));
    scene.press(KeyCode::Esc);
    scene.type_keys("y");
    assert_eq!(scene.asked.pop(), Some(Effect::Copy("FFFFFSFFFFFF".into())));
}

#[test]
fn notices_of_consequence_stay_until_answered_and_are_in_the_log() {
    let mut scene = scene();
    scene.app.session.usual = Some("sessions/demo.toml".into());
    let left = ["sessions/demo.autosave-2.toml", "sessions/demo.autosave.toml", "sessions/demo.toml"];
    scene.send(Msg::Sessions(left.map(PathBuf::from).to_vec()));
    let notice = "work that was never saved is in sessions/demo.autosave-2.toml and 1 older; 'o' opens it";
    let shown = |scene: &mut Scene| scene.text(120, 40).contains(notice);
    // Neither time, nor keys, nor results, nor another screen take it away.
    scene.wait(60_000);
    scene.type_keys("/5\n ");
    scene.settle(scene.pattern());
    assert!(shown(&mut scene), "{}", scene.text(120, 40));
    scene.type_keys("3");
    assert!(shown(&mut scene));
    assert!(scene.app.screens.log.messages().iter().any(|m| m.text == notice));
    // At every size it is there, whole where there is room.
    assert!(scene.text(28, 6).contains("▲ work that was never"), "{}", scene.text(28, 6));
    assert!(scene.text(80, 24).contains("autosave-2.toml") && scene.text(80, 24).contains("· Esc"));
    scene.press(KeyCode::Esc);
    assert!(!shown(&mut scene));
    // Opening the file answers it as well.
    scene.send(Msg::Sessions(left.map(PathBuf::from).to_vec()));
    assert!(shown(&mut scene));
    scene.send(opened("sessions/demo.autosave-2.toml", scene.app.work().unwrap()));
    assert_eq!(scene.app.notices, []);
}

#[test]
fn the_name_of_a_saved_file_stays_until_the_next_key() {
    let mut scene = scene();
    scene.type_keys("/5\n w");
    scene.send(Msg::Saved(Ok("sessions/demo.toml".into())));
    scene.settle(scene.pattern());
    scene.wait(60_000);
    assert!(scene.text(80, 24).contains("saved sessions/demo.toml"), "{}", scene.text(80, 24));
    assert!(scene.app.screens.log.messages().iter().any(|m| m.text.contains("Δloss")), "the loss is in the log");
    // The next key ends it, and nothing lingers on another screen.
    scene.type_keys("4");
    assert_eq!(scene.app.message.text, "");
}

#[test]
fn the_report_holds_the_work_and_its_path_is_told() {
    let mut scene = scene();
    scene.type_keys("/5\n eh");
    let Some(Effect::Report { work, stages }) = scene.asked.pop() else { panic!("a report was asked for") };
    assert_eq!((work.steps[work.current].pattern, stages.sizes()), (p("FFFFFSFFFFFF"), &[12][..]));
    assert!(work.overlap.is_some_and(|m| m.layers == 12), "the matrix goes along");
    scene.send(Msg::Reported(Ok("sessions/demo.html".into())));
    assert!(scene.text(80, 24).contains("report written to sessions/demo.html"));
    assert_eq!(scene.app.overlay, Overlay::None);
}

#[test]
fn a_session_brings_its_overlap_until_there_is_a_recording() {
    let scene = scene();
    let work = scene.app.work().unwrap();
    let mut alone = App::new("s".into(), scene.app.theme, Engine::Absent, None, Some(&work));
    assert_eq!(alone.matrix(crate::analysis::Metric::Overlap), work.overlap.as_deref());
    assert_eq!(alone.work().unwrap().overlap, work.overlap);
    assert!(alone.similarity(3, 2).is_some());
    crate::tui::update::update(&mut alone, Msg::Update(Update::Recorded(trace(p("FFFFFFFFFFFF")))));
    assert!(alone.matrices.is_empty(), "that of the new recording is being computed");
}

#[test]
fn an_old_recordings_matrix_is_dropped() {
    let mut scene = scene();
    let old = trace(p("FFFFFFFFFFFF"));
    let matrix = crate::analysis::overlap::matrix(&old, crate::analysis::Metric::Overlap).into();
    scene.app.matrices.clear();
    scene.send(Msg::Matrix(old, matrix));
    assert!(scene.app.matrices.is_empty());
}

#[test]
fn measured_coverage_and_speed_belong_to_their_pattern() {
    let mut scene = scene();
    scene.type_keys("/7\n ");
    let pattern = scene.pattern();
    assert!(!scene.app.coverage().1);
    scene.worker(Update::Covered(coverage(p("FSFFFFFFFFFF"))));
    assert!(!scene.app.coverage().1);
    scene.worker(Update::Covered(coverage(pattern)));
    let (layers, measured) = scene.app.coverage();
    assert!(measured && layers[7].is_some_and(|e| (e.value - 0.87).abs() < 1e-9));
    scene.worker(Update::Measured(speeds(pattern)));
    assert_eq!(shown::speed(&scene.app).0, Fresh::Measured);
}

#[test]
fn sets_are_compared_over_time_and_with_another_recording() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = scene();
    let answer = |scene: &mut Scene| {
        let Some(Effect::Study(trace, study)) = scene.asked.pop() else { panic!("a study is asked for") };
        let found = study.of(&trace);
        scene.send(Msg::Studied(trace, found));
    };
    scene.type_keys("T");
    assert!(scene.text(120, 40).contains("comparing sets"));
    answer(&mut scene);
    let text = scene.text(120, 40);
    let recorded = scene.app.trace.clone().unwrap();
    let next = crate::analysis::agreement::temporal(&recorded, 1);
    let kept = format!("L3{:>10.3}", next.layers[3].unwrap().value);
    assert!(text.contains("Overlap over time") && text.contains(&kept) && text.contains("after 64"), "{kept} {text}");
    scene.type_keys("\u{1b}C");
    assert!(scene.text(120, 40).contains("a path, such as sets.trace"));
    let path = folder.path().join("sets.trace");
    scene.type_keys(&format!("{}\n", path.display()));
    answer(&mut scene);
    assert!(scene.app.message.tone == Tone::Bad && scene.app.message.text.contains("sets.trace"));
    crate::session::write_trace(&path, &recorded).unwrap();
    scene.type_keys(&format!("C{}\n", path.display()));
    answer(&mut scene);
    let text = scene.text(120, 40);
    assert!(text.contains("Agreement with") && text.contains("1.000 ±?"), "{text}");
    assert!(text.contains("24 of 24 common queries"), "{text}");
}
