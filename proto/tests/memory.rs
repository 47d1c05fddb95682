//! What a decoder may reserve, measured from outside: alone in its process, so that nothing else moves the peak.
#![cfg(target_os = "linux")]

use tictac_proto::limits::MAX_DEPTH;
use tictac_proto::wire::Codec;

/// Most address space that this process ever had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has this file");
    let line = status.lines().find_map(|l| l.strip_prefix("VmPeak:")).expect("Linux tells the peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Lengths that fit the input, announced again at every level of nesting: honest at each level, a lie in sum.
#[test]
fn announced_lengths_reserve_no_more_than_the_input() {
    const INPUT: usize = 8 << 20;
    let before = peak();
    for (marker, least) in [(0xDDu8, 1), (0xDF, 2)] {
        let mut bytes = Vec::with_capacity(INPUT);
        for _ in 0..MAX_DEPTH {
            bytes.push(marker);
            let left = (INPUT - bytes.len() - 4) / least;
            bytes.extend_from_slice(&(left as u32).to_be_bytes());
            if marker == 0xDF {
                bytes.push(0);
            }
        }
        bytes.push(0xC1);
        bytes.resize(INPUT, 0);
        let error = Codec::Msgpack.decode(&bytes).expect_err("0xc1 is never used");
        assert!(error.to_string().contains("0xc1"), "{error}");
    }
    let grown = (peak() - before) / 1024;
    assert!(grown < 64, "{grown} MiB for 8 MiB of input");
}
