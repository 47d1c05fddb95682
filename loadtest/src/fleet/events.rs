//! Server-sent events as they lie in a buffer: nothing is copied.

use super::frames::Cut;

/// The event at the beginning of a buffer. One without data, and a comment, says nothing and is told as a control of 0.
#[must_use]
pub fn cut(buffer: &[u8]) -> Cut<'_> {
    let (mut at, mut data) = (0, None);
    loop {
        let rest = &buffer[at..];
        let Some(length) = memchr::memchr(b'\n', rest) else { return Cut::More };
        let line = &rest[..length];
        at += length + 1;
        if line.is_empty() {
            return match data {
                Some(data) => Cut::Data(data, at),
                None => Cut::Control(0, &[], at),
            };
        }
        if let Some(value) = line.strip_prefix(b"data: ")
            && data.replace(value).is_some()
        {
            return Cut::Bad("an event with two lines of data, which no gateway sends");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_of_an_event_is_more_and_the_whole_is_its_data() {
        let event = b"event: delta\nid: 1:0.5.a\ndata: {\"t\":\"delta\"}\n\n";
        for end in 0..event.len() {
            assert_eq!(cut(&event[..end]), Cut::More, "{end}");
        }
        let mut two = event.to_vec();
        two.extend_from_slice(b": a comment\n\nretry: 500\n\n");
        assert_eq!(cut(&two), Cut::Data(b"{\"t\":\"delta\"}", event.len()));
        assert_eq!(cut(&two[event.len()..]), Cut::Control(0, &[], 13));
        assert_eq!(cut(&two[event.len() + 13..]), Cut::Control(0, &[], 12));
    }

    #[test]
    fn two_lines_of_data_are_bad() {
        assert!(matches!(cut(b"data: 1\ndata: 2\n\n"), Cut::Bad(_)));
    }
}
