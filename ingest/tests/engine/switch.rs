//! The operator's switch: what is held is never open, whatever its source says; released, it is what its source says.

use std::sync::Arc;

use proptest::prelude::*;
use tictac_ingest::engine::{Control, Engine, OPERATOR, UNCONFIRMED};
use tictac_ingest::operator::{Act, Action, Ledger, Scope};
use tictac_ingest::update::{StopScope, Update};
use tictac_proto::model::{MarketField, MarketStatus};
use tictac_proto::wire::FeedState;

use crate::shelves::*;

fn act(action: Action, scope: &str, at: i64) -> Act {
    Act { action, scope: scope.into(), by: "ann".into(), why: String::new(), at }
}

fn ledger(acts: &[Act]) -> Ledger {
    let mut ledger = Ledger::default();
    acts.iter().for_each(|act| ledger.note(act.clone()).unwrap());
    ledger
}

/// An engine that owns all, and what is written of it.
fn running() -> (Shelves, Engine, Arc<str>) {
    let (mut shelves, mut engine) = (Shelves::default(), Engine::new(settings()));
    shelves.acquire(&mut engine, 0);
    (shelves, engine, "a".into())
}

fn say(engine: &mut Engine, source: &Arc<str>, update: Update) {
    assert!(engine.handle_message(source, None, 1));
    engine.handle_updates(source, [update], times(1));
}

fn reason(engine: &Engine, market: &str) -> Option<String> {
    engine.book(market).unwrap().fields.text(MarketField::Reason).map(Into::into)
}

#[test]
fn what_is_held_is_suspended_and_opens_only_when_it_is_released() {
    let (mut shelves, mut engine, a) = running();
    say(&mut engine, &a, image("1.1", "e1"));
    say(&mut engine, &a, image("1.2", "e2"));
    engine.handle_ledger(&ledger(&[act(Action::Suspend, "market:1.1", 1)]), 1);
    assert_eq!(
        (status(&engine, "1.1"), status(&engine, "1.2")),
        (MarketStatus::Suspended, MarketStatus::Open)
    );
    assert_eq!(reason(&engine, "1.1").as_deref(), Some(OPERATOR));
    // Prices go on; its source can't open it, not by an image either.
    say(&mut engine, &a, level("1.1", 210, 7));
    say(&mut engine, &a, set("1.1", MarketField::Status, MarketStatus::Open.code()));
    say(&mut engine, &a, image("1.1", "e1"));
    assert_eq!(
        (status(&engine, "1.1"), reason(&engine, "1.1").as_deref()),
        (MarketStatus::Suspended, Some(OPERATOR))
    );
    engine.handle_ledger(&ledger(&[act(Action::Resume, "market:1.1", 2)]), 2);
    assert_eq!((status(&engine, "1.1"), reason(&engine, "1.1")), (MarketStatus::Open, None));
    shelves.write(&mut engine, 2);
    shelves.check(&engine);
}

#[test]
fn a_stop_of_the_source_outlasts_the_operators() {
    let (_, mut engine, a) = running();
    say(&mut engine, &a, image("1.1", "e1"));
    engine.handle_ledger(&ledger(&[act(Action::Suspend, "all", 1)]), 1);
    say(
        &mut engine,
        &a,
        Update::Stop { event: "e1".into(), scope: StopScope::Event, reason: Some("goal".into()) },
    );
    engine.handle_ledger(&ledger(&[act(Action::Resume, "all", 2)]), 2);
    assert_eq!(
        (status(&engine, "1.1"), reason(&engine, "1.1").as_deref()),
        (MarketStatus::Suspended, Some("goal"))
    );
    say(&mut engine, &a, set("1.1", MarketField::Status, MarketStatus::Open.code()));
    assert_eq!(status(&engine, "1.1"), MarketStatus::Open);
}

#[test]
fn a_refused_change_of_a_held_market_is_not_what_its_source_says() {
    let (_, mut engine, a) = running();
    say(&mut engine, &a, image("1.1", "e1"));
    engine.handle_ledger(&ledger(&[act(Action::Suspend, "all", 1)]), 1);
    say(&mut engine, &a, set("1.1", MarketField::Status, MarketStatus::Closed.code()));
    // A market that is over opens by a rollback alone; the stop then finds nothing to stop.
    say(&mut engine, &a, set("1.1", MarketField::Status, MarketStatus::Open.code()));
    say(
        &mut engine,
        &a,
        Update::Stop { event: "e1".into(), scope: StopScope::Event, reason: Some("goal".into()) },
    );
    say(&mut engine, &a, set("1.1", MarketField::Status, MarketStatus::Closed.code()));
    assert_eq!((status(&engine, "1.1"), reason(&engine, "1.1")), (MarketStatus::Closed, None));
}

#[test]
fn a_market_that_comes_later_is_held_by_its_source_and_its_event() {
    let (_, mut engine, a) = running();
    engine.handle_ledger(
        &ledger(&[act(Action::Suspend, "source:a", 1), act(Action::Suspend, "event:e2", 1)]),
        1,
    );
    let b: Arc<str> = "b".into();
    for (source, market, event) in [(&a, "1.1", "e1"), (&b, "2.1", "e1"), (&b, "2.2", "e2")] {
        say(&mut engine, source, image(market, event));
    }
    let of = |engine: &Engine| ["1.1", "2.1", "2.2"].map(|market| status(engine, market));
    use MarketStatus::{Open, Suspended};
    assert_eq!(of(&engine), [Suspended, Open, Suspended]);
    // Into a held event, and out of it.
    say(&mut engine, &b, set("2.1", MarketField::Event, "e2"));
    say(&mut engine, &b, set("2.2", MarketField::Event, "e3"));
    assert_eq!(of(&engine), [Suspended, Suspended, Open]);
}

#[test]
fn a_new_owner_holds_what_it_restores_and_asks_for_an_image_when_it_is_released() {
    let (mut shelves, mut engine, a) = running();
    say(&mut engine, &a, image("1.1", "e1"));
    engine.handle_ledger(&ledger(&[act(Action::Suspend, "market:1.1", 1)]), 1);
    shelves.write(&mut engine, 1);

    let mut next = Engine::new(settings());
    // The ledger is read before anything else.
    next.handle_ledger(&ledger(&[act(Action::Suspend, "market:1.1", 1)]), 2);
    shelves.acquire(&mut next, 2);
    say(&mut next, &a, set("1.1", MarketField::Status, MarketStatus::Open.code()));
    assert_eq!(status(&next, "1.1"), MarketStatus::Suspended);

    let mut other = Engine::new(settings());
    other.handle_ledger(&ledger(&[act(Action::Suspend, "market:1.1", 1)]), 2);
    shelves.acquire(&mut other, 2);
    other.handle_ledger(&ledger(&[act(Action::Resume, "market:1.1", 3)]), 3);
    assert_eq!(status(&other, "1.1"), MarketStatus::Suspended, "nobody knows what its source says");
    say(&mut other, &a, image("1.1", "e1"));
    assert_eq!(status(&other, "1.1"), MarketStatus::Open);
}

#[test]
fn a_wish_for_an_image_suspends_what_it_names_and_nothing_else() {
    let (_, mut engine, a) = running();
    say(&mut engine, &a, image("1.1", "e1"));
    say(&mut engine, &a, image("1.2", "e2"));
    let first = engine.take_control(1);
    assert!(
        first.contains(&(a.clone(), Control::Image(Vec::new()))),
        "who is new is asked for all: {first:?}"
    );
    engine.handle_image_wish(&Scope::Market("1.1".into()), 2);
    assert_eq!(
        (status(&engine, "1.1"), reason(&engine, "1.1").as_deref()),
        (MarketStatus::Suspended, Some(UNCONFIRMED))
    );
    assert_eq!(engine.feed("a", 2), Some(FeedState::Live), "the others are traded");
    let asked: Vec<_> =
        engine.take_control(2).into_iter().filter(|c| matches!(c.1, Control::Image(_))).collect();
    assert_eq!(asked, [(a.clone(), Control::Image(vec!["1.1".into()]))]);
    say(&mut engine, &a, set("1.1", MarketField::Status, MarketStatus::Open.code()));
    assert_eq!(status(&engine, "1.1"), MarketStatus::Suspended, "only an image opens it");
    say(&mut engine, &a, image("1.1", "e1"));
    assert_eq!(status(&engine, "1.1"), MarketStatus::Open);
}

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a test")]
enum Step {
    Say(u8, Update),
    Act(bool, u8),
    Write,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..2, update()).prop_map(|(source, update)| Step::Say(source, update)),
        2 => (any::<bool>(), 0u8..6).prop_map(|(holds, scope)| Step::Act(holds, scope)),
        2 => Just(Step::Write),
    ]
}

const SCOPES: [&str; 6] = ["all", "source:a", "event:e1", "event:e2", "market:1.1", "market:1.3"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn held_is_never_open_and_released_is_what_the_source_says(steps in prop::collection::vec(step(), 1..80)) {
        let sources: [Arc<str>; 2] = ["a".into(), "b".into()];
        let (mut shelves, mut engine, _) = running();
        // The same without an operator.
        let (_, mut free, _) = running();
        let mut at = 1;
        for step in steps {
            match step {
                Step::Say(source, update) => {
                    let source = &sources[usize::from(source)];
                    say(&mut engine, source, update.clone());
                    say(&mut free, source, update);
                }
                Step::Act(holds, scope) => {
                    at += 1;
                    let action = if holds { Action::Suspend } else { Action::Resume };
                    engine.handle_ledger(&ledger(&[act(action, SCOPES[usize::from(scope)], at)]), at);
                }
                Step::Write => {
                    shelves.write(&mut engine, at);
                    shelves.check(&engine);
                }
            }
            for (id, _) in engine.markets() {
                let book = engine.book(id).unwrap();
                let source = book.fields.text(MarketField::Source).unwrap();
                let event = book.fields.text(MarketField::Event).unwrap();
                let held = engine.ledger().holds(source, event, id);
                prop_assert!(!held || book.status() != MarketStatus::Open, "{} is open", id);
                let own = free.book(id).unwrap().status();
                prop_assert!(held || book.status() == own, "{} is {:?}, should be {:?}", id, book.status(), own);
            }
        }
        let releases: Vec<Act> = SCOPES.iter().map(|scope| act(Action::Resume, scope, at + 1)).collect();
        engine.handle_ledger(&ledger(&releases), at + 1);
        prop_assert_eq!(engine.len(), free.len());
        for (id, _) in free.markets() {
            let of = |engine: &Engine| {
                let mut book = engine.book(id).unwrap().clone();
                book.fields.set(MarketField::Suspensions, None, 0);
                book
            };
            prop_assert_eq!(of(&engine), of(&free), "{}", id);
        }
    }
}
