//! Many clients push, mount and delete the same few blobs.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::os::unix::fs::MetadataExt as _;

use draught_digest::Digest;
use draught_testkit::http::Request;
use draught_testkit::registry;

const REPOSITORIES: [&str; 3] = ["a", "b", "c/d"];
const STEPS: u64 = 150;

fn content(number: u64) -> Vec<u8> {
    vec![u8::try_from(number).unwrap(); 20_000]
}

/// A number from `state`, which goes on to the next.
fn random(state: &mut u64, below: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 20) % below
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_many_do_at_once_blobs_are_right_or_absent() {
    let registry = registry();
    let addr = registry.direct();
    let client = |seed: u64| async move {
        let mut state = seed * 0x9e37_79b9 + 1;
        for _ in 0..STEPS {
            let number = random(&mut state, 3);
            let bytes = content(number);
            let digest = Digest::sha256(&bytes);
            let name = REPOSITORIES[usize::try_from(random(&mut state, 3)).unwrap()];
            let from = REPOSITORIES[usize::try_from(random(&mut state, 3)).unwrap()];
            let (request, expect): (_, &[u16]) = match random(&mut state, 4) {
                0 => {
                    let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
                    (Request::new("POST", &path).body(&*bytes), &[201])
                }
                1 => {
                    let path = format!("/v2/{name}/blobs/uploads/?mount={digest}&from={from}");
                    (Request::new("POST", &path), &[201, 202])
                }
                2 => (
                    Request::new("DELETE", &format!("/v2/{name}/blobs/{digest}")),
                    &[202, 404],
                ),
                _ => (
                    Request::new("GET", &format!("/v2/{name}/blobs/{digest}")),
                    &[200, 404],
                ),
            };
            let answer = request.send(addr).await.unwrap();
            assert!(expect.contains(&answer.status()), "{request:?}: {answer:?}");
            if answer.status() == 200 {
                assert!(answer.body == bytes);
            }
        }
    };
    let clients: Vec<_> = (1..=8).map(|seed| tokio::spawn(client(seed))).collect();
    for client in clients {
        client.await.unwrap();
    }
    for number in 0..3 {
        let digest = Digest::sha256(&content(number));
        let link = |name: &str| {
            registry
                .dir()
                .join("repositories")
                .join(name)
                .join("_blobs")
                .join(digest.hex())
        };
        let having = REPOSITORIES
            .iter()
            .filter(|name| link(name).exists())
            .count() as u64;
        let stored = fs_err::metadata(registry.blob_file(&digest)).map(|meta| meta.nlink());
        match having {
            0 => assert!(stored.is_err(), "a blob that nobody has is still there"),
            _ => assert_eq!(
                stored.unwrap(),
                having + 1,
                "one copy, linked by all that have it"
            ),
        }
    }
}
