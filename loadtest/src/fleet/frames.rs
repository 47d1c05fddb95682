//! Server frames of a WebSocket as they lie in a buffer: nothing is copied, nothing is unmasked.

/// What stands at the beginning of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut<'a> {
    /// A whole data frame: its payload, and how long it is with its header.
    Data(&'a [u8], usize),
    /// A whole frame of the WebSocket itself: its opcode, its payload and its length.
    Control(u8, &'a [u8], usize),
    /// It is not all there yet.
    More,
    /// No server sends this.
    Bad(&'static str),
}

/// The frame at the beginning of a buffer.
#[must_use]
pub fn cut(buffer: &[u8]) -> Cut<'_> {
    let [first, second, rest @ ..] = buffer else { return Cut::More };
    if second & 0x80 != 0 {
        return Cut::Bad("a masked frame from a server");
    }
    if first & 0x70 != 0 || first & 0x80 == 0 {
        return Cut::Bad("a frame with reserved bits, or in pieces");
    }
    let (header, length) = match (second & 0x7F, rest) {
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [a @ .., _]) if a.len() >= 7 => {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&rest[..8]);
            (10, usize::try_from(u64::from_be_bytes(bytes)).unwrap_or(usize::MAX))
        }
        (126 | 127, _) => return Cut::More,
        (short, _) => (2, usize::from(short)),
    };
    let Some(payload) = buffer.get(header..).and_then(|rest| rest.get(..length)) else { return Cut::More };
    match first & 0x0F {
        1 | 2 => Cut::Data(payload, header + length),
        code @ 8..=10 => Cut::Control(code, payload, header + length),
        _ => Cut::Bad("an unknown opcode"),
    }
}

/// Appends a client's frame. It is masked by zeros, which leave the payload as it is.
pub fn push(out: &mut Vec<u8>, text: bool, payload: &[u8]) {
    out.push(if text { 0x81 } else { 0x82 });
    match payload.len() {
        n @ 0..126 => out.push(0x80 | n as u8),
        n @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(opcode: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match length {
            0..126 => frame.push(length as u8),
            126..=0xFFFF => {
                frame.push(126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + length, b'x');
        frame
    }

    #[test]
    fn every_prefix_of_a_frame_is_more_and_the_whole_is_data() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let frame = server(1, length);
            for end in (0..frame.len()).filter(|end| *end < 16 || frame.len() - end < 3) {
                assert_eq!(cut(&frame[..end]), Cut::More, "{length}: {end}");
            }
            let mut two = frame.clone();
            two.extend_from_slice(&server(8, 2));
            let Cut::Data(payload, taken) = cut(&two) else { panic!("{length}") };
            assert_eq!((payload.len(), taken), (length, frame.len()));
            assert_eq!(cut(&two[taken..]), Cut::Control(8, b"xx", 4));
        }
    }

    #[test]
    fn what_no_server_sends_is_bad() {
        assert!(matches!(cut(&[0x81, 0x80, 0, 0, 0, 0]), Cut::Bad(_)), "masked");
        assert!(matches!(cut(&[0x01, 0x00]), Cut::Bad(_)), "in pieces");
        assert!(matches!(cut(&[0xC1, 0x00]), Cut::Bad(_)), "reserved");
        assert!(matches!(cut(&[0x83, 0x00]), Cut::Bad(_)), "unknown");
    }
}
