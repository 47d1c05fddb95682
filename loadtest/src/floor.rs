//! The floor: the least program that could do a gateway's job. It takes the upgrade, then keeps bare sockets and writes
//! everything that is due to each of them in one send, from one buffer, on one thread. Frames have the length of a
//! gateway's, and pings are answered, all with the same bytes. Whatever a gateway costs beyond this is its own.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::orders::{Order, Orders};
use crate::pulse::{Pulse, now_us};

const LISTENER: Token = Token(usize::MAX);
/// How a frame's payload begins; 16 digits follow.
const BEGINNING: &[u8] = b"{\"t\":\"floor\",\"due\":";
const DIGITS: usize = 16;
/// What may be unsent; more is a floor that does not keep up, whose figures mean nothing.
const MAX_UNSENT: usize = 256 << 20;
/// Bytes of the message that answers a ping.
const HEARTBEAT: usize = 70;
/// How often sockets are looked at, whether anything is due or not.
const IDLE: Duration = Duration::from_millis(1);

/// When a frame of the floor was due; `None` where it is another's.
#[must_use]
pub fn due_of(payload: &[u8]) -> Option<i64> {
    let digits = payload.strip_prefix(BEGINNING)?.get(..DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Appends a frame of this length, its header included (of 130 bytes for 128 and 129, which no frame has).
fn push(out: &mut Vec<u8>, length: usize, due: i64) {
    let payload = if length < 128 { length.saturating_sub(2) } else { (length - 4).max(126) };
    let payload = payload.max(BEGINNING.len() + DIGITS + 1);
    out.push(0x81);
    if payload < 126 {
        out.push(payload as u8);
    } else {
        out.push(126);
        out.extend_from_slice(&(payload as u16).to_be_bytes());
    }
    let body = out.len();
    out.extend_from_slice(BEGINNING);
    out.extend_from_slice(format!("{due:0DIGITS$}").as_bytes());
    // Spaces are allowed in JSON, also before its end.
    out.resize(body + payload - 1, b' ');
    out.push(b'}');
}

struct Client {
    stream: TcpStream,
    open: bool,
    head: Vec<u8>,
    /// How far it was sent what is unsent.
    sent: usize,
    /// It said something, which can only be a ping, and is to be answered.
    pinged: bool,
}

/// What answers a ping, as long as a heartbeat: a control frame, which clients pass over.
fn answer() -> [u8; HEARTBEAT + 2] {
    let mut frame = [b' '; HEARTBEAT + 2];
    [frame[0], frame[1]] = [0x8A, HEARTBEAT as u8];
    frame
}

/// Serves until it is told to quit.
///
/// # Errors
/// If the address can't be had.
pub fn serve(address: SocketAddr, length: usize, orders: &Orders) -> anyhow::Result<()> {
    let listener = StdListener::bind(address).with_context(|| format!("{address} can't be bound"))?;
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening {}", listener.local_addr()?);
    let mut events = Events::with_capacity(1024);
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut unsent: Vec<u8> = Vec::new();
    let mut due = VecDeque::new();
    let mut pulse: Option<Pulse> = None;
    let mut looked = Instant::now();
    loop {
        match orders.take() {
            Some(Order::Quit) => return Ok(()),
            Some(Order::Markets(count)) => println!("ready {count}"),
            Some(Order::Pulse { rate, seconds, markets, skew, .. }) => {
                pulse = Some(Pulse::new(now_us(), rate, Duration::from_secs_f64(seconds), markets, skew));
            }
            None => {}
        }
        if let Some(going) = &mut pulse {
            going.take_due(now_us(), &mut due);
            for (_, due) in due.drain(..) {
                push(&mut unsent, length, due);
            }
        }
        let all_sent = send(&mut clients, &mut unsent);
        ensure!(unsent.len() <= MAX_UNSENT, "the floor does not keep up with this rate");
        let mut wait = IDLE;
        if let Some(going) = &pulse {
            match going.next_due() {
                Some(next) => wait = Duration::from_micros(u64::try_from(next - now_us()).unwrap_or(0)),
                None if all_sent => {
                    println!("done {}", going.count());
                    pulse = None;
                }
                None => wait = Duration::ZERO,
            }
        }
        if pulse.is_none() || !all_sent || looked.elapsed() >= IDLE {
            let nothing_to_do = pulse.is_none() && all_sent;
            poll.poll(&mut events, Some(if nothing_to_do { IDLE } else { Duration::ZERO }))?;
            look(&mut poll, &listener, &events, &mut clients, unsent.len())?;
            looked = Instant::now();
        } else if !wait.is_zero() {
            // Finer than the event queue's milliseconds.
            std::thread::sleep(wait.min(IDLE));
        }
    }
}

/// Sends each client all that it was not sent; whether everybody has all.
fn send(clients: &mut [Option<Client>], unsent: &mut Vec<u8>) -> bool {
    if unsent.is_empty() {
        return true;
    }
    let mut all = true;
    for slot in clients.iter_mut() {
        let Some(client) = slot.as_mut().filter(|client| client.open) else { continue };
        if client.sent < unsent.len() {
            match client.stream.write(&unsent[client.sent..]) {
                Ok(count) => client.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => *slot = None,
            }
        }
        all &= slot.as_ref().is_none_or(|client| client.sent == unsent.len());
    }
    if all {
        unsent.clear();
        for client in clients.iter_mut().flatten() {
            client.sent = 0;
        }
    }
    all
}

fn look(
    poll: &mut Poll,
    listener: &TcpListener,
    events: &Events,
    clients: &mut Vec<Option<Client>>,
    unsent: usize,
) -> anyhow::Result<()> {
    for event in events {
        if event.token() == LISTENER {
            while let Ok((mut stream, _)) = listener.accept() {
                let token = Token(clients.len());
                stream.set_nodelay(true)?;
                poll.registry().register(&mut stream, token, Interest::READABLE)?;
                clients.push(Some(Client { stream, open: false, head: Vec::new(), sent: 0, pinged: false }));
            }
            continue;
        }
        let Some(slot) = clients.get_mut(event.token().0) else { continue };
        let mut buffer = [0; 2_048];
        while let Some(client) = slot {
            match client.stream.read(&mut buffer) {
                Ok(0) => *slot = None,
                Ok(_) if client.open => client.pinged = true,
                Ok(count) => {
                    client.head.extend_from_slice(&buffer[..count]);
                    if client.head.ends_with(b"\r\n\r\n") {
                        client.sent = unsent;
                        upgrade(client)?;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // Not into a frame that is half sent.
                    if client.pinged && (client.sent == 0 || client.sent == unsent) {
                        client.pinged = match client.stream.write(&answer()) {
                            Ok(count) => {
                                ensure!(count == answer().len(), "the floor's buffers are full");
                                false
                            }
                            // Answered when it says something again.
                            Err(_) => true,
                        };
                    }
                    break;
                }
                Err(_) => *slot = None,
            }
        }
    }
    Ok(())
}

fn upgrade(client: &mut Client) -> anyhow::Result<()> {
    let head = String::from_utf8_lossy(&client.head);
    let value = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let key = derive_accept_key(value("sec-websocket-key").unwrap_or_default().as_bytes());
    let protocol = value("sec-websocket-protocol").unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {key}\r\nsec-websocket-protocol: {protocol}\r\n\r\n"
    );
    client.stream.write_all(answer.as_bytes())?;
    (client.open, client.head) = (true, Vec::new());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::frames::{Cut, cut};

    #[test]
    fn pings_are_answered_by_what_clients_pass_over() {
        assert!(matches!(cut(&answer()), Cut::Control(10, _, length) if length == answer().len()));
    }

    #[test]
    fn a_frame_has_its_length_and_says_when_it_was_due() {
        for length in [60, 125, 127, 130, 150, 1_000] {
            let mut out = Vec::new();
            push(&mut out, length, 1_795_656_390_185_123);
            assert_eq!(out.len(), length);
            let Cut::Data(payload, taken) = cut(&out) else { panic!("{length}") };
            assert_eq!((taken, due_of(payload)), (length, Some(1_795_656_390_185_123)));
            assert!(serde_json::from_slice::<serde_json::Value>(payload).is_ok());
        }
    }
}
