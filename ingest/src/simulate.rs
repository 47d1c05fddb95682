//! The simulator as a source over Redis: native envelopes to `<prefix>:in:<source>`, and images where ingest asks for
//! them. For trying a production set-up without a real source.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::link::{Link, RedisSettings};
use crate::log::LogError;
use crate::native::NativeWriter;
use crate::service::writing::wait;
use crate::simulator::{Config, Simulator};

/// How often the simulator is asked what happened.
const STEP: Duration = Duration::from_millis(50);
/// A sign of life at the latest after this.
const ALIVE: Duration = Duration::from_secs(1);

/// Publishes until the token is cancelled.
///
/// # Errors
/// Where the address is none.
pub async fn simulate(
    redis: RedisSettings,
    seed: u64,
    config: Config,
    cancel: CancellationToken,
) -> Result<(), LogError> {
    let link = Link::new(&redis, redis.deadline)?;
    let channel = format!("{}:in:{}", redis.prefix, config.source);
    let (ask, mut asked) = watch::channel(());
    let control = format!("{}:ctl:{}", redis.prefix, config.source);
    let listener = tokio::spawn(listen(Link::new(&redis, redis.deadline)?, control, ask));
    let source = config.source.clone();
    let (mut simulator, mut writer) = (Simulator::new(seed, config), NativeWriter::default());
    // Higher than those of an earlier run, so that ingest sees a new beginning.
    let mut seq = u64::try_from(now_ms()).unwrap_or(0) * 1_000;
    let mut tick = interval(STEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut said, mut failing) = (Instant::now(), false);
    tracing::info!(channel, "simulating");
    loop {
        let mut updates = Vec::new();
        tokio::select! {
            () = cancel.cancelled() => break,
            _ = tick.tick() => simulator.advance(now_ms(), &mut updates),
            Ok(()) = asked.changed() => {
                tracing::info!("ingest asked for images");
                simulator.images(&mut updates);
            }
        }
        if updates.is_empty() && said.elapsed() < ALIVE {
            continue;
        }
        said = Instant::now();
        seq += 1;
        let mut message = String::new();
        writer.write_envelope(&source, seq, now_ms(), &updates, &mut message);
        let sent = link.publish(&channel, message.as_bytes()).await;
        if let Err(error) = &sent
            && !failing
        {
            // The number is used: ingest sees the gap and asks for images.
            tracing::warn!(%error, "can't publish");
        }
        failing = sent.is_err();
    }
    listener.abort();
    Ok(())
}

async fn listen(link: Link, channel: String, ask: watch::Sender<()>) {
    let mut tries = 0;
    loop {
        if let Ok((mut subscriber, _)) = link.subscriber().await
            && subscriber.subscribe(&channel).await.is_ok()
        {
            tries = 0;
            let mut messages = subscriber.into_on_message();
            while let Some(message) = messages.next().await {
                let json = serde_json::from_slice::<serde_json::Value>(message.get_payload_bytes());
                if json.is_ok_and(|json| json["op"] == "image") {
                    ask.send_replace(());
                }
            }
        }
        sleep(wait(tries)).await;
        tries += 1;
    }
}
