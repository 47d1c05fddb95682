//! What was missed while nobody listened: an operator's act may be among it.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tictac_ingest::clock::now_ms;
use tictac_ingest::log::{LogWriter, MemoryLog, MemorySettings};
use tictac_ingest::service::{Ingest, Input, Settings};
use tictac_ingest::testing::FaultyLog;
use tictac_proto::wire::FeedState;
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

async fn until(ingest: &Ingest, state: FeedState) {
    let window = ingest.window();
    let is = async {
        while window.look(|engine| engine.feed("demo", now_ms())).await.unwrap() != Some(state) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), is).await.unwrap_or_else(|_| panic!("its feed is not {}", state.name()));
}

#[tokio::test]
async fn after_a_break_nothing_is_live_before_the_operators_ledger_is_read_again() {
    let log = MemoryLog::new(MemorySettings::default());
    let log = FaultyLog::new(log, SmallRng::seed_from_u64(1), broadcast::channel(1).0);
    let settings = Settings::new().unwrap();
    let (ingest, _) = Ingest::start(settings, LogWriter::from(log.clone()), CancellationToken::new());
    let say = |input| ingest.input().send(input);
    say(Input::Updates { source: "demo".into(), updates: Vec::new(), at: now_ms() }).await.unwrap();
    until(&ingest, FeedState::Live).await;

    // The sources are heard again before the log can be asked what operators did.
    log.set(|faults| faults.is_refused = true);
    say(Input::Broken).await.unwrap();
    until(&ingest, FeedState::Recovering).await;
    log.set(|faults| faults.is_refused = false);
    until(&ingest, FeedState::Live).await;
    ingest.stop().await;
}
