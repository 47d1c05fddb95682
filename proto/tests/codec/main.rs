//! Both codecs and the log's encoding, over random messages: what is written is what is read, both encodings say the
//! same, other readers agree, and no input does harm.

mod arbitrary;
mod hostile;
mod tree;

use proptest::prelude::*;
use tictac_proto::checksum::checksum;
use tictac_proto::client::ClientMarket;
use tictac_proto::limits::MAX_INT;
use tictac_proto::log::{Entry, Live, Stored, What};
use tictac_proto::model::{Book, SelectionKey, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Codec, Down, Message, Times, Up};

use tree::{assert_twins, of_json, of_msgpack};

/// What holds for the bytes of any message, whatever it says.
fn both(message: impl Message) -> [Vec<u8>; 2] {
    let [json, msgpack] = Codec::ALL.map(|c| c.encode(&message));
    let text = std::str::from_utf8(&json).expect("JSON is UTF-8");
    assert!(!text.contains(['<', '\u{2028}', '\u{2029}']), "unsafe in a script: {text}");
    assert!(!text.contains(|c: char| c < ' '), "a raw control character: {text}");
    assert_twins(&of_json(&json), &of_msgpack(&msgpack));
    [json, msgpack]
}

fn read_down(codec: Codec, bytes: &[u8]) -> Down {
    Down::read(&codec.decode(bytes).expect("bytes that decode")).expect("a message that reads")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_down_comes_back(message in arbitrary::down()) {
        for (codec, bytes) in Codec::ALL.into_iter().zip(both(&message)) {
            prop_assert_eq!(&read_down(codec, &bytes), &message);
        }
    }

    #[test]
    fn what_goes_up_comes_back(message in arbitrary::up()) {
        for (codec, bytes) in Codec::ALL.into_iter().zip(both(&message)) {
            prop_assert_eq!(&Up::read(&codec.decode(&bytes).unwrap()).unwrap(), &message);
        }
    }

    #[test]
    fn a_log_entry_comes_back(entry in arbitrary::entry()) {
        both(&entry);
        let Live::Entry(read) = Live::decode(&entry.encode()).unwrap() else { panic!("not an entry") };
        prop_assert_eq!(&read, &entry);
        if let What::Image { market, book, .. } = &read.what {
            let What::Image { book: written, .. } = &entry.what else { panic!("not an image") };
            prop_assert_eq!(checksum(market, book, View::All), checksum(market, written, View::All));
        }
    }

    #[test]
    fn an_alive_comes_back(alive in arbitrary::alive()) {
        prop_assert_eq!(Live::decode(&alive.encode()).unwrap(), Live::Alive(alive.clone()));
        of_msgpack(&alive.encode());
    }

    #[test]
    fn a_stored_snapshot_comes_back(stored in arbitrary::stored()) {
        both(&stored);
        prop_assert_eq!(Stored::decode(&stored.encode()).unwrap(), stored);
    }

    #[test]
    fn a_snapshot_is_the_projected_book(head in arbitrary::snap_head(), book in arbitrary::book()) {
        for view in View::ALL {
            let mut head = head.clone();
            head.view = view;
            for (codec, bytes) in Codec::ALL.into_iter().zip(both((&head, &book))) {
                let Down::Snap(read, delta) = read_down(codec, &bytes) else { panic!("not a snapshot") };
                prop_assert_eq!(&read, &head);
                let mut seen = Book::default();
                seen.apply(&delta, 1);
                prop_assert_eq!(&seen, &view.project(&book));
                prop_assert_eq!(checksum(&head.market, &seen, view), checksum(&head.market, &book, view));
            }
        }
    }

    #[test]
    fn texts_are_what_another_reader_gets(text in arbitrary::text()) {
        let message = Down::Bye { code: 1000, why: text.clone(), retry: 0 };
        let json: serde_json::Value = serde_json::from_slice(&Codec::Json.encode(&message)).unwrap();
        prop_assert_eq!(json["why"].as_str(), Some(text.as_str()));
    }
}

#[test]
fn clocks_that_are_far_off_are_cut_and_still_read() {
    for (source, received) in [(-MAX_INT, MAX_INT), (MAX_INT, -MAX_INT), (i64::MIN, i64::MAX)] {
        let times = Times { source, received, published: received, encoded: received };
        let entry = Entry { at: Position::new(1, 2), times, what: What::Gone { market: "1.1".into() } };
        let Ok(Live::Entry(read)) = Live::decode(&entry.encode()) else { panic!("{times:?} is not read") };
        assert_eq!(read.what, entry.what);
    }
}

#[test]
fn a_status_of_a_later_version_is_not_tradable() {
    for (market, selection, tradable) in [(1, 0, true), (1, 99, false), (99, 0, false)] {
        // {t: snap, m: "1", w: 0, e: 5, s: 9, sh: 0, f: live, d: {status}, r: [[1, 0, {status}]]}
        let mut bytes = vec![0x89, 0, 19, 1, 0xA1, b'1', 2, 0, 3, 5, 5, 9, 11, 0, 12, 0];
        bytes.extend([7, 0x81, 22, market, 8, 0x91, 0x93, 1, 0, 0x81, 2, selection]);
        let mut client = ClientMarket::new("1".into(), View::All);
        client.handle(&read_down(Codec::Msgpack, &bytes));
        assert_eq!(client.tradable(SelectionKey { id: 1, handicap: 0 }), tradable);
    }
}
