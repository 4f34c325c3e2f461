//! Which of several servers a name belongs to, where the client distributes the names.
//!
//! Every process must come to the same answer, whatever its release: the hashes are written out here, and tests hold
//! them to golden tables. What identifies a server is its place in the list of hosts; another order is another ring.

/// How names are spread over servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ring {
    /// The server with the highest score for the name. A server more, at the end of the list, takes about its share
    /// of the names from each of the others, and no other name moves.
    ///
    /// The score is `mix(FNV-1a-64(name) ^ mix((place + 1) * 0x9e3779b97f4a7c15))`, where `mix` is the finalizer of
    /// `SplitMix64`; of equal scores the first wins.
    #[default]
    Rendezvous,
    /// The ring of `channels_redis`: the low twelve bits of the name's CRC-32, cut into equal parts. A server more
    /// moves about half of all names.
    ChannelsRedis,
}

impl Ring {
    /// The place of the name's server among `shards` of them: always less than that, and 0 where there are none.
    pub fn shard(self, name: &str, shards: usize) -> usize {
        if shards < 2 {
            return 0;
        }
        match self {
            Self::Rendezvous => highest(fnv_1a(name.as_bytes()), shards),
            Self::ChannelsRedis => part(crc32(name.as_bytes()), shards),
        }
    }
}

fn highest(hash: u64, shards: usize) -> usize {
    let (mut best, mut highest, mut step) = (0, 0, 0_u64);
    for shard in 0..shards {
        step = step.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let score = mix(hash ^ mix(step));
        if shard == 0 || score > highest {
            (best, highest) = (shard, score);
        }
    }
    best
}

fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

fn fnv_1a(bytes: &[u8]) -> u64 {
    fnv_1a_on(0xcbf2_9ce4_8422_2325, bytes)
}

fn fnv_1a_on(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The score of a server of a cluster for a slot, where any server would do: the one with the highest is taken.
///
/// It is `mix(FNV-1a-64(host, port) ^ mix(slot))`, the port in two bytes, the greater one first.
pub(crate) fn score_at_address(host: &str, port: u16, slot: u16) -> u64 {
    let address = fnv_1a_on(fnv_1a(host.as_bytes()), &port.to_be_bytes());
    mix(address ^ mix(u64::from(slot)))
}

/// Python's `int((crc & 0xFFF) / (4096 / float(shards)))`, roundings included.
fn part(crc: u32, shards: usize) -> usize {
    let parts = u16::try_from(shards).map_or(f64::from(u16::MAX), f64::from);
    let quotient = f64::from(crc & 0xfff) / (4096.0 / parts);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the number of parts; cut off as int() does"
    )]
    let part = quotient as usize;
    part.min(shards - 1)
}

/// The CRC-32 of zlib.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0_u32;
        while byte < 256 {
            let mut crc = byte;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 0 {
                    crc >> 1
                } else {
                    crc >> 1 ^ 0xedb8_8320
                };
                bit += 1;
            }
            table[byte as usize] = crc;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, &byte| {
        // The index is one byte: below 256 whatever came in.
        let [low, ..] = crc.to_le_bytes();
        crc >> 8 ^ TABLE[usize::from(low ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZES: [usize; 9] = [1, 2, 3, 4, 5, 7, 10, 16, 100];

    /// Of `channels_redis.utils._consistent_hash`, version 4.3.
    const CHANNELS_REDIS: [(&str, [usize; 9]); 11] = [
        ("key_one", [0, 1, 2, 2, 3, 4, 6, 11, 69]),
        ("key_two", [0, 0, 1, 1, 2, 3, 4, 7, 48]),
        ("", [0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("a", [0, 1, 2, 3, 4, 6, 8, 14, 89]),
        ("room.1", [0, 1, 2, 2, 3, 5, 7, 11, 73]),
        ("asgi__group__room.1", [0, 0, 0, 1, 1, 1, 2, 4, 26]),
        ("chat_42", [0, 0, 1, 1, 2, 3, 4, 6, 43]),
        (
            "asgispecific.0f1e2d3c4b5a69788796a5b4c3d2e1f0",
            [0, 0, 0, 0, 0, 0, 1, 1, 11],
        ),
        ("work-queue", [0, 1, 1, 2, 2, 3, 5, 8, 53]),
        (
            "specific.0123456789abcdef!token",
            [0, 1, 2, 3, 4, 6, 8, 14, 88],
        ),
        ("é", [0, 1, 2, 3, 4, 5, 8, 13, 82]),
    ];

    /// Computed by a second implementation, in Python.
    const AT_ADDRESS: [(&str, u16, u16, u64); 4] = [
        ("10.0.0.1", 6379, 0, 0xf235_cd25_5624_c03d),
        ("10.0.0.2", 6379, 0, 0x81cd_4176_78be_5080),
        ("node-3.example", 7002, 12182, 0x7cef_6a36_de2c_4d19),
        ("", 1, 16383, 0x757c_4cd6_4169_b803),
    ];

    #[test]
    fn servers_of_a_cluster_have_their_scores() {
        for (host, port, slot, score) in AT_ADDRESS {
            assert_eq!(
                score_at_address(host, port, slot),
                score,
                "{host}:{port}, {slot}"
            );
        }
    }

    /// Computed by a second implementation, in Python.
    const RENDEZVOUS: [(&str, [usize; 9]); 9] = [
        ("key_one", [0, 0, 2, 2, 2, 2, 9, 12, 86]),
        ("key_two", [0, 1, 1, 1, 4, 4, 4, 13, 56]),
        ("", [0, 0, 2, 2, 2, 2, 2, 2, 92]),
        ("a", [0, 1, 1, 1, 1, 5, 5, 5, 66]),
        ("room.1", [0, 1, 1, 1, 1, 1, 1, 11, 65]),
        ("chat_42", [0, 0, 0, 0, 0, 0, 8, 8, 32]),
        ("work-queue", [0, 1, 1, 1, 1, 1, 1, 1, 70]),
        (
            "specific.0123456789abcdef!token",
            [0, 0, 2, 2, 2, 5, 5, 5, 64],
        ),
        ("é", [0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];

    #[test]
    fn hashes_have_their_check_values() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(fnv_1a(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn rings_are_those_of_the_golden_tables() {
        let tables = [
            (Ring::ChannelsRedis, &CHANNELS_REDIS[..]),
            (Ring::Rendezvous, &RENDEZVOUS),
        ];
        for (ring, table) in tables {
            for (name, places) in table {
                assert_eq!(
                    &SIZES.map(|size| ring.shard(name, size)),
                    places,
                    "{ring:?} {name}"
                );
            }
        }
    }

    #[test]
    fn no_server_and_very_many_are_served() {
        for ring in [Ring::Rendezvous, Ring::ChannelsRedis] {
            assert_eq!(ring.shard("room.1", 0), 0);
        }
        assert!(Ring::ChannelsRedis.shard("room.1", usize::MAX) < usize::MAX);
    }

    #[test]
    fn a_server_more_takes_its_share_and_moves_nothing_else() {
        let names: Vec<String> = (0..10_000).map(|number| format!("room.{number}")).collect();
        for shards in 1..9 {
            let moved = names.iter().filter(|name| {
                let (old, new) = (
                    Ring::Rendezvous.shard(name, shards),
                    Ring::Rendezvous.shard(name, shards + 1),
                );
                assert!(
                    new == old || new == shards,
                    "{name} moved between old servers"
                );
                new != old
            });
            let (moved, share) = (moved.count(), names.len() / (shards + 1));
            assert!(moved.abs_diff(share) < share / 5, "{moved} of {share}");
        }
    }

    proptest! {
        #[test]
        fn a_place_exists_and_only_the_new_server_gains(name in "\\PC{0,60}", shards in 1..200_usize) {
            for ring in [Ring::Rendezvous, Ring::ChannelsRedis] {
                prop_assert!(ring.shard(&name, shards) < shards);
            }
            let (old, new) = (Ring::Rendezvous.shard(&name, shards), Ring::Rendezvous.shard(&name, shards + 1));
            prop_assert!(new == old || new == shards);
        }
    }
}
