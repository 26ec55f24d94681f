//! Attacks on HTTP itself; docs/ABUSE.md lists them all.

use std::{collections::BTreeSet, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    abuse::{JSON, TYPENAME, Target, code, numbered},
    support::{PATIENCE, TestApp},
};

const CLOSE: &str = "connection: close\r\n";

/// Sends these bytes as they are, and returns all that is answered until the server closes, or has nothing more to say.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may have closed already.
    let _ = stream.write_all(bytes).await;
    // Whoever asks to close waits for the answer: the server takes an end in the middle for a client that has gone.
    if !bytes.windows(CLOSE.len()).any(|window| window == CLOSE.as_bytes()) {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed in time");
    // A server that closes with bytes unread resets the connection; what it had answered has been read.
    let _ = read;
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(headers: &str, body: &str) -> Vec<u8> {
    format!("POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}\r\n{body}").into_bytes()
}

fn is_refused(answer: &str) -> bool {
    answer.is_empty() || answer.starts_with("HTTP/1.1 4")
}

#[tokio::test]
async fn a_compressed_body_is_never_inflated() {
    // `gzip -n` of TYPENAME.
    const GZIP: [u8; 46] = [
        31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 171, 86, 42, 44, 77, 45, 170, 84, 178, 82, 170, 86, 136, 143, 47, 169, 44, 72, 205, 75, 204, 77,
        85, 168, 85, 170, 5, 0, 194, 134, 215, 33, 26, 0, 0, 0,
    ];
    let test = TestApp::start().await;
    for encoding in ["gzip", "deflate", "br", "zstd", "gzip, gzip"] {
        let request = test.anonymous().post().header("content-type", JSON).header("content-encoding", encoding).body(GZIP.to_vec());
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        assert_eq!((status, code(&answer.json().await.unwrap())), (400, "BAD_REQUEST"), "{encoding}");
    }
    test.finish().await;
}

#[tokio::test]
async fn requests_whose_end_is_in_doubt_are_refused() {
    let target = Target::start(&[]).await;
    let before = target.memory("VmRSS");
    let address = target.client.address;
    let length = TYPENAME.len();
    let good = raw(address, &request(&format!("{CLOSE}content-length: {length}\r\n"), TYPENAME)).await;
    assert!(good.starts_with("HTTP/1.1 200") && good.contains("Query"), "{good}");

    let chunk = format!("{length:x}\r\n{TYPENAME}\r\n0\r\n\r\n");
    for (what, headers, body) in [
        ("two lengths", format!("content-length: {length}\r\ncontent-length: 5\r\n"), TYPENAME),
        ("two lengths in one", format!("content-length: {length}, 5\r\n"), TYPENAME),
        ("a signed length", format!("content-length: +{length}\r\n"), TYPENAME),
        ("a negative length", "content-length: -1\r\n".to_owned(), TYPENAME),
        ("a length in hexadecimal", "content-length: 0x1a\r\n".to_owned(), TYPENAME),
        ("a length beyond all", "content-length: 99999999999999999999999\r\n".to_owned(), TYPENAME),
        ("a space before the colon", format!("content-length : {length}\r\n"), TYPENAME),
        ("a folded line", format!("x: y\r\n z\r\ncontent-length : {length}\r\n"), TYPENAME),
        ("an encoding that is not known", "transfer-encoding: xchunked\r\n".to_owned(), chunk.as_str()),
        ("chunked, but not last", "transfer-encoding: chunked, identity\r\n".to_owned(), chunk.as_str()),
        ("chunked behind a vertical tab", "transfer-encoding: \u{b}chunked\r\n".to_owned(), chunk.as_str()),
        ("a chunk beyond all", "transfer-encoding: chunked\r\n".to_owned(), "fffffffffffffffff\r\nx\r\n0\r\n\r\n"),
        ("a chunk whose size is none", "transfer-encoding: chunked\r\n".to_owned(), "-1\r\nx\r\n0\r\n\r\n"),
        ("more promised than sent", "content-length: 1000\r\n".to_owned(), TYPENAME),
        ("a chunk more promised", "transfer-encoding: chunked\r\n".to_owned(), "1000\r\n{}\r\n"),
        ("a null in a header", format!("x: a\0b\r\ncontent-length: {length}\r\n"), TYPENAME),
    ] {
        let answer = raw(address, &request(&headers, body)).await;
        assert!(is_refused(&answer), "{what}: {answer}");
        assert!(!answer.contains("200 OK"), "{what}: {answer}");
    }
    for (what, bytes) in [
        ("no HTTP", "hello\r\n\r\n".to_owned()),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}".to_owned()),
        ("HTTP/0.9", "GET /graphql\r\n\r\n".to_owned()),
        ("HTTP/2 without consent", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("HTTP/9", "GET / HTTP/9.9\r\nhost: x\r\n\r\n".to_owned()),
        ("chunks in HTTP/1.0", format!("POST /graphql HTTP/1.0\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\n{chunk}")),
    ] {
        let answer = raw(address, bytes.as_bytes()).await;
        assert!(is_refused(&answer), "{what}: {answer}");
    }

    // With both, one proxy would believe the one and a server the other: what a request hides behind its body is never run.
    let hidden = format!("POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: {length}\r\n\r\n{TYPENAME}");
    for order in [["content-length: 4", "transfer-encoding: chunked"], ["transfer-encoding: chunked", "content-length: 4"]] {
        let headers = format!("{}\r\n{}\r\n", order[0], order[1]);
        let answer = raw(address, &request(&headers, &format!("{chunk}{hidden}"))).await;
        assert!(answer.matches("HTTP/1.1 200").count() <= 1, "{answer}");
        let answer = raw(address, &request(&headers, &format!("0\r\n\r\n{hidden}"))).await;
        assert!(!answer.contains("200 OK"), "{order:?}: {answer}");
    }
    target.finish(before, 50).await;
}

#[tokio::test]
async fn bodies_and_headers_beyond_the_limit_are_cut_off_unread() {
    let target = Target::start(&[]).await;
    let before = target.memory("VmRSS");
    let address = target.client.address;
    // Chunks without an end: the answer comes before it, and then nothing more is read.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    stream.write_all(&request("transfer-encoding: chunked\r\n", &chunk.repeat(65))).await.unwrap();
    let mut answer = [0; 64];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.expect("it is cut off").unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer[..read]));
    let flood = async { while stream.write_all(chunk.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood).await.expect("it is closed");

    let promised = raw(address, &request("content-length: 100000000000\r\n", "{")).await;
    assert!(promised.starts_with("HTTP/1.1 4"), "{promised}");
    for (what, headers) in [
        ("a giant header", format!("x: {}\r\n", "y".repeat(1_000_000))),
        ("a giant name", format!("{}: y\r\n", "x".repeat(1_000_000))),
        ("a thousand headers", numbered(0..1_000, |n| format!("x{n}: y\r\n"))),
        ("a giant token", format!("authorization: Bearer {}\r\n", "y".repeat(1_000_000))),
        ("a giant cookie", format!("cookie: {}\r\n", "y=z;".repeat(250_000))),
    ] {
        let answer = raw(address, &request(&headers, "")).await;
        assert!(is_refused(&answer), "{what}: {answer}");
    }
    let path = raw(address, format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(1_000_000)).as_bytes()).await;
    assert!(is_refused(&path), "{path}");
    target.finish(before, 100).await;
}

#[tokio::test]
async fn a_thousand_requests_on_one_connection_are_answered_in_their_order() {
    let target = Target::start(&[]).await;
    let before = target.memory("VmRSS");
    let one = |n: usize| {
        let body = format!(r#"{{"query":"{{ a{n}: __typename }}"}}"#);
        let end = if n == 999 { "connection: close\r\n" } else { "" };
        request(&format!("{end}content-length: {}\r\n", body.len()), &body)
    };
    let all = (0..1_000).flat_map(one).collect::<Vec<u8>>();
    let mut stream = TcpStream::connect(target.client.address).await.unwrap();
    let (mut from, mut to) = stream.split();
    let mut answers = String::new();
    let (sent, read) = tokio::join!(to.write_all(&all), tokio::time::timeout(3 * PATIENCE, from.read_to_string(&mut answers)));
    sent.unwrap();
    read.expect("all are answered in time").unwrap();
    let told: Vec<_> = answers
        .split("{\"a")
        .skip(1)
        .filter(|rest| !rest.starts_with('n'))
        .map(|rest| rest.split('"').next().unwrap().parse::<usize>().unwrap())
        .collect();
    assert_eq!(told, (0..1_000).collect::<Vec<_>>());
    let ids: BTreeSet<_> = answers.split("x-request-id: ").skip(1).map(|rest| &rest[..32]).collect();
    assert_eq!(ids.len(), 1_000);
    target.finish(before, 50).await;
}
